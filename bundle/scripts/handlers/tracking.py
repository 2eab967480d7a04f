"""Tracking: loss terms for MLflow, and middle slices of the validation volumes for MLflow and TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.handlers import MLFlowHandler
from monai.utils import CommonKeys
from torch import Tensor

__all__ = ["MLFlowImageHandler", "log_terms", "middle_slice", "slices_of_batch", "slices_of_output"]


INTERVAL = 20  # iterations between two values, as for TensorBoard


def middle_slice(volume: Tensor) -> Tensor:
    """The slice ``(1, rows, columns)`` in the middle of the last axis, with the second axis upwards.

    Args:
        volume: ``(1, H, W, D)`` in the canonical frame. For "ASR" the slice is sagittal, superior is up and anterior is
            right.

    Example:
        >>> middle_slice(torch.zeros(1, 4, 3, 5)).shape
        torch.Size([1, 3, 4])
    """
    return torch.as_tensor(volume)[..., volume.shape[-1] // 2].detach().cpu().float().mT.flip(-2)


def slices_of_batch(batch: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor | None]]:
    """``batch_transform`` of MONAI's ``TensorBoardImageHandler``: the input, and its reference or None."""
    first = batch[0]
    label = first.get(CommonKeys.LABEL)
    return [middle_slice(first[CommonKeys.IMAGE])], [None if label is None else middle_slice(label)]


def slices_of_output(output: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """``output_transform`` of MONAI's ``TensorBoardImageHandler``: the prediction."""
    return [middle_slice(output[0][CommonKeys.PRED])]


def log_terms(handlers: Sequence[Any]) -> Sequence[Any]:
    """Let the ``MLFlowHandler`` that ``--tracking mlflow`` adds to a trainer log the total and every term by name.

    MONAI configures this handler for the decollated output of a supervised trainer.

    Args:
        handlers: the trainer's handlers, not yet attached.

    Returns:
        the same handlers.
    """
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.output_transform = _terms_and_total
            handler.iteration_log = _is_due
    return handlers


def _terms_and_total(output: Mapping[str, Any]) -> dict[str, float]:
    return {CommonKeys.LOSS: output[CommonKeys.LOSS].item(), **{k: v.item() for k, v in output["terms"].items()}}


def _is_due(engine: Engine, iteration: int) -> bool:
    return iteration % INTERVAL == 0


class MLFlowImageHandler(MLFlowHandler):
    """MONAI's ``MLFlowHandler`` for the pictures of ``TensorBoardImageHandler``, under the keys of the batch.

    Args:
        kwargs: arguments of the base class that set where to log.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(iteration_log=False, epoch_logger=self._log_pictures, **kwargs)

    def _log_pictures(self, engine: Engine) -> None:
        (image,), (label,) = slices_of_batch(engine.state.batch)
        (pred,) = slices_of_output(engine.state.output)
        named = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, CommonKeys.PRED: pred}
        for name, picture in named.items():
            if picture is not None:
                self.client.log_image(self.cur_run.info.run_id, _grey(picture), key=name, step=engine.state.epoch)


def _grey(picture: Tensor) -> np.ndarray:
    """Scale the smallest and largest value to 0 and 255, as TensorBoard's handler does."""
    low, high = float(picture.min()), float(picture.max())
    return (255 * (picture[0] - low) / max(high - low, 1e-12)).round().to(torch.uint8).numpy()
