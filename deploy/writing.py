"""Writing the super-resolved volume as NIfTI, and as a DICOM series of the same study."""

from __future__ import annotations

import json
import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bundle_record import BundleRecord
from monai.deploy.core import Fragment, Image, Operator, OperatorSpec
from monai.deploy.core.domain import DICOMSeries, StudySelectedSeries
from monai.deploy.operators import EquipmentInfo, ModelInfo, save_dcm_file, write_common_modules
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

__all__ = ["DICOMSeriesWriterOperator", "NiftiWriterOperator", "result_name"]

STATEMENT = "super-resolved, not for diagnosis"
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# The result keeps the source's subject, dates, frame of reference and sequence. It drops private attributes, because
# they describe the source's slices.
KEPT = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "PatientBirthTime", "OtherPatientIDs",
    "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "BodyPartExamined", "Laterality", "PatientPosition", "ProtocolName",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "AcquisitionNumber", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName", "MRAcquisitionType",
    "RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "FlipAngle", "MagneticFieldStrength",
    "ImagingFrequency", "NumberOfAverages", "PixelBandwidth", "ContrastBolusAgent", "InstitutionName",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
REQUIRED = {  # by the MR image module; an enhanced or incomplete source may lack them
    "FrameOfReferenceUID": None,
    "PositionReferenceIndicator": "",
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "RepetitionTime": "",
    "EchoTime": "",
    "EchoTrainLength": "",
}


def result_name(series: DICOMSeries) -> str:
    """The name of the results of a series, without extension."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", series.SeriesDescription or "").strip("-")
    return f"series-{series.SeriesNumber}" + (f"_{words}" if words else "") + "_desc-sr"


class _WriterOperator(Operator):
    """The base of both writers, which receives the volume and its source series.

    Args:
        fragment: the application.
        output_dir: folder to write to.
        record: the record of the bundle.
    """

    def __init__(self, fragment: Fragment, *args: Any, output_dir: Path, record: BundleRecord, **kwargs: Any) -> None:
        self.output_dir = output_dir
        self.record = record
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("image")
        spec.input("study_selected_series_list")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        image = op_input.receive("image")
        selected: Sequence[StudySelectedSeries] = op_input.receive("study_selected_series_list")
        self.write(image, selected[0].selected_series[0].series)

    @abstractmethod
    def write(self, image: Image, series: DICOMSeries) -> None:
        """Write ``image``: voxels (slices, rows, columns) with an affine to NIfTI's world, made from ``series``."""


class NiftiWriterOperator(_WriterOperator):
    """Write float32 NIfTI in the units of the source, and a JSON file with the origin of the result."""

    def write(self, image: Image, series: DICOMSeries) -> None:
        affine = image.metadata()["affine"]
        volume = nib.Nifti1Image(image.asnumpy().transpose(2, 1, 0), affine)
        volume.header.set_xyzt_units("mm")
        self.output_dir.mkdir(parents=True, exist_ok=True)
        name = f"{result_name(series)}.nii.gz"
        unfinished = self.output_dir / f".unfinished_{name}"
        nib.save(volume, unfinished)
        os.replace(unfinished, self.output_dir / name)
        sidecar = {
            "Description": "Super-resolved volume, in the intensity units of its source.",
            "IntendedUse": self.record.intended_use,
            "Sources": [str(series.SeriesInstanceUID)],
            "GeneratedBy": [{"Name": self.record.name, "Version": self.record.version}],
            "SourceSpacing": np.linalg.norm(series.nifti_affine_transform[:3, :3], axis=0).round(6).tolist(),
            "Spacing": np.linalg.norm(affine[:3, :3], axis=0).round(6).tolist(),
            "WeightsSHA256": self.record.weights_sha256,
        }
        text = json.dumps(sidecar, indent=2) + "\n"
        (self.output_dir / f"{result_name(series)}.json").write_text(text, encoding="utf-8")


