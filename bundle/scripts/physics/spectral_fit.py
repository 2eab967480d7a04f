r"""Degradation from unpaired spectra: what turns one group of scans into another, told by their power alone.

The groups show different people, whose spectra are nevertheless much alike. With the power $P_y$ of the high-resolution
and $P_x$ of the low-resolution group at the same physical frequency $k$, inside the band that the latter acquired,

$$P_x(k) = g^2 \prod_a h_a(k_a)^2 P_y(k) + \sigma^2$$

holds on average. The transfer $h_a$ along each axis, the gain $g$ and the noise $\sigma$ are fitted to the logarithms.
Power knows no phase: a shift is invisible, and so is all that would leave the power as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from scripts.physics.degradation import EMPIRICAL, Degradation, Transfer
from scripts.physics.filters import FAMILIES
from scripts.physics.spectra import GroupSpectra, measure_group

__all__ = ["estimate_degradation"]


BINS = 12  # along each axis of the octant of spatial frequencies
LEAKAGE = 2  # outermost frequencies of the low-resolution scans, which the Hann window mixes with the other end
MODEL_ERROR = 0.2  # of a log power ratio, from bin to bin
SUBJECT_SPREAD = 0.25  # log amplitude at the edge by which people differ, for a group of one, which cannot tell
FLAT = 0.35  # of the band, where a transfer is a parabola
PENALTY = 0.05  # of the cost, for a family with a parameter
FILTERED = 0.9  # of the cost that must remain for filtered noise to be preferred
PLAUSIBLE = 1.4  # times the cost of free curves, beyond which families say nothing about the noise
UNLIKE = 0.8  # of the cost with the families' noise, below which that noise is as wrong as they
STIFFNESS = 10.0  # of free curves towards a family
TOLERANCE = 0.03  # amplitude by which a family may miss the measured curve beyond its standard error
LARGEST_MISFIT = 1.3  # of these, beyond which the measured curve itself is used
DISTINCT = 2.0  # standard errors, beyond which a curve is not that of a simpler family
SMOOTH = 0.1  # rms of log amplitude by which people depart from one deviation along the axis; a step is 0.13 at least
CORNER_DEFICIT = 12.0  # dB missing beyond the ellipsoid
HEARD = 0.95  # of the cost without noise that must remain for noise to be there: people's spectra differ by as little
NO_NOISE = math.log(1e-6)


def _trimmed_mean(levels: np.ndarray) -> np.ndarray:
    """Mean over the scans without the highest and lowest quarter: one odd scan among four changes little."""
    cut = len(levels) // 4
    return np.sort(levels, axis=0)[cut : len(levels) - cut].mean(0)


# Fit


class _Bins(NamedTuple):
    """What is fitted: mean log power of both groups, level of noise, and weights of the bins, each ``(B, B, B)``."""

    low: np.ndarray
    high: np.ndarray
    white: np.ndarray
    weights: np.ndarray


class _Fit(NamedTuple):
    gain: float  # log
    noise: float  # log of the standard deviation
    curves: np.ndarray  # (3, B) log amplitude
    cost: float


def _in_bins(name: str, parameter: float, edges: np.ndarray) -> np.ndarray:
    """Log amplitude of a family in the bins of one axis, the mean of its power over each."""
    u = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(16) + 0.5) / 16
    return 0.5 * np.log(np.mean(np.maximum(FAMILIES[name][0](u, parameter), 1e-3) ** 2, axis=1))


def _candidates(edges: np.ndarray, filtered: bool) -> list[tuple[str, float, np.ndarray]]:
    """Name, parameter and log amplitude in the bins of one axis, of every family."""
    return [
        (name, float(parameter), _in_bins(name, parameter, edges))
        for name, (_, parameters) in FAMILIES.items()
        for parameter in parameters
        if not (filtered and name == "gaussian")  # a blur comes before the receiver and its noise
    ]


def _levels(bins: _Bins, curves: np.ndarray, filtered: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gain and noise, as logarithms, that suit given transfers, and the cost of each.

    Args:
        bins: see there.
        curves: ``(C, B, B, B)``, log power transfer of each candidate.
        filtered: whether the noise passes the transfer.
    """
    used = bins.weights > 0
    low, high, white, weights = (values[used] for values in bins)
    signal, noise = curves[:, used] + high, white + curves[:, used] * filtered
    values = np.stack([np.median(low - signal, 1), (low - noise).min(1) - 1.0], 1)
    for _ in range(20):
        residual, share, robust = _residual(low, signal + values[:, :1], noise + values[:, 1:], weights)
        jacobian = np.stack([1 - share, share], 1)
        normal = np.einsum("cib,cb,cjb->cij", jacobian, robust, jacobian) + 1e-3 * np.eye(2)
        step = np.linalg.solve(normal, np.einsum("cib,cb->ci", jacobian, robust * residual)[..., None])[..., 0]
        values = values + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-3:
            break
    residual, _, robust = _residual(low, signal + values[:, :1], noise + values[:, 1:], weights)
    return 0.5 * values, (robust * residual**2).mean(1)


