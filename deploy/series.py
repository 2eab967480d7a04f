"""A DICOM series of single-frame MR images, made from a volume and its source images. It needs pydicom alone.

docs/dicom_conformance.md states what the images hold.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

if TYPE_CHECKING:
    from bundle_record import BundleRecord
    from findings import Findings

__all__ = ["stored_slope", "window_of", "write_series"]

STATEMENT = "super-resolved, not for diagnosis"
CAUTION = "A super-resolved image can show what is not there."
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LONGEST = {"ST": 1024, "LT": 10240}  # characters of a value, by its representation
# The result keeps the source's subject, dates, frame of reference and sequence. It drops private attributes, because
# they describe the source's slices.
KEPT = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "PatientBirthTime", "OtherPatientIDs",
    "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "StudyDescription", "BodyPartExamined", "Laterality", "PatientPosition",
    "ProtocolName", "FrameOfReferenceUID", "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime",
    "AcquisitionDateTime", "AcquisitionNumber", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName",
    "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "InversionTime", "FlipAngle",
    "MagneticFieldStrength", "ImagingFrequency", "NumberOfAverages", "PixelBandwidth", "ContrastBolusAgent",
    "InstitutionName", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
# Required by the patient, study and MR image modules. An enhanced or incomplete source may lack them.
REQUIRED = {
    **dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                     "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "ScanOptions",
                     "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"), ""),
    "ScanningSequence": "RM", "SequenceVariant": "NONE", "StudyInstanceUID": None, "FrameOfReferenceUID": None,
}  # fmt: skip


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    sources: Sequence[Dataset],
    record: BundleRecord,
    findings: Findings,
) -> None:
    """Write the images of a new series. The folder is complete or absent, and replaces an earlier one.

    Pixels are 16-bit integers in the units of the source. If the source is rescaled, or if the values exceed 16 bits,
    the result is rescaled by a power of two, which is exact in decimals.

    Args:
        folder: where to write, one file per slice.
        volume: float voxels (slices, rows, columns).
        affine: from voxel (column, row, slice) to NIfTI's world in mm.
        sources: the images of the source series.
        record: the bundle that made the volume.
        findings: what the run found out.
    """
    affine = RAS_TO_LPS @ affine
    slope = stored_slope(sources, volume)
    common = _common(sources[0], record, findings)
    _set_plane_geometry(common, affine)
    _set_pixel_module(common, volume.shape[1:], slope)
    common.WindowCenter, common.WindowWidth = (decimal(value) for value in window_of(sources, volume))
    unfinished = folder.with_name(f".unfinished_{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    stored = np.round(volume / slope).astype("<i2")
    for index, plane in enumerate(_planes(common, stored, affine, sources), start=1):
        plane.save_as(unfinished / f"{index:05d}.dcm", enforce_file_format=True)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)


def _common(source: Dataset, record: BundleRecord, findings: Findings) -> Dataset:
    """The attributes that all images of the new series share."""
    common = Dataset()
    for keyword in (*KEPT, *REQUIRED):
        if keyword in source:
            common[keyword] = source[keyword]
        elif keyword in REQUIRED:
            value = REQUIRED[keyword]
            setattr(common, keyword, generate_uid() if value is None else value)
    now = datetime.datetime.now()
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(common, f"{name}Date", now.strftime("%Y%m%d"))
        setattr(common, f"{name}Time", now.strftime("%H%M%S"))
    common.SOPClassUID = MRImageStorage
    common.Modality = "MR"
    common.SeriesInstanceUID = generate_uid()
    common.SeriesNumber = 100 * int(source.get("SeriesNumber") or 0) + 1
    common.SeriesDescription = f"{(source.get('SeriesDescription') or 'MR')[: 62 - len(STATEMENT)]}, {STATEMENT}"
    common.ImageType = ["DERIVED", "SECONDARY", "OTHER", "SUPER_RESOLUTION"]
    common.Manufacturer, common.ManufacturerModelName = "MONAI", record.name
    common.SoftwareVersions = record.version
    common.ContributingEquipmentSequence = [_algorithm(record, findings), _scanner(source)]
    common.DerivationCodeSequence = [_code(codes.DCM.SpatialResampling)]
    common.DerivationDescription = _text(
        "ST",
        f"Super-resolved by {record.name} {record.version}, weights SHA-256 {record.weights_sha256}.",
        f"{record.intended_use}.",
        *findings.measures(),
    )
    common.ImageComments = _text("LT", f"{record.intended_use}.", CAUTION, *findings.sentences())
    return common


def _algorithm(record: BundleRecord, findings: Findings) -> Dataset:
    """The bundle, as the equipment that made the images and by the attributes of Algorithm Identification."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code(codes.DCM.ProcessingEquipment)]
    item.Manufacturer, item.ManufacturerModelName = "MONAI", record.name
    item.SoftwareVersions = [record.version, record.weights_sha256]
    item.DeviceUID = generate_uid(entropy_srcs=[record.weights_sha256])  # other weights are another device
    item.AlgorithmFamilyCodeSequence = [_code(codes.DCM.ArtificialIntelligence)]
    item.AlgorithmName, item.AlgorithmVersion, item.AlgorithmSource = record.name, record.version, "MONAI"
    item.AlgorithmParameters = _text("LT", f"Weights SHA-256 {record.weights_sha256}.", *findings.measures())
    return item


