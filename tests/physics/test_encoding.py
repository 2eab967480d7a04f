"""Matrices of an axis: truncation where it applies, and slices that lie where they are said to lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scripts.physics.encoding import (
    PROFILES,
    FrequencyEncoding,
    SliceSelection,
    covered,
    encoding_matrix,
    interpolation_matrix,
    slice_centres,
)
from scripts.physics.filters import Filter
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import apodise, centred_frequencies, fftc, ifftc, truncate, zero_fill

EXACT = {"rtol": 0.0, "atol": 1e-12}
PARITIES = [(8, 4), (8, 3), (9, 4), (9, 5), (18, 9), (12, 12), (7, 1), (256, 128), (255, 100)]
THICKNESSES = [1.0, 1.1, 1.37, 1.5, 2.0, 2.5, 3.0, 4.0, 5.3, 8.0]
FILTERS = [
    Filter("hamming"),
    Filter("tukey", (0.4,)),
    Filter("fermi", (0.8, 0.05)),
    Filter("partial_fourier", (0.75,)),
]


def random_vector(size: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size))


def slices(spacing: float, thickness: float, profile: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix of the slices that fit into a volume, and their centres."""
    encoding = SliceSelection(spacing, thickness, profile)
    count, start = covered(encoding, size, 1.0)
    return encoding_matrix(encoding, size, 1.0, count, start), slice_centres(encoding, 1.0, count, start)


# frequency-limited axes


@pytest.mark.parametrize(("full", "kept"), PARITIES)
def test_on_a_whole_field_of_view_the_matrices_are_truncation_and_zero_filling(full, kept):
    grid = FrequencyEncoding(full / kept), full, 1.0, kept, 0
    forward, back = encoding_matrix(*grid), interpolation_matrix(*grid)
    x, y = random_vector(full), random_vector(kept)
    torch.testing.assert_close(forward @ x, truncate(x, [kept], [0]), **EXACT)
    torch.testing.assert_close(back @ y, zero_fill(y, [full], [0]), **EXACT)
    torch.testing.assert_close(back @ forward @ back, back, **EXACT)


@pytest.mark.parametrize(("full", "kept"), [(8, 12), (9, 12), (8, 13)])
def test_an_output_grid_coarser_than_the_scan_is_filled_by_truncation(full, kept):
    grid = FrequencyEncoding(full / kept), full, 1.0, kept, 0
    x, y = random_vector(full), random_vector(kept)
    torch.testing.assert_close(encoding_matrix(*grid) @ x, zero_fill(x, [kept], [0]), **EXACT)
    torch.testing.assert_close(interpolation_matrix(*grid) @ y, truncate(y, [full], [0]), **EXACT)


@pytest.mark.parametrize(("full", "kept"), [(24, 9), (25, 8)])
def test_the_samples_are_those_of_a_naive_dft(full, kept):
    """Also where the field of view is no multiple of the spacing, and the scan begins between two voxels."""
    spacing, start, x = 2.9, 0.3, random_vector(full).numpy()
    harmonics = np.arange(-(kept // 2), kept - kept // 2)
    spectrum = np.array([sum(x * np.exp(-2j * np.pi * k * np.arange(full) / full)) for k in harmonics])
    places = start + spacing * np.arange(kept)
    expected = [(spectrum * np.exp(2j * np.pi * harmonics * place / full)).sum().real / full for place in places]
    forward = encoding_matrix(FrequencyEncoding(spacing), full, 1.0, kept, start)
    np.testing.assert_allclose(forward.numpy() @ x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("one", FILTERS, ids=lambda one: one.family)
@pytest.mark.parametrize(("full", "kept"), [(24, 12), (25, 9)])
def test_a_filter_weights_the_harmonics_as_it_weights_k_space(one, full, kept):
    x = random_vector(full)
    window = one.at(centred_frequencies(kept).abs())
    expected = ifftc(apodise(fftc(truncate(x, [kept], [0]), [0]), window, [0]), [0]).real
    forward = encoding_matrix(FrequencyEncoding(full / kept, one), full, 1.0, kept, 0)
    torch.testing.assert_close(forward @ x, expected, **EXACT)


@pytest.mark.parametrize("spacing", [0.7, 1.0, 1.3, 2.0, 3.37])
def test_harmonics_inside_the_band_are_sampled_and_constants_kept(spacing):
    size = 61
    count, start = covered(FrequencyEncoding(spacing), size, 1.0)
    voxel, sample = (torch.arange(n, dtype=torch.float64) for n in (size, count))
    forward = encoding_matrix(FrequencyEncoding(spacing), size, 1.0, count, start)
    wave = 2 * math.pi * 4 / size
    expected = 3 + (wave * (spacing * sample) + 0.4).sin()
    torch.testing.assert_close(forward @ (3 + (wave * voxel + 0.4).sin()), expected, **EXACT)
    back = interpolation_matrix(FrequencyEncoding(spacing), size, 1.0, count, -3.3)  # far beyond an end, too
    torch.testing.assert_close(back.sum(1), torch.ones(size, dtype=torch.float64), **EXACT)


# slices


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.37, 5.0])
@pytest.mark.parametrize("size", [61, 64])
def test_slices_lie_where_they_are_said_to_lie_without_negative_weights(profile, spacing, size):
    for thickness in THICKNESSES:
        rows, centres = slices(spacing, thickness, profile, size)
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows), dtype=torch.float64), **EXACT)
        moments = rows @ torch.arange(size, dtype=torch.float64)
        torch.testing.assert_close(moments, centres, rtol=0, atol=1e-9)
        assert rows.min() >= 0


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("thickness", [1.0, 2.5, 4.0])
def test_beyond_the_ends_the_volume_is_its_end_voxel_repeated(profile, thickness):
    """Such a slice keeps its profile, so its first moment lies inside; constants stay constant."""
    size, start = 40, -thickness
    rows = encoding_matrix(SliceSelection(1.7, thickness, profile), size, 1.0, 28, start)
    padded = encoding_matrix(SliceSelection(1.7, thickness, profile), size + 60, 1.0, 28, start + 30)
    folded = torch.zeros_like(rows).index_add_(1, (torch.arange(size + 60) - 30).clamp(0, size - 1), padded)
    reaching = slice_centres(SliceSelection(1.7, thickness, profile), 1.0, 28, start)
    reaching = (reaching < thickness / 2 - 0.5) | (reaching > size - 0.5 - thickness / 2)
    assert reaching.any()
    torch.testing.assert_close(
        rows[reaching], folded[reaching], rtol=0, atol=0.03
    )  # of the longer volume, the moments are exact
    torch.testing.assert_close(rows.sum(1), torch.ones(28, dtype=torch.float64), **EXACT)
    assert rows.min() >= 0


