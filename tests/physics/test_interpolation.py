"""Cubic interpolation: Keys' weights, placed on the grid of k-space truncation."""

from __future__ import annotations

import pytest
import torch
from scripts.physics.interpolation import interpolate_cubic

EXACT = {"rtol": 0.0, "atol": 1e-12}


def delta(size: int, position: int) -> torch.Tensor:
    x = torch.zeros(size, dtype=torch.float64)
    x[position] = 1
    return x


@pytest.mark.parametrize("scale_factor", [1, 2, 3, 4])
def test_the_given_voxels_are_kept_at_multiples_of_the_factor(scale_factor):
    x = torch.randn(3, 9, dtype=torch.float64)
    y = interpolate_cubic(x, scale_factor, 1)
    assert y.shape == (3, 9 * scale_factor)
    assert torch.equal(y[:, ::scale_factor], x)


def test_half_way_between_voxels_the_weights_are_minus_1_9_9_minus_1_sixteenths():
    y = interpolate_cubic(delta(9, 4), 2, 0)
    expected = torch.tensor([-1, 0, 9, 16, 9, 0, -1], dtype=torch.float64) / 16
    torch.testing.assert_close(y[5:12], expected, **EXACT)


def test_centred_interpolation_has_the_weights_of_a_quarter():
    y = interpolate_cubic(delta(9, 4), 2, 0, centred=True)
    half = torch.tensor([-0.0234375, -0.0703125, 0.2265625, 0.8671875], dtype=torch.float64)
    torch.testing.assert_close(y[5:13], torch.cat([half, half.flip(0)]), **EXACT)


def test_centred_interpolation_commutes_with_flips_and_the_aligned_one_up_to_a_roll():
    x = torch.zeros(12, dtype=torch.float64)
    x[3:9] = torch.randn(6, dtype=torch.float64)
    centred = interpolate_cubic(x.flip(0), 2, 0, centred=True).flip(0)
    torch.testing.assert_close(centred, interpolate_cubic(x, 2, 0, centred=True), **EXACT)
    aligned = interpolate_cubic(x.flip(0), 2, 0).flip(0)
    torch.testing.assert_close(aligned.roll(-1), interpolate_cubic(x, 2, 0), **EXACT)


@pytest.mark.parametrize("scale_factor", [2, 3])
def test_quadratics_are_exact_inside_and_constants_everywhere(scale_factor):
    position = torch.arange(10, dtype=torch.float64)
    fine = torch.arange(10 * scale_factor, dtype=torch.float64) / scale_factor
    inside = slice(scale_factor, -2 * scale_factor)
    y = interpolate_cubic(0.5 * position**2 - position, scale_factor, 0)
    torch.testing.assert_close(y[inside], (0.5 * fine**2 - fine)[inside], **EXACT)
    constant = torch.full((10,), 0.7, dtype=torch.float64)
    for centred in (False, True):
        y = interpolate_cubic(constant, scale_factor, 0, centred=centred)
        torch.testing.assert_close(y, torch.full_like(y, 0.7), **EXACT)


def test_several_axes_are_interpolated_in_any_order():
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    jointly = interpolate_cubic(x, 2, (1, 2, 3))
    assert jointly.shape == (2, 8, 10, 12)
    torch.testing.assert_close(jointly, interpolate_cubic(x, 2, (-1, 1, 2)), **EXACT)


def test_a_single_voxel_becomes_a_constant():
    assert torch.equal(interpolate_cubic(torch.full((1,), 3.0), 4, 0), torch.full((4,), 3.0))
