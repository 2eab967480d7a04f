"""Enhanced multi-frame MR images, converted to single-frame images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, LegacyConvertedEnhancedMRImageStorage
from pydicom.valuerep import format_number_as_ds

__all__ = ["frames_of"]

MULTI_FRAME_CLASSES = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
NOT_OF_A_FRAME = (*FUNCTIONAL_GROUPS, "PixelData", "NumberOfFrames", "DimensionIndexSequence")
# keyword of an enhanced image, keyword of a single-frame image
RENAMED = (("FrameType", "ImageType"), ("EffectiveEchoTime", "EchoTime"))
SCANNING_SEQUENCES = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}  # by EchoPulseSequence


def frames_of(image: Dataset) -> list[Dataset]:
    """Split an enhanced MR image into single-frame datasets, with all attributes and pixels at the top level.

    Args:
        image: any DICOM object. An object of another class is returned unchanged.

    Returns:
        one dataset per frame, in the order of the frames. Each keeps the SOP instance UID of ``image`` and has its
        frame number as ``InstanceNumber``.
    """
    if image.get("SOPClassUID") not in MULTI_FRAME_CLASSES:
        return [image]
    common = Dataset()
    common.update({element.tag: element for element in image if element.keyword not in NOT_OF_A_FRAME})
    shared = image.get(FUNCTIONAL_GROUPS[0]) or [Dataset()]
    pixels = image.pixel_array.reshape(-1, image.Rows, image.Columns)
    per_frame = image.get(FUNCTIONAL_GROUPS[1]) or [Dataset()] * len(pixels)
    return [
        _frame(number, common, (shared[0], own), values)
        for number, (own, values) in enumerate(zip(per_frame, pixels, strict=True), start=1)
    ]


def _frame(number: int, common: Dataset, groups: Sequence[Dataset], values: np.ndarray) -> Dataset:
    frame = Dataset()
    frame.update(common)
    for macro in _macros(groups):
        frame.update(macro)
    for enhanced, single in RENAMED:
        if enhanced in frame:
            _put(frame, single, frame[enhanced].value)
    if "ScanningSequence" not in frame:
        frame.ScanningSequence = SCANNING_SEQUENCES.get(frame.get("EchoPulseSequence"), ["RM"])
    _put(frame, "InstanceNumber", number)
    frame.file_meta = FileMetaDataset()
    frame.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    frame.PixelData = np.ascontiguousarray(values).tobytes()
    return frame


def _macros(groups: Sequence[Dataset]) -> Iterator[Dataset]:
    """The single items of the functional groups: first the shared ones, then those of the frame."""
    for group in groups:
        for element in group:
            if element.VR == "SQ" and len(element.value) == 1:
                yield element.value[0]


def _put(frame: Dataset, keyword: str, value: object) -> None:
    """Give the frame its own element, because an assignment would change the element that all frames share."""
    if isinstance(value, float):
        value = format_number_as_ds(value)
    frame[keyword] = DataElement(keyword, dictionary_VR(keyword), value)