@pytest.mark.parametrize("spacing", [4.0, 3.37])
def test_the_mtf_of_gaussian_slices_is_that_of_the_profile(spacing):
    rows, centres = slices(spacing, 4.0, "gaussian", 160)
    middle = len(rows) // 2
    frequency = torch.linspace(0, 0.4, 161, dtype=torch.float64)  # per voxel, up to 0.8 of the Nyquist frequency
    distance = torch.arange(160, dtype=torch.float64) - centres[middle]
    mtf = (rows[middle] * torch.exp(-2j * math.pi * frequency[:, None] * distance)).sum(1)
    expected = torch.exp(-((math.pi * frequency * 4.0) ** 2) / (4 * math.log(2)))
    assert (mtf - expected).abs().max() < 2e-4


@pytest.mark.parametrize("profile", PROFILES)
def test_the_thickness_is_the_full_width_at_half_maximum(profile):
    rows, centres = slices(40.0, 20.0, profile, 161)
    row = rows[1] / rows[1].max()
    width = row[int(centres[1]) :] - 0.5
    last = int((width > 0).sum()) - 1
    assert 2 * (last + width[last] / (width[last] - width[last + 1])) == pytest.approx(20.0, abs=0.15)


def test_a_slice_thinner_than_a_voxel_is_one_voxel_thick():
    thin, one = (encoding_matrix(SliceSelection(2.5, t, "box"), 20, 1.0, 6, 1.2) for t in (0.3, 1.0))
    assert torch.equal(thin, one)


def test_odd_slices_shift_and_the_interpolation_does_not_know_it():
    moved, still = SliceSelection(4.0, 4.0, odd_shift=0.6), SliceSelection(4.0, 4.0)
    moments = encoding_matrix(moved, 64, 1.0, 15, 2) @ torch.arange(64, dtype=torch.float64)
    shift = moments - slice_centres(still, 1.0, 15, 2)
    torch.testing.assert_close(shift[:14], torch.tensor([0.0, 0.6] * 7, dtype=torch.float64), rtol=0, atol=1e-9)
    grid = 64, 1.0, 15, 2
    assert torch.equal(interpolation_matrix(moved, *grid), interpolation_matrix(still, *grid))


def test_keys_at_whole_factors_is_the_cubic_interpolation_of_the_baseline():
    y = random_vector(9)
    back = interpolation_matrix(SliceSelection(3.0, 3.0), 27, 1.0, 9, 0)
    torch.testing.assert_close(back @ y, interpolate_cubic(y, 3, 0), **EXACT)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("spacing", [2.0, 3.37, 5.0])
def test_a_ramp_comes_back_between_the_second_and_the_last_but_one_slice(profile, spacing):
    size, voxel, offset = 83, 0.8, -21.5
    encoding = SliceSelection(spacing, 0.8 * spacing, profile)
    count, start = covered(encoding, size, voxel)
    world = offset + voxel * torch.arange(size, dtype=torch.float64)
    back = interpolation_matrix(encoding, size, voxel, count, start)
    ramp = back @ (encoding_matrix(encoding, size, voxel, count, start) @ world)
    centres = offset + voxel * start + spacing * torch.arange(count)
    between = (world >= centres[1]) & (world <= centres[-2])
    torch.testing.assert_close(ramp[between], world[between], rtol=0, atol=1e-9)
    torch.testing.assert_close(back.sum(1), torch.ones(size, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("encoding", [SliceSelection(0.0, 1.0), SliceSelection(1.0, -1.0), FrequencyEncoding(math.nan)])
def test_lengths_are_positive(encoding):
    for matrix in (encoding_matrix, interpolation_matrix):
        with pytest.raises(ValueError, match="above 0 mm"):
            matrix(encoding, 8, 1.0, 4, 0)


def test_a_profile_is_known():
    with pytest.raises(ValueError, match="gaussian, box, trapezoid, got 'sinc'"):
        covered(SliceSelection(2.0, 2.0, "sinc"), 8, 1.0)
