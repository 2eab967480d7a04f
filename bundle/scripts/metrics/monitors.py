"""What can be watched where no paired reference exists."""

from __future__ import annotations

from torch import Tensor

from scripts.physics.kspace import zero_fill
from scripts.physics.registration import sub_voxel_shift

__all__ = ["intensity_drift", "position_drift"]


SPATIAL = (-3, -2, -1)


def intensity_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Relative difference of the mean intensities of prediction and acquisition; 0 is best."""
    return pred.mean() / image.mean() - 1


def position_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Largest displacement of the prediction from the zero-filled acquisition, in high-resolution voxels; 0 is best."""
    return sub_voxel_shift(pred, zero_fill(image, pred.shape[-3:], SPATIAL)).abs().max()
