"""DICOM: a series is one volume in the right place with exact values, or it is refused with the reason."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import itk
import numpy as np
import pydicom
import pytest
from dicom_objects import AFFINE, dataset, place_of, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from reliability_checks import tally
from scripts.transforms import LoadImageStrictd
from scripts.transforms.dicom import dicom_series, named_path
from scripts.transforms.formats import identify

SHAPE = (10, 12, 9)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)


def read(path: Path):
    volume = LoadImageStrictd("image")({"image": str(path)})["image"]
    return volume.numpy(), volume.affine.numpy(), volume.meta.get("warnings", "")


def assert_is_the_volume(path: Path, values=VALUES, affine=AFFINE) -> str:
    found, matrix, warnings = read(path)
    np.testing.assert_array_equal(found, np.asarray(values, dtype=np.float32))
    np.testing.assert_allclose(matrix, affine, atol=1e-6)
    return warnings


@settings(max_examples=settings().max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(SHAPE[2])),
    stem=st.text("abcXYZ019 _-", min_size=1, max_size=8),
    ending=st.sampled_from(["", ".dcm", ".DCM", ".ima", ".1.2.3", ".nii"]),
    preamble=st.booleans(),
)
def test_names_order_and_preamble_of_the_files_change_nothing(tmp_path, order, stem, ending, preamble):
    folder = tmp_path / "series"
    write_series(folder, VALUES, name="{:03d}")
    for z, number in enumerate(order):
        content = (folder / f"{z:03d}").read_bytes()
        named = folder / f"{stem}{number}{ending}"
        named.write_bytes(content if preamble else _without_preamble(content))
        (folder / f"{z:03d}").unlink()
    try:
        assert {identify(path) for path in folder.iterdir()} == {"dicom"}
        for path in (folder, *folder.iterdir()):
            assert assert_is_the_volume(path) == ""
            assert named_path(path) == folder
    finally:
        shutil.rmtree(folder)
    tally("formats", "DICOM under any names, by file or folder", "right")


def _without_preamble(content: bytes) -> bytes:
    """The elements alone, as old software wrote them."""
    length = int.from_bytes(content[140:144], "little")  # of the file meta information
    return content[144 + length :]


def slopes(image, z):
    image.RescaleSlope, image.RescaleIntercept = f"{0.001 * (1 + z):.6g}", str(z - 2)


def negative(image, z):
    image.RescaleSlope, image.RescaleIntercept = "-0.5", "1000"


def real_world(image, z):
    image.RealWorldValueMappingSequence = [dataset(RealWorldValueSlope=7.0, RealWorldValueIntercept=1.0)]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (slopes, VALUES * (0.001 * (1.0 + np.arange(SHAPE[2]))) + (np.arange(SHAPE[2]) - 2.0)),
        (negative, VALUES * -0.5 + 1000.0),
        (real_world, VALUES),
    ],
)
def test_each_slice_has_its_own_scale(tmp_path, edit, expected):
    assert_is_the_volume(write_series(tmp_path / "series", VALUES, edit), values=expected)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_the_limits_of_16_bits_stay_exact(tmp_path, kind):
    values = VALUES.astype(kind)
    values[0, 0, :2] = np.iinfo(kind).min, np.iinfo(kind).max
    assert_is_the_volume(write_series(tmp_path / "series", values), values=values)


def test_unused_bits_are_no_part_of_the_value(tmp_path):
    """Old scanners keep overlays above the 12 stored bits."""

    def edit(image, z):
        image.BitsStored, image.HighBit = 12, 11

    values = VALUES.copy()
    values[::2] |= 0x8000
    assert_is_the_volume(write_series(tmp_path / "series", values, edit), values=values & 0x0FFF)


def thickness_as_text(image, z):
    image.SliceThickness = "2" if z % 2 else "2.0"
    image.SeriesDate = "20240101" if z % 2 else "20240102"


def no_thickness(image, z):
    image.SliceThickness = image.SpacingBetweenSlices = 0


def jitter(image, z):
    image.ImageOrientationPatient = [1, 1e-6 * (z % 3), 0, 0, 1, 1e-6 * (z % 2)]


def acquisitions(image, z):
    image.EchoTime, image.AcquisitionNumber = "3.0" if z % 2 else "3", 1 + z // 4


@pytest.mark.parametrize("edit", [thickness_as_text, no_thickness, jitter, acquisitions])
def test_one_uid_with_an_even_grid_is_one_series(tmp_path, edit):
    assert assert_is_the_volume(write_series(tmp_path / "series", VALUES, edit), affine=AFFINE) == ""


def stacked(*volumes) -> np.ndarray:
    return np.concatenate(volumes, axis=2)


def repeated(keyword, values):
    """Two volumes of one series at the same positions, which differ in one attribute."""

    def edit(image, z):
        image.ImagePositionPatient = place_of(z % SHAPE[2])
        setattr(image, keyword, values[z // SHAPE[2]])

    return edit


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", (3, 9)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("ImageType", (["O", "P", "M"], ["O", "P", "M", "ND"])),
    ],
)
def test_several_volumes_in_a_series_are_refused_with_their_difference(tmp_path, keyword, values):
    write_series(tmp_path / "series", stacked(VALUES, VALUES + 1), repeated(keyword, values))
    with pytest.raises(
        ValueError, match=rf"expected one volume, got 18 images at 9 positions; they differ in {keyword}"
    ):
        read(tmp_path / "series")


def without(keyword):
    return lambda image, z: delattr(image, keyword) if z == 4 else None


def with_value(keyword, value):
    return lambda image, z: setattr(image, keyword, value)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (without("ImagePositionPatient"), "expected 3 numbers in ImagePositionPatient, but it is absent"),
        (without("ImageOrientationPatient"), "expected 6 numbers in ImageOrientationPatient, but it is absent"),
        (without("PixelSpacing"), "expected 2 numbers in PixelSpacing, but it is absent"),
        (
            with_value("ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
            "expected one slice per image, got a Siemens mosaic .* dcm2niix",
        ),
        (with_value("RescaleSlope", "0"), "expected a RescaleSlope other than 0"),
        (with_value("PhotometricInterpretation", "MONOCHROME1"), "expected grey values .MONOCHROME2., got MONOCHROME1"),
    ],
)
def test_what_does_not_define_place_or_value_is_refused(tmp_path, edit, reason):
    write_series(tmp_path / "series", VALUES, edit)
    with pytest.raises(ValueError, match=rf"series.*: {reason}"):
        read(tmp_path / "series")


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_a_slope_that_is_no_number_is_refused(tmp_path):
    write_series(tmp_path / "series", VALUES, with_value("RescaleSlope", "1.5"))
    for path in (tmp_path / "series").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.5 ", b"nan ", 1) if b"1.5 " in path.read_bytes() else b"")
    with pytest.raises(ValueError, match="expected a finite RescaleSlope, got nan"):
        read(tmp_path / "series")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_the_transfer_syntax_changes_nothing(tmp_path, syntax):
    def edit(image, z):
        if syntax == RLELossless:
            image.compress(syntax, generate_instance_uid=False)
            return
        image.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()

    folder = tmp_path / "series"
    folder.mkdir()
    for path in write_series(tmp_path / "written", VALUES).iterdir():
        made = pydicom.dcmread(path)
        edit(made, 0)
        pydicom.dcmwrite(
            folder / path.name,
            made,
            implicit_vr=None if syntax == RLELossless else syntax.is_implicit_VR,
            little_endian=None if syntax == RLELossless else syntax.is_little_endian,
        )
    assert_is_the_volume(folder)


def test_compressed_pixels_keep_their_own_scale(tmp_path):
    """JPEG 2000 without loss, by ITK's own library."""

    def edit(image, z):
        image.RescaleSlope, image.RescaleIntercept = f"{0.25 * (z + 1):g}", "-3"

    folder = tmp_path / "series"
    folder.mkdir()
    for path in sorted(write_series(tmp_path / "written", VALUES, edit).iterdir()):
        made = pydicom.dcmread(path)
        packed = _jpeg_2000(made.pixel_array, tmp_path / "packed.dcm")
        made.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
        made.PixelData = packed.PixelData
        made["PixelData"].is_undefined_length = True
        made.save_as(folder / path.name, enforce_file_format=True)
    assert_is_the_volume(folder, values=VALUES * (0.25 * (1.0 + np.arange(SHAPE[2]))) - 3)


