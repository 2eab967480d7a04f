"""DICOM frames: the place and the pixels of each image of a series, classic or enhanced."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scripts.transforms.formats import HeaderError
from scripts.utils.itk import import_itk

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Frame", "read_frames", "stored_pixels"]


# where an enhanced image keeps the attributes of a frame: sequences of its functional groups
MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "MRFOVGeometrySequence",
    "PixelValueTransformationSequence",
    "FrameContentSequence",
    "MREchoSequence",
    "MRImageFrameTypeSequence",
    "MRDiffusionSequence",
    "CardiacSynchronizationSequence",
    "TemporalPositionSequence",
)
# attributes in which the volumes of one series differ, classic and enhanced
DIFFERENCES = (
    "StackID",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TemporalPositionTimeOffset",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "DiffusionBValue",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
    "Modality",
    "PixelPaddingValue",
)
# attributes that say how the scan was acquired, classic and enhanced
PROTOCOL = (
    "MRAcquisitionType",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImageType",
    "AcquisitionMatrix",
    "MRAcquisitionFrequencyEncodingSteps",
    "MRAcquisitionPhaseEncodingStepsInPlane",
    "PercentSampling",
    "PercentPhaseFieldOfView",
    "InPlanePhaseEncodingDirection",
)
NO_MAGNITUDE = {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"}  # components of a complex image, in any attribute
MOSAIC_COUNT = (0x0019, 0x100A)  # Siemens: number of images in a mosaic
NATIVE = {  # transfer syntaxes that pydicom decodes without a further package
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
}
PIXEL_LAYOUT = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
)
REMEDY = "Export the series again, or convert it by dcm2niix."


class Frame(NamedTuple):
    """One slice.

    Args:
        path: its file.
        index: its number in the file, from 0.
        position: of its first pixel, in mm of the patient's LPS frame.
        orientation: ``(2, 3)``, the unit vectors along a row and along a column.
        spacing: mm between columns and between rows.
        size: columns and rows.
        slope: units per stored value.
        intercept: units of the stored value 0.
        instance: the SOP instance UID of its file.
        labels: the attributes in which volumes of one series may differ.
        protocol: the attributes that say how it was acquired.
    """

    path: Path
    index: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    size: tuple[int, int]
    slope: float
    intercept: float
    instance: str
    labels: dict[str, str]
    protocol: dict[str, Any]


def read_frames(path: Path) -> list[Frame]:
    """The frames of a DICOM file, by its header or, of an enhanced image, by its functional groups.

    Raises:
        HeaderError: when a frame has no position, or its pixels are not grey values on one known scale.
    """
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    _check_kind(path, header)
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if count > 1 and len(per_frame) != count:
        raise HeaderError(
            f"{path}: expected the position of each of the {count} frames, got {len(per_frame)} functional groups. "
            f"{REMEDY}"
        )
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    return [_frame(path, header, index, [*per_frame[index : index + 1], *shared]) for index in range(count)]


def _check_kind(path: Path, header: Dataset) -> None:
    if "MOSAIC" in (header.get("ImageType") or ()) or MOSAIC_COUNT in header:
        raise HeaderError(
            f"{path}: expected one slice per image, got a Siemens mosaic of slices side by side. Convert it by "
            "dcm2niix."
        )
    kind = header.get("PhotometricInterpretation"), int(header.get("SamplesPerPixel") or 1)
    if kind != ("MONOCHROME2", 1):
        raise HeaderError(f"{path}: expected grey values (MONOCHROME2), got {kind[0]} of {kind[1]} samples. {REMEDY}")
    bits = header.get("BitsAllocated")
    if bits not in (8, 16, 32, 64):
        raise HeaderError(f"{path}: expected 8, 16, 32 or 64 bits per pixel, got {bits}. {REMEDY}")
    if "HighBit" in header and "BitsStored" in header and header.HighBit != header.BitsStored - 1:
        raise HeaderError(
            f"{path}: expected the stored bits below HighBit {header.BitsStored - 1}, got {header.HighBit}. {REMEDY}"
        )


def _frame(path: Path, header: Dataset, index: int, groups: Sequence[Dataset]) -> Frame:
    place = path if len(groups) < 2 else f"{path}, frame {index + 1}"
    sources = [header, *_macros(groups)] if groups else [header]

    def get(keyword: str) -> Any:
        values = (source.get(keyword) for source in reversed(sources))
        return next((value for value in values if value is not None), None)

    geometry = {}
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        geometry[keyword] = _numbers(get(keyword))
        if len(geometry[keyword]) != length or not np.isfinite(geometry[keyword]).all():
            raise HeaderError(f"{place}: expected {length} numbers in {keyword}, but it is absent or invalid. {REMEDY}")
    orientation = geometry["ImageOrientationPatient"].reshape(2, 3)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise HeaderError(
            f"{place}: expected rows and columns at right angles in ImageOrientationPatient, got "
            f"{orientation.ravel().tolist()}. {REMEDY}"
        )
    between_rows, between_columns = geometry["PixelSpacing"]
    if min(between_rows, between_columns) <= 0:
        raise HeaderError(
            f"{place}: expected a positive PixelSpacing, got {geometry['PixelSpacing'].tolist()}. {REMEDY}"
        )
    types = [get(key) for key in ("ImageType", "FrameType")]
    kinds = {part.upper() for value in types if value and not isinstance(value, str) for part in list(value)[2:]}
    if found := NO_MAGNITUDE & {*kinds, str(get("ComplexImageComponent")).upper()}:
        raise HeaderError(f"{place}: expected a magnitude, got the image type {min(found)}. Use the magnitude.")
    if get("ModalityLUTSequence"):
        raise HeaderError(f"{place}: expected a rescale slope, got a table of values (Modality LUT). {REMEDY}")
    slope, intercept = (_scale(place, get, *names) for names in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if slope == 0:
        raise HeaderError(f"{place}: expected a RescaleSlope other than 0, got 0. {REMEDY}")
    return Frame(
        path,
        index,
        geometry["ImagePositionPatient"],
        orientation / np.linalg.norm(orientation, axis=1, keepdims=True),
        (float(between_columns), float(between_rows)),
        (int(header.Columns), int(header.Rows)),
        slope,
        intercept,
        str(header.get("SOPInstanceUID", path)),
        {keyword: str(value) for keyword in DIFFERENCES if (value := get(keyword)) is not None},
        {keyword: _plain(value) for keyword in PROTOCOL if (value := get(keyword)) is not None},
    )


def _macros(groups: Sequence[Dataset]) -> Iterator[Dataset]:
    """The items of the functional groups: the shared ones first, so that those of the frame come last."""
    for group in reversed(groups):
        for keyword in MACROS:
            yield from (group.get(keyword) or [])[:1]


def _plain(value: Any) -> Any:
    """An attribute as a text, or as a list of texts."""
    return str(value) if isinstance(value, str) or not hasattr(value, "__iter__") else [str(one) for one in value]


def _numbers(value: Any) -> np.ndarray:
    try:
        return np.atleast_1d(np.asarray([] if value is None else value, dtype=float))
    except (TypeError, ValueError):
        return np.empty(0)


def _scale(place: Any, get: Any, keyword: str, default: float) -> float:
    value = get(keyword)
    number = default if value is None or value == "" else float(value)
    if not math.isfinite(number):
        raise HeaderError(f"{place}: expected a finite {keyword}, got {number}. {REMEDY}")
    return number


def stored_pixels(path: Path) -> np.ndarray:
    """The stored values of a DICOM file, ``(frames, rows, columns)``, before any rescaling.

    Raises:
        ValueError: when pixels are missing or damaged.
    """
    import pydicom

    data = pydicom.dcmread(path, force=True)
    syntax = str(getattr(data.file_meta, "TransferSyntaxUID", "")) if hasattr(data, "file_meta") else ""
    if not syntax:  # without preamble: pydicom has found out how it is written; versions 3 and 2 name it differently
        implicit, little = getattr(data, "original_encoding", None) or (data.read_implicit_vr, data.read_little_endian)
        syntax = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    pixels = data.pixel_array if syntax in NATIVE else _by_itk(data)
    pixels = pixels.reshape(-1, data.Rows, data.Columns)
    unused = int(data.BitsAllocated) - int(data.get("BitsStored") or data.BitsAllocated)
    return pixels if unused <= 0 or pixels.dtype.kind == "f" else (pixels << unused) >> unused


def _by_itk(data: Dataset) -> np.ndarray:
    """Decode compressed pixels by ITK, from a copy without position and rescaling, which ITK would apply."""
    import pydicom

    itk = import_itk()

    frames = int(data.get("NumberOfFrames") or 1)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7" + (".3" if frames > 1 else "")  # Secondary Capture
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    elements = {data[keyword].tag: data[keyword] for keyword in PIXEL_LAYOUT if keyword in data}
    plain = pydicom.FileDataset("", elements, bytes(128), meta, is_implicit_VR=False, is_little_endian=True)
    plain.SOPClassUID, plain.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pixels.dcm")
        plain.save_as(file)
        return itk.array_from_image(itk.imread(str(file), imageio=itk.GDCMImageIO.New()))
