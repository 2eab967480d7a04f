"""Selection of a series that can be super-resolved, with the reasons against the others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.deploy.core import Fragment
from monai.deploy.core.domain import DICOMSeries, DICOMStudy, SelectedSeries, StudySelectedSeries
from monai.deploy.operators import DICOMSeriesSelectorOperator
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

__all__ = ["EligibleSeriesSelectorOperator", "reason_to_leave"]

logger = logging.getLogger(__name__)

IMAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
# words of an image type that exclude a magnitude image of one acquired volume
OTHER_TYPES = {
    "LOCALIZER", "SECONDARY", "MPR", "MIP", "MINIP", "PROJECTION IMAGE", "P", "PHASE", "PHASE MAP", "REAL", "IMAGINARY",
    "ADC", "FA", "TRACEW", "TENSOR", "DIFFUSION", "PERFUSION", "FMRI", "SUBTRACTION", "T1 MAP", "T2 MAP", "SCREEN SAVE",
}  # fmt: skip
HEAD = ("HEAD", "BRAIN", "SKULL", "NEURO")
GEOMETRY = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
MIN_SLICES = 5
MAX_FACTOR = 8.0  # slice distance over the acquired size of a pixel
MAX_OVERLAP = 2.0  # thickness of 2-D slices over their distance
TOLERANCE = 0.02  # of positions, in slice distances; and of direction cosines


def reason_to_leave(images: Sequence[Dataset]) -> str | None:
    """The reason why a series is not eligible, with the value found and the value expected.

    An eligible series holds magnitude images of the head: one volume on an even grid, acquired in 3-D or as 2-D slices.
    The limits are those of the bundle, so that it does not refuse what this operator chooses.

    Args:
        images: all images of a series, one per slice.

    Returns:
        the most basic reason, or None when the series is eligible.
    """
    return next(_faults(images), None)


def _faults(images: Sequence[Dataset]) -> Iterator[str]:
    first = images[0]
    if first.get("Modality") != "MR":
        yield f"modality {first.get('Modality') or 'unknown'}; expected MR"
    if first.SOPClassUID not in IMAGE_CLASSES:
        yield f"{first.SOPClassUID.name}; expected MR images"
    types = {str(word).upper() for image in images for word in image.get("ImageType") or ()}
    if found := sorted(types & OTHER_TYPES):
        yield f"image type {', '.join(found)}; expected an acquired magnitude image"
    part = str(first.get("BodyPartExamined") or "HEAD").upper()
    if not any(word in part for word in HEAD):
        yield f"body part {part}; expected the head"
    if first.get("SamplesPerPixel", 1) != 1 or first.get("PhotometricInterpretation") != "MONOCHROME2":
        yield f"pixels of {first.get('PhotometricInterpretation')}; expected MONOCHROME2"
    if missing := sorted({key for image in images for key in GEOMETRY if not image.get(key)}):
        yield f"no {', '.join(missing)}; expected the place of every slice"
    if any(int(image.get("NumberOfFrames") or 1) > 1 for image in images):
        yield "several frames in an image of a single-frame class; expected one slice per image"
    if len(images) < MIN_SLICES:
        yield f"{len(images)} slices; expected at least {MIN_SLICES}"
    yield from _faults_of_grid(images)


def _faults_of_grid(images: Sequence[Dataset]) -> Iterator[str]:
    spacing, orientation = (np.array([image[key].value for image in images], dtype=float) for key in GEOMETRY[2:4])
    sizes = {(image.Rows, image.Columns) for image in images}
    if len(sizes) > 1 or np.ptp(spacing, axis=0).max() > 1e-3 or np.ptp(orientation, axis=0).max() > TOLERANCE:
        yield "slices of several sizes, spacings or orientations; expected one volume"
    positions = np.array([image.ImagePositionPatient for image in images], dtype=float)
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along = np.sort(positions @ normal)
    steps = np.diff(along)
    step = float(np.median(steps))
    if steps.min() < TOLERANCE * max(step, 1e-3):
        yield "several images at one position (echoes, times or volumes); expected one volume"
    if np.abs(steps - step).max() > TOLERANCE * step:
        yield f"slice distances from {steps.min():g} to {steps.max():g} mm; expected even ones, none missing"
    across = np.ptp(positions, axis=0) - np.abs(normal) * (along[-1] - along[0])
    if np.abs(across).max() > TOLERANCE * step * len(images):
        yield "slices that are shifted against each other; expected a straight stack"
    pixel = _acquired_pixel(images[0])
    if step > MAX_FACTOR * (1 + TOLERANCE) * pixel:
        yield f"slices every {step:g} mm with pixels of {pixel:g} mm; expected at most {MAX_FACTOR:g} times their size"
    thickness = float(images[0].get("SliceThickness") or 0)
    if _is_2d(images[0]) and thickness > MAX_OVERLAP * (1 + TOLERANCE) * step:
        yield f"2-D slices of {thickness:g} mm every {step:g} mm; expected at most {MAX_OVERLAP:g} times their distance"


def _acquired_pixel(image: Dataset) -> float:
    """The smallest acquired spacing in plane in mm: the stored matrix may be interpolated."""
    between_rows, between_columns = (float(value) for value in image.PixelSpacing)
    field = min(image.Rows * between_rows, image.Columns * between_columns)
    steps = max((int(value) for value in image.get("AcquisitionMatrix") or [0]), default=0)
    return max(min(between_rows, between_columns), field / steps if steps else 0.0)


def _is_2d(image: Dataset) -> bool:
    return image.get("MRAcquisitionType") == "2D"


class EligibleSeriesSelectorOperator(DICOMSeriesSelectorOperator):
    """The SDK's selector with the rules of :func:`reason_to_leave`. It logs and records the verdict on every series.

    Of several eligible series it prefers those acquired in 3-D, because nothing is missing between their slices. Among
    them it chooses the one with the most voxels, because the SDK's operators pass one image.

    Args:
        fragment: the application.
        report: JSON file for the verdicts.

    Raises:
        ValueError: when no series is eligible. The message has the reason for each.
    """

    def __init__(self, fragment: Fragment, *args: Any, report: Path, **kwargs: Any) -> None:
        self.report = report
        super().__init__(fragment, *args, **kwargs)

    def filter(
        self,
        selection_rules: Any,
        dicom_study_list: Sequence[DICOMStudy],
        all_matched: bool = False,
        sort_by_sop_instance_count: bool = False,
    ) -> list[StudySelectedSeries]:
        """The chosen series with its study. Only the second argument is used; the others are the base class's."""
        series = [(study, one) for study in dicom_study_list for one in study.get_all_series()]
        reasons = {id(one): reason_to_leave(_images(one)) for _, one in series}
        eligible = [pair for pair in series if reasons[id(pair[1])] is None]
        chosen = max(eligible, key=lambda pair: _preference(pair[1]), default=None)
        for _, one in eligible:
            if one is not chosen[1]:
                reasons[id(one)] = f"eligible, but {_why(chosen[1], one)}; put it into a folder of its own"
        self._record([(one, reasons[id(one)]) for _, one in series])
        if chosen is None:
            listed = "; ".join(f"{_name(one)}: {reasons[id(one)]}" for _, one in series)
            raise ValueError(f"expected an MR series of the head, found none. {listed}.")
        selected = StudySelectedSeries(chosen[0])
        selected.add_selected_series(SelectedSeries("eligible", chosen[1]))
        return [selected]

    def _record(self, verdicts: Sequence[tuple[DICOMSeries, str | None]]) -> None:
        entries = []
        for series, reason in verdicts:
            logger.info("%s: %s.", _name(series), "chosen" if reason is None else f"left, {reason}")
            entries.append(
                {
                    "SeriesInstanceUID": str(series.SeriesInstanceUID),
                    "SeriesNumber": series.SeriesNumber,
                    "SeriesDescription": series.SeriesDescription,
                    "Images": len(series.get_sop_instances()),
                    "Chosen": reason is None,
                    "Reason": reason,
                }
            )
        self.report.parent.mkdir(parents=True, exist_ok=True)
        self.report.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def _images(series: DICOMSeries) -> list[Dataset]:
    return [instance.get_native_sop_instance() for instance in series.get_sop_instances()]


def _preference(series: DICOMSeries) -> tuple[bool, int]:
    """The larger, the better: acquired in 3-D, then the number of voxels."""
    images = _images(series)
    return not _is_2d(images[0]), sum(image.Rows * image.Columns for image in images)


def _why(chosen: DICOMSeries, other: DICOMSeries) -> str:
    """The reason why one eligible series is preferred to another."""
    if _preference(chosen)[0] and not _preference(other)[0]:
        return (
            f"its slices are 2-D, and series {chosen.SeriesNumber} was acquired in 3-D, where nothing is missing "
            "between slices"
        )
    return f"series {chosen.SeriesNumber} has as many voxels or more"


def _name(series: DICOMSeries) -> str:
    return f"series {series.SeriesNumber} ({series.SeriesDescription or 'no description'})"
