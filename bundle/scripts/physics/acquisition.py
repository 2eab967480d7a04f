r"""Acquisition: how the k-space of a single scan was acquired and filtered, as its spectrum shows.

Along each axis the power of a subject falls as a power of the frequency, down to a floor of noise. Subjects differ
little. In the scans behind the settings, the power fell by 26 to 34 dB per decade, from a quarter of the Nyquist
frequency on. A filter, a missing part of k-space, or an interpolation of the matrix shows as a departure:

$$P(u) = (u^{-p} + \nu)\, h(u)^2.$$

The transfer $h$ is the simplest filter of a scanner that explains the power. Power carries no phase. A blur that is as
smooth as the law itself cannot be distinguished from anatomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scripts.physics.filters import UNFILTERED, Filter, separable_window
from scripts.physics.kspace import centred_frequencies
from scripts.physics.spectra import band_frequencies, power_spectrum

__all__ = ["RECOGNITION", "Acquisition", "RecognitionSettings", "filled_band", "measure_acquisition"]


@dataclass(frozen=True)
class RecognitionSettings:
    """The tuned numbers of :func:`measure_acquisition`.

    They were set on real scans that were degraded in known ways. experiments/studies/compare_consistency.py tests them
    on other scans.
    """

    most_bins: int = 20  # of frequencies along an axis, each of at least four voxels
    fewest_bins: int = 8  # an axis with fewer has no usable spectrum
    tube_radius: float = 0.25  # share of the band; this close to an axis the power is anatomy rather than noise
    lowest_frequency: float = 0.12  # share of the band at which the law begins
    slopes: tuple[float, ...] = tuple(range(24, 37))  # dB per decade by which the power of a subject may fall
    usual_slope: float = 30.0  # dB per decade
    slope_spread: float = 4.0  # dB per decade, standard deviation between scans
    noise_floors: tuple[float, ...] = (0.0, *10 ** np.arange(-3.0, -0.49, 0.25))  # noise over anatomy at the band's end
    evidence_per_part: float = 0.8  # dB rms that each part of a filter must explain
    largest_misfit: float = 1.7  # dB rms above which no filter explains the power; plain scans stay below 1.5
    cliff: float = 15.0  # dB within two bins, where k-space ends; the steepest filter falls by 9
    sharpness: float = 12.0  # dB across five frequencies at the end of an interpolated k-space; a blur is less sharp
    earliest_cliff: float = 0.3  # share of the band below which k-space does not end
    corner_deficit: float = 15.0  # dB by which the power beyond the ellipsoid is lower when the corners are empty


RECOGNITION = RecognitionSettings()
# filters of scanners, and how many parts each assumes; of two equally good explanations the simpler is likelier.
# A step at 7/8 is not among them: whole heads without one look the same, and undoing it cost 0.8 dB there
RECOGNISED = {UNFILTERED: 0, Filter("hamming"): 1}
RECOGNISED |= {Filter("partial_fourier", (eighths / 8,)): 1 for eighths in (5, 6)}
RECOGNISED |= {Filter("partial_fourier_hamming", (eighths / 8,)): 2 for eighths in (5, 6)}


class Acquisition(NamedTuple):
    """How a scan was acquired, as its spectrum shows.

    Args:
        filters: along each axis; None where no filter explains the power.
        cutoffs: along each axis, the share of the band that k-space fills; below 1 when the scan was zero-filled.
        misfits: along each axis, the rms difference in dB between the power and the best filter's.
        elliptical: whether the corners beyond the ellipsoid are empty.

    Example:
        >>> filters = Filter("hamming"), UNFILTERED, UNFILTERED
        >>> Acquisition(filters, (1.0, 0.75, 1.0), (0.9, 0.8, 0.7), elliptical=False).describe("ASR")
        'hamming along the A axis, k-space that ends at 75% of the band along the S axis'
    """

    filters: tuple[Filter | None, ...]
    cutoffs: tuple[float, ...]
    misfits: tuple[float, ...]
    elliptical: bool

    def window(self, matrix_size: Sequence[int]) -> Tensor:
        """The transfer on a centred k-space, float64. An axis whose filter is None counts as unfiltered."""
        radii = [centred_frequencies(n).abs() / cut for n, cut in zip(matrix_size, self.cutoffs, strict=True)]
        inside = [r.clamp(max=1).numpy() for r in radii]
        curves = [torch.from_numpy((one or UNFILTERED).at(u)) for one, u in zip(self.filters, inside, strict=True)]
        lines = [curve * (r <= 1) for curve, r in zip(curves, radii, strict=True)]
        return separable_window(lines, radii if self.elliptical else None)

    def describe(self, axes: Sequence[str]) -> str:
        """Describe in words how the scan differs from a plain truncation; empty if it does not.

        Args:
            axes: names of the axes.
        """
        parts = []
        for axis, one, cutoff in zip(axes, self.filters, self.cutoffs, strict=True):
            if cutoff < 1:
                parts.append(f"k-space that ends at {cutoff:.0%} of the band along the {axis} axis")
            if one is None:
                parts.append(f"a spectrum along the {axis} axis that no filter of a scanner explains")
            elif one != UNFILTERED:
                amount = "".join(f" of {parameter:g}" for parameter in one.parameters)
                parts.append(f"{one.family.replace('_', ' ')}{amount} along the {axis} axis")
        return ", ".join([*parts, *["empty corners of k-space"] * self.elliptical])


def measure_acquisition(volume: Tensor, axes: Sequence[int] = (0, 1, 2)) -> Acquisition | None:
    """Recognise from a scan's spectrum how it was acquired.

    Args:
        volume: ``(H, W, D)``, in any units.
        axes: the axes to examine; the others count as unfiltered.

    Returns:
        the findings; None when one of these axes has fewer than 32 voxels.

    Example:
        >>> scan = measure_acquisition(torch.rand(40, 40, 40))  # noise, whose spectrum no filter explains
        >>> scan.filters
        (None, None, None)
    """
    if min(volume.shape[axis] for axis in axes) < 4 * RECOGNITION.fewest_bins:
        return None
    power = power_spectrum(volume, (0, 1, 2)).double().cpu().numpy()
    radii = band_frequencies(volume.shape, (1, 1, 1), (1, 1, 1))
    unexamined = UNFILTERED, 1.0, 0.0
    found = [_along_axis(_line(power, radii, axis), radii[axis]) if axis in axes else unexamined for axis in range(3)]
    scan = Acquisition(*zip(*found, strict=True), elliptical=False)
    return scan._replace(elliptical=_corners_are_empty(power, radii, scan))


def filled_band(volume: Tensor, axes: Sequence[int] = (0, 1, 2)) -> list[float | None]:
    """The share of the band that k-space fills along each axis: below 1 when the stored matrix was interpolated.

    Args:
        volume: ``(H, W, D)``, in any units.
        axes: the axes to examine.

    Returns:
        the share, to a single frequency; None along the other axes, and along an axis of fewer than 32 voxels.

    Example:
        >>> from scripts.physics.kspace import zero_fill
        >>> filled_band(zero_fill(torch.rand(48, 64, 64), [64], [0]), axes=[0])
        [0.75, None, None]
    """
    usable = [axis for axis in axes if volume.shape[axis] >= 4 * RECOGNITION.fewest_bins]
    if not usable:
        return [None] * 3
    power = power_spectrum(volume, (0, 1, 2)).double().cpu().numpy()
    radii = band_frequencies(volume.shape, (1, 1, 1), (1, 1, 1))
    return [_end_of_band(_line(power, radii, axis), radii[axis]) if axis in usable else None for axis in range(3)]


def _end_of_band(line: np.ndarray, radius: np.ndarray) -> float:
    """The share of the band that k-space fills, to a single frequency; 1 where it does not end as by zero-filling."""
    edges, level = _profile(line, radius)
    end = _cliff(edges, level)
    if end == len(level):
        return 1.0
    steps = np.unique(radius)
    line = np.array([line[radius == one].mean() for one in steps])
    halfway = 10 ** ((level[end - 1] + level[end + 1 :].max()) / 20)  # in dB, between both sides of the cliff
    last = int(np.flatnonzero(line > halfway).max()) - 1  # the window widens k-space by one frequency
    earlier, before, after = (
        10 * np.log10(line[max(0, last + first) : max(1, last + first + 3)].mean() + 1e-30) for first in (-7, -2, 3)
    )
    drop = before - after
    # where the power fell half as steeply before, it is that of a smooth subject, down to its noise
    return float(steps[last]) if drop > RECOGNITION.sharpness and drop > 2 * (earlier - before) else 1.0


def _line(power: np.ndarray, radii: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """The power along an axis, in a tube around it."""
    narrow = [np.flatnonzero(r < RECOGNITION.tube_radius) for r in radii]
    tube = [np.arange(len(r)) if other == axis else narrow[other] for other, r in enumerate(radii)]
    return power[np.ix_(*tube)].mean(tuple(other for other in range(3) if other != axis))


def _profile(line: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the bins along an axis, and the power in dB in each bin, from the power along it."""
    bins = min(RECOGNITION.most_bins, len(np.unique(radius)) // 2)
    index = np.minimum((radius * bins).astype(int), bins - 1)
    level = np.bincount(index, line, bins) / np.bincount(index, minlength=bins)
    return np.linspace(0, 1, bins + 1), 10 * np.log10(np.maximum(level, 1e-30))


def _along_axis(line: np.ndarray, radius: np.ndarray) -> tuple[Filter | None, float, float]:
    """The filter along an axis, the share of the band that is filled, and the misfit, from the power along it."""
    edges, level = _profile(line, radius)
    end = _cliff(edges, level) if _end_of_band(line, radius) < 1 else len(level)
    kept = np.flatnonzero(edges[:end] >= RECOGNITION.lowest_frequency)
    misfits = {one: _misfit(one, edges[kept], edges[1], edges[end], level[kept]) for one in RECOGNISED}
    explained = [one for one, misfit in misfits.items() if misfit < RECOGNITION.largest_misfit]
    if not explained:
        return None, float(edges[end]), min(misfits.values())
    best = min(explained, key=lambda one: misfits[one] + RECOGNITION.evidence_per_part * RECOGNISED[one])
    return best, float(edges[end]), misfits[best]


def _cliff(edges: np.ndarray, level: np.ndarray) -> int:
    """The first bin that is not wholly within k-space; the number of bins when all are."""
    for i in range(len(level) - 2):
        if edges[i] >= RECOGNITION.earliest_cliff and level[i + 2 :].max() < level[i] - RECOGNITION.cliff:
            return i + 1
    return len(level)


def _misfit(one: Filter, starts: np.ndarray, width: float, cutoff: float, level: np.ndarray) -> float:
    """The rms difference in dB between the power in bins and the filtered law, at the best slope and floor."""
    slopes, floors = np.array(RECOGNITION.slopes), np.array(RECOGNITION.noise_floors)
    fine = (starts[:, None] + width * (np.arange(8) + 0.5) / 8) / cutoff
    transfer = 10 * np.log10(np.mean(np.maximum(one.at(np.minimum(fine, 1)), 1e-3) ** 2, axis=1))
    law = (starts + width / 2)[None] ** (-slopes[:, None] / 10)
    expected = 10 * np.log10(law[:, None] + floors[:, None]) + transfer
    residual = level - expected
    residual = residual - np.median(residual, axis=-1, keepdims=True)
    prior = ((slopes - RECOGNITION.usual_slope) / RECOGNITION.slope_spread) ** 2 / len(level)
    return float(np.sqrt((residual**2).mean(-1) + prior[:, None]).min())


def _corners_are_empty(power: np.ndarray, radii: Sequence[np.ndarray], scan: Acquisition) -> bool:
    """Compare the power just beyond the ellipsoid with the power just within, both without the filters."""
    scaled = [r / cut for r, cut in zip(radii, scan.cutoffs, strict=True)]
    curves = [(one or UNFILTERED).at(np.minimum(r, 1)) ** 2 for one, r in zip(scan.filters, scaled, strict=True)]
    free = power / np.einsum("i,j,k->ijk", *curves)
    radius = np.sqrt(sum(np.ix_(*(r**2 for r in scaled))))
    filled = np.einsum("i,j,k->ijk", *(r < 0.95 for r in scaled))
    within, beyond = (free[filled & (radius >= a) & (radius < b)].mean() for a, b in ((0.8, 0.95), (1.1, 1.35)))
    return bool(beyond < within * 10 ** (-RECOGNITION.corner_deficit / 10))
