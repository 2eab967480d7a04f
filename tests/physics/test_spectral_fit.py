"""Spectral fit: the fit finds an exact model again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripts.physics.filters import UNFILTERED, Filter
from scripts.physics.spectral_fit import (
    CANDIDATES,
    Bins,
    Fit,
    fit_curves,
    fit_families,
    fit_gain_and_noise,
    log_amplitude,
    model_residual,
)

EDGES = np.stack([np.linspace(0, 0.9, 13)] * 3)
HAMMING, TUKEY = Filter("hamming"), Filter("tukey", (0.5,))


def bins(filters=(UNFILTERED, HAMMING, TUKEY), gain=0.8, noise=0.1, filtered=False) -> Bins:
    """Power as the model predicts it, of a volume whose whitened power falls with the frequency."""
    first, second, third = (2 * log_amplitude(one, edges) for one, edges in zip(filters, EDGES, strict=True))
    transfer = first[:, None, None] + second[:, None] + third
    white = np.full(transfer.shape, -1.0)
    high = -sum(np.indices(transfer.shape)) / 6  # otherwise gain and filtered noise have one spectrum
    level = 2 * math.log(noise) + white + transfer * filtered
    low = np.logaddexp(transfer + 2 * math.log(gain) + high, level)
    return Bins(low, high, white, np.full(low.shape, 25.0))


def test_the_estimator_chooses_among_what_it_always_chose():
    """A new filter in the registry does not change what the estimator finds."""
    families = [one.family for one in CANDIDATES]
    counts = {family: families.count(family) for family in dict.fromkeys(families)}
    assert counts == {
        "box": 1,
        "hamming": 1,
        "tukey": 19,
        "gaussian": 45,
        "partial_fourier": 7,
        "partial_fourier_hamming": 7,
    }


@pytest.mark.parametrize("filtered", [False, True])
def test_gain_and_noise_of_the_true_transfer_are_found(filtered):
    transfer = [log_amplitude(one, edges) for one, edges in zip((UNFILTERED, HAMMING, TUKEY), EDGES, strict=True)]
    values, costs = fit_gain_and_noise(bins(filtered=filtered), [transfer], filtered)
    assert np.exp(values[0]) == pytest.approx([0.8, 0.1], rel=0.02)
    assert costs[0] < 1e-3


def test_the_families_are_found_along_their_axes():
    fit, families = fit_families(bins(), EDGES, filtered=False)
    assert [one.family for one in families] == ["box", "hamming", "tukey"]
    assert families[2].parameters == pytest.approx((0.5,))
    assert np.abs(model_residual(bins(), fit, filtered=False)).max() < 0.1


def test_free_curves_follow_what_no_family_has():
    fit, _ = fit_families(bins(noise=1e-3), EDGES, filtered=False)
    start = fit._replace(curves=np.zeros_like(fit.curves))
    free: Fit = fit_curves(bins(noise=1e-3), start, EDGES, filtered=False)
    assert np.abs(free.curves[1] - log_amplitude(HAMMING, EDGES[1])).max() < 0.1
    assert free.cost < fit_gain_and_noise(bins(noise=1e-3), [start.curves], filtered=False)[1][0]
