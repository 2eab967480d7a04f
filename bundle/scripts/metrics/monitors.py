"""Monitors: drifts of a prediction from its acquisition, for data without a paired reference."""

from __future__ import annotations

from torch import Tensor

from scripts.metrics.quality import SPATIAL
from scripts.physics.kspace import zero_fill
from scripts.physics.registration import sub_voxel_shift

__all__ = ["intensity_drift", "position_drift"]


def intensity_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Relative difference between the mean intensities of prediction and acquisition; 0 is best.

    Args:
        pred: the prediction, ``(1, sH, sW, sD)``.
        image: the acquisition, ``(1, H, W, D)``.

    >>> import torch
    >>> round(float(intensity_drift(torch.full((1, 8, 8, 8), 1.1), torch.ones(1, 4, 4, 4))), 3)
    0.1
    """
    return pred.mean() / image.mean() - 1


def position_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Largest displacement of the prediction from the zero-filled acquisition, in high-resolution voxels; 0 is best.

    Args:
        pred: the prediction, ``(1, sH, sW, sD)``.
        image: the acquisition, ``(1, H, W, D)``.
    """
    return sub_voxel_shift(pred, zero_fill(image, pred.shape[-3:], SPATIAL)).abs().max()