def _jpeg_2000(pixels: np.ndarray, path: Path) -> pydicom.Dataset:
    writer = itk.GDCMImageIO.New()
    writer.SetUseCompression(True)
    writer.SetCompressionType(
        itk.GDCMImageIO.CompressionEnum_JPEG2000 if hasattr(itk.GDCMImageIO, "CompressionEnum_JPEG2000") else 1
    )
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(pixels[None])), str(path), imageio=writer, compression=True)
    return pydicom.dcmread(path)


# Folders


def test_several_series_in_a_folder_are_told_apart_by_a_file(tmp_path):
    write_series(tmp_path, VALUES, name="a{:03d}", series=1)
    write_series(tmp_path, VALUES + 1, name="b{:03d}", series=2)
    assert {uid: len(files) for uid, files in dicom_series(tmp_path).items()} == {"1.2.3.1": 9, "1.2.3.2": 9}
    assert_is_the_volume(tmp_path / "a004")
    assert_is_the_volume(tmp_path / "b004", values=VALUES + 1)
    with pytest.raises(ValueError, match=r"expected one DICOM series, got 2: series-1_t1-mprage \(a000\)"):
        read(tmp_path)
    names = {named_path(tmp_path / name).name for name in ("a000", "b000")}
    assert names == {"series-1_t1-mprage", "series-2_t1-mprage"}


