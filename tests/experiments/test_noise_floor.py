"""The most that noise allows, on volumes of which it is known."""

from __future__ import annotations

import pytest
import torch
from scripts.physics.kspace import truncate, zero_fill

from experiments.studies.noise_floor import limits, noise_beyond, noise_power


def test_the_power_of_white_noise_is_its_variance():
    noise = 0.3 * torch.randn((40, 44, 48), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert noise_power(noise) == pytest.approx(0.09, rel=0.1)


def test_zero_filling_reaches_the_limit_when_there_is_nothing_but_noise_to_restore():
    smooth = zero_fill(torch.rand((10, 10, 10), dtype=torch.float64), [40, 40, 40], (0, 1, 2)).abs()
    smooth = zero_fill(truncate(smooth, [12, 12, 12], (0, 1, 2)), [40, 40, 40], (0, 1, 2))
    noise = 0.01 * torch.randn(smooth.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = limits(smooth + noise)
    assert found["zero_filling"] == pytest.approx(found["limit"], abs=0.3)
    assert limits(smooth + noise / 10)["limit"] == pytest.approx(found["limit"] + 20, abs=1)


def test_other_noise_lies_beyond_the_band_and_where_the_scan_was_not_masked():
    volume = 0.3 * torch.randn((40, 44, 48), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    volume[:, :22] = 0
    noise = noise_beyond(volume, noise_power(volume))
    assert float(noise.square().mean()) == pytest.approx(7 / 8 * noise_power(volume), rel=0.1)
    assert float(truncate(noise, [20, 22, 24], (0, 1, 2)).abs().max()) < 1e-12
    assert float(noise[:, 22:].square().mean()) > 10 * float(noise[:, :22].square().mean())
