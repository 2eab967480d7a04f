r"""Acquisition: what the spectrum of a single scan tells about how its k-space was acquired and filtered.

Along each axis the power of a head falls as a power of the frequency, down to a floor of noise, and people differ
little in it: between a quarter of the Nyquist frequency and all of it by 26 to 34 dB per decade in the scans that this
was set on. A filter, a part of k-space that was left out, or an interpolation of the matrix shows as a departure:

$$P(u) = (u^{-p} + \nu)\, h(u)^2.$$

The transfer $h$ is one of those that a scanner produces, the first that explains the power. Power knows no phase, and a
blur that is as smooth as the law itself cannot be told from anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scripts.physics.filters import FAMILIES

__all__ = ["Acquisition", "Filter", "measure_acquisition"]


BINS = 20  # of frequencies along an axis; fewer when it has fewer than four voxels for each
FEWEST_BINS = 8
TUBE = 0.25  # of the band, around an axis: there the power is anatomy rather than noise
LOWEST = 0.12  # of the band, where the law begins
SLOPES = np.arange(24.0, 36.1, 1.0)  # dB per decade of power
USUAL_SLOPE, SLOPE_SPREAD = 30.0, 4.0
FLOORS = np.concatenate([[0.0], 10 ** np.arange(-3.0, -0.49, 0.25)])  # noise over anatomy at the end of the band
EVIDENCE = 0.8  # dB, rms, by which a filter must explain the power better than a simpler one
MISFIT = 1.7  # dB, rms, beyond which nothing explains it; plain scans stay below 1.5
CLIFF = 15.0  # dB within two bins, where k-space ends; the steepest filter falls by 9
EARLIEST_CLIFF = 0.3  # of the band
EMPTY_CORNERS = 15.0  # dB missing beyond the ellipsoid


class Filter(NamedTuple):
    """The transfer along one axis.

    Args:
        family: see :data:`scripts.physics.filters.FAMILIES`; ``box`` is none.
        parameter: of the family, NaN for one without.
    """

    family: str
    parameter: float = math.nan

    def at(self, frequencies: np.ndarray) -> np.ndarray:
        """Amplitude at frequencies in [0, 1]."""
        return FAMILIES[self.family][0](frequencies, self.parameter)


NONE = Filter("box")
FILTERS = (
    NONE,
    Filter("hamming"),
    *(Filter(family, part / 8) for family in ("partial_fourier", "partial_fourier_hamming") for part in (5, 6, 7)),
)


class Acquisition(NamedTuple):
    """What a scan's spectrum says.

    Args:
        filters: along each axis; None where none explains the power.
        cutoffs: along each axis, the share of the band that k-space fills: below 1 when the scan was zero-filled.
        misfits: along each axis, the rms difference in dB between the power and what the best filter explains.
        elliptical: whether the corners beyond the ellipsoid are empty.
    """

    filters: tuple[Filter | None, ...]
    cutoffs: tuple[float, ...]
    misfits: tuple[float, ...]
    elliptical: bool

    def window(self, matrix_size: Sequence[int]) -> Tensor:
        """The transfer on a centred k-space, float64; an axis that nothing explains counts as unfiltered."""
        radii = [
            np.abs(np.arange(n) - n // 2) / (n / 2) / cut for n, cut in zip(matrix_size, self.cutoffs, strict=True)
        ]
        curves = [(one or NONE).at(np.minimum(r, 1)) * (r <= 1) for one, r in zip(self.filters, radii, strict=True)]
        window = np.einsum("i,j,k->ijk", *curves)
        if self.elliptical:
            window = window * (sum(np.ix_(*(r**2 for r in radii))) <= 1)
        return torch.from_numpy(window)

    def describe(self, axes: Sequence[str]) -> str:
        """What makes it other than a truncation, in words; empty when nothing does.

        Args:
            axes: names of the axes.
        """
        parts = []
        for axis, one, cutoff in zip(axes, self.filters, self.cutoffs, strict=True):
            if cutoff < 1:
                parts.append(f"k-space that ends at {cutoff:.0%} of the band along the {axis} axis")
            if one is None:
                parts.append(f"a spectrum along the {axis} axis that no filter of a scanner explains")
            elif one != NONE:
                amount = "" if math.isnan(one.parameter) else f" of {one.parameter:g}"
                parts.append(f"{one.family.replace('_', ' ')}{amount} along the {axis} axis")
        return ", ".join([*parts, *["empty corners of k-space"] * self.elliptical])


def measure_acquisition(volume: Tensor, axes: Sequence[int] = (0, 1, 2)) -> Acquisition | None:
    """Tell from a scan's spectrum how it was acquired.

    Args:
        volume: ``(H, W, D)``, in any units.
        axes: those to look at; the others count as unfiltered.

    Returns:
        None when one of them has less than 32 voxels, too few for a spectrum.
    """
    if min(volume.shape[axis] for axis in axes) < 4 * FEWEST_BINS:
        return None
    power, radii = _power(volume)
    found = [_along_axis(*_profile(power, radii, axis)) if axis in axes else (NONE, 1.0, 0.0) for axis in range(3)]
    scan = Acquisition(*zip(*found, strict=True), elliptical=False)
    return scan._replace(elliptical=_corners_are_empty(power, radii, scan))


def _power(volume: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """Power of the Hann-windowed volume, and the frequency along each axis in units of its Nyquist frequency."""
    x = volume.float()
    for axis, size in enumerate(x.shape):
        x = x * torch.hann_window(size, device=x.device).reshape([-1 if other == axis else 1 for other in range(3)])
    power = torch.fft.rfftn(x).abs().square().double().cpu().numpy()
    return power, [2 * np.abs(np.fft.fftfreq(n)[:kept]) for n, kept in zip(x.shape, power.shape, strict=True)]


def _profile(power: np.ndarray, radii: Sequence[np.ndarray], axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the bins along an axis, and the power in dB in each, in a tube around the axis."""
    tube = [np.arange(len(r)) if other == axis else np.flatnonzero(r < TUBE) for other, r in enumerate(radii)]
    line = power[np.ix_(*tube)].mean(tuple(other for other in range(3) if other != axis))
    bins = min(BINS, len(np.unique(radii[axis])) // 2)
    index = np.minimum((radii[axis] * bins).astype(int), bins - 1)
    level = np.bincount(index, line, bins) / np.bincount(index, minlength=bins)
    return np.linspace(0, 1, bins + 1), 10 * np.log10(np.maximum(level, 1e-30))


def _along_axis(edges: np.ndarray, level: np.ndarray) -> tuple[Filter | None, float, float]:
    """The filter along an axis, the share of the band that is filled, and the misfit."""
    end = _cliff(edges, level)
    kept = np.flatnonzero(edges[:end] >= LOWEST)
    misfits = [_misfit(one, edges[kept], edges[1], edges[end], level[kept]) for one in FILTERS]
    explained = [i for i, misfit in enumerate(misfits) if misfit < MISFIT]
    if not explained:
        return None, float(edges[end]), min(misfits)
    best = min(explained, key=lambda i: misfits[i] + EVIDENCE * _parts(FILTERS[i]))
    return FILTERS[best], float(edges[end]), misfits[best]


def _parts(one: Filter) -> int:
    """How many things a filter assumes: the simpler of two that explain the power alike is the likelier."""
    return sum(part in one.family for part in ("hamming", "partial"))


def _cliff(edges: np.ndarray, level: np.ndarray) -> int:
    """The first bin that is not wholly within k-space; their number when all are."""
    for i in range(len(level) - 2):
        if edges[i] >= EARLIEST_CLIFF and level[i + 2 :].max() < level[i] - CLIFF:
            return i + 1
    return len(level)


def _misfit(one: Filter, starts: np.ndarray, width: float, cutoff: float, level: np.ndarray) -> float:
    """The rms difference in dB between the power in bins and the law behind a filter, at the best slope and floor."""
    fine = (starts[:, None] + width * (np.arange(8) + 0.5) / 8) / cutoff
    transfer = 10 * np.log10(np.mean(np.maximum(one.at(np.minimum(fine, 1)), 1e-3) ** 2, axis=1))
    law = (starts + width / 2)[None] ** (-SLOPES[:, None] / 10)
    expected = 10 * np.log10(law[:, None] + FLOORS[:, None]) + transfer
    residual = level - expected
    residual = residual - np.median(residual, axis=-1, keepdims=True)
    prior = ((SLOPES - USUAL_SLOPE) / SLOPE_SPREAD) ** 2 / len(level)
    return float(np.sqrt((residual**2).mean(-1) + prior[:, None]).min())


def _corners_are_empty(power: np.ndarray, radii: Sequence[np.ndarray], scan: Acquisition) -> bool:
    """Compare the power just beyond the ellipsoid with that just within, both freed of the filters."""
    scaled = [r / cut for r, cut in zip(radii, scan.cutoffs, strict=True)]
    curves = [(one or NONE).at(np.minimum(r, 1)) ** 2 for one, r in zip(scan.filters, scaled, strict=True)]
    free = power / np.einsum("i,j,k->ijk", *curves)
    radius = np.sqrt(sum(np.ix_(*(r**2 for r in scaled))))
    filled = np.einsum("i,j,k->ijk", *(r < 0.95 for r in scaled))
    within, beyond = (free[filled & (radius >= a) & (radius < b)].mean() for a, b in ((0.8, 0.95), (1.1, 1.35)))
    return bool(beyond < within * 10 ** (-EMPTY_CORNERS / 10))
