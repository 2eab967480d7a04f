"""Loading every DICOM object of a folder, sorted into studies and series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monai.deploy.core.domain import DICOMSeries, DICOMStudy
from monai.deploy.operators import DICOMDataLoaderOperator
from multiframe import frames_of
from pydicom import dcmread
from pydicom.dataset import Dataset

__all__ = ["SeriesLoaderOperator"]

IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class SeriesLoaderOperator(DICOMDataLoaderOperator):
    """The SDK's loader, extended to enhanced multi-frame images and to several images at one position.

    The stock loader keeps the first of several images at one position. It would merge a series with two echoes into one
    volume. This loader keeps all images, and the selection then reports why it leaves the series out.
    """

    def _load_data(self, files: Sequence[str]) -> list[DICOMStudy]:
        studies: dict[str, DICOMStudy] = {}
        series: dict[str, DICOMSeries] = {}
        for dataset in self._read(sorted(files)):
            study_uid, series_uid = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
            frames = frames_of(dataset)
            if study_uid not in studies:
                studies[study_uid] = DICOMStudy(study_uid)
                self.populate_study_attributes(studies[study_uid], frames[0])
            if series_uid not in series:
                series[series_uid] = DICOMSeries(series_uid)
                studies[study_uid].add_series(series[series_uid])
                self.populate_series_attributes(series[series_uid], frames[0])
            for frame in frames:
                series[series_uid].add_sop_instance(frame)
        return list(studies.values())

    def _read(self, files: Sequence[str]) -> Iterator[Dataset]:
        for file in files:
            try:
                dataset = dcmread(file)
            except Exception as error:  # foreign or damaged bytes can raise anything in the parser
                self._logger.warning(
                    "%s: left out, because it cannot be read as DICOM (%s).", file, type(error).__name__
                )
                continue
            if all(keyword in dataset for keyword in IDENTIFIERS):  # a DICOMDIR lacks them
                if dataset.get("SeriesNumber") is None:
                    dataset.SeriesNumber = 0  # it may be absent or empty, but the SDK needs a number
                yield dataset
