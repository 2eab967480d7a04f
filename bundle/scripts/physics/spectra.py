"""Spectra: the power of scans over spatial frequency, and how fine a scan really is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GroupSpectra", "Spectrum", "axis_spectrum", "measure_group"]


ANCHOR = (0.03, 0.09)  # cycles per voxel: below lies the field of view, above what a resampled scan may lack
DECADE = 20.0  # dB by which the power of a head falls per decade of frequency, along an axis
DEFICIT = 10.0  # dB below that law; unfiltered scans stay within about 8
SMALLEST_SIZE = 64  # voxels; shorter spectra have too few frequencies between the anchor and the end


class Spectrum(NamedTuple):
    """The power of a scan along one axis.

    Args:
        frequencies: in cycles per mm, up to the Nyquist frequency of the spacing.
        levels: power in dB, the law of a head being 0 dB at 0.5 cycles per mm.
        cutoff: frequency in cycles per mm from which on the power is missing; the Nyquist frequency when none is.
    """

    frequencies: Tensor
    levels: Tensor
    cutoff: float

    @property
    def nyquist(self) -> float:
        return float(self.frequencies[-1])


def axis_spectrum(volume: Tensor, axis: int, spacing: float) -> Spectrum | None:
    r"""Measure the power along an axis, and where it ends.

    The mean power of all lines of a head falls about as $1 / f^2$ down to a floor of noise, which lies above. A scan
    that was resampled, by zero-filling as by interpolation, or strongly filtered, falls far below this law from where
    its acquisition ended. The law is fixed at low frequencies; the cut-off is where the power stays 10 dB under it.

    Args:
        volume: ``(H, W, D)``, any units.
        axis: in [0, 2].
        spacing: mm per voxel along it.

    Returns:
        None when the axis has less than 64 voxels, or the volume no content along it.
    """
    size = volume.shape[axis]
    if size < SMALLEST_SIZE:
        return None
    window = torch.hann_window(size, dtype=torch.float32)
    lines = torch.fft.rfft(volume.float().movedim(axis, -1) * window, dim=-1)
    power = lines.abs().square().flatten(0, -2).mean(0)[1:]
    if not power[0] > 0:
        return None
    smooth = F.avg_pool1d(power[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    frequencies = torch.arange(1, len(power) + 1) / size
    law = head_law(frequencies / spacing)
    levels = 10 * torch.log10(smooth.clamp(min=float(smooth.max()) * 1e-20))
    anchor = (frequencies >= ANCHOR[0]) & (frequencies <= ANCHOR[1])
    levels = levels - (levels - law)[anchor].mean()
    present = torch.nonzero(law - levels < DEFICIT)
    end = int(present[-1]) if len(present) else 0
    return Spectrum(frequencies / spacing, levels, float(frequencies[end]) / spacing)


def head_law(frequencies: Tensor) -> Tensor:
    """The power of a head in dB at frequencies in cycles per mm, 0 dB at 0.5 cycles per mm."""
    return -DECADE * torch.log10(frequencies / 0.5)


def effective_spacing(spectrum: Spectrum) -> float:
    """The spacing (mm) whose Nyquist frequency is the cut-off."""
    return 0.5 / spectrum.cutoff if spectrum.cutoff > 0 else math.inf


WHITENING = 1.5  # half the exponent by which the power of a head falls with the radius in k-space


# Spectra


class GroupSpectra(NamedTuple):
    """Log power of the scans of a group in bins of spatial frequency.

    Args:
        levels: ``(scans, B, B, B)``, natural logarithm of whitened power per voxel of the low-resolution group.
        samples: independent samples in each bin, their mean over the scans.
        noise: level of white noise of variance 1 in a low-resolution voxel.
        inside: share of each bin within the ellipsoid that touches the faces of the band.
    """

    levels: np.ndarray
    samples: np.ndarray
    noise: np.ndarray
    inside: np.ndarray


def measure_group(
    volumes: Sequence[Tensor], spacings: Sequence[Sequence[float]], low_res_spacing: Sequence[float], edges: np.ndarray
) -> GroupSpectra:
    """Measure the power of scans inside the band of a low-resolution group.

    Args:
        volumes: ``(H, W, D)`` in the canonical frame, on the common intensity scale.
        spacings: mm per voxel of each, not above ``low_res_spacing``.
        low_res_spacing: mm per voxel of the low-resolution group, whose Nyquist frequencies end the band.
        edges: of the bins along each axis, ``(3, B + 1)``, in units of these Nyquist frequencies.
    """
    each = [_octant(v, mm, low_res_spacing, edges) for v, mm in zip(volumes, spacings, strict=True)]
    power, samples, white, inside = (np.stack(values) for values in zip(*each, strict=True))
    return GroupSpectra(np.log(np.maximum(power, 1e-30)), samples.mean(0), np.log(white).mean(0), inside.mean(0))


def _octant(
    volume: Tensor, mm: Sequence[float], low_res_mm: Sequence[float], edges: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Whitened power, number of samples, whitened power of noise, and share within the ellipsoid, in each bin."""
    x = volume.float()
    for axis, size in enumerate(x.shape):
        x = x * torch.hann_window(size).reshape([-1 if a == axis else 1 for a in range(3)])
    voxels, bins = x.numel(), edges.shape[1] - 1
    frequencies = [2 * low * np.abs(np.fft.fftfreq(n, h)) for n, h, low in zip(x.shape, mm, low_res_mm, strict=True)]
    frequencies[2] = frequencies[2][: x.shape[2] // 2 + 1]
    places = [np.searchsorted(edges[a], u, side="right") - 1 for a, u in enumerate(frequencies)]
    kept = [np.flatnonzero((place >= 0) & (place < bins)) for place in places]
    x = torch.fft.rfftn(x)[np.ix_(*kept)].abs().square().double().numpy()
    radius = sum(np.ix_(*(frequencies[a][k] ** 2 for a, k in enumerate(kept))))
    index = sum(np.ix_(*(bins ** (2 - a) * places[a][k] for a, k in enumerate(kept)))).ravel()
    white = (radius**WHITENING).ravel()
    scale = np.prod(mm) / np.prod(low_res_mm) / (voxels * 0.375**3)  # 0.375: mean square of a Hann window

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights, minlength=bins**3).reshape(bins, bins, bins)

    count = np.maximum(total(np.ones_like(white)), 1)
    inside = total(white * (radius.ravel() <= 1)) / np.maximum(total(white), 1e-30)
    # the Hann window makes about 1.5 neighbours per axis one sample
    return scale * total(white * x.ravel()) / count, count / 1.5**3, np.maximum(total(white) / count, 1e-30), inside
