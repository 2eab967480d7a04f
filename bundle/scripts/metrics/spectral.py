"""Spectral metrics: how a degradation weakens detail, and how much detail two groups of images have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.metrics.quality import SPATIAL
from scripts.physics.kspace import truncate
from scripts.physics.spectra import axis_power, cycles_per_voxel, smooth

__all__ = ["mean_log_spectrum", "mtf", "spectral_distance"]


FREQUENCIES = 32  # at which spectra of groups are compared, from the lowest to the Nyquist frequency


def mtf(low_res: Tensor, high_res: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    r"""Modulation transfer of a degradation along one axis, $\sqrt{P_{low}(k) / P_{high}(k)}$ inside the acquired band.

    Both inputs show the same field of view, so that equal bins are equal physical frequencies. Only a tube around the
    axis is measured, an eighth of the band wide. Otherwise a loss along another axis would count as one along this
    axis. A plain truncation has 1 at every frequency.

    Args:
        low_res: volume or batch of slabs, any leading shape.
        high_res: its source, with the same number of axes.
        axis: the axis along which to measure.

    Returns:
        frequencies in cycles per low-resolution voxel, in (0, 0.5), and the transfer at each.

    Example:
        >>> volume = torch.rand(1, 32, 32, 32)
        >>> frequencies, transfer = mtf(truncate(volume, (16, 16, 16), SPATIAL), volume, axis=1)
        >>> bool((transfer - 1).abs().max() < 0.1)
        True
    """
    others = [d for d in range(low_res.ndim) if d != axis % low_res.ndim and low_res.shape[d] != high_res.shape[d]]
    tube = [max(1, low_res.shape[d] // 8) for d in others]
    low_res, high_res = truncate(low_res, tube, others), truncate(high_res, tube, others)
    size = low_res.shape[axis]
    kept = slice(1, size // 2 - 1)  # the Hann window mixes neighbours, so the two outermost see beyond the band
    levels = [axis_power(x, axis, norm="forward")[kept].log() for x in (low_res, high_res)]
    return cycles_per_voxel(size, low_res.device)[kept], torch.exp(0.5 * smooth(levels[0] - levels[1]))


def mean_log_spectrum(group: Sequence[Tensor], axis: int, num_frequencies: int = FREQUENCIES) -> Tensor:
    """Mean over a group of 10 log10 of the power, in dB, at equal steps of cycles per voxel in (0, 0.5].

    Args:
        group: volumes or batches of slabs on the common intensity scale; the sizes may differ.
        axis: the axis along which to measure.
        num_frequencies: samples between the lowest and the Nyquist frequency.

    Example:
        >>> mean_log_spectrum([torch.rand(1, 32, 32, 32), torch.rand(1, 40, 32, 32)], axis=1).shape
        torch.Size([32])
    """
    spectra = []
    for x in group:
        # times the size it is the power spectral density, which is comparable between volumes of different sizes
        power = axis_power(x, axis, norm="forward")[1:] * x.shape[axis]
        levels = 10 * power.clamp(min=1e-20).log10()
        spectra.append(F.interpolate(levels[None, None], num_frequencies, mode="linear", align_corners=True)[0, 0])
    return torch.stack(spectra).mean(0)


def spectral_distance(group_a: Sequence[Tensor], group_b: Sequence[Tensor]) -> Tensor:
    """Root-mean-square distance in dB between the mean log power spectra of two groups of images.

    It needs no pairs. It shows whether learned low-resolution images are as sharp as real images of the same spacing.

    Args:
        group_a: volumes or batches of slabs on the common intensity scale; the sizes may differ.
        group_b: the other group.

    Raises:
        ValueError: when a group is empty.

    Example:
        >>> volume = torch.rand(1, 16, 16, 16)
        >>> round(float(spectral_distance([volume], [2 * volume])), 2)  # 20 log10(2) dB
        6.02
    """
    if not group_a or not group_b:
        raise ValueError(f"both groups must hold at least one image, got {len(group_a)} and {len(group_b)}.")
    differences = [mean_log_spectrum(group_a, axis) - mean_log_spectrum(group_b, axis) for axis in SPATIAL]
    return torch.stack(differences).square().mean().sqrt()
