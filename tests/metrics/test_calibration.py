"""Calibration of error bars: they hold on other voxels, in every bin, and grow with the scale."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts.metrics.calibration import ErrorCalibration, calibrate
from torch import Tensor


def drawn(seed: int, wrong: float = 1.0, count: int = 40_000) -> tuple[Tensor, Tensor]:
    """Scales, and errors of Laplace distributions whose scales follow a power of them."""
    torch.manual_seed(seed)
    scale = 10 ** (-3 + 2 * torch.rand(count))
    return scale, torch.distributions.Laplace(0.0, 1.0).sample((count,)).abs() * scale**wrong


@given(seed=st.integers(0, 1000), wrong=st.floats(0.4, 1.6), level=st.sampled_from([0.5, 0.8, 0.9]))
def test_the_intervals_hold_on_other_voxels_in_every_tenth_also_of_a_wrong_scale(seed, wrong, level):
    factors = calibrate(*drawn(seed, wrong), level=level)
    scale, error = drawn(seed + 1, wrong)
    inside = (error <= factors.half_width(scale))[scale.argsort()].double()
    assert abs(float(inside.mean()) - level) < 0.015
    assert max(abs(float(part.mean()) - level) for part in inside.tensor_split(10)) < 0.05


def test_the_factor_of_laplace_errors_is_that_of_the_distribution():
    factors = calibrate(*drawn(0, count=400_000))
    torch.testing.assert_close(torch.tensor(factors.factor), torch.full((20,), 2.3026), rtol=0.05, atol=0)  # log 10


@given(seed=st.integers(0, 1000))
def test_a_larger_scale_never_has_a_smaller_interval(seed):
    torch.manual_seed(seed)
    factors = calibrate(torch.rand(500) + 0.01, torch.rand(500))  # errors that do not follow the scale
    half = factors.half_width(torch.logspace(-4, 2, 1000))
    assert (half.diff() >= -1e-6 * half[1:]).all()


def test_the_half_width_keeps_the_shape_and_scales_beyond_the_bins():
    factors = ErrorCalibration([0.1, 0.2], [2.0, 3.0])
    scale = torch.tensor([[0.01, 10.0]], dtype=torch.float32)
    torch.testing.assert_close(factors.half_width(scale), torch.tensor([[0.02, 30.0]]))


def test_too_few_voxels_are_refused():
    with pytest.raises(ValueError, match="at least 200 voxels for 20 bins, got 5"):
        calibrate(torch.ones(5), torch.ones(5))
