"""Monitors without references: what they must see, and what they must not."""

from __future__ import annotations

import pytest
import torch
from scripts.metrics import intensity_drift, position_drift
from scripts.metrics.monitors import consistency_psnr
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.kspace import truncate
from scripts.physics.separable import SeparableAcquisition

DIM = (-3, -2, -1)


@pytest.fixture
def volume():
    """Anatomy of a kind: sharp ellipsoids with some texture, (1, 48, 48, 48)."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-1, 1, 48)
    radius = grid[:, None, None] ** 2 + 1.3 * grid[None, :, None] ** 2 + 0.8 * grid[None, None, :] ** 2
    texture = 0.02 * torch.randn((48, 48, 48), generator=generator)
    return ((radius < 0.6).float() * 0.6 + (radius < 0.2).float() * 0.4 + texture * (radius < 0.6))[None]


@pytest.fixture
def image(volume):
    return truncate(volume, (24, 24, 24), DIM)


def test_a_consistent_prediction_drifts_neither_in_intensity_nor_in_position(volume, image):
    assert intensity_drift(volume, image).abs() < 1e-5
    assert position_drift(volume, image) < 0.05


def test_a_gain_is_its_own_intensity_drift(volume, image):
    assert intensity_drift(1.1 * volume, image).item() == pytest.approx(0.1, abs=1e-4)


def test_a_shift_of_one_voxel_is_seen_as_one(volume, image):
    assert position_drift(volume.roll(1, dims=2), image).item() == pytest.approx(1, abs=0.05)


def test_consistency_is_that_of_the_acquisition(volume):
    encodings = FrequencyEncoding(1.0), FrequencyEncoding(1.0), SliceSelection(4.0, 4.0)
    acquisition = SeparableAcquisition.of_volume(encodings, (48, 48, 48), 1.0)
    scan = acquisition.acquire(volume)
    assert consistency_psnr(volume, scan, acquisition) > 100
    noisy = scan + 0.01 * scan.max() * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))
    assert consistency_psnr(volume, noisy, acquisition).item() == pytest.approx(40, abs=1.5)
