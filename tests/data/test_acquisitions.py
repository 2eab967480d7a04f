"""Acquisitions that a training draws: their ranges, their share of common ones, and their disturbances."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scripts.data.acquisitions import Acquisition, AcquisitionRange, named_encodings, scan_of
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.filters import Filter

RANGE = AcquisitionRange()


def draws(settings: AcquisitionRange, number: int = 400, breadth: float = 1.0) -> list[Acquisition]:
    return [settings.draw(np.random.default_rng(seed), breadth) for seed in range(number)]


def slices(acquisition: Acquisition) -> list[SliceSelection]:
    return [one for one in acquisition.encodings if isinstance(one, SliceSelection)]


def test_every_length_lies_in_its_range():
    for drawn in draws(RANGE):
        assert len(slices(drawn)) <= 1
        assert all(1 <= one.spacing <= 2.5 for one in drawn.encodings if isinstance(one, FrequencyEncoding))
        for one in slices(drawn):
            assert 1.5 <= one.spacing <= 6
            assert max(1.0, 0.6 * one.spacing) <= one.thickness <= max(1.0, 1.2 * one.spacing)
        assert drawn.noise <= 1 / 12


def test_every_kind_axis_and_profile_occurs():
    drawn = draws(RANGE)
    kinds = Counter(len(slices(one)) for one in drawn)
    assert 0.38 < kinds[1] / len(drawn) < 0.52
    axes = {tuple(isinstance(axis, SliceSelection) for axis in one.encodings) for one in drawn}
    assert len(axes) == 4
    assert {one.profile for each in drawn for one in slices(each)} == {"gaussian", "box", "trapezoid"}
    assert any(one.filter for each in drawn for one in each.encodings if isinstance(one, FrequencyEncoding))
    assert 0.4 < sum(one.noise > 0 for one in drawn) / len(drawn) < 0.6


def test_a_training_that_widens_begins_with_common_undisturbed_acquisitions():
    for drawn in draws(RANGE, breadth=0.0):
        assert drawn.noise == drawn.gain == 0
        for one in drawn.encodings:
            assert one in (
                FrequencyEncoding(1.0),
                FrequencyEncoding(2.0),
                *(SliceSelection(s, s) for s in (2.0, 3.0, 4.0, 5.0)),
            )


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="among isotropic, in_plane and slices, got \\['radial'\\]"):
        AcquisitionRange(kinds={"radial": 1.0})


def test_a_scan_covers_the_field_of_view():
    scan = scan_of(named_encodings([2, 1.3, [3.3, 3]]), (32, 31, 30))
    assert scan.scan_shape == (16, 24, 9)
    assert scan.encodings[1].spacing * 24 == pytest.approx(31)
    assert torch.allclose(scan.acquire(torch.ones(32, 31, 30)), torch.ones(16, 24, 9), atol=1e-5)


def test_noise_is_relative_to_the_foreground_and_reproducible():
    y = torch.zeros(32, 32, 32)
    y[8:] = 100
    drawn = Acquisition((FrequencyEncoding(1.0),) * 3, noise=0.05, seed=3)
    noisy = drawn.disturb(y)
    assert float(noisy[8:].std()) == pytest.approx(5, rel=0.05)
    assert float(noisy[:8].mean()) == pytest.approx(5 * (np.pi / 2) ** 0.5, rel=0.05)  # Rayleigh's mean
    assert torch.equal(noisy, drawn.disturb(y))


def test_a_filter_colours_the_noise():
    y = 100 + torch.linspace(0, 1e-3, 24).expand(24, 24, 24)
    filters = None, Filter("hamming")
    plain, filtered = (Acquisition((FrequencyEncoding(1.0, one),) * 3, noise=0.05).disturb(y).std() for one in filters)
    assert 0 < filtered < 0.7 * plain


def test_gain_varies_from_slice_to_slice_alone():
    encodings = (FrequencyEncoding(1.0), SliceSelection(2.0, 2.0), FrequencyEncoding(1.0))
    y = Acquisition(encodings, gain=0.03, seed=1).disturb(torch.ones(4, 30, 5))
    assert y.std(dim=1).mean() == pytest.approx(0.03, rel=0.4)
    assert (y - y[:1, :, :1]).abs().max() == 0
