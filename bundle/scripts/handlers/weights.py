"""Weights: loading them with errors that say what does not fit."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.config import PathLike
from monai.handlers import CheckpointLoader
from torch import nn

__all__ = ["WeightsLoader", "initial_weights", "read_checkpoint"]


def read_checkpoint(
    path: PathLike, what: str = "a checkpoint", remedy: str = "Copy it again.", map_location: Any = "cpu"
) -> dict[str, Any]:
    """Read a file of tensors, numbers and texts: nothing in it is executed, and nothing in it may have changed.

    ``torch.load`` does not compare the checksums that ``torch.save`` stores, so that a damaged file can load without a
    word; this does.

    Args:
        path: the file, a dictionary saved by ``torch.save``.
        what: what it should be, for the error.
        remedy: what to do, for the error.
        map_location: device to load to.

    Raises:
        ValueError: when the file is not such a file, truncated, or damaged anywhere.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        content = torch.load(path, map_location=map_location, weights_only=True)
        if not isinstance(content, Mapping):
            raise TypeError(f"it holds a {type(content).__name__} instead of a dictionary")
        return content
    except Exception as error:  # whatever foreign bytes make of the unpickler
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(
            f"{path}: expected {what}, but it cannot be read ({type(error).__name__}: {reason}). {remedy}"
        ) from error


def initial_weights(
    load_path: PathLike | None, network: nn.Module, map_location: torch.device | str = "cpu"
) -> WeightsLoader | None:
    """What loads the weights that a training starts from; None for a network as it was initialised.

    Args:
        load_path: file with the state dictionary of such a network, or of one of fewer groups.
        network: where to load it.
        map_location: device to load to.
    """
    if load_path is None:
        return None
    return WeightsLoader(load_path, network, map_location, option="init_weights", grow=hasattr(network, "grown"))


class WeightsLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for one network, strict, whose errors name the file, what differs and the remedy.

    Args:
        load_path: file with the network's state dictionary.
        network: where to load it.
        map_location: device to load to.
        option: the config's entry that holds ``load_path``, for the messages.
        grow: let the network make weights of its own of those, by :meth:`scripts.networks.VolumetricNet.grown`.

    Raises:
        ValueError: when the engine starts, if the file is missing, damaged, of another network, or holds NaN.
    """

    def __init__(
        self,
        load_path: PathLike,
        network: nn.Module,
        map_location: torch.device | str = "cpu",
        option: str = "ckpt_path",
        grow: bool = False,
    ) -> None:
        super().__init__(load_path=str(load_path), load_dict={"model": network}, map_location=map_location)
        self.network = network
        self.option = option
        self.grow = grow

    def __call__(self, engine: Engine) -> None:
        weights = self._read()
        if self.grow:
            weights = self.network.grown(weights)
        expected = self.network.state_dict()
        wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
        wrong += [name for name in weights if name not in expected]
        if wrong:
            raise ValueError(
                f"{self.load_path}: expected the weights of a {type(self.network).__name__} as the config makes it, "
                f"got {len(wrong)} parameters that differ, the first {self._difference(wrong[0], expected, weights)}. "
                "Give the scale_factor and the networks that they were trained with, or other weights by "
                f"--{self.option}."
            )
        spoilt = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if spoilt:
            raise ValueError(
                f"{self.load_path}: expected finite weights, got {len(spoilt)} parameters with NaN or infinity, the "
                f"first {spoilt[0]}. They come from a training that diverged: give others by --{self.option}."
            )
        self.network.load_state_dict(weights)
        self.logger.info(f"Restored all variables from {self.load_path}")

    def _read(self) -> Mapping[str, Any]:
        """The state dictionary, also when it is wrapped as ``{"model": ...}``."""
        if not Path(self.load_path).is_file():
            raise ValueError(
                f"{self.load_path}: expected weights, but there is no such file. Train, or set --{self.option}."
            )
        content = read_checkpoint(
            self.load_path,
            "weights",
            f"Copy it again, or give other weights by --{self.option}.",
            self.map_location,
        )
        return content.get("model", content)

    @staticmethod
    def _difference(name: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
        shapes = [list(state[name].shape) if name in state else "absent" for state in (expected, got)]
        return f"{name} (expected {shapes[0]}, got {shapes[1]})"
