"""Separable acquisition: a linear operator with its adjoint, and consistency that holds what was acquired."""

from __future__ import annotations

import pytest
import torch
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.filters import Filter
from scripts.physics.kspace import data_consistency, truncate, zero_fill
from scripts.physics.separable import SeparableAcquisition, receive, vary_slice_gain

EXACT = {"rtol": 0.0, "atol": 1e-12}
SHAPE = (16, 21, 30)
ENCODINGS = {
    "truncation": (FrequencyEncoding(2.0), FrequencyEncoding(21 / 9), FrequencyEncoding(30 / 12)),
    "band": (FrequencyEncoding(1.3), FrequencyEncoding(1.7, Filter("hamming")), FrequencyEncoding(1.0)),
    "slices": (FrequencyEncoding(1.0), FrequencyEncoding(1.5), SliceSelection(3.37, 3.0)),
    "gap": (SliceSelection(5.0, 4.0, "box"), FrequencyEncoding(1.0), FrequencyEncoding(1.0)),
}


def volume(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=ENCODINGS)
def scan(request):
    return SeparableAcquisition.of_volume(ENCODINGS[request.param], SHAPE, 1.0)


def test_a_plain_truncation_is_truncation_and_its_consistency_the_hard_one():
    scan = SeparableAcquisition.of_volume(ENCODINGS["truncation"], SHAPE, 1.0)
    assert scan.scan_shape == (8, 9, 12)
    x, y, dim = volume(SHAPE), volume(scan.scan_shape, 1), (0, 1, 2)
    torch.testing.assert_close(scan.acquire(x), truncate(x, scan.scan_shape, dim), **EXACT)
    torch.testing.assert_close(scan.interpolate(y), zero_fill(y, SHAPE, dim), **EXACT)
    torch.testing.assert_close(scan.restore(y), zero_fill(y, SHAPE, dim), **EXACT)
    torch.testing.assert_close(scan.make_consistent(x, y), data_consistency(x, y, dim), **EXACT)


def test_the_adjoint_is_the_adjoint_and_the_gradient(scan):
    x, y = volume((2, *SHAPE)).requires_grad_(), volume((2, *scan.scan_shape), 1)
    product = (scan.acquire(x) * y).sum()
    torch.testing.assert_close(product, (x * scan.adjoint(y)).sum(), rtol=1e-12, atol=0)
    product.backward()
    torch.testing.assert_close(x.grad, scan.adjoint(y), **EXACT)


def test_hard_consistency_keeps_the_scan_and_changes_nothing_that_agrees(scan):
    x, y = volume((1, *SHAPE)), volume((1, *scan.scan_shape), 1)
    consistent = scan.make_consistent(x, y)
    torch.testing.assert_close(scan.acquire(consistent), y, rtol=0, atol=1e-9)
    torch.testing.assert_close(scan.make_consistent(consistent, y), consistent, rtol=0, atol=1e-9)


def test_hard_consistency_never_increases_the_error_of_a_scan_that_was_acquired_as_said(scan):
    truth = volume(SHAPE)
    pred = truth + volume(SHAPE, 1)
    error = scan.make_consistent(pred, scan.acquire(truth)) - truth
    assert error.square().sum() < (pred - truth).square().sum()


def test_soft_consistency_lies_between_the_prediction_and_the_hard_one():
    scan = SeparableAcquisition.of_volume(ENCODINGS["slices"], SHAPE, 1.0)
    x, y = volume(SHAPE), volume(scan.scan_shape, 1)
    left = [(scan.acquire(scan.make_consistent(x, y, soft)) - y).norm() for soft in (0.0, 0.1, 1.0, 1e6)]
    assert left == sorted(left)
    torch.testing.assert_close(left[-1], (scan.acquire(x) - y).norm(), rtol=1e-5, atol=0)


def test_directions_that_no_slice_sees_are_left_alone():
    """Of slices as thick as twice their spacing, the fastest alternation is almost unseen, so nothing may blow up."""
    scan = SeparableAcquisition.of_volume((FrequencyEncoding(1.0),) * 2 + (SliceSelection(1.0, 6.0),), (4, 4, 40), 1.0)
    restored = scan.restore(volume(scan.scan_shape))
    assert restored.isfinite().all()
    assert restored.abs().max() < 1e4


def test_a_window_is_a_part_of_the_interpolated_scan(scan):
    y = volume((1, 2, *scan.scan_shape))
    window = slice(3, 14), slice(0, 7), slice(11, 30)
    torch.testing.assert_close(scan.interpolate(y, window), scan.interpolate(y)[(..., *window)], **EXACT)


