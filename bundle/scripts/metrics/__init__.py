"""Metrics: the quality of a super-resolved volume against a reference, and its drifts from the acquisition.

Volumes are channel-first, ``(1, H, W, D)``, in the canonical frame, whose last axis runs through the sagittal slices.
Metrics with a reference use the *common scale*: they divide prediction and reference by one percentile of the
reference's foreground. Metrics inside a mask take the mask as the second channel of the reference. A metric is a plain
function of two volumes. :class:`VolumeMetric` turns it into one of MONAI's cumulative metrics.
"""

from scripts.metrics.monitors import consistency_psnr, intensity_drift, position_drift
from scripts.metrics.quality import (
    VolumeMetric,
    common_scale,
    foreground_percentile,
    hfen,
    masked_psnr,
    masked_shift_gain_corrected_psnr,
    masked_ssim,
    psnr,
    psnr_own_maximum,
    shift_gain_corrected_psnr,
    ssim,
    ssim_own_maximum,
)
from scripts.metrics.spectral import mean_log_spectrum, mtf, spectral_distance

__all__ = [
    "VolumeMetric",
    "common_scale",
    "consistency_psnr",
    "foreground_percentile",
    "hfen",
    "intensity_drift",
    "masked_psnr",
    "masked_shift_gain_corrected_psnr",
    "masked_ssim",
    "mean_log_spectrum",
    "mtf",
    "position_drift",
    "psnr",
    "psnr_own_maximum",
    "shift_gain_corrected_psnr",
    "spectral_distance",
    "ssim",
    "ssim_own_maximum",
]
