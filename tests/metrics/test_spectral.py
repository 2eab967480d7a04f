"""Spectral metrics: a transfer is measured, and groups of different sharpness differ."""

from __future__ import annotations

import pytest
import torch
from scripts import metrics
from scripts.physics.filters import acquisition_window
from scripts.physics.kspace import apodise, fftc, ifftc, truncate

SPATIAL = (1, 2, 3)


def noise(shape, seed=0):
    return torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_mtf_of_truncation_is_flat(axis):
    high_res = noise((64, 60, 72))
    frequencies, transfer = metrics.mtf(truncate(high_res, [32, 30, 36], SPATIAL), high_res, axis)
    assert len(frequencies) == high_res.shape[axis] // 4 - 2
    assert (transfer - 1).abs().max() < 0.01


def test_mtf_recovers_the_hamming_window():
    high_res = noise((64, 64, 64))
    window = acquisition_window([32] * 3, hamming=True)
    low_res = ifftc(apodise(fftc(truncate(high_res, [32] * 3, SPATIAL), SPATIAL), window, SPATIAL), SPATIAL).real
    frequencies, transfer = metrics.mtf(low_res, high_res, axis=2)
    expected = 0.54 + 0.46 * torch.cos(2 * torch.pi * frequencies)
    assert (transfer - expected).abs().max() < 0.05


def test_mtf_takes_slabs():
    high_res = torch.rand(4, 6, 128, 128, generator=torch.Generator().manual_seed(0))
    _, transfer = metrics.mtf(truncate(high_res, [3, 64, 64], (1, 2, 3)), high_res, axis=-1)
    assert (transfer - 1).abs().max() < 0.01


def test_spectral_distance_of_a_group_with_itself_is_zero_and_a_gain_of_two_is_six_decibels():
    group = [noise((16, 18, 20), seed) for seed in range(2)]
    assert metrics.spectral_distance(group, group).item() == 0
    assert metrics.spectral_distance(group, [2 * x for x in group]).item() == pytest.approx(6.0206, abs=1e-3)


def test_spectral_distance_compares_volumes_of_different_sizes_and_sees_blur():
    sharp, other = [noise((48, 48, 48))], [noise((40, 56, 44), seed=1)]
    window = acquisition_window([40, 56, 44], hamming=True)
    blurred = [ifftc(apodise(fftc(x, SPATIAL), window, SPATIAL), SPATIAL).real for x in other]
    assert metrics.spectral_distance(sharp, other) < 0.5
    assert metrics.spectral_distance(sharp, blurred) > 5


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="at least one image, got 0 and 1"):
        metrics.spectral_distance([], [torch.ones(1, 8, 8, 8)])
