"""Spectra of groups: what a degradation does to detail, and whether two groups have as much of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.metrics.quality import SPATIAL
from scripts.physics.kspace import truncate

__all__ = ["mtf", "spectral_distance"]


def _power_spectrum(x: Tensor, axis: int) -> Tensor:
    """Mean power along one axis of all lines, Hann-windowed, comparable between sizes of one field of view."""
    size = x.shape[axis]
    window = torch.hann_window(size, device=x.device, dtype=x.dtype)  # periodic: the same function on every grid
    lines = torch.fft.rfft(x.movedim(axis, -1) * window, dim=-1, norm="forward")
    return lines.abs().square().flatten(0, -2).mean(0)


def _smooth(values: Tensor, width: int = 5) -> Tensor:
    """Moving average over frequencies, shorter at the ends."""
    return F.avg_pool1d(values[None], width, stride=1, padding=width // 2, count_include_pad=False)[0]


def mtf(low_res: Tensor, high_res: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    r"""Modulation transfer of a degradation along one axis, $\sqrt{P_{low}(k) / P_{high}(k)}$ inside the acquired band.

    Both inputs show the same field of view, so that equal bins are equal physical frequencies. Only a tube around the
    axis is looked at, an eighth of the band across, lest a loss along another axis be taken for one along this.
    1 at every frequency is the plain truncation.

    Args:
        low_res: volume or batch of slabs, any leading shape.
        high_res: what it was made from, the same number of axes.
        axis: the axis along which to measure.

    Returns:
        frequencies in cycles per low-resolution voxel, in (0, 0.5), and the transfer at each.
    """
    others = [d for d in range(low_res.ndim) if d != axis % low_res.ndim and low_res.shape[d] != high_res.shape[d]]
    tube = [max(1, low_res.shape[d] // 8) for d in others]
    low_res, high_res = truncate(low_res, tube, others), truncate(high_res, tube, others)
    size = low_res.shape[axis]
    kept = slice(1, size // 2 - 1)  # the Hann window mixes neighbours, so the two outermost see beyond the band
    powers = [_power_spectrum(x.float(), axis)[kept].log() for x in (low_res, high_res)]
    frequencies = torch.arange(1, size // 2 - 1, device=low_res.device) / size
    return frequencies, torch.exp(0.5 * _smooth(powers[0] - powers[1]))


def mean_log_spectrum(group: Sequence[Tensor], axis: int, num_frequencies: int) -> Tensor:
    """Mean over a group of 10 log10 of the power, in dB, at equal steps of cycles per voxel in (0, 0.5]."""
    spectra = []
    for x in group:
        # power spectral density, so that volumes of different sizes are comparable
        power = _power_spectrum(x.float(), axis)[1:] * x.shape[axis]
        levels = 10 * power.clamp(min=1e-20).log10()
        spectra.append(F.interpolate(levels[None, None], num_frequencies, mode="linear", align_corners=True)[0, 0])
    return torch.stack(spectra).mean(0)


def spectral_distance(
    group_a: Sequence[Tensor], group_b: Sequence[Tensor], dim: Sequence[int] = SPATIAL, num_frequencies: int = 32
) -> Tensor:
    """Root-mean-square distance in dB between the mean log power spectra of two groups of images.

    Needs no pairs: it tells whether learned low-resolution images are as sharp as real ones of the same spacing.

    Args:
        group_a: volumes or batches of slabs on the common intensity scale; the sizes may differ.
        group_b: the other group.
        dim: the axes along which spectra are compared.
        num_frequencies: samples between the lowest frequency and Nyquist's.

    Raises:
        ValueError: when a group is empty.
    """
    if not group_a or not group_b:
        raise ValueError(f"both groups must hold at least one image, got {len(group_a)} and {len(group_b)}.")
    differences = [
        mean_log_spectrum(group_a, axis, num_frequencies) - mean_log_spectrum(group_b, axis, num_frequencies)
        for axis in dim
    ]
    return torch.stack(differences).square().mean().sqrt()
