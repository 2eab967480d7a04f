"""Protocol and output: which acquisition a scan has, by which source, and where its output voxels lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts.physics.cost import estimate
from scripts.physics.encoding import FrequencyEncoding, SliceSelection, covered
from scripts.physics.filters import Filter
from scripts.physics.output import (
    acquisition_from_record,
    interpolations_of,
    is_truncation,
    output_acquisition,
    record_of,
)
from scripts.physics.protocol import Evidence, assume_acquisition, encoding_from_text, encoding_to_text
from scripts.physics.separable import SeparableAcquisition

lengths = st.floats(0.1, 20)
encodings = st.one_of(
    st.builds(FrequencyEncoding, lengths, st.sampled_from([None, Filter("hamming"), Filter("tukey", (0.3,))])),
    st.builds(SliceSelection, lengths, lengths, st.sampled_from(["gaussian", "box", "trapezoid"]), st.just(0.0)),
)


@given(encodings)
def test_a_text_keeps_an_encoding_to_the_last_digit(encoding):
    assert encoding_from_text(encoding_to_text(encoding)) == encoding


def test_a_text_may_leave_out_the_thickness_or_the_axis():
    assert encoding_from_text("slices 5") == SliceSelection(5.0, 5.0)
    assert encoding_from_text("slices 5.0/4.0 box") == SliceSelection(5.0, 4.0, "box")
    assert encoding_from_text("unknown") is encoding_from_text("auto") is None


@pytest.mark.parametrize(
    "text",
    ["5", "slice 5", "frequency", "frequency 1/2", "slices 5/0", "slices 5/4 round", "frequency 1 round", "slices -5"],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"an acquisition must be `frequency 1.0`, .* got '"):
        encoding_from_text(text)


@pytest.mark.parametrize(
    ("stored", "slices"),
    [
        ((2.0, 2.0, 2.0), None),
        ((2.0, 2.0, 1.0), None),
        ((1.0, 1.0, 2.0), 2),
        ((1.0, 1.9, 1.0), 1),
        ((1.0, 1.8, 1.0), None),
        ((3.0, 3.0, 1.0), None),
        ((5.0, 0.5, 0.9), 0),
    ],
)
def test_without_other_sources_the_one_coarse_axis_has_slices(stored, slices):
    found = assume_acquisition(stored)
    assert [isinstance(one, SliceSelection) for one in found.encodings] == [axis == slices for axis in range(3)]
    assert found.sources == ("spacings",) * 3
    assert all(one.spacing == mm for one, mm in zip(found.encodings, stored, strict=True))


def test_an_axis_that_the_spectrum_shows_as_interpolated_has_no_slices():
    spectrum = Evidence("spectrum", acquired=(None, None, 2.0))
    found = assume_acquisition((1.0, 1.0, 1.0), evidence=[spectrum])
    assert found == (
        (FrequencyEncoding(1.0), FrequencyEncoding(1.0), FrequencyEncoding(2.0)),
        ("spacings",) * 2 + ("spectrum",),
    )
    found = assume_acquisition((1.0, 1.0, 5.0), evidence=[Evidence("spectrum", acquired=(2.0, None, None))])
    assert found.encodings == (FrequencyEncoding(2.0), FrequencyEncoding(1.0), SliceSelection(5.0, 5.0))


def test_the_sources_count_in_their_order():
    stored = (1.0, 1.0, 4.0)
    header = Evidence("header", "2D", 2, 3.0, (1.2, None, None))
    sidecar = Evidence("sidecar", "3D", 2, 2.0, (1.4, 1.4, None))
    spectrum = Evidence("spectrum", acquired=(1.6, 1.6, None))
    found = assume_acquisition(stored, evidence=[header, sidecar, spectrum])
    assert found.encodings == (FrequencyEncoding(1.2), FrequencyEncoding(1.4), SliceSelection(4.0, 3.0))
    assert found.sources == ("header", "sidecar", "header")
    found = assume_acquisition(stored, evidence=[sidecar, spectrum])
    assert found.encodings[2] == FrequencyEncoding(4.0)
    option = (None, FrequencyEncoding(2.0), SliceSelection(4.0, 2.5, "box"))
    found = assume_acquisition(stored, option, [header, sidecar])
    assert found.encodings == (FrequencyEncoding(1.2), *option[1:])
    assert found.sources == ("header", "option", "option")


def test_a_header_names_slices_that_the_spacings_do_not_show():
    found = assume_acquisition((1.0, 1.5, 1.0), evidence=[Evidence("header", "2D", 1, 1.2)])
    assert found.encodings[1] == SliceSelection(1.5, 1.2)
    found = assume_acquisition((1.0, 1.0, 4.0), evidence=[Evidence("sidecar", None, 2, 3.0)])
    assert found.encodings[2] == SliceSelection(4.0, 3.0)
    assert found.sources[2] == "sidecar"


def test_partitions_thicker_than_their_spacing_were_interpolated():
    found = assume_acquisition((1.0, 1.0, 1.0), evidence=[Evidence("header", "3D", 2, 2.0)])
    assert found.encodings[2] == FrequencyEncoding(2.0)
    assert assume_acquisition((1.0, 1.0, 1.0), evidence=[Evidence("header", "3D", 2, 9.0)]).encodings[2].spacing == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evidence": [Evidence("header", localiser=True)]}, r"got a localiser \(header\)"),
        (
            {"evidence": [Evidence("header", "2D", 2, 9.0)]},
            "at most 2 times their spacing, got slices of 9 mm every 4 mm",
        ),
        ({"option": (FrequencyEncoding(0.5), None, None)}, "at least the spacing of the voxels, 1 mm along the 1 axis"),
        (
            {"option": (None, None, SliceSelection(5.0, 4.0))},
            "the spacing of the slices, 4 mm along the 3 axis, got `slices",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        assume_acquisition((1.0, 1.0, 4.0), **options)


@pytest.mark.parametrize(
    ("acquired", "spacing", "voxel"),
    [
        ((2.0, 2.0, 2.0), None, 1.0),
        ((2.0, 2.0, 1.0), None, 1.0),
        ((1.3, 1.3, 1.3), None, 0.65),
        ((1.0, 1.0, 1.25), None, 0.5),
        ((1.0, 1.0, 1.3), None, 1.0),
        ((2.0, 2.0, 2.0), 1.5, 1.5),
    ],
)
def test_the_output_has_cubes_of_the_finest_spacing_or_half_of_it(acquired, spacing, voxel):
    grid = output_acquisition([FrequencyEncoding(mm) for mm in acquired], (40, 40, 40), spacing)
    np.testing.assert_allclose(grid.voxel, voxel, rtol=1e-3)
    assert grid.start == (0, 0, 0)


@given(
    spacing=st.floats(1.5, 6.0),
    thickness=st.floats(0.5, 1.9),
    slices=st.integers(5, 40),
    voxel=st.floats(0.8, 1.3),
)
def test_the_output_grid_covers_the_slices_and_no_more(spacing, thickness, slices, voxel):
    axes = FrequencyEncoding(voxel), FrequencyEncoding(voxel), SliceSelection(spacing, thickness * spacing)
    grid = output_acquisition(axes, (16, 16, slices), voxel)
    half = max(spacing, thickness * spacing) / 2
    first, last = -(grid.start[2] + 0.5) * voxel, (grid.shape[2] - grid.start[2] - 0.5) * voxel
    assert first <= -half + 0.002 * voxel
    assert last >= (slices - 1) * spacing + half - 0.002 * voxel
    assert first > -half - 1.1 * voxel
    assert last < (slices - 1) * spacing + half + 1.1 * voxel
    assert covered(axes[2], grid.shape[2] + 1, voxel)[0] >= slices


@given(acquired=st.floats(0.9, 2.5), size=st.integers(8, 200), voxel=st.floats(0.5, 1.5))
def test_the_output_grid_covers_a_frequency_limited_axis_once(acquired, size, voxel):
    grid = output_acquisition([FrequencyEncoding(acquired)] * 3, (size,) * 3, voxel)
    whole = size * acquired
    assert whole - 0.06 * voxel <= grid.shape[0] * grid.voxel[0] < whole + 1.01 * voxel
    assert grid.voxel[0] == pytest.approx(voxel, rel=1.1e-3)


@pytest.mark.parametrize(
    ("axes", "shape", "spacing", "message"),
    [
        ((0.43, 0.43, 5.0), (64, 64, 20), None, r"at most 8 between .* got 0.43 x 0.43 x 5 mm.*Set --spacing 0.63"),
        ((1.0, 1.0, 5.0), (64, 64, 4), None, "at least 5 slices, got 4"),
        ((1.0, 1.0, 5.0), (64, 7, 20), None, "at least 8 voxels along each axis, got 7"),
        ((1.0, 1.0, 5.0), (64, 64, 20), [1.0, 1.0], "three of them, got"),
        ((1.0, 1.0, 5.0), (64, 64, 20), 0.0, "a positive number of mm"),
    ],
)
def test_an_output_that_makes_no_sense_is_refused(axes, shape, spacing, message):
    encodings = [*map(FrequencyEncoding, axes[:2]), SliceSelection(axes[2], axes[2])]
    with pytest.raises(ValueError, match=message):
        output_acquisition(encodings, shape, spacing)


@given(axes=st.lists(encodings, min_size=3, max_size=3))
def test_a_record_keeps_an_acquisition(axes):
    grid = output_acquisition(axes, (12, 13, 14), max(one.spacing for one in axes))
    again = acquisition_from_record(record_of(grid))
    assert again == grid
    assert torch.equal(again.matrices[2], grid.matrices[2])


def test_only_whole_factors_of_frequencies_are_a_truncation():
    two = FrequencyEncoding(2.0)
    assert is_truncation(output_acquisition([two] * 3, (8, 9, 8)))
    assert not is_truncation(output_acquisition([two, two, FrequencyEncoding(2.0, Filter("hamming"))], (8, 9, 8)))
    assert not is_truncation(output_acquisition([two, two, SliceSelection(2.0, 2.0)], (8, 9, 8)))


def test_the_estimate_grows_with_the_voxels():
    small, large = estimate((100, 100, 100)), estimate((200, 200, 200))
    assert small.voxels == 10**6
    assert large.seconds == pytest.approx(8 * small.seconds)
    assert small.gigabytes < large.gigabytes


@pytest.mark.parametrize("name", ["tricubic", "windowed_sinc", "zero_filling", "linear_inverse"])
@pytest.mark.parametrize("slices", [False, True])
def test_every_interpolation_keeps_a_constant_and_the_place_of_a_wave(name, slices):
    through = SliceSelection(2.5, 2.0) if slices else FrequencyEncoding(2.5)
    grid = output_acquisition([FrequencyEncoding(1.0), FrequencyEncoding(1.0), through], (8, 8, 24), 1.0)
    torch.testing.assert_close(
        interpolations_of(grid, torch.ones(8, 8, 24))[name], torch.ones(grid.shape), rtol=0, atol=1e-5
    )
    scan = torch.sin(2 * torch.pi * torch.arange(24.0) / 12).expand(8, 8, 24)
    places = (torch.arange(float(grid.shape[2])) - grid.start[2]) / 2.5
    expected = torch.sin(2 * torch.pi * places / 12).expand(grid.shape)
    inner = slice(15, 45)  # away from the ends, where an interpolation repeats or wraps
    error = (interpolations_of(grid, scan)[name] - expected)[..., inner].abs().max()
    assert error < {"tricubic": 0.01, "windowed_sinc": 0.02, "zero_filling": 1e-4, "linear_inverse": 0.05}[name]


def test_the_linear_inverse_undoes_blur_and_without_slices_it_is_zero_filling():
    volume = torch.randn(12, 12, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(2)
    through = SeparableAcquisition.of_volume(
        (FrequencyEncoding(1.0),) * 2 + (SliceSelection(4.0, 4.0),), (12, 12, 96), 1.0
    )
    made = interpolations_of(through, through.acquire(volume))
    errors = {name: (made[name] - volume)[..., 12:-12].norm() for name in ("linear_inverse", "tricubic")}
    assert errors["linear_inverse"] < 0.95 * errors["tricubic"]
    band = SeparableAcquisition.of_volume((FrequencyEncoding(2.0),) * 3, (12, 12, 96), 1.0)
    made = interpolations_of(band, band.acquire(volume))
    torch.testing.assert_close(made["linear_inverse"], made["zero_filling"], rtol=0, atol=1e-10)
