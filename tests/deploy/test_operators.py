"""The application's operators one by one: selection, conversion and writing."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from bundle_record import BundleRecord
from findings import Findings
from loading import SeriesLoaderOperator
from monai.deploy.core import Fragment, Image
from multiframe import frames_of
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage
from selection import reason_to_leave
from series import decimal, stored_slope, window_of
from study import write_enhanced, write_series
from volume import SeriesToVolumeOperator
from writing import DICOMSeriesWriterOperator

MATRIX = np.diag([1.0, 1.0, 1.5])


def images(count: int = 10, **attributes: object) -> list[Dataset]:
    """The headers of an eligible series, changed by ``attributes``."""
    series = []
    for index in range(count):
        image = Dataset()
        described = {
            "SOPClassUID": MRImageStorage,
            "Modality": "MR",
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "MRAcquisitionType": "3D",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": 20,
            "Columns": 24,
            "PixelSpacing": [1.0, 1.0],
            "SliceThickness": "1.5",
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, 1.5 * index],
            **attributes,
        }
        for keyword, value in described.items():
            setattr(image, keyword, value)
        series.append(image)
    return series


def test_a_thin_sliced_acquisition_of_the_head_is_eligible_in_any_order():
    assert reason_to_leave(images()) is None
    assert reason_to_leave(images()[::-1]) is None
    assert reason_to_leave(images(BodyPartExamined="Brain")) is None
    assert reason_to_leave(images(MRAcquisitionType="", SliceThickness=None)) is None


def test_thick_2d_slices_are_eligible_and_so_are_interpolated_pixels():
    assert reason_to_leave(images(MRAcquisitionType="2D", PixelSpacing=[0.4, 0.4])) is None
    fine = {"PixelSpacing": [0.1, 0.1], "Rows": 240, "Columns": 240}
    assert reason_to_leave(images(**fine, AcquisitionMatrix=[0, 100, 80, 0])) is None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture Image Storage; expected MR images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "image type P; expected an acquired magnitude image"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "image type ADC, DIFFUSION; expected an acquired"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "pixels of RGB; expected MONOCHROME2"),
        ({"PixelSpacing": None}, "no PixelSpacing; expected the place of every slice"),
        ({"NumberOfFrames": 5}, "several frames in an image of a single-frame class"),
        ({"count": 4}, "4 slices; expected at least 5"),
        (
            {"PixelSpacing": [0.1, 0.1]},
            "slices every 1.5 mm with pixels of 0.1 mm; expected at most 8 times",
        ),
        (
            {"SliceThickness": "4", "MRAcquisitionType": "2D"},
            "2-D slices of 4 mm every 1.5 mm; expected at most 2",
        ),
    ],
)
def test_a_series_is_left_for_the_reason_that_its_headers_give(attributes, reason):
    assert reason_to_leave(images(**attributes)).startswith(reason)


def test_a_series_is_left_when_its_slices_are_no_even_stack():
    turned, sheared = images(), images()
    turned[3].ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    for index, image in enumerate(sheared):
        image.ImagePositionPatient = [0.5 * index, 0, 1.5 * index]
    assert "several sizes, spacings or orientations" in reason_to_leave(turned)
    assert "shifted against each other" in reason_to_leave(sheared)
    assert "several images at one position" in reason_to_leave(images() + images())
    assert "slice distances from 1.5 to 3 mm" in reason_to_leave(images()[:4] + images()[5:])


def test_the_loader_keeps_every_image_and_takes_an_empty_series_number(tmp_path):
    write_series(tmp_path, 5, "one", (8, 8, 10), MATRIX, SeriesNumber=None)
    for path in tmp_path.glob("*.dcm"):
        image = pydicom.dcmread(path)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{image.SOPInstanceUID}1"[-64:]
        image.save_as(path.with_name(f"second_{path.name}"))
    (study,) = SeriesLoaderOperator(Fragment(), name="loader").load_data_to_studies(tmp_path)
    (series,) = study.get_all_series()
    assert len(series.get_sop_instances()) == 20
    assert series.SeriesNumber == 0


def test_what_is_there_of_an_earlier_run_is_replaced(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    write_series(tmp_path / "in", 5, "one", (12, 10, 9), MATRIX)
    (study,) = SeriesLoaderOperator(Fragment(), name="loader").load_data_to_studies(tmp_path / "in")
    (series,) = study.get_all_series()
    SeriesToVolumeOperator(Fragment(), name="to_volume").prepare_series(series)
    record = BundleRecord("name", "1.0.0", 64 * "a", "Research only; not for diagnosis")
    writer = DICOMSeriesWriterOperator(Fragment(), output_dir=tmp_path / "out", record=record, name="writer")
    for slices in (9, 7):
        volume = np.full((slices, 10, 12), 100.0, dtype=np.float32)
        writer.write(Image(volume, {"affine": affine, "findings": Findings()}), series)
    (folder,) = (tmp_path / "out").iterdir()
    assert len(list(folder.iterdir())) == 7


def test_each_slice_is_rescaled_by_its_own_slope_and_lies_where_it_says(tmp_path):
    """Non-square pixels, slices stored in any order, and a first slice of air."""
    matrix = np.diag([0.8, 1.1, 1.5])
    write_series(tmp_path, 5, "one", (12, 10, 9), matrix)
    expected = []
    for index, path in enumerate(sorted(tmp_path.glob("*.dcm"))):
        image = pydicom.dcmread(path)
        image.RescaleSlope, image.RescaleIntercept = f"{0.1 * index:.1f}", "0"
        expected.append(image.pixel_array * (0.1 * index))
        image.save_as(path)
    (study,) = SeriesLoaderOperator(Fragment(), name="loader").load_data_to_studies(tmp_path)
    (series,) = study.get_all_series()
    series._sop_instances.reverse()
    convert = SeriesToVolumeOperator(Fragment(), name="to_volume")
    convert.prepare_series(series)
    volume = convert.generate_voxel_data(series)
    assert volume.dtype == np.float32
    np.testing.assert_allclose(volume, expected, rtol=1e-5)
    np.testing.assert_allclose(series.dicom_affine_transform[:3, :3], matrix, atol=1e-6)
    np.testing.assert_allclose(series.nifti_affine_transform, np.diag([-1, -1, 1, 1]) @ series.dicom_affine_transform)


def test_the_frames_of_an_enhanced_image_share_nothing_that_differs(tmp_path):
    write_series(tmp_path / "single", 2, "one", (40, 36, 10), MATRIX)
    whole = pydicom.dcmread(write_enhanced(tmp_path / "enhanced", tmp_path / "single") / "enhanced.dcm")
    frames = frames_of(whole)
    assert [frame.InstanceNumber for frame in frames] == list(range(1, 11))
    assert len({tuple(frame.ImagePositionPatient) for frame in frames}) == 10
    assert {frame.SOPInstanceUID for frame in frames} == {whole.SOPInstanceUID}
    singles = [pydicom.dcmread(path) for path in sorted((tmp_path / "single").glob("*.dcm"))][::-1]
    for frame, single in zip(frames, singles, strict=True):
        np.testing.assert_array_equal(frame.pixel_array * float(frame.RescaleSlope), single.pixel_array)
        assert frame.EchoTime == single.EchoTime
    assert frames_of(singles[0]) == [singles[0]]


def test_stored_units_are_those_of_the_source_where_they_fit():
    plain, rescaled, volume = images(), images(RescaleSlope="0.5", RescaleIntercept="0"), np.array([-3.0, 900.0])
    assert stored_slope(plain, volume) == 1
    assert stored_slope(rescaled, volume) == 2.0**-5
    assert stored_slope(plain, 50 * volume) == 2
    assert float(decimal(stored_slope(rescaled, volume / 1000))) == stored_slope(rescaled, volume / 1000)


def test_the_window_is_the_source_s_or_shows_the_volume():
    given = images(WindowCenter=["40", "50"], WindowWidth=["80", "100"])
    volume = np.linspace(0, 1000, 1001)
    assert window_of(given, volume) == (40, 80)
    centre, width = window_of(images(), volume)
    assert (centre - width / 2, centre + width / 2) == pytest.approx((10, 998))
