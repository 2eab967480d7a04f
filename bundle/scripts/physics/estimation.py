r"""Estimation: the degradation that turns one group of scans into another, from unpaired spectra alone.

The groups show different subjects, whose spectra are nevertheless very similar. Let $P_y$ be the power of the
high-resolution and $P_x$ that of the low-resolution group at the same physical frequency $k$. Inside the band of the
low-resolution group,

$$P_x(k) = g^2 \prod_a h_a(k_a)^2 P_y(k) + \sigma^2$$

holds on average. The transfer $h_a$ along each axis, the gain $g$ and the noise $\sigma$ are fitted to the logarithms.
Power carries no phase. A shift, or anything else that keeps the power, is invisible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from scripts.physics.degradation import EMPIRICAL, Degradation, Transfer
from scripts.physics.filters import Filter
from scripts.physics.spectra import GroupSpectra, measure_group
from scripts.physics.spectral_fit import (
    CANDIDATES,
    ESTIMATOR,
    Bins,
    Fit,
    fit_curves,
    fit_families,
    fit_gain_and_noise,
    log_amplitude,
    model_residual,
)

__all__ = ["estimate_degradation", "transfer_from_curve"]


def estimate_degradation(
    low_res: Sequence[Tensor],
    high_res: Sequence[Tensor],
    low_res_spacings: Sequence[Sequence[float]],
    high_res_spacings: Sequence[Sequence[float]],
) -> Degradation:
    """Estimate the degradation that turns one group of scans into another. The groups need not share a subject.

    Args:
        low_res: volumes ``(H, W, D)`` of the low-resolution group in the canonical frame, on the common intensity
            scale.
        high_res: volumes of the high-resolution group, in the same frame and scale.
        low_res_spacings: mm per voxel of each low-resolution volume.
        high_res_spacings: mm per voxel of each high-resolution volume.

    Raises:
        ValueError: when a group is empty, or a low-resolution scan has fewer than 8 voxels along an axis.

    Example:
        >>> import torch
        >>> from scripts.physics.kspace import truncate
        >>> high_res = [torch.rand(32, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
        >>> low_res = [truncate(volume, (16, 16, 16), (0, 1, 2)) for volume in high_res]
        >>> estimate = estimate_degradation(low_res, high_res, [(2, 2, 2)] * 2, [(1, 1, 1)] * 2)
        >>> estimate.spacing, round(estimate.gain, 1)
        ((2.0, 2.0, 2.0), 1.0)
    """
    if not low_res or not high_res:
        raise ValueError(f"both groups must hold at least one scan, got {len(low_res)} and {len(high_res)}.")
    spacing = np.median(low_res_spacings, axis=0)
    edges = _edges(low_res)
    low = measure_group(low_res, low_res_spacings, spacing, edges)
    high = measure_group(high_res, high_res_spacings, spacing, edges)
    bins = _bins(low, high, low.inside > 0.99)
    model = _fit_model(bins, edges)
    elliptical = _corners_are_missing(low, high, model)
    if not elliptical:  # then the corners hold information as well
        bins = _bins(low, high, low.inside >= 0)
        model = _fit_model(bins, edges)
    fit, families, free, filtered = _without_needless_noise(bins, model, edges)
    std, spreads = _uncertainty(low, high, bins.weights > 0, fit, free, edges, filtered)
    transfers = tuple(transfer_from_curve(*axis) for axis in zip(edges, free.curves, std, families, strict=True))
    residual, noisy = model_residual(bins, free, filtered), fit.noise > ESTIMATOR.negligible_noise
    return Degradation(
        tuple(map(float, spacing)),
        transfers,
        elliptical,
        math.exp(fit.gain),
        float(spreads[0]),
        math.exp(fit.noise) if noisy else 0.0,
        float(min(spreads[1], 0.5)) if noisy else 0.0,
        filtered,
        float(10 / math.log(10) * np.sqrt(np.mean(residual[bins.weights > 0] ** 2))),
        (len(high_res), len(low_res)),
    )


# Bins of the octant of spatial frequencies


def _edges(low_res: Sequence[Tensor]) -> np.ndarray:
    smallest, leaking = np.min([volume.shape for volume in low_res], axis=0), ESTIMATOR.leaking_frequencies
    if smallest.min() < 4 * leaking:
        raise ValueError(f"scans must have at least {4 * leaking} voxels along each axis, got {smallest.tolist()}.")
    count = max(4, min(ESTIMATOR.most_bins, int(smallest.min()) // 4))
    return np.stack([np.linspace(0, 1 - 2 * leaking / n, count + 1) for n in smallest])


def _bins(low: GroupSpectra, high: GroupSpectra, used: np.ndarray) -> Bins:
    speckle = sum(1 / (group.samples * len(group.levels)) for group in (low, high))
    weights = np.where(used, 1 / (ESTIMATOR.model_error**2 + speckle), 0.0)
    return Bins(_trimmed_mean(low.levels), _trimmed_mean(high.levels), low.noise, weights)


def _trimmed_mean(levels: np.ndarray) -> np.ndarray:
    """Mean over the scans without the highest and lowest quarter, so that one odd scan among four changes little."""
    cut = len(levels) // 4
    return np.sort(levels, axis=0)[cut : len(levels) - cut].mean(0)


# Choice of the model


class _Model(NamedTuple):
    """A fit of families, these families, a fit of free curves, and whether the noise passes the transfer."""

    fit: Fit
    families: list[Filter]
    free: Fit
    filtered: bool


def _fit_model(bins: Bins, edges: np.ndarray) -> _Model:
    """Families and free curves. The families determine the noise: a free curve would fit its own tail to it."""
    white, passed = (_fit_with_noise(bins, edges, filtered) for filtered in (False, True))
    plausible = passed.fit.cost < ESTIMATOR.largest_family_cost * passed.free.cost
    if plausible and passed.fit.cost < (1 - ESTIMATOR.minimum_filtered_noise_evidence) * white.fit.cost:
        return passed
    loose = fit_curves(bins, white.fit, edges, filtered=False, hold_noise=False)
    if loose.cost < (1 - ESTIMATOR.minimum_free_noise_evidence) * white.free.cost:
        return white._replace(fit=loose, free=loose)
    return white


def _fit_with_noise(bins: Bins, edges: np.ndarray, filtered: bool) -> _Model:
    fit, families = fit_families(bins, edges, filtered)
    return _Model(fit, families, fit_curves(bins, fit, edges, filtered), filtered)


def _without_needless_noise(bins: Bins, model: _Model, edges: np.ndarray) -> _Model:
    """Drop the noise when free curves alone explain the power almost as well."""
    silent = model.fit._replace(noise=ESTIMATOR.negligible_noise)
    free = fit_curves(bins, silent, edges, filtered=False)
    if model.free.cost < (1 - ESTIMATOR.minimum_noise_evidence) * free.cost:
        return model
    return _Model(silent, model.families, free, filtered=False)


def _corners_are_missing(low: GroupSpectra, high: GroupSpectra, model: _Model) -> bool:
    outside = low.inside < 0.05
    deficit = model_residual(_bins(low, high, outside), model.fit, model.filtered)[outside]
    return bool(np.median(deficit) < -ESTIMATOR.corner_deficit * math.log(10) / 10)


def _uncertainty(
    low: GroupSpectra, high: GroupSpectra, used: np.ndarray, fit: Fit, free: Fit, edges: np.ndarray, filtered: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the log curves, ``(3, B)``, and of log gain and log noise, by leaving out each scan once."""
    variance, spread = np.zeros_like(free.curves), np.zeros(2)
    for group in (low, high):
        count = len(group.levels)
        if count == 1:
            variance += (ESTIMATOR.spread_of_a_single_scan * edges[:, 1:]) ** 2
            spread += np.full(2, ESTIMATOR.spread_of_a_single_scan) ** 2
            continue
        curves, values = [], []
        for out in range(count):
            kept = group._replace(levels=np.delete(group.levels, out, axis=0))
            bins = _bins(kept if group is low else low, kept if group is high else high, used)
            curves.append(fit_curves(bins, fit, edges, filtered).curves)
            values.append(fit_gain_and_noise(bins, [fit.curves], filtered)[0][0])
        variance += (count - 1) * np.var(curves, axis=0)
        spread += (count - 1) * np.var(values, axis=0)
    return np.sqrt(variance), np.sqrt(spread)


# From the measured curve to the transfer


def transfer_from_curve(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, family: Filter) -> Transfer:
    """The transfer from frequency 0 to 1: the family's where it agrees with the measured curve, else that curve.

    Args:
        edges: of the bins along the axis, ``(B + 1,)``.
        curve: measured log amplitude in the bins, ``(B,)``.
        std: its standard error.
        family: the best family.

    Example:
        >>> edges = np.linspace(0, 1, 9)
        >>> transfer = transfer_from_curve(edges, np.zeros(8), np.full(8, 0.01), Filter("box"))
        >>> transfer.family, transfer.misfit
        ('box', 0.0)
    """
    best, centres = _simplest(edges, curve, std, family), 0.5 * (edges[1:] + edges[:-1])
    knots = np.concatenate([[0.0], centres, [1.0]])
    slope = min(0.0, (curve[-1] - curve[-2]) / (centres[-1] - centres[-2]))
    measured = np.exp(np.concatenate([[0.0], curve, [curve[-1] + slope * (1 - centres[-1])]]))
    misfit = _misfit(edges, curve, std, best)
    fine = np.linspace(0, 1, 65)  # fine enough for a step to survive the interpolation
    measured = np.interp(fine, knots, measured)
    if fits := misfit <= ESTIMATOR.largest_misfit:
        amplitude, spread = best.at(fine), _spread_of_family(best.family, edges, curve, std, fine)
    else:
        amplitude, spread = measured, np.interp(fine, knots, np.concatenate([[0.0], std, std[-1:]]))
    return Transfer(
        *(tuple(values.round(4).tolist()) for values in (fine, amplitude, spread, measured)),
        family=best.family if fits else EMPIRICAL,
        parameter=round(best.parameters[0], 4) if fits and best.parameters else None,
        misfit=round(misfit, 3),
        detectable=1.0 if best.parameters or not fits else _detectable(edges, std, best),
    )


def _detectable(edges: np.ndarray, std: np.ndarray, one: Filter) -> float:
    """The amplitude at 1 that the strongest hidden blur leaves.

    Its measured curve departs from the family as subjects differ. These may have made that curve too high as well.
    """
    curve = log_amplitude(one, edges)
    deviations = np.linspace(0, ESTIMATOR.largest_deviation, 41)
    counted = max(d for d in deviations if _misfit(edges, curve - d * std, std, one) <= ESTIMATOR.largest_misfit)
    return round(math.exp(-(counted + ESTIMATOR.largest_deviation) * std[-1]), 3)


def _simplest(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, family: Filter) -> Filter:
    """Prefer a family without a parameter where the curve departs from it as subjects differ: smoothly, and little."""
    for one in CANDIDATES:
        if not one.parameters:
            departure = curve - log_amplitude(one, edges)
            deviation = (departure @ std) / max(std @ std, 1e-12)  # in standard errors, one value for the whole axis
            roughness = math.sqrt(np.mean((departure - deviation * std) ** 2))
            smooth = abs(deviation) <= ESTIMATOR.largest_deviation and roughness <= ESTIMATOR.largest_roughness
            if smooth and _misfit(edges, curve, std, one) <= ESTIMATOR.largest_misfit:
                return one
    return family


def _misfit(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, one: Filter) -> float:
    """Rms difference of amplitude between a family and the measured curve, in units of its tolerance."""
    expected = np.exp(log_amplitude(one, edges))
    return math.sqrt(np.mean((np.exp(curve) - expected) ** 2 / ((expected * std) ** 2 + ESTIMATOR.tolerance**2)))


def _spread_of_family(
    family: str, edges: np.ndarray, curve: np.ndarray, std: np.ndarray, frequencies: np.ndarray
) -> np.ndarray:
    """Standard error of a family's log amplitude, from its fits to the curve one standard error up and down."""
    members = [one for one in CANDIDATES if one.family == family]
    curves = np.stack([log_amplitude(one, edges) for one in members])
    ends = []
    for sign in (-1, 1):
        distance = np.mean((curves - curve - sign * std) ** 2 / (std**2 + ESTIMATOR.tolerance**2), axis=1)
        ends.append(np.log(np.maximum(members[np.argmin(distance)].at(frequencies), 1e-3)))
    return 0.5 * np.abs(ends[1] - ends[0])
