"""Conversion of a series to a volume, with correct values and geometry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from monai.deploy.core.domain import DICOMSeries, DICOMSOPInstance
from monai.deploy.operators import DICOMSeriesToVolumeOperator
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale

__all__ = ["SeriesToVolumeOperator"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# what the bundle's own reader keeps of a header, see scripts/transforms/frames.py
PROTOCOL = (
    "MRAcquisitionType", "SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "ImageOrientationPatient",
    "ImageType", "AcquisitionMatrix", "MRAcquisitionFrequencyEncodingSteps", "MRAcquisitionPhaseEncodingStepsInPlane",
    "PercentSampling", "PercentPhaseFieldOfView", "InPlanePhaseEncodingDirection",
)  # fmt: skip


class SeriesToVolumeOperator(DICOMSeriesToVolumeOperator):
    """The SDK's conversion, corrected for non-square pixels and for slices that each have their own rescale slope.

    The stock operator scales the row direction by the distance *between* rows, and keeps all slices in the data type of
    the first one.
    """

    def create_metadata(self, series: DICOMSeries) -> dict:
        """The SDK's metadata, with the name of the volume for the bundle's messages, and how it was acquired."""
        image = series.get_sop_instances()[0].get_native_sop_instance()
        protocol = {keyword: _plain(image[keyword].value) for keyword in PROTOCOL if image.get(keyword) is not None}
        own = {"filename_or_obj": f"series {series.SeriesNumber}", "protocol": json.dumps(protocol)}
        return {**super().create_metadata(series), **own}

    def generate_voxel_data(self, series: DICOMSeries) -> np.ndarray:
        """The volume (slices, rows, columns) as float32, rescaled."""
        return np.stack([_values(one.get_native_sop_instance()) for one in series.get_sop_instances()])

    def compute_affine_transform(
        self, s_1: DICOMSOPInstance, s_n: DICOMSOPInstance, n: int, series: DICOMSeries
    ) -> None:
        """Set the affines from voxel (column, row, slice) to mm in DICOM's and NIfTI's world."""
        first, last = (one.get_native_sop_instance() for one in (s_1, s_n))
        along_rows, along_columns = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
        between_rows, between_columns = (float(value) for value in first.PixelSpacing)
        start, end = (np.array(one.ImagePositionPatient, dtype=float) for one in (first, last))
        affine = np.eye(4)
        affine[:3, 0] = along_rows * between_columns
        affine[:3, 1] = along_columns * between_rows
        affine[:3, 2] = (end - start) / (n - 1)
        affine[:3, 3] = start
        series.dicom_affine_transform = affine
        series.nifti_affine_transform = LPS_TO_RAS @ affine


def _plain(value: Any) -> str | list[str]:
    """An attribute as a text, or as a list of texts."""
    return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else [str(one) for one in value]


def _values(image: Dataset) -> np.ndarray:
    """The rescaled pixels (rows, columns) of an image, as float32."""
    try:
        return apply_rescale(image.pixel_array, image).astype(np.float32)
    except Exception as error:  # damaged bytes can raise anything in a decoder
        raise ValueError(
            f"series {image.SeriesNumber}, image {image.get('InstanceNumber')}: expected pixels, but they cannot be "
            f"decoded ({type(error).__name__}: {error}). The file may be incomplete: send the series again."
        ) from error
