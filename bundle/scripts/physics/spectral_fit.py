r"""Spectral fit: the transfer, gain and noise that explain one group's power by another's.

The model is $P_x(k) = g^2 \prod_a h_a(k_a)^2 P_y(k) + \sigma^2$, see :mod:`scripts.physics.estimation`. The bins cover
an octant of spatial frequencies. Each fit minimises the residual of log power by Gauss-Newton steps. Three fits exist:
gain and noise of given transfers, the best family of filters, and free curves that start at a family.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scripts.physics.filters import UNFILTERED, Filter

__all__ = [
    "CANDIDATES",
    "ESTIMATOR",
    "Bins",
    "EstimatorSettings",
    "Fit",
    "fit_curves",
    "fit_families",
    "fit_gain_and_noise",
    "log_amplitude",
    "model_residual",
]


@dataclass(frozen=True)
class EstimatorSettings:
    """The tuned numbers of the estimator.

    Unless a comment gives another source, they were set on generated subjects with known degradations. They were then
    checked on known degradations of four real T1w scans, see experiments/studies/known_degradations.py.
    """

    # spectra
    most_bins: int = 12  # along each axis of the octant of spatial frequencies
    leaking_frequencies: int = 2  # outermost ones of the low-resolution scans, which the Hann window mixes with others
    model_error: float = 0.2  # standard deviation of a log power ratio from bin to bin
    spread_of_a_single_scan: float = 0.25  # log amplitude at the edge by which subjects differ, for a group of one

    # fits
    flat_share: float = 0.35  # of the band, in which a transfer is taken for a parabola
    parameter_penalty: float = 0.05  # relative cost of a family with a parameter
    curve_stiffness: float = 10.0  # weight that holds free curves to their family
    negligible_noise: float = math.log(1e-6)  # log of a noise that counts as none

    # noise: a cost is a mean squared residual, and evidence is the relative decrease of the cost
    minimum_noise_evidence: float = 0.05  # noise of 0.025 lowers it by 8 to 22 %, no noise by 1 to 3 % (commit e0fe4ac)
    minimum_filtered_noise_evidence: float = 0.1  # of filtered over white noise
    minimum_free_noise_evidence: float = 0.2  # of free noise over the families' noise, when curves are free as well
    largest_family_cost: float = 1.4  # times the cost of free curves, above which families do not determine the noise

    # families
    tolerance: float = 0.03  # amplitude by which a family may miss the measured curve beyond its standard error
    largest_misfit: float = 1.3  # in units of that tolerance; above it the measured curve itself is used
    # in four real T1w scans, curves stay within 1.5 standard errors of the true family, and are smooth (commit 5cb7fe7)
    largest_deviation: float = 2.0  # standard errors within which a curve still has a family without a parameter
    largest_roughness: float = 0.1  # rms log amplitude beyond one deviation along the axis; a step has at least 0.13

    # sampling
    corner_deficit: float = 12.0  # dB missing beyond the ellipsoid when the corners are empty


ESTIMATOR = EstimatorSettings()
# the filters that the estimator may choose, in this order
CANDIDATES = (
    UNFILTERED,
    Filter("hamming"),
    *(Filter("tukey", (float(taper),)) for taper in np.arange(0.1, 1.001, 0.05)),
    *(Filter("gaussian", (float(fwhm),)) for fwhm in np.arange(0.3, 2.501, 0.05)),
    *(Filter("partial_fourier", (sixteenths / 16,)) for sixteenths in range(9, 16)),
    *(Filter("partial_fourier_hamming", (sixteenths / 16,)) for sixteenths in range(9, 16)),
)


class Bins(NamedTuple):
    """The measured power that a fit explains, each field ``(B, B, B)``.

    Args:
        low: mean log power of the low-resolution group.
        high: mean log power of the high-resolution group.
        white: log power of white noise of variance 1.
        weights: of the bins; 0 for a bin that is not used.
    """

    low: np.ndarray
    high: np.ndarray
    white: np.ndarray
    weights: np.ndarray


class Fit(NamedTuple):
    """A fitted model.

    Args:
        gain: its logarithm.
        noise: logarithm of the standard deviation.
        curves: log amplitude along the axes, ``(3, B)``.
        cost: weighted mean of the squared residuals.
    """

    gain: float
    noise: float
    curves: np.ndarray
    cost: float


def log_amplitude(one: Filter, edges: np.ndarray) -> np.ndarray:
    """Log amplitude of a filter in the bins of one axis, from its mean power over each bin.

    Example:
        >>> log_amplitude(Filter("hamming"), np.array([0.0, 0.5, 1.0])).round(2).tolist()
        [-0.17, -1.26]
    """
    u = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(16) + 0.5) / 16
    return 0.5 * np.log(np.mean(np.maximum(one.at(u), 1e-3) ** 2, axis=1))


def fit_gain_and_noise(
    bins: Bins, transfers: Sequence[Sequence[np.ndarray]], filtered: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fit gain and noise to given transfers.

    Args:
        bins: the measured power.
        transfers: log amplitudes along the axes, ``(3, B)`` for each candidate.
        filtered: whether the noise passes the transfer.

    Returns:
        gain and noise as logarithms, ``(candidates, 2)``, and the cost of each candidate.

    Example:
        >>> high = -np.indices((4, 4, 4)).sum(0)
        >>> bins = Bins(low=high - 2.0, high=high, white=np.full((4, 4, 4), -20.0), weights=np.ones((4, 4, 4)))
        >>> values, costs = fit_gain_and_noise(bins, [np.zeros((3, 4))], filtered=False)
        >>> round(float(values[0, 0]), 2)
        -1.0
    """
    curves = np.stack([_octant_power(transfer) for transfer in transfers])
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


