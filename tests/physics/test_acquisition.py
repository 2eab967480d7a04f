"""Acquisition: the spectrum of a scan shows each filter of a scanner, and anything else is refused."""

from __future__ import annotations

import pytest
import torch
from conftest import head_like
from scripts.physics.acquisition import filled_band, measure_acquisition
from scripts.physics.filters import UNFILTERED, Filter, acquisition_window
from scripts.physics.kspace import complex_noise, fftc, ifftc, truncate, zero_fill
from scripts.transforms import KSpaceTruncate

DIM = (0, 1, 2)
SHAPE = (96, 80, 88)
NONE, HAMMING = UNFILTERED, Filter("hamming")


def acquired(**options) -> torch.Tensor:
    return KSpaceTruncate(2, **options)(head_like()[None])[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_truncation_has_nothing_to_describe(seed):
    found = measure_acquisition(truncate(head_like(seed), SHAPE, DIM))
    assert found.filters == (NONE, NONE, NONE)
    assert found.describe("ASR") == ""
    assert torch.equal(found.window(SHAPE), torch.ones(SHAPE, dtype=torch.float64))


def test_noise_is_no_filter():
    scan = truncate(head_like(), SHAPE, DIM)
    noisy = ifftc(
        complex_noise(fftc(scan, DIM), 0.2 * float(scan.std()), DIM, torch.Generator().manual_seed(0)), DIM
    ).real
    assert measure_acquisition(noisy).describe("ASR") == ""


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ({"hamming": True}, (HAMMING, HAMMING, HAMMING)),
        ({"partial_fourier": [1, 0.75, 1]}, (NONE, Filter("partial_fourier", (0.75,)), NONE)),
        (
            {"hamming": True, "partial_fourier": [1, 1, 0.75]},
            (HAMMING, HAMMING, Filter("partial_fourier_hamming", (0.75,))),
        ),
    ],
)
def test_a_filter_is_recognised_and_its_window_is_the_scanner_s(options, filters):
    found = measure_acquisition(acquired(**options))
    assert found.filters == filters
    window = acquisition_window(SHAPE, **options)
    real = 0.5 * (window + window.flip(DIM).roll((1, 1, 1), DIM))  # of the real part of the image
    different = (real - found.window(SHAPE)).abs()[1:, 1:, 1:] > 1e-9  # without the unpaired planes
    assert float(different.double().mean()) < 0.03  # but for the planes on which a fraction ends


def test_a_late_step_is_not_taken_for_an_earlier_one():
    assert measure_acquisition(acquired(partial_fourier=[1, 1, 0.875])).filters[2] in (None, NONE)


def test_empty_corners_are_recognised():
    found = measure_acquisition(acquired(elliptical=True))
    assert found.elliptical
    assert found.describe("ASR") == "empty corners of k-space"
    assert torch.equal(found.window(SHAPE), acquisition_window(SHAPE, elliptical=True))


def test_a_zero_filled_scan_ends_where_its_acquisition_ended():
    scan = zero_fill(truncate(head_like(), (72, 80, 88), DIM), SHAPE, DIM)
    found = measure_acquisition(scan)
    assert found.cutoffs == (0.75, 1.0, 1.0)
    assert found.describe("ASR") == "k-space that ends at 75% of the band along the A axis"
    window = found.window(SHAPE)
    assert not window[:12].any()
    assert (window[12:84] == 1).all()


def test_what_no_scanner_does_is_not_explained():
    found = measure_acquisition(torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)))  # no anatomy at all
    assert found.filters == (None, None, None)
    assert found.describe("ASR").startswith("a spectrum along the A axis that no filter of a scanner explains")
    assert torch.equal(found.window(SHAPE), torch.ones(SHAPE, dtype=torch.float64))


def test_an_axis_that_was_not_truncated_is_not_judged():
    found = measure_acquisition(acquired(hamming=True), axes=(0, 1))
    assert found.filters == (HAMMING, HAMMING, NONE)


def test_a_scan_without_a_spectrum_tells_nothing():
    assert measure_acquisition(torch.rand(31, 64, 64)) is None
    assert measure_acquisition(torch.rand(31, 64, 64), axes=(1, 2)) is not None


@pytest.mark.parametrize("kept", [40, 48, 56])
def test_an_interpolated_matrix_shows_where_its_k_space_ends(kept):
    scan = head_like(shape=(64, 60, 72)) + 0.02 * torch.randn(64, 60, 72, generator=torch.Generator().manual_seed(1))
    stored = zero_fill(truncate(scan, (kept, 60, 72), DIM), (64, 60, 72), DIM)
    assert filled_band(stored) == [pytest.approx(kept / 64), 1.0, 1.0]
    assert filled_band(stored, axes=[1]) == [None, 1.0, None]
    assert filled_band(scan[:20]) == [None, 1.0, 1.0]


def test_a_blur_is_no_interpolated_matrix():
    scan = head_like(shape=(128, 64, 64))
    u = torch.fft.fftfreq(128, dtype=torch.float64)[:, None, None]
    blurred = torch.fft.ifftn(torch.fft.fftn(scan) * torch.exp(-((6 * u) ** 2))).real
    assert filled_band(blurred) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_a_smooth_subject_is_no_interpolated_matrix(noise):
    """Its power falls steeply all along, down to its noise. Real subjects have more detail than an ellipsoid."""
    places = torch.meshgrid(*(torch.linspace(-1.2, 1.2, n) for n in (40, 48, 38)), indexing="ij")
    subject = torch.sigmoid(20 * (1 - torch.stack(places).norm(dim=0)))
    subject += noise * torch.randn(subject.shape, generator=torch.Generator().manual_seed(0))
    assert filled_band(subject) == [1.0, 1.0, 1.0]
    assert measure_acquisition(subject).cutoffs == (1.0, 1.0, 1.0)
