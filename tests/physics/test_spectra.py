"""Spectra: one measurement of power, whatever the grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scripts.physics.spectra import axis_power, band_frequencies, cycles_per_voxel, measure_group, power_spectrum
from scripts.transforms import KSpaceTruncate


@pytest.mark.parametrize("shape", [(8, 12, 10), (7, 9, 11)])
def test_the_power_is_that_of_the_windowed_volume(shape):
    volume = np.random.default_rng(0).standard_normal(shape)
    windows = [np.hanning(n + 1)[:n] for n in shape]  # periodic
    expected = np.abs(np.fft.rfftn(volume * np.einsum("i,j,k->ijk", *windows))) ** 2
    found = power_spectrum(torch.from_numpy(volume), (0, 1, 2))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [8, 9])
def test_the_power_along_an_axis_is_the_mean_of_its_lines(size):
    volume = torch.rand((6, size, 5), generator=torch.Generator().manual_seed(0))
    lines = power_spectrum(volume.movedim(1, -1).reshape(-1, size), [1])
    torch.testing.assert_close(axis_power(volume, 1), lines.mean(0))
    torch.testing.assert_close(axis_power(volume, 1, norm="forward"), lines.mean(0) / size**2)
    np.testing.assert_allclose(cycles_per_voxel(size).numpy(), np.fft.rfftfreq(size), rtol=1e-6)


def test_frequencies_are_a_share_of_the_coarser_band():
    shape = (4, 6, 8)
    found = band_frequencies(shape, (1.0, 1.0, 1.0), (2.0, 1.0, 2.0))
    assert [len(u) for u in found] == [4, 6, 5]
    assert [u.max() for u in found] == [2.0, 1.0, 2.0]


@pytest.mark.parametrize(("shape", "mm"), [((32, 40, 36), 2.0), ((64, 72, 80), 1.0)])
def test_white_noise_has_the_level_of_noise_whatever_the_grid(shape, mm):
    noise = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    group = measure_group([noise], [[mm] * 3], [2.0] * 3, np.stack([np.linspace(0, 0.8, 5)] * 3))
    variance = 0.3**2 * (mm / 2) ** 3  # of its share in a low-resolution voxel
    np.testing.assert_allclose((group.levels[0] - group.noise).mean(), math.log(variance), atol=0.05)


def test_a_volume_and_its_truncation_have_one_spectrum():
    volume = torch.rand((48, 48, 48), generator=torch.Generator().manual_seed(0))
    low_res = KSpaceTruncate(2)(volume[None])[0]
    edges = np.stack([np.linspace(0, 0.8, 5)] * 3)
    high, low = (measure_group([v], [[h] * 3], [2.0] * 3, edges).levels for v, h in ((volume, 1.0), (low_res, 2.0)))
    np.testing.assert_allclose(np.median(low - high), 0, atol=0.1)
