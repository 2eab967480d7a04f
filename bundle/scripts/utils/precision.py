"""The floating-point type in which networks compute, and the memory layout of their weights."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["on_device", "resolve_amp_dtype"]

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions of a weight
TYPES = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _computes_bfloat16_fast(device: torch.device) -> bool:
    """Whether a device has units for bfloat16 products: Ampere GPUs and later, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older releases
    return device.type == "cpu" and any(capabilities.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))


def resolve_amp_dtype(amp_dtype: str | None, device: torch.device) -> torch.dtype | None:
    """The autocast type for a device. None means float32 throughout.

    Args:
        amp_dtype: "bfloat16", "float16", None or "auto". The last is bfloat16 where the device has
            units for it, else None.
        device: the device of the network.

    Raises:
        ValueError: when the name is unknown.

    Example:
        >>> resolve_amp_dtype("bfloat16", torch.device("cpu"))
        torch.bfloat16
    """
    if amp_dtype == "auto":
        return torch.bfloat16 if _computes_bfloat16_fast(device) else None
    if amp_dtype not in TYPES:
        raise ValueError(
            f"amp_dtype must be 'auto', 'bfloat16', 'float16' or None, got {amp_dtype!r}. Set one of "
            "them. For float32 set --amp_dtype '$None'."
        )
    return TYPES[amp_dtype]


def on_device(module: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a module to a device, with the weights of convolutions channels last, which is faster.

    Example:
        >>> on_device(nn.Conv3d(1, 8, 3), "cpu").weight.device
        device(type='cpu')
    """
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim in CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.ndim])
    return module