@pytest.mark.parametrize(("number", "expected"), [(None, "series_t1-mprage"), (0, "series-0_t1-mprage")])
def test_an_empty_number_of_a_series_is_not_in_its_name(tmp_path, number, expected):
    write_series(tmp_path, VALUES, name="a{:03d}", series=1)
    write_series(tmp_path, VALUES + 1, name="b{:03d}", series=2)
    for file in tmp_path.glob("a*"):
        header = pydicom.dcmread(file)
        header.SeriesNumber = number
        header.save_as(file)
    assert named_path(tmp_path / "a000").name == expected


def test_other_files_beside_a_series_are_no_slices(tmp_path):
    write_series(tmp_path, VALUES)
    (tmp_path / "README.txt").write_text("x")
    (tmp_path / "._000.dcm").write_bytes(b"\0\5\x16\7")
    assert assert_is_the_volume(tmp_path) == ""
    shutil.copy(tmp_path / "004.dcm", tmp_path / "004 (1).dcm")
    assert "1 DICOM files are copies of others" in assert_is_the_volume(tmp_path)
    (tmp_path / "099.dcm").write_bytes(b"damaged")
    assert "1 files are called DICOM but are none, such as 099.dcm" in assert_is_the_volume(tmp_path)


def test_a_single_slice_is_refused(tmp_path):
    write_series(tmp_path, VALUES[:, :, :1])
    with pytest.raises(ValueError, match=r"000\.dcm: expected a volume of several slices, got one"):
        read(tmp_path / "000.dcm")


