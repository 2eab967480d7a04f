"""Tricubic and zero-filling as networks: the grid of truncation, and a volume in, a volume out."""

from __future__ import annotations

import io

import pytest
import torch
from scripts.kspace import truncate, zero_fill
from scripts.networks import Tricubic, ZeroFilling

SPATIAL = (2, 3, 4)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("network", [Tricubic, ZeroFilling])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1), (3, 2, 1)])
def test_a_volume_goes_in_and_a_volume_of_the_scale_factor_comes_out(network, scale_factor):
    pred = network(scale_factor)(noise(5, 6, 7))
    assert pred.shape == (1, 1, *(s * n for s, n in zip(scale_factor, (5, 6, 7), strict=True)))


@pytest.mark.parametrize("network", [Tricubic, ZeroFilling])
def test_they_hold_no_parameters(network):
    assert list(network().parameters()) == []


@pytest.mark.parametrize("network", [Tricubic, ZeroFilling])
def test_low_res_voxels_stay_on_every_second_voxel(network):
    x = noise(5, 7, 9)  # odd: the unpaired frequency of an even size is halved between two
    torch.testing.assert_close(network()(x)[..., ::2, ::2, ::2], x, rtol=0, atol=1e-12)


def test_the_centred_convention_is_half_a_voxel_off():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8, 8)
    inner = (..., slice(4, -4))
    aligned, centred = (Tricubic(centred=c)(ramp)[inner] for c in (False, True))
    torch.testing.assert_close(aligned - centred, torch.full_like(aligned, 0.25))  # in LR voxels


def test_zero_filling_restores_a_band_limited_volume():
    high_res = zero_fill(noise(6, 4, 8), (12, 8, 16), SPATIAL)
    low_res = truncate(high_res, (6, 4, 8), SPATIAL)
    torch.testing.assert_close(ZeroFilling()(low_res), high_res, rtol=0, atol=1e-12)


@pytest.mark.parametrize("centred", [False, True])
def test_the_scripted_tricubic_computes_the_same_after_saving(centred):
    network = Tricubic((2, 2, 1), centred)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(noise(5, 6, 7)), network(noise(5, 6, 7)), rtol=0, atol=0)
