"""Monitors: how far a prediction departs from its acquisition, for data without a paired reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.metrics.quality import SPATIAL, psnr_of_error
from scripts.physics.kspace import truncate, zero_fill
from scripts.physics.registration import sub_voxel_shift
from scripts.physics.separable import SeparableAcquisition

__all__ = ["acquired_again", "consistency_psnr", "intensity_drift", "neighbour_psnr", "position_drift"]


def acquired_again(pred: Tensor, image: Tensor, acquisition: SeparableAcquisition | None = None) -> Tensor:
    """Acquire a prediction as the image was acquired.

    Args:
        pred: see :func:`consistency_psnr`.
        image: see there.
        acquisition: see there.

    Example:
        >>> import torch
        >>> acquired_again(torch.rand(1, 8, 8, 8), torch.rand(1, 4, 4, 4)).shape
        torch.Size([1, 4, 4, 4])
    """
    return truncate(pred, image.shape[-3:], SPATIAL) if acquisition is None else acquisition.acquire(pred)


def consistency_psnr(pred: Tensor, image: Tensor, acquisition: SeparableAcquisition | None = None) -> Tensor:
    """PSNR in dB between the prediction acquired again and the acquisition, whose maximum is the data range.

    It needs no reference. The low-resolution part of the prediction should equal the measurement, whatever detail the
    prediction adds.

    Args:
        pred: the prediction on the output grid; ``(1, sH, sW, sD)`` for a plain truncation.
        image: the acquisition, ``(1, H, W, D)``.
        acquisition: how the image was acquired; None for a plain truncation.

    Example:
        >>> import torch
        >>> pred = torch.rand(1, 8, 8, 8)
        >>> round(float(consistency_psnr(pred, truncate(pred, (4, 4, 4), SPATIAL))))
        120
    """
    return psnr_of_error((acquired_again(pred, image, acquisition) - image) / image.max())


def neighbour_psnr(image: Tensor) -> Tensor:
    """PSNR in dB between a scan and the mean of the six neighbours of each voxel. Its maximum is the data range.

    It is the agreement that can be had without measuring a voxel. Detail and noise lower it. A prediction whose error
    is the noise of the scan agrees better, because the mean of the neighbours has noise of its own.

    Args:
        image: the scan, ``(1, H, W, D)``.

    Example:
        >>> round(float(neighbour_psnr(torch.ones(1, 8, 8, 8))))
        120
    """
    kernel = torch.zeros(3, 3, 3)
    kernel[[0, 2, 1, 1, 1, 1], [1, 1, 0, 2, 1, 1], [1, 1, 1, 1, 0, 2]] = 1 / 6
    around = F.conv3d(F.pad(image[None], [1] * 6, mode="replicate"), kernel[None, None].to(image))[0]
    return psnr_of_error((around - image) / image.max())


def intensity_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Relative difference between the mean intensities of prediction and acquisition; 0 is best.

    Args:
        pred: the prediction, ``(1, sH, sW, sD)``.
        image: the acquisition, ``(1, H, W, D)``.

    Example:
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

    Example:
        >>> import torch
        >>> image = torch.rand(1, 8, 8, 8)
        >>> round(float(position_drift(zero_fill(image, (16, 16, 16), SPATIAL).roll(1, dims=1), image)), 3)
        1.0
    """
    return sub_voxel_shift(pred, zero_fill(image, pred.shape[-3:], SPATIAL)).abs().max()