def fit_families(bins: Bins, edges: np.ndarray, filtered: bool) -> tuple[Fit, list[Filter]]:
    """Find the best common candidate for all axes. Then find the best for each axis, until nothing changes.

    Args:
        bins: the measured power.
        edges: of the bins along each axis, ``(3, B + 1)``.
        filtered: whether the noise passes the transfer.
    """
    # a blur precedes the receiver, so it cannot filter the receiver's noise
    candidates = [one for one in CANDIDATES if not (filtered and one.family == "gaussian")]
    amplitudes = [[log_amplitude(one, axis_edges) for one in candidates] for axis_edges in edges]
    penalties = np.array([1 + ESTIMATOR.parameter_penalty * bool(one.parameters) for one in candidates])

    def search(choices: list[tuple[int, int, int]]) -> tuple[int, np.ndarray, np.ndarray]:
        transfers = [[amplitudes[axis][i] for axis, i in enumerate(choice)] for choice in choices]
        values, costs = fit_gain_and_noise(bins, transfers, filtered)
        return int(np.argmin(costs * penalties)), values, costs

    best, values, costs = search([(i, i, i) for i in range(len(candidates))])
    chosen = [best] * 3
    for _ in range(4):
        before = list(chosen)
        for axis in range(3):
            others = [(*chosen[:axis], i, *chosen[axis + 1 :]) for i in range(len(candidates))]
            chosen[axis], values, costs = search(others)
        if chosen == before:
            break
    curves = np.stack([amplitudes[axis][i] for axis, i in enumerate(chosen)])
    fit = Fit(*map(float, values[chosen[2]]), curves, float(costs[chosen[2]]))
    return fit, [candidates[i] for i in chosen]


def fit_curves(bins: Bins, start: Fit, edges: np.ndarray, filtered: bool, hold_noise: bool = True) -> Fit:
    """Fit free curves, which depart from those of a family only as far as the scans demand.

    Args:
        bins: the measured power.
        start: the fit of the family.
        edges: of the bins along each axis, ``(3, B + 1)``.
        filtered: whether the noise passes the transfer.
        hold_noise: whether the noise stays that of ``start``.
    """
    shape, count = bins.low.shape, bins.low.shape[0]
    used = (bins.weights > 0).ravel()
    low, high, white, weights = (values.ravel()[used] for values in bins)
    rows = np.arange(math.prod(shape))
    curve = np.zeros((len(rows), 3 * count + 2))
    for axis, index in enumerate(np.indices(shape).reshape(3, -1)):
        curve[rows, axis * count + index] = 2.0
    curve = curve[used]
    values = np.concatenate([start.curves.ravel(), [start.gain, start.noise]])
    prior = np.diag([*np.full(3 * count, ESTIMATOR.curve_stiffness), 1e-3, 1e6 if hold_noise else 1e-3])
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


def model_residual(bins: Bins, fit: Fit, filtered: bool) -> np.ndarray:
    """Measured minus modelled log power, ``(B, B, B)``."""
    along = _octant_power(fit.curves)
    signal, noise = along + 2 * fit.gain + bins.high, 2 * fit.noise + bins.white + along * filtered
    return bins.low - np.logaddexp(signal, noise)


def _octant_power(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Log power transfer on the octant, from the log amplitudes along the axes."""
    return 2 * (curves[0][:, None, None] + curves[1][:, None] + curves[2])


def _residual(low: np.ndarray, signal: np.ndarray, noise: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Residual, share of the noise, and weights that make single odd bins harmless."""
    residual = low - np.logaddexp(signal, noise)
    share = 1 / (1 + np.exp(np.clip(signal - noise, -50, 50)))
    return residual, share, weights / np.sqrt(1 + residual**2 * weights)


def _anchored(values: np.ndarray, edges: np.ndarray, filtered: bool, cost: float) -> Fit:
    """Move the curves' value at frequency 0 into the gain; a parabola through their first bins gives that value."""
    curves, (gain, noise) = values[:-2].reshape(3, -1).copy(), values[-2:]
    for curve, centres in zip(curves, 0.5 * (edges[:, 1:] + edges[:, :-1]), strict=True):
        start = centres <= max(ESTIMATOR.flat_share, centres[2])
        offset = np.polyfit(centres[start] ** 2, curve[start], 1)[1]
        curve -= offset
        gain += offset
        noise += offset * filtered
    return Fit(float(gain), float(noise), curves, cost)