def _residual(low: np.ndarray, signal: np.ndarray, noise: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Residual, share of the noise, and weights with which single odd bins are harmless."""
    residual = low - np.logaddexp(signal, noise)
    share = 1 / (1 + np.exp(np.clip(signal - noise, -50, 50)))
    return residual, share, weights / np.sqrt(1 + residual**2 * weights)


def _octant_power(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Log power transfer on the octant of log amplitudes along the axes."""
    return 2 * (curves[0][:, None, None] + curves[1][:, None] + curves[2])


def _fit_families(bins: _Bins, edges: np.ndarray, filtered: bool) -> tuple[_Fit, list[tuple[str, float]]]:
    """The best family for all axes alike, then axis by axis until nothing changes."""
    candidates = [_candidates(one, filtered) for one in edges]
    count = len(candidates[0])
    worse = np.array([1 + PENALTY * (not math.isnan(parameter)) for _, parameter, _ in candidates[0]])

    def search(choices: list[tuple[int, int, int]]) -> tuple[int, np.ndarray, np.ndarray]:
        curves = [_octant_power([candidates[a][i][2] for a, i in enumerate(choice)]) for choice in choices]
        values, costs = _levels(bins, np.stack(curves), filtered)
        return int(np.argmin(costs * worse)), values, costs

    best, values, costs = search([(i, i, i) for i in range(count)])
    chosen = [best] * 3
    for _ in range(4):
        before = list(chosen)
        for axis in range(3):
            chosen[axis], values, costs = search([(*chosen[:axis], i, *chosen[axis + 1 :]) for i in range(count)])
        if chosen == before:
            break
    picked = [candidates[a][i] for a, i in enumerate(chosen)]
    fit = _Fit(*map(float, values[chosen[2]]), np.stack([curve for *_, curve in picked]), float(costs[chosen[2]]))
    return fit, [(name, parameter) for name, parameter, _ in picked]


def _fit_curves(bins: _Bins, start: _Fit, edges: np.ndarray, filtered: bool, hold_noise: bool = True) -> _Fit:
    """Free curves, by Gauss-Newton from those of families, from which they depart only as far as the scans demand."""
    shape, count = bins.low.shape, bins.low.shape[0]
    used = (bins.weights > 0).ravel()
    low, high, white, weights = (values.ravel()[used] for values in bins)
    rows = np.arange(math.prod(shape))
    curve = np.zeros((len(rows), 3 * count + 2))
    for axis, index in enumerate(np.indices(shape).reshape(3, -1)):
        curve[rows, axis * count + index] = 2.0
    curve = curve[used]
    values = np.concatenate([start.curves.ravel(), [start.gain, start.noise]])
    prior = np.diag([*np.full(3 * count, STIFFNESS), 1e-3, 1e6 if hold_noise else 1e-3])
    first = values.copy()
    for _ in range(20):
        along = curve @ values
        signal, noise = along + 2 * values[-2] + high, 2 * values[-1] + white + (along if filtered else 0.0)
        residual, share, robust = _residual(low, signal, noise, weights)
        jacobian = (1 - share * (not filtered))[:, None] * curve
        jacobian[:, -2], jacobian[:, -1] = 2 * (1 - share), 2 * share
        normal = (jacobian * robust[:, None]).T @ jacobian + prior
        step = np.linalg.solve(normal, jacobian.T @ (robust * residual) - prior @ (values - first))
        values = values + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    return _anchored(values, edges, filtered, float((robust * residual**2).mean()))


def _anchored(values: np.ndarray, edges: np.ndarray, filtered: bool, cost: float) -> _Fit:
    """Move what the curves have at frequency 0, by a parabola through their beginnings, into the gain."""
    curves, (gain, noise) = values[:-2].reshape(3, -1).copy(), values[-2:]
    for curve, centres in zip(curves, 0.5 * (edges[:, 1:] + edges[:, :-1]), strict=True):
        start = centres <= max(FLAT, centres[2])
        offset = np.polyfit(centres[start] ** 2, curve[start], 1)[1]
        curve -= offset
        gain += offset
        noise += offset * filtered
    return _Fit(float(gain), float(noise), curves, cost)


# Estimate


def estimate_degradation(
    low_res: Sequence[Tensor],
    high_res: Sequence[Tensor],
    low_res_spacings: Sequence[Sequence[float]],
    high_res_spacings: Sequence[Sequence[float]],
) -> Degradation:
    """Estimate what turns one group of scans into another, nobody being in both.

    Args:
        low_res: volumes ``(H, W, D)`` of the target group in the canonical frame, on the common intensity scale.
        high_res: volumes of the source group, likewise.
        low_res_spacings: mm per voxel of each.
        high_res_spacings: mm per voxel of each.

    Raises:
        ValueError: when a group is empty, or a scan has too few voxels for a spectrum.
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
    if not elliptical:  # the corners tell as well
        bins = _bins(low, high, low.inside >= 0)
        model = _fit_model(bins, edges)
    fit, families, free, filtered = _silenced(bins, model, edges)
    std, spreads = _uncertainty(low, high, bins.weights > 0, fit, free, edges, filtered)
    transfers = tuple(_transfer(*axis) for axis in zip(edges, free.curves, std, families, strict=True))
    residual, noisy = _model_residual(bins, free, filtered), fit.noise > NO_NOISE
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


def _edges(low_res: Sequence[Tensor]) -> np.ndarray:
    smallest = np.min([volume.shape for volume in low_res], axis=0)
    if smallest.min() < 4 * LEAKAGE:
        raise ValueError(f"scans must have at least {4 * LEAKAGE} voxels along each axis, got {smallest.tolist()}.")
    count = max(4, min(BINS, int(smallest.min()) // 4))
    return np.stack([np.linspace(0, 1 - 2 * LEAKAGE / n, count + 1) for n in smallest])


def _bins(low: GroupSpectra, high: GroupSpectra, used: np.ndarray) -> _Bins:
    speckle = sum(1 / (group.samples * len(group.levels)) for group in (low, high))
    weights = np.where(used, 1 / (MODEL_ERROR**2 + speckle), 0.0)
    return _Bins(_trimmed_mean(low.levels), _trimmed_mean(high.levels), low.noise, weights)


class _Model(NamedTuple):
    fit: _Fit  # of families
    families: list[tuple[str, float]]
    free: _Fit  # of curves
    filtered: bool


def _fit_model(bins: _Bins, edges: np.ndarray) -> _Model:
    """Families and free curves, with noise as families tell it: a free curve's tail would be taken for noise."""
    white, passed = (_fit_with_noise(bins, edges, filtered) for filtered in (False, True))
    if passed.fit.cost < FILTERED * white.fit.cost and passed.fit.cost < PLAUSIBLE * passed.free.cost:
        return passed
    loose = _fit_curves(bins, white.fit, edges, filtered=False, hold_noise=False)
    return white._replace(fit=loose, free=loose) if loose.cost < UNLIKE * white.free.cost else white


def _fit_with_noise(bins: _Bins, edges: np.ndarray, filtered: bool) -> _Model:
    fit, families = _fit_families(bins, edges, filtered)
    return _Model(fit, families, _fit_curves(bins, fit, edges, filtered), filtered)


def _silenced(bins: _Bins, model: _Model, edges: np.ndarray) -> _Model:
    """The model without noise where noise explains hardly more than free curves do by themselves."""
    silent = model.fit._replace(noise=NO_NOISE)
    free = _fit_curves(bins, silent, edges, filtered=False)
    if model.free.cost < HEARD * free.cost:
        return model
    return _Model(silent, model.families, free, filtered=False)


def _model_residual(bins: _Bins, fit: _Fit, filtered: bool) -> np.ndarray:
    along = _octant_power(fit.curves)
    signal, noise = along + 2 * fit.gain + bins.high, 2 * fit.noise + bins.white + along * filtered
    return bins.low - np.logaddexp(signal, noise)


def _corners_are_missing(low: GroupSpectra, high: GroupSpectra, model: _Model) -> bool:
    outside = low.inside < 0.05
    deficit = _model_residual(_bins(low, high, outside), model.fit, model.filtered)[outside]
    return bool(np.median(deficit) < -CORNER_DEFICIT * math.log(10) / 10)


def _uncertainty(
    low: GroupSpectra, high: GroupSpectra, used: np.ndarray, fit: _Fit, free: _Fit, edges: np.ndarray, filtered: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the log curves (3, B), and of log gain and log noise, leaving out one scan after another."""
    variance, spread = np.zeros_like(free.curves), np.zeros(2)
    for group in (low, high):
        count = len(group.levels)
        if count == 1:
            variance += (SUBJECT_SPREAD * edges[:, 1:]) ** 2
            spread += np.array([SUBJECT_SPREAD, SUBJECT_SPREAD]) ** 2
            continue
        curves, values = [], []
        for out in range(count):
            kept = group._replace(levels=np.delete(group.levels, out, axis=0))
            bins = _bins(kept if group is low else low, kept if group is high else high, used)
            curves.append(_fit_curves(bins, fit, edges, filtered).curves)
            values.append(_levels(bins, _octant_power(fit.curves)[None], filtered)[0][0])
        variance += (count - 1) * np.var(curves, axis=0)
        spread += (count - 1) * np.var(values, axis=0)
    return np.sqrt(variance), np.sqrt(spread)


def _transfer(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, family: tuple[str, float]) -> Transfer:
    """The family's curve where it agrees with the measured one, else the latter, from frequency 0 to 1."""
    (name, parameter), centres = _simplest(edges, curve, std, family), 0.5 * (edges[1:] + edges[:-1])
    knots = np.concatenate([[0.0], centres, [1.0]])
    slope = min(0.0, (curve[-1] - curve[-2]) / (centres[-1] - centres[-2]))
    measured = np.exp(np.concatenate([[0.0], curve, [curve[-1] + slope * (1 - centres[-1])]]))
    misfit = _misfit(edges, curve, std, name, parameter)
    fine = np.linspace(0, 1, 65)  # a step survives the interpolation
    measured = np.interp(fine, knots, measured)
    if fits := misfit <= LARGEST_MISFIT:
        amplitude = FAMILIES[name][0](fine, parameter)
        spread = _spread_of_family(name, edges, curve, std, fine)
    else:
        amplitude = measured
        spread = np.interp(fine, knots, np.concatenate([[0.0], std, std[-1:]]))
    curves = (tuple(values.round(4).tolist()) for values in (fine, amplitude, spread, measured))
    return Transfer(
        *curves,
        family=name if fits else EMPIRICAL,
        parameter=round(parameter, 4) if fits and not math.isnan(parameter) else None,
        misfit=round(misfit, 3),
    )


def _misfit(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, name: str, parameter: float) -> float:
    """Rms difference of amplitude between a family and the measured curve, in what they may differ by."""
    expected = np.exp(_in_bins(name, parameter, edges))
    return math.sqrt(np.mean((np.exp(curve) - expected) ** 2 / ((expected * std) ** 2 + TOLERANCE**2)))


def _simplest(edges: np.ndarray, curve: np.ndarray, std: np.ndarray, family: tuple[str, float]) -> tuple[str, float]:
    """A family without a parameter instead, where the curve departs from it as people differ: smoothly, and little."""
    for name, (_, parameters) in FAMILIES.items():
        if math.isnan(parameters[0]):
            departure = curve - _in_bins(name, math.nan, edges)
            errors = (departure @ std) / max(std @ std, 1e-12)  # as one deviation along the whole axis
            rest = math.sqrt(np.mean((departure - errors * std) ** 2))
            fits = _misfit(edges, curve, std, name, math.nan) <= LARGEST_MISFIT
            if fits and abs(errors) <= DISTINCT and rest <= SMOOTH:
                return name, math.nan
    return family


def _spread_of_family(
    name: str, edges: np.ndarray, curve: np.ndarray, std: np.ndarray, frequencies: np.ndarray
) -> np.ndarray:
    """Standard error of a family's log amplitude: its parameter is fitted to the curve a standard error up and down."""
    function, parameters = FAMILIES[name]
    members = np.stack([_in_bins(name, parameter, edges) for parameter in parameters])
    ends = []
    for sign in (-1, 1):
        distance = np.mean((members - curve - sign * std) ** 2 / (std**2 + TOLERANCE**2), axis=1)
        ends.append(np.log(np.maximum(function(frequencies, parameters[np.argmin(distance)]), 1e-3)))
    return 0.5 * np.abs(ends[1] - ends[0])
