"""Writing the super-resolved volume as NIfTI, and as a DICOM series of the same study."""

from __future__ import annotations

import json
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bundle_record import BundleRecord
from monai.deploy.core import Fragment, Image, Operator, OperatorSpec
from monai.deploy.core.domain import DICOMSeries, StudySelectedSeries
from series import write_series

__all__ = ["DICOMSeriesWriterOperator", "NiftiWriterOperator", "result_name"]

logger = logging.getLogger(__name__)


def result_name(series: DICOMSeries) -> str:
    """The name of the results of a series, without extension."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", series.SeriesDescription or "").strip("-")
    number = "" if series.SeriesNumber is None else f"-{series.SeriesNumber}"
    return f"series{number}" + (f"_{words}" if words else "") + "_desc-sr"


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
        """Write ``image``, made from ``series``.

        Args:
            image: voxels (slices, rows, columns). Its metadata hold the ``affine`` to NIfTI's world, and the
                ``findings`` of the run.
            series: the source.
        """


class NiftiWriterOperator(_WriterOperator):
    """Write float32 NIfTI in the units of the source, and a JSON file with origin and findings. Log the findings."""

    def write(self, image: Image, series: DICOMSeries) -> None:
        affine, findings = (image.metadata()[key] for key in ("affine", "findings"))
        for text in findings.measures():
            logger.info("series %s: %s", series.SeriesNumber, text)
        for text in findings.warnings:
            logger.warning("series %s: %s", series.SeriesNumber, text)
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
            **findings.sidecar(),
        }
        text = json.dumps(sidecar, indent=2) + "\n"
        (self.output_dir / f"{result_name(series)}.json").write_text(text, encoding="utf-8")


class DICOMSeriesWriterOperator(_WriterOperator):
    """Write a new series of the source's study, see :func:`series.write_series`."""

    def write(self, image: Image, series: DICOMSeries) -> None:
        sources = [one.get_native_sop_instance() for one in series.get_sop_instances()]
        meta = image.metadata()
        folder = self.output_dir / result_name(series)
        write_series(folder, image.asnumpy(), meta["affine"], sources, self.record, meta["findings"])
