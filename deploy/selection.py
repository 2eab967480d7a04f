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
MIN_SLICES = 8
MAX_ANISOTROPY = 3.0  # slice thickness over in-plane spacing; above it, slices are thick
TOLERANCE = 0.02  # of positions, in slice distances; and of direction cosines


def reason_to_leave(images: Sequence[Dataset]) -> str | None:
    """The reason why a series is not eligible, with the value found and the value expected.

    An eligible series holds magnitude images of the head: one volume on an even grid, acquired in 3-D without thick
    slices. The networks were trained on such scans.

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
    if first.get("MRAcquisitionType") == "2D":
        yield f"2-D acquisition with slices of {_thickness(first):g} mm; expected a 3-D acquisition"
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
    thickness = max(_thickness(images[0]), step)
    if thickness > MAX_ANISOTROPY * spacing[0].min():
        yield (
            f"slices of {thickness:g} mm with pixels of {spacing[0].min():g} mm; "
            f"expected at most {MAX_ANISOTROPY:g} times their size"
        )


def _thickness(image: Dataset) -> float:
    return float(image.get("SliceThickness") or 0)


class EligibleSeriesSelectorOperator(DICOMSeriesSelectorOperator):
    """The SDK's selector with the rules of :func:`reason_to_leave`. It logs and records the verdict on every series.

    Of several eligible series it chooses the one with the most voxels, because the SDK's operators pass one image.

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
        chosen = max(eligible, key=lambda pair: _voxels(pair[1]), default=None)
        for _, one in eligible:
            if one is not chosen[1]:
                reasons[id(one)] = (
                    f"eligible, but series {chosen[1].SeriesNumber} has as many voxels or more; "
                    "put it into a folder of its own"
                )
        self._record([(one, reasons[id(one)]) for _, one in series])
        if chosen is None:
            listed = "; ".join(f"{_name(one)}: {reasons[id(one)]}" for _, one in series)
            raise ValueError(f"expected a 3-D MR series of the head, found none. {listed}.")
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


def _voxels(series: DICOMSeries) -> int:
    return sum(image.Rows * image.Columns for image in _images(series))


def _name(series: DICOMSeries) -> str:
    return f"series {series.SeriesNumber} ({series.SeriesDescription or 'no description'})"
