"""Spectra: the power of scans over spatial frequency, and the true resolution of a scan.

:func:`power_spectrum` is the one measurement. Inspection, estimation, acquisition and metrics all use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "GroupSpectra",
    "Spectrum",
    "axis_power",
    "axis_spectrum",
    "band_frequencies",
    "cycles_per_voxel",
    "effective_spacing",
    "measure_group",
    "power_law",
    "power_spectrum",
    "smooth",
]


ANCHOR = (0.03, 0.09)  # cycles per voxel; the law is fixed here, below where a resampled scan may lack power
FALL_PER_DECADE = 20.0  # dB by which the power of a subject falls per decade of frequency along an axis
MISSING_POWER = 10.0  # dB below that law at which power counts as missing; unfiltered scans stay within about 8 dB
SMALLEST_SIZE = 64  # voxels; shorter spectra have too few frequencies above the anchor
WHITENING = 1.5  # half the exponent by which the power of a subject falls with the radius in k-space
HANN_POWER = 0.375  # mean square of a Hann window
HANN_NEIGHBOURS = 1.5  # neighbouring frequencies per axis that a Hann window makes one independent sample


# Measurement


def power_spectrum(x: Tensor, dim: Sequence[int], norm: str = "backward") -> Tensor:
    """Power of the Hann-windowed image along ``dim``, in float32, zero frequency first.

    Args:
        x: real tensor of any shape.
        dim: the axes to transform; every other axis is a batch.
        norm: as in :func:`torch.fft.rfftn`. ``forward`` makes different sizes of one field of view comparable.

    Returns:
        tensor of the shape of ``x``, except that the last axis of ``dim`` keeps the ``N // 2 + 1`` frequencies from 0.

    Example:
        >>> power_spectrum(torch.rand(8, 8, 6), dim=(0, 1, 2)).shape
        torch.Size([8, 8, 4])
    """
    x = x.float()
    for axis in dim:
        size = x.shape[axis]
        window = torch.hann_window(size, device=x.device)  # periodic: the same function on every grid
        x = x * window.reshape([-1 if other == axis % x.ndim else 1 for other in range(x.ndim)])
    return torch.fft.rfftn(x, dim=tuple(dim), norm=norm).abs().square()


def axis_power(x: Tensor, axis: int, norm: str = "backward") -> Tensor:
    """Mean power of all lines along one axis, shape ``(N // 2 + 1,)``; see :func:`power_spectrum`.

    Example:
        >>> axis_power(torch.rand(8, 8, 6), axis=2).shape
        torch.Size([4])
    """
    return power_spectrum(x.movedim(axis, -1), (-1,), norm).flatten(0, -2).mean(0)


def cycles_per_voxel(size: int, device: torch.device | None = None) -> Tensor:
    """Frequencies of :func:`axis_power` for an axis of ``size`` voxels, from 0 to at most 0.5.

    Example:
        >>> cycles_per_voxel(4).tolist()
        [0.0, 0.25, 0.5]
    """
    return torch.arange(size // 2 + 1, device=device) / size


def band_frequencies(shape: Sequence[int], mm: Sequence[float], band_mm: Sequence[float]) -> list[np.ndarray]:
    """Frequencies along each axis of a three-dimensional :func:`power_spectrum`, as a share of a band.

    Args:
        shape: of the volume.
        mm: its spacing per axis.
        band_mm: the spacing per axis whose Nyquist frequencies end the band.

    Example:
        >>> [u.tolist() for u in band_frequencies((2, 2, 4), (1, 1, 1), (1, 1, 2))]
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0, 2.0]]
    """
    frequencies = [2 * low * np.abs(np.fft.fftfreq(n, h)) for n, h, low in zip(shape, mm, band_mm, strict=True)]
    return [*frequencies[:2], frequencies[2][: shape[2] // 2 + 1]]


def smooth(values: Tensor) -> Tensor:
    """Moving average over five frequencies, over fewer at the ends.

    Example:
        >>> smooth(torch.arange(5.0)).tolist()
        [1.0, 1.5, 2.0, 2.5, 3.0]
    """
    return F.avg_pool1d(values[None], 5, stride=1, padding=2, count_include_pad=False)[0]


# One scan along one axis


class Spectrum(NamedTuple):
    """The power of a scan along one axis.

    Args:
        frequencies: in cycles per mm, up to the Nyquist frequency of the spacing.
        levels: power in dB; :func:`power_law` is 0 dB at 0.5 cycles per mm.
        cutoff: frequency in cycles per mm above which the power is missing; the Nyquist frequency when none is.
    """

    frequencies: Tensor
    levels: Tensor
    cutoff: float

    @property
    def nyquist(self) -> float:
        return float(self.frequencies[-1])


def axis_spectrum(volume: Tensor, axis: int, spacing: float) -> Spectrum | None:
    r"""Measure the power along an axis, and where it ends.

    The mean power of all lines of a subject falls about as $1 / f^2$. Noise adds a floor, which lies above this law. If
    a scan was zero-filled, interpolated or strongly filtered, its power falls far below the law where the acquisition
    ended. The law is fixed at low frequencies. The cut-off is the frequency above which the power stays 10 dB below it.

    Args:
        volume: ``(H, W, D)``, any units.
        axis: in [0, 2].
        spacing: mm per voxel along the axis.

    Returns:
        the spectrum; None when the axis has fewer than 64 voxels, or the volume is constant along it.

    Example:
        >>> axis_spectrum(torch.rand(64, 8, 8), axis=0, spacing=1.0).cutoff
        0.5
    """
    size = volume.shape[axis]
    if size < SMALLEST_SIZE:
        return None
    power = axis_power(volume, axis)[1:]
    if not power[0] > 0:
        return None
    smoothed = smooth(power)
    frequencies = cycles_per_voxel(size)[1:]
    law = power_law(frequencies / spacing)
    levels = 10 * torch.log10(smoothed.clamp(min=float(smoothed.max()) * 1e-20))
    anchor = (frequencies >= ANCHOR[0]) & (frequencies <= ANCHOR[1])
    levels = levels - (levels - law)[anchor].mean()
    present = torch.nonzero(law - levels < MISSING_POWER)
    end = int(present[-1]) if len(present) else 0
    return Spectrum(frequencies / spacing, levels, float(frequencies[end]) / spacing)


def power_law(frequencies: Tensor) -> Tensor:
    """The usual power of a subject in dB at frequencies in cycles per mm, 0 dB at 0.5 cycles per mm.

    Example:
        >>> power_law(torch.tensor([0.05, 0.5])).tolist()
        [20.0, -0.0]
    """
    return -FALL_PER_DECADE * torch.log10(frequencies / 0.5)


def effective_spacing(spectrum: Spectrum) -> float:
    """The spacing in mm whose Nyquist frequency is the cut-off; infinite when the cut-off is 0.

    Example:
        >>> effective_spacing(Spectrum(torch.tensor([0.5]), torch.tensor([0.0]), cutoff=0.25))
        2.0
    """
    return 0.5 / spectrum.cutoff if spectrum.cutoff > 0 else math.inf


# Groups of scans in three dimensions


class GroupSpectra(NamedTuple):
    """Log power of the scans of a group in bins of spatial frequency.

    Args:
        levels: ``(scans, B, B, B)``, natural logarithm of whitened power per voxel of the low-resolution group.
        samples: number of independent samples in each bin, averaged over the scans.
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
        spacings: mm per voxel of each volume, not above ``low_res_spacing``.
        low_res_spacing: mm per voxel of the low-resolution group, whose Nyquist frequencies end the band.
        edges: of the bins along each axis, ``(3, B + 1)``, in units of these Nyquist frequencies.

    Example:
        >>> edges = np.stack([np.linspace(0, 0.8, 5)] * 3)
        >>> measure_group([torch.rand(32, 32, 32)], [(1, 1, 1)], (2, 2, 2), edges).levels.shape
        (1, 4, 4, 4)
    """
    each = [_octant(v, mm, low_res_spacing, edges) for v, mm in zip(volumes, spacings, strict=True)]
    power, samples, white, inside = (np.stack(values) for values in zip(*each, strict=True))
    return GroupSpectra(np.log(np.maximum(power, 1e-30)), samples.mean(0), np.log(white).mean(0), inside.mean(0))


def _octant(
    volume: Tensor, mm: Sequence[float], low_res_mm: Sequence[float], edges: np.ndarray
) -> tuple[np.ndarray, ...]:
    """For each bin: whitened power, number of samples, whitened power of noise, and share within the ellipsoid."""
    bins = edges.shape[1] - 1
    frequencies = band_frequencies(volume.shape, mm, low_res_mm)
    places = [np.searchsorted(edges[a], u, side="right") - 1 for a, u in enumerate(frequencies)]
    kept = [np.flatnonzero((place >= 0) & (place < bins)) for place in places]
    power = power_spectrum(volume, (0, 1, 2))[np.ix_(*kept)].double().numpy()
    radius = sum(np.ix_(*(frequencies[a][k] ** 2 for a, k in enumerate(kept))))
    index = sum(np.ix_(*(bins ** (2 - a) * places[a][k] for a, k in enumerate(kept)))).ravel()
    white = (radius**WHITENING).ravel()
    scale = np.prod(mm) / np.prod(low_res_mm) / (volume.numel() * HANN_POWER**3)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights, minlength=bins**3).reshape(bins, bins, bins)

    count = np.maximum(total(np.ones_like(white)), 1)
    inside = total(white * (radius.ravel() <= 1)) / np.maximum(total(white), 1e-30)
    noise = np.maximum(total(white) / count, 1e-30)
    return scale * total(white * power.ravel()) / count, count / HANN_NEIGHBOURS**3, noise, inside