def _scanner(source: Dataset) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code(codes.DCM.AcquisitionEquipment)]
    item.Manufacturer = source.get("Manufacturer") or ""
    for keyword in ("ManufacturerModelName", "StationName", "SoftwareVersions", "DeviceSerialNumber"):
        if keyword in source:
            item[keyword] = source[keyword]
    return item


def _text(representation: str, *sentences: str) -> str:
    """Sentences in ASCII, which every character set holds, within the limit of a value representation."""
    text = " ".join(sentences).encode("ascii", "replace").decode()
    longest = LONGEST[representation]
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def _set_plane_geometry(common: Dataset, affine: np.ndarray) -> None:
    between_columns, between_rows, between_slices = np.linalg.norm(affine[:3, :3], axis=0)
    common.PixelSpacing = [decimal(round(between_rows, 7)), decimal(round(between_columns, 7))]
    common.SliceThickness = common.SpacingBetweenSlices = decimal(round(between_slices, 7))
    cosines = np.concatenate([affine[:3, 0] / between_columns, affine[:3, 1] / between_rows])
    common.ImageOrientationPatient = [decimal(value) for value in cosines]


def _set_pixel_module(common: Dataset, shape: Sequence[int], slope: float) -> None:
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows, common.Columns = shape
    common.BitsAllocated = common.BitsStored = 16
    common.HighBit = 15
    common.PixelRepresentation = 1
    if slope != 1:  # the MR image module lacks it, but scanners write it
        common.RescaleSlope, common.RescaleIntercept, common.RescaleType = decimal(slope), "0", "US"


def _planes(common: Dataset, stored: np.ndarray, affine: np.ndarray, sources: Sequence[Dataset]) -> Iterator[Dataset]:
    """One dataset per slice, with its position, its pixels and its two nearest source slices."""
    places = np.array([one.ImagePositionPatient for one in sources], dtype=float)
    for index, values in enumerate(stored):
        plane = Dataset()
        plane.update(common)
        plane.SOPInstanceUID = generate_uid()
        plane.InstanceNumber = index + 1
        position = affine[:3, 3] + index * affine[:3, 2]
        plane.ImagePositionPatient = [decimal(value) for value in position]
        nearest = np.argsort(np.linalg.norm(places - position, axis=1), kind="stable")[:2]
        plane.SourceImageSequence = [_reference(sources[number]) for number in sorted(nearest)]
        plane.PixelData = values.tobytes()
        plane.file_meta = FileMetaDataset()
        plane.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
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


def stored_slope(sources: Sequence[Dataset], volume: np.ndarray) -> float:
    """The value of one stored unit: 1, or if needed the smallest power of two that reaches the brightest voxel."""
    largest = float(np.abs(volume).max())
    rescaled = any((source.get("RescaleSlope", 1), source.get("RescaleIntercept", 0)) != (1, 0) for source in sources)
    return 2.0 ** np.ceil(np.log2(max(largest, 1e-6) / 32767)) if rescaled or largest > 32767 else 1.0


def window_of(sources: Sequence[Dataset], volume: np.ndarray) -> tuple[float, float]:
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


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters. Values below 1e-12 become 0."""
    return format_number_as_ds(0.0 if abs(value) < 1e-12 else float(value))