def test_truncated_pixels_are_refused(tmp_path):
    write_series(tmp_path, VALUES)
    path = tmp_path / "004.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"expected a complete .* cannot be read \(ValueError: 004\.dcm"):
        read(tmp_path)


# Enhanced multi-frame files


@pytest.mark.parametrize(
    "order", [range(9), range(8, -1, -1), [0, 2, 4, 6, 8, 1, 3, 5, 7]], ids=["even", "reverse", "interleaved"]
)
def test_frames_are_sorted_by_their_positions(tmp_path, order):
    path = write_enhanced(tmp_path / "series" / "scan", VALUES, order)
    assert_is_the_volume(path)
    assert_is_the_volume(path.parent)
    assert named_path(path) == path.parent


def test_each_frame_has_its_own_scale(tmp_path):
    def edit(groups, number):
        groups.PixelValueTransformationSequence = [dataset(RescaleSlope=0.5 * (number + 1), RescaleIntercept=-1)]

    path = write_enhanced(tmp_path / "scan.dcm", VALUES, range(9), edit)
    assert_is_the_volume(path, values=VALUES * (0.5 * (1.0 + np.arange(9))) - 1)


def echo(groups, number):
    groups.MREchoSequence = [dataset(EffectiveEchoTime=3.0 + number // 9)]


def time(groups, number):
    groups.FrameContentSequence[0].TemporalPositionIndex = 1 + number // 9


def stack(groups, number):
    groups.FrameContentSequence[0].StackID = str(1 + number // 9)


def unplaced(groups, number):
    if number == 5:
        del groups.PlanePositionSequence


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (echo, "expected one volume, got 18 images at 9 positions; they differ in EffectiveEchoTime"),
        (time, "expected one volume, got 18 images at 9 positions; they differ in TemporalPositionIndex"),
        (stack, r"expected one stack of slices, got 2 \(1, 2\)"),
        (unplaced, "frame 6: expected 3 numbers in ImagePositionPatient, but it is absent"),
    ],
)
def test_frames_of_several_volumes_are_refused_with_their_difference(tmp_path, edit, reason):
    path = write_enhanced(tmp_path / "scan.dcm", VALUES, [*range(9), *range(9)], edit)
    with pytest.raises(ValueError, match=rf"scan\.dcm.*{reason}"):
        read(path)


def test_enhanced_files_beside_each_other_are_volumes_of_their_own(tmp_path):
    for name, values in (("a.dcm", VALUES), ("b.dcm", VALUES + 1)):
        write_enhanced(tmp_path / name, values, range(9))
        assert_is_the_volume(tmp_path / name, values=values)
    assert list(dicom_series(tmp_path)) == ["1.2.3.1", "1.2.3.1 b.dcm"]
    assert [named_path(tmp_path / name).name for name in ("a.dcm", "b.dcm")] == ["a", "b"]


def phase(image, z):
    image.ImageType = ["ORIGINAL", "PRIMARY", "P" if z % 2 else "M"]


@pytest.mark.parametrize("share", [1, 2])
def test_phase_images_are_refused_also_among_others(tmp_path, share):
    write_series(tmp_path / "series", VALUES, lambda image, z: phase(image, z * (3 - share) + 1))
    with pytest.raises(ValueError, match="expected a magnitude, got the image type P"):
        read(tmp_path / "series")


def test_the_phase_of_an_enhanced_image_is_refused(tmp_path):
    def edit(groups, _number):
        groups.MRImageFrameTypeSequence = [dataset(ComplexImageComponent="PHASE")]

    with pytest.raises(ValueError, match="expected a magnitude, got the image type PHASE"):
        read(write_enhanced(tmp_path / "scan.dcm", VALUES, range(SHAPE[2]), edit))


def test_one_word_as_image_type_is_no_phase(tmp_path):
    write_series(tmp_path / "series", VALUES, lambda image, z: setattr(image, "ImageType", "DERIVED"))
    assert assert_is_the_volume(tmp_path / "series") == ""


def modality(image, _z):
    image.Modality = "CT"


def echo(image, z):
    image.EchoTime = 3 + z % 2


def padding(image, z):
    image.PixelPaddingValue = int(VALUES[0, 0, 0])


@pytest.mark.parametrize(
    ("edit", "remark"),
    [(modality, "modality is CT"), (echo, r"differ in EchoTime \(3, 4 ms\)"), (padding, "hold the padding value")],
)
def test_what_is_doubtful_has_a_remark_and_exact_values(tmp_path, edit, remark):
    write_series(tmp_path / "series", VALUES, edit)
    assert re.search(remark, assert_is_the_volume(tmp_path / "series"))
