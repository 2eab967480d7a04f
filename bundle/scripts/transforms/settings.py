"""Settings: what the record of a result says about its network and inferer."""

from __future__ import annotations

from typing import Any

from monai.inferers import Inferer
from torch import nn

__all__ = ["describe_inferer", "describe_network"]


def describe_network(network: nn.Module) -> dict[str, Any]:
    """A network's class, its number of parameters and its plain settings, for the record.

    Example:
        >>> describe_network(nn.ReLU())
        {'Class': 'ReLU', 'Parameters': 0, 'inplace': False}
    """
    settings = {k: v for k, v in vars(network).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
    settings.pop("training")
    return {"Class": type(network).__name__, "Parameters": sum(p.numel() for p in network.parameters()), **settings}


def describe_inferer(inferer: Inferer) -> dict[str, Any]:
    """An inferer's class and its plain settings, including those of an inferer inside it, for the record.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> describe_inferer(SimpleInferer())
        {'Class': 'SimpleInferer'}
    """
    described: dict[str, Any] = {"Class": type(inferer).__name__}
    for name, value in vars(inferer).items():
        if isinstance(value, Inferer):
            described[name] = describe_inferer(value)
        elif isinstance(value, (bool, int, float, str, list, tuple)) and name not in ("progress", "sw_batch_size"):
            described[name] = value
    return described
