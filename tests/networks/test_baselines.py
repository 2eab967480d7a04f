"""Tricubic and zero-filling as networks: the grid of truncation, and a volume in, a volume out."""

from __future__ import annotations

import io

import pytest
import torch
from conftest import head_like
from monai.data import MetaTensor
from scripts.networks import LinearInverse, Tricubic, ZeroFilling
from scripts.physics.degradation import known_degradation
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import KSpaceTruncate

SPATIAL = (2, 3, 4)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("network", [Tricubic, ZeroFilling])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1), (3, 2, 1)])
def test_a_volume_goes_in_and_a_volume_of_the_scale_factor_comes_out(network, scale_factor):
    pred = network(scale_factor)(noise(5, 6, 7))
    assert pred.shape == (1, 1, *(s * n for s, n in zip(scale_factor, (5, 6, 7), strict=True)))


@pytest.mark.parametrize("network", [Tricubic(), ZeroFilling(), LinearInverse((2, 2, 2), known_degradation())])
def test_large_volumes_keep_their_metadata(network):
    """Evaluation returns to the units of the scan by them."""
    x = MetaTensor(torch.rand(1, 1, 64, 64, 72), meta={"intensity_scale": [7.0]})
    assert network(x).meta["intensity_scale"] == [7.0]


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


# The linear inverse

ACQUISITION = {"elliptical": True, "exponential": (0.9, 0, 0), "fermi": (None, (0.9, 0.05), None)}


def test_without_noise_the_linear_inverse_undoes_a_filter_exactly():
    """But for the corners that were not acquired, which stay empty."""
    head = head_like(shape=(48, 40, 44))[None] + 10
    scan = KSpaceTruncate(2, **ACQUISITION)(head).as_tensor()
    corners = {"elliptical": True}
    expected = zero_fill(KSpaceTruncate(2, **corners)(head).as_tensor(), head.shape[1:], (1, 2, 3))
    restored = LinearInverse((2, 2, 2), known_degradation(**ACQUISITION))(scan[None])[0]
    error = (restored - expected).square().mean() / (expected - expected.mean()).square().mean()
    assert float(error) < 1e-6  # the transfer is interpolated between 65 frequencies


def test_under_noise_the_linear_inverse_is_nearer_to_the_truth_than_zero_filling_and_than_the_naive_inverse():
    head = head_like(shape=(64, 64, 64)).float()[None]
    head = head / head.std() + 3
    scan = KSpaceTruncate(2, **ACQUISITION, snr=10)(head).as_tensor()[None]
    known = known_degradation(**ACQUISITION)
    networks = (LinearInverse((2, 2, 2), known, snr=10), ZeroFilling(), LinearInverse((2, 2, 2), known))
    wiener, zero_filling, naive = (float((network(scan)[0] - head).square().mean()) for network in networks)
    assert wiener < zero_filling
    assert wiener < naive


def test_the_linear_inverse_takes_an_estimate_from_its_file(tmp_path):
    known = known_degradation(**ACQUISITION)._replace(spacing=(2.0, 2.0, 2.0), noise_std=0.1)
    known.save(tmp_path / "degradation.json")
    x = noise(12, 10, 14)
    from_file = LinearInverse((2, 2, 1), tmp_path / "degradation.json")
    torch.testing.assert_close(from_file(x), LinearInverse((2, 2, 1), known)(x))
    assert not torch.equal(from_file(x), LinearInverse((2, 2, 1), known._replace(noise_std=0.0))(x))
