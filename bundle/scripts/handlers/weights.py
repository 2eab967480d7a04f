"""Loading weights, with errors that name the file, the difference and the remedy."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.handlers import CheckpointLoader
from torch import nn

__all__ = ["ErrorHeadLoader", "InitialWeights", "WeightsLoader", "read_checkpoint"]


def read_checkpoint(
    path: PathLike, what: str = "a checkpoint", remedy: str = "Copy it again.", map_location: Any = "cpu"
) -> dict[str, Any]:
    """Read a dictionary of tensors, numbers and texts. Nothing in the file is executed.

    The checksums that ``torch.save`` stored are compared. ``torch.load`` skips them and can load a damaged file.

    Args:
        path: the file, written by ``torch.save``.
        what: the expected content, for the error.
        remedy: the remedy, for the error.
        map_location: device to load to.

    Raises:
        ValueError: when the file holds no such dictionary, is truncated, or is damaged anywhere.
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
    except Exception as error:  # foreign bytes can raise anything in the unpickler
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(
            f"{path}: expected {what}, but it cannot be read ({type(error).__name__}: {reason}). {remedy}"
        ) from error


class WeightsLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` for all weights of one network, with helpful errors.

    Args:
        load_path: file with the network's state dictionary, plain or as ``{"model": ...}``.
        network: the network to load it into.
        map_location: device to load to.
        option: the config key that holds ``load_path``, for the messages.
        grow: accept the weights of a network with fewer groups, see :meth:`scripts.networks.FoldedNet.grown`.

    Raises:
        ValueError: when the engine starts, if the file is missing or damaged, belongs to another network, or holds NaN.
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
                f"{self.load_path}: expected the weights of a {type(self.network).__name__} with the config's sizes, "
                f"got {len(wrong)} parameters that differ, the first {self._difference(wrong[0], expected, weights)}. "
                "Give the scale_factor and the networks that the weights were trained with, or other weights with "
                f"--{self.option}."
            )
        spoilt = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if spoilt:
            raise ValueError(
                f"{self.load_path}: expected finite weights, got {len(spoilt)} parameters with NaN or infinity, the "
                f"first {spoilt[0]}. The training that wrote them diverged. Give other weights with --{self.option}."
            )
        self.network.load_state_dict(weights)
        self.logger.info(f"Restored all variables from {self.load_path}")

    def _read(self) -> Mapping[str, Any]:
        """The state dictionary, plain or wrapped as ``{"model": ...}``."""
        if not Path(self.load_path).is_file():
            raise ValueError(f"{self.load_path}: expected weights, found no such file. Train, or set --{self.option}.")
        content = read_checkpoint(
            self.load_path,
            "weights",
            f"Copy it again, or give other weights with --{self.option}.",
            self.map_location,
        )
        return content.get("model", content)

    @staticmethod
    def _difference(name: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
        shapes = [list(state[name].shape) if name in state else "absent" for state in (expected, got)]
        return f"{name} (expected {shapes[0]}, got {shapes[1]})"


class ErrorHeadLoader:
    """Add a trained error head to a network, once its weights are loaded.

    It belongs before the loader of the weights, which have no head. So it can take away the head of an earlier run.

    Args:
        load_path: file of the head's state dictionary; None to leave the network without one.
        network: a network with the method ``add_error_head``, such as :class:`scripts.networks.FoldedNet`.

    Raises:
        ValueError: when the engine starts, if the file is damaged.

    Example:
        >>> ErrorHeadLoader(None, nn.Linear(1, 1)).attach(Engine(lambda engine, batch: None))
    """

    def __init__(self, load_path: PathLike | None, network: nn.Module) -> None:
        self.load_path = load_path
        self.network = network

    def attach(self, engine: Engine) -> None:
        if self.load_path is not None:
            engine.add_event_handler(Events.STARTED, self._remove, self.network.decoder[-1])
            engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        state = read_checkpoint(self.load_path, "an error head")
        self.network.add_error_head(num_features=len(state["features.weight"]))
        self.network.decoder[-1].error_head.load_state_dict(state)

    def _remove(self, without_head: nn.Module) -> None:
        self.network.decoder[-1], self.network.num_results = without_head, 1


class InitialWeights:
    """Load the weights that a training starts from, if any.

    Args:
        load_path: file with the state dictionary of such a network, or of one that ``network.grown`` extends. None
            keeps the network as it was initialised.
        network: the network to load it into.
        map_location: device to load to.

    Raises:
        ValueError: see :class:`WeightsLoader`.

    Example:
        >>> InitialWeights(None, nn.Linear(1, 1)).attach(Engine(lambda engine, batch: None))
    """

    def __init__(
        self, load_path: PathLike | None, network: nn.Module, map_location: torch.device | str = "cpu"
    ) -> None:
        self.loader = None
        if load_path is not None:
            self.loader = WeightsLoader(
                load_path, network, map_location, "init_weights", grow=hasattr(network, "grown")
            )

    def attach(self, engine: Engine) -> None:
        if self.loader is not None:
            self.loader.attach(engine)
