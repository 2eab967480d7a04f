"""Filters: each has its own formula, and the window of a protocol is the product of them along the axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.physics.filters import FILTERS, Filter, acquisition_window, separable_window

PARAMETERS = {
    "tukey": (0.5,),
    "gaussian": (1.5,),
    "partial_fourier": (0.75,),
    "partial_fourier_hamming": (0.75,),
    "exponential": (0.9,),
    "fermi": (0.9, 0.05),
}
U = np.linspace(0, 1, 65)


# filters


@pytest.mark.parametrize("family", FILTERS)
def test_a_filter_is_one_in_the_centre_and_takes_arrays_and_tensors_alike(family):
    one = Filter(family, PARAMETERS.get(family, ()))
    amplitude = one.at(U)
    assert amplitude[0] == 1
    assert amplitude.dtype == np.float64
    np.testing.assert_allclose(one.at(torch.from_numpy(U)).numpy(), amplitude, rtol=1e-14)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Filter("box"), 1 + 0 * U),
        (Filter("hamming"), 0.54 + 0.46 * np.cos(np.pi * U)),
        (Filter("exponential", (0.9,)), np.exp(-0.9 * U)),
        (Filter("partial_fourier", (0.75,)), np.where(U <= 0.5, 1, 0.5)),
        (Filter("fermi", (0.8, 0.05)), (1 + np.exp(-16)) / (1 + np.exp((U - 0.8) / 0.05))),
    ],
)
def test_a_filter_has_its_formula(one, expected):
    np.testing.assert_allclose(one.at(U), expected, rtol=1e-12)


def test_a_tukey_filter_tapers_its_outer_share_and_a_blur_halves_at_its_width():
    np.testing.assert_allclose(Filter("tukey", (0.5,)).at(np.array([0.5, 0.75, 1.0])), [1, 0.5, 0], atol=1e-15)
    x = np.linspace(-8, 8, 2**12, endpoint=False)  # voxels
    blur = np.exp(-4 * np.log(2) * x**2 / 1.5**2)
    amplitude = np.abs(np.fft.rfft(blur)) / blur.sum()
    inside = np.fft.rfftfreq(len(x), x[1] - x[0]) <= 0.5
    frequencies = 2 * np.fft.rfftfreq(len(x), x[1] - x[0])[inside]
    np.testing.assert_allclose(Filter("gaussian", (1.5,)).at(frequencies), amplitude[inside], atol=1e-6)


# windows


def test_a_separable_window_is_the_product_of_its_lines_inside_the_ellipsoid():
    lines = [torch.rand(n, dtype=torch.float64) for n in (4, 5, 6)]
    radii = [torch.linspace(-1, 1, n, dtype=torch.float64) for n in (4, 5, 6)]
    window = separable_window(lines, radii)
    whole = torch.einsum("i,j,k->ijk", *lines)
    torch.testing.assert_close(separable_window(lines), whole)
    inside = sum(r**2 for r in torch.meshgrid(*radii, indexing="ij")) <= 1
    torch.testing.assert_close(window, whole * inside)


def test_without_options_the_window_keeps_everything():
    assert torch.equal(acquisition_window([4, 5]), torch.ones(4, 5, dtype=torch.float64))


def test_hamming_applies_along_every_axis_but_singletons():
    six, five = (acquisition_window([n], hamming=True) for n in (6, 5))
    assert float(six[0]) == pytest.approx(0.08)
    assert float(six[3]) == 1
    expected = six[:, None, None] * five[None, :, None]
    torch.testing.assert_close(acquisition_window([6, 5, 1], hamming=True), expected, rtol=0, atol=1e-12)


def test_decays_and_fermi_filters_act_along_their_axes_alone():
    window = acquisition_window([6, 5, 4], exponential=[0.9, 0, 0], fermi=[None, (0.9, 0.05), None])
    along = [np.abs(np.arange(n) - n // 2) / (n / 2) for n in (6, 5)]
    expected = np.outer(np.exp(-0.9 * along[0]), Filter("fermi", (0.9, 0.05)).at(along[1]))
    np.testing.assert_allclose(window.numpy(), np.broadcast_to(expected[..., None], (6, 5, 4)), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponential": [0.9]}, r"exponential must have one value per axis \(2\), got \[0.9\]"),
        ({"exponential": [-0.1, 0]}, "exponential must be a finite decay of at least 0 per axis"),
        ({"fermi": [None]}, r"fermi must have one value per axis \(2\), got \[None\]"),
        ({"fermi": [None, [0.9, 0.0]]}, "fermi must be a positive radius and width, or None, per axis"),
    ],
)
def test_window_refuses_decays_and_filters_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        acquisition_window([8, 8], **options)


def test_elliptical_window_keeps_the_axes_and_drops_the_corners():
    window = acquisition_window([64, 64], elliptical=True)
    assert window[0, 32] == window[32, 0] == window[32, 32] == 1
    assert window[0, 0] == window[0, 63] == window[63, 63] == 0
    assert float(window.mean()) == pytest.approx(np.pi / 4, abs=5e-3)


def test_partial_fourier_drops_negative_frequencies_and_never_the_centre():
    window = acquisition_window([16, 4], partial_fourier=[0.75, 1.0])
    assert torch.equal(window[:, 0], torch.tensor([0.0] * 4 + [1.0] * 12, dtype=torch.float64))
    assert window[8, 2] == 1
    assert acquisition_window([9], partial_fourier=[0.51])[4] == 1


def test_window_refuses_fractions_that_do_not_fit_the_axes():
    with pytest.raises(ValueError, match=r"one value per axis \(2\), got \[0.75\]"):
        acquisition_window([8, 8], partial_fourier=[0.75])


@pytest.mark.parametrize("fraction", [0.5, 1.1])
def test_window_refuses_fractions_out_of_range(fraction):
    with pytest.raises(ValueError, match=rf"in \(0.5, 1\] per axis, got \[{fraction}\]"):
        acquisition_window([8], partial_fourier=[fraction])
