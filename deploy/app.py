"""The MONAI Deploy application: it reads a folder of DICOM and writes the super-resolved volume as NIfTI and DICOM."""

from __future__ import annotations

from pathlib import Path

from bundle_record import BundleRecord, find_bundle
from inference import SuperResolutionOperator
from loading import SeriesLoaderOperator
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application, Image, IOType
from monai.deploy.operators import IOMapping
from selection import EligibleSeriesSelectorOperator
from volume import SeriesToVolumeOperator
from writing import DICOMSeriesWriterOperator, NiftiWriterOperator

__all__ = ["SuperResolutionApp"]


class SuperResolutionApp(Application):
    """Load the series, select one, convert it to a volume, super-resolve it, and write the result.

    The paths come from the SDK's options ``--input``, ``--output`` and ``--model`` (the folder of the bundle), or from
    the environment of a MONAI Application Package (MAP).
    """

    def compose(self) -> None:
        """Connect the operators."""
        context = Application.init_app_context(self.argv)
        bundle = find_bundle(Path(context.model_path))
        context.models = None  # the bundle operator loads the folder, which the SDK cannot call as a model
        output = Path(context.output_path)
        writers = {"output_dir": output, "record": BundleRecord.of(bundle)}
        loader = SeriesLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = EligibleSeriesSelectorOperator(self, report=output / "selection.json", name="selector")
        to_volume = SeriesToVolumeOperator(self, name="to_volume")
        inference = SuperResolutionOperator(
            self,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            app_context=context,
            bundle_path=bundle,
            name="super_resolution",
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, to_volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(to_volume, inference, {("image", "image")})
        for writer in (
            NiftiWriterOperator(self, name="nifti_writer", **writers),
            DICOMSeriesWriterOperator(self, name="dicom_writer", **writers),
        ):
            self.add_flow(inference, writer, {("pred", "image")})
            self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
