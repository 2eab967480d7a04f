"""What can be watched, and selected by, where no paired reference exists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.kspace import zero_fill
from scripts.metrics import consistency_psnr, spectral_distance
from scripts.registration import sub_voxel_shift

__all__ = ["ReferenceFreeScore", "intensity_drift", "position_drift"]

SPATIAL = (-3, -2, -1)
BEST_CONSISTENCY = 40.0  # dB; beyond it the score would reward interpolation


def intensity_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Relative difference of the mean intensities of prediction and acquisition; 0 is best."""
    return pred.mean() / image.mean() - 1


def position_drift(pred: Tensor, image: Tensor) -> Tensor:
    """Largest displacement of the prediction from the zero-filled acquisition, in high-resolution voxels; 0 is best."""
    return sub_voxel_shift(pred, zero_fill(image, pred.shape[-3:], SPATIAL)).abs().max()


class ReferenceFreeScore:
    r"""Select a model without references: consistent with what was acquired, and as sharp as real scans.

    The score is the consistency PSNR, at most 40 dB, minus the rms distance in dB between the spectrum of the
    prediction and the mean spectrum of the high-resolution group. Interpolation loses by its missing detail,
    hallucination and noise by too much of it, drifts of intensity or position by their inconsistency. It is a
    heuristic, not a metric.

    Args:
        high_res_group: volumes ``(H, W, D)`` of the source group, on the common intensity scale.
        max_volumes: how many of them to compare with.
    """

    def __init__(self, high_res_group: Sequence[Tensor], max_volumes: int = 4) -> None:
        self.group = [volume[None] for volume in high_res_group[:max_volumes]]

    def __call__(self, pred: Tensor, image: Tensor) -> Tensor:
        """
        Args:
            pred: the prediction, ``(1, sH, sW, sD)``.
            image: the acquisition, ``(1, H, W, D)``.
        """
        distance = spectral_distance([torch.as_tensor(pred).cpu()], self.group)
        return consistency_psnr(pred, image).cpu().clamp(max=BEST_CONSISTENCY) - distance
