"""The most that noise allows, on volumes of which it is known."""

from __future__ import annotations

import pytest
import torch
from noise_floor import limits, noise_power
from scripts.kspace import truncate, zero_fill


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