def test_a_constant_stays_constant_and_float32_stays_float32(scan):
    y = scan.acquire(torch.full((1, *SHAPE), 0.7))
    assert y.dtype == torch.float32
    if not any(getattr(one, "filter", None) for one in scan.encodings):
        torch.testing.assert_close(y, torch.full_like(y, 0.7), rtol=1e-5, atol=0)
    torch.testing.assert_close(scan.interpolate(y), torch.full((1, *SHAPE), 0.7), rtol=1e-5, atol=0)


def test_another_shape_is_refused(scan):
    with pytest.raises(ValueError, match=r"expected a volume .* \(16, 21, 30\), got \(16, 21, 29\)"):
        scan.acquire(torch.zeros(16, 21, 29))


def test_spacing_and_start_may_differ_between_the_axes():
    encodings = (FrequencyEncoding(2.0), FrequencyEncoding(2.0), SliceSelection(4.0, 4.0))
    scan = SeparableAcquisition.of_volume(encodings, (16, 20, 40), (1.0, 0.5, 0.8))
    assert (scan.scan_shape, scan.start) == ((8, 5, 8), (0, 0, 2))
    z = 0.8 * torch.arange(40, dtype=torch.float64)
    torch.testing.assert_close(scan.acquire(z.expand(16, 20, 40))[0, 0], 1.6 + 4.0 * torch.arange(8).double(), **EXACT)


# noise and gain


def test_the_noise_of_a_magnitude_is_rician():
    generator = torch.Generator().manual_seed(0)
    air = receive(torch.zeros(100_000), 2.0, generator=generator)
    assert float(air.mean()) == pytest.approx(2.0 * (torch.pi / 2) ** 0.5, rel=0.01)
    bright = receive(torch.full((100_000,), 100.0), 2.0, generator=generator)
    assert float(bright.std()) == pytest.approx(2.0, rel=0.01)
    real = receive(torch.zeros(100_000), 2.0, magnitude=False, generator=generator)
    assert float(real.mean()) == pytest.approx(0.0, abs=0.03)


def test_the_gain_varies_from_slice_to_slice_alone():
    y = vary_slice_gain(torch.ones(2, 5, 400, 3), axis=-2, spread=0.03, generator=torch.Generator().manual_seed(0))
    assert torch.equal(y, y[:1, :1, :, :1].expand_as(y))
    assert float(y[0, 0, :, 0].std()) == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("thickness", [1.5, 3.7, 7.0])
def test_a_ramp_along_slices_is_interpolated_exactly_between_the_second_and_the_last_but_one(thickness):
    scan = SeparableAcquisition.of_volume(
        (FrequencyEncoding(1.0), FrequencyEncoding(1.0), SliceSelection(3.7, thickness)), (8, 8, 60), 1.0
    )
    places = (torch.arange(60, dtype=torch.float64) - scan.start[2]) / 3.7
    between = (places >= 1) & (places <= scan.scan_shape[2] - 2)
    made = scan.interpolations[2] @ torch.arange(scan.scan_shape[2], dtype=torch.float64)
    torch.testing.assert_close(made[between], places[between], **EXACT)


def test_the_interpolation_does_not_know_that_odd_slices_moved():
    axes = FrequencyEncoding(1.0), FrequencyEncoding(1.0)
    still, moved = (
        SeparableAcquisition((*axes, SliceSelection(4.0, 4.0, odd_shift=mm)), (8, 8, 40), 1.0, (8, 8, 9), (0, 0, 2))
        for mm in (0.0, 0.6)
    )
    assert torch.equal(still.interpolations[2], moved.interpolations[2])


def test_a_large_volume_passes_in_parts_with_the_result_of_one_pass(scan, monkeypatch):
    x, y = volume((2, *SHAPE)), volume((2, *scan.scan_shape), 1)
    expected = scan.acquire(x), scan.interpolate(y), scan.make_consistent(x, y)
    monkeypatch.setattr("scripts.physics.kspace.VOXELS_AT_ONCE", 2000)
    for made, wanted in zip((scan.acquire(x), scan.interpolate(y), scan.make_consistent(x, y)), expected, strict=True):
        torch.testing.assert_close(made, wanted, **EXACT)
    assert scan.make_consistent(x, y, in_place=True) is x
    torch.testing.assert_close(x, expected[2], **EXACT)