class DICOMSeriesWriterOperator(_WriterOperator):
    """Write single-frame MR images as a new series of the source's study, in its frame of reference.

    Pixels are 16-bit integers in the units of the source. If the source is rescaled, or if the values exceed 16 bits,
    the result is rescaled by a power of two, which is exact in decimals. The folder is complete or absent.
    """

    def write(self, image: Image, series: DICOMSeries) -> None:
        volume, affine = image.asnumpy(), RAS_TO_LPS @ image.metadata()["affine"]
        sources = [one.get_native_sop_instance() for one in series.get_sop_instances()]
        common = self._common(series, sources, affine)
        slope = _slope(sources, volume)
        _set_pixel_module(common, volume.shape[1:], slope)
        common.WindowCenter, common.WindowWidth = (_ds(value) for value in _window(sources, volume))
        folder = self.output_dir / result_name(series)
        unfinished = folder.with_name(f".unfinished_{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        stored = np.round(volume / slope).astype("<i2")
        for index, plane in enumerate(_planes(common, stored, affine, sources)):
            save_dcm_file(plane, unfinished / f"{index + 1:05d}.dcm", validate_readable=False)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run, because a folder holds one series
        os.replace(unfinished, folder)

    def _common(self, series: DICOMSeries, sources: Sequence[Dataset], affine: np.ndarray) -> Dataset:
        """The attributes that all images of the new series share."""
        record, source = self.record, sources[0]
        model = ModelInfo("MONAI", record.name, record.version, generate_uid(entropy_srcs=[record.weights_sha256]))
        common = write_common_modules(series, True, "MR", MRImageStorage, model, EquipmentInfo())
        common.ContributingEquipmentSequence[0].SoftwareVersions = [record.version, record.weights_sha256]
        # the SDK's values describe the writing and would change the meaning of the copied dates, or belong to one image
        for keyword in (
            "AcquisitionDateTime", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "RequestedProcedureID",
            "SOPInstanceUID", "InstanceNumber",
        ):  # fmt: skip
            del common[keyword]
        for keyword in KEPT:
            if keyword in source:
                common[keyword] = source[keyword]
        for keyword, value in REQUIRED.items():
            if keyword not in common:
                setattr(common, keyword, generate_uid() if value is None else value)
        common.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        common.file_meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
        common.SeriesNumber = 100 * int(series.SeriesNumber) + 1
        common.SeriesDescription = f"{(series.SeriesDescription or 'MR')[: 62 - len(STATEMENT)]}, {STATEMENT}"
        common.ImageType = ["DERIVED", "SECONDARY", "OTHER", "SUPER_RESOLUTION"]
        common.DerivationDescription = (
            f"Super-resolved by {record.name} {record.version}, weights SHA-256 {record.weights_sha256}. "
            f"{record.intended_use}."
        )
        common.ImageComments = f"{record.intended_use}. A super-resolved image can show what is not there."
        common.DerivationCodeSequence = [_code(codes.DCM.SpatialResampling)]
        _set_plane_geometry(common, affine)
        return common


def _set_plane_geometry(common: Dataset, affine: np.ndarray) -> None:
    between_columns, between_rows, between_slices = np.linalg.norm(affine[:3, :3], axis=0)
    common.PixelSpacing = [_ds(round(between_rows, 7)), _ds(round(between_columns, 7))]
    common.SliceThickness = common.SpacingBetweenSlices = _ds(round(between_slices, 7))
    cosines = np.concatenate([affine[:3, 0] / between_columns, affine[:3, 1] / between_rows])
    common.ImageOrientationPatient = [_ds(value) for value in cosines]


def _set_pixel_module(common: Dataset, shape: Sequence[int], slope: float) -> None:
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = shape
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = 1
    if slope != 1:  # the MR image module lacks it, but scanners write it
        common.RescaleSlope, common.RescaleIntercept, common.RescaleType = _ds(slope), "0", "US"


def _planes(common: Dataset, stored: np.ndarray, affine: np.ndarray, sources: Sequence[Dataset]) -> Iterator[Dataset]:
    """One dataset per slice, with its position, its pixels and its two nearest source slices."""
    places = np.array([one.ImagePositionPatient for one in sources], dtype=float)
    for index, values in enumerate(stored):
        plane = Dataset()
        plane.update(common)
        plane.file_meta = Dataset()
        plane.file_meta.update(common.file_meta)
        plane.SOPInstanceUID = plane.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        plane.InstanceNumber = index + 1
        position = affine[:3, 3] + index * affine[:3, 2]
        plane.ImagePositionPatient = [_ds(value) for value in position]
        nearest = np.argsort(np.linalg.norm(places - position, axis=1), kind="stable")[:2]
        plane.SourceImageSequence = [_reference(sources[number]) for number in sorted(nearest)]
        plane.PixelData = values.tobytes()
        yield plane


def _reference(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if source.SOPClassUID != MRImageStorage:  # a frame of an enhanced image
        reference.ReferencedFrameNumber = source.InstanceNumber
    reference.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
    return reference


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _slope(sources: Sequence[Dataset], volume: np.ndarray) -> float:
    """The value of one stored unit: 1, or if needed the smallest power of two that reaches the brightest voxel."""
    largest = float(np.abs(volume).max())
    rescaled = any((source.get("RescaleSlope", 1), source.get("RescaleIntercept", 0)) != (1, 0) for source in sources)
    return 2.0 ** np.ceil(np.log2(max(largest, 1e-6) / 32767)) if rescaled or largest > 32767 else 1.0


def _window(sources: Sequence[Dataset], volume: np.ndarray) -> tuple[float, float]:
    """Centre and width: the median over the source's slices, or else the range of 1 to 99.8 % of the voxels."""
    keywords = ("WindowCenter", "WindowWidth")
    given = [
        [np.ravel(source[keyword].value)[0] for keyword in keywords]
        for source in sources
        if all(source.get(keyword) not in (None, "") for keyword in keywords)
    ]
    if given:
        centre, width = np.median(np.array(given, dtype=float), axis=0)
        return float(centre), max(1.0, float(width))
    low, high = np.percentile(volume, [1, 99.8])
    return float(low + high) / 2, max(1.0, float(high - low))


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters. Values below 1e-12 become 0."""
    return format_number_as_ds(0.0 if abs(value) < 1e-12 else float(value))
