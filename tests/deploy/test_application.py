"""The MONAI Deploy application, run as a user runs it, and its results read back by pydicom, ITK and dcm2niix.

``make test-deploy`` makes the environment. What was run and found is recorded in experiments/results/deploy.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage
from study import (
    FRAME_OF_REFERENCE_UID,
    OBLIQUE,
    PATIENT,
    SHAPE,
    SPACING,
    STUDY_UID,
    affine_of,
    brightness,
    world_of,
    write_enhanced,
    write_series,
    write_study,
)

REPOSITORY = Path(__file__).parents[2]
BUNDLE = REPOSITORY / "bundle"
PAGE = REPOSITORY / "docs" / "applications.md"
RESULTS = REPOSITORY / "experiments" / "results" / "deploy"
PACKAGES = ("monai-deploy-app-sdk", "holoscan-cu13", "monai", "torch", "pydicom", "numpy", "itk", "dcm2niix")
MM = min(SPACING)  # of the isotropic result
ISOTROPIC_SHAPE = (41, 42, 44)  # which covers the field of view
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
INNER = (slice(8, -8),) * 3


class Result(NamedTuple):
    """The output of a run."""

    folder: Path
    name: str
    log: str
    seconds: float

    @property
    def nifti(self) -> nib.Nifti1Image:
        return nib.load(self.folder / f"{self.name}.nii.gz")

    @property
    def images(self) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(path) for path in sorted((self.folder / self.name).glob("*.dcm"))]

    @property
    def verdicts(self) -> dict[int, str | None]:
        entries = json.loads((self.folder / "selection.json").read_text(encoding="utf-8"))
        return {entry["SeriesNumber"]: entry["Reason"] for entry in entries}


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", **variables}


def run(source: Path, output: Path, model: str = "bundle") -> subprocess.CompletedProcess:
    """The page's command, with these folders."""
    (command,) = re.findall(r"^.*python deploy .*$", PAGE.read_text(encoding="utf-8"), re.M)
    for name, value in {"DICOM": source, "OUT": output, "--model bundle": f"--model {model}"}.items():
        assert command.count(name) == 1, command
        command = command.replace(name, str(value))
    command = command.replace("python ", f"{sys.executable} ")
    return subprocess.run(
        command, shell=True, cwd=REPOSITORY, env=environment(), capture_output=True, encoding="utf-8", timeout=600
    )


def result_of(source: Path, output: Path, name: str) -> Result:
    start = time.monotonic()
    process = run(source, output)
    assert process.returncode == 0, process.stderr[-4000:]
    return Result(output, name, process.stdout + process.stderr, time.monotonic() - start)


@pytest.fixture(scope="module")
def record() -> Iterator[dict]:
    """The measurements of this run, written at its end."""
    figures: dict = {}
    yield figures
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    content = {"python": platform.python_version(), "versions": versions, "figures": figures}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "record.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [f"| {key} | {value} |" for key, value in figures.items()]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = ["| checked | found |", "| --- | --- |", *rows, "", f"Python {platform.python_version()}, {listed}."]
    (RESULTS / "summary.md").write_text("\n".join(table) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("study")
    return result_of(write_study(folder / "in"), folder / "out", "series-2_t1-mprage-sag_desc-sr")


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("enhanced")
    write_series(folder / "single", 2, "t1 mprage sag")
    source = write_enhanced(folder / "in", folder / "single")
    return result_of(source, folder / "out", "series-12_t1-enhanced_desc-sr")


# Selection


def test_the_eligible_series_is_chosen_and_each_other_left_for_a_reason(study, record):
    expected = {
        1: "image type LOCALIZER; expected an acquired magnitude image",
        2: None,
        3: "modality CT; expected MR",
        4: "eligible, but its slices are 2-D, and series 2 was acquired in 3-D, where nothing is missing between "
        "slices; put it into a folder of its own",
        5: "several images at one position (echoes, times or volumes); expected one volume",
        6: "eligible, but series 2 has as many voxels or more; put it into a folder of its own",
        7: "image type MPR, SECONDARY; expected an acquired magnitude image",
        8: "eligible, but series 2 has as many voxels or more; put it into a folder of its own",
        9: "body part KNEE; expected the head",
        10: "slice distances from 2.4 to 4.8 mm; expected even ones, none missing",
    }
    assert study.verdicts == expected
    for number, reason in expected.items():
        assert f"series {number} (" in study.log
        assert reason is None or f"left, {reason}." in study.log
    assert "readme.txt: left out, because it cannot be read as DICOM" in study.log
    record["series of a study"] = "1 chosen, 9 left, each with its reason"


def test_without_an_eligible_series_the_application_ends_with_the_reasons(tmp_path):
    write_series(tmp_path / "in", 1, "localizer", (32, 32, 3), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    process = run(tmp_path / "in", tmp_path / "out")
    assert process.returncode != 0
    assert "expected an MR series of the head, found none. series 1 (localizer): image type" in process.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["selection.json"]


def test_a_damaged_image_is_named_and_nothing_is_written(tmp_path):
    folder = write_series(tmp_path / "in", 6, "t1", (24, 24, 20))
    path = folder / "6_007.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    process = run(folder, tmp_path / "out")
    assert process.returncode != 0
    assert "series 6, image 8: expected pixels, but they cannot be decoded" in process.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["selection.json"]


def test_a_result_is_not_super_resolved_again(study, tmp_path):
    process = run(study.folder / study.name, tmp_path / "out")
    assert process.returncode != 0
    assert "image type SECONDARY; expected an acquired magnitude image" in process.stderr


# The volume


def test_every_voxel_lies_where_the_scan_says(study, record):
    """The phantom is a smooth field over the world, so that the value of a voxel depends on its position."""
    nifti = study.nifti
    assert nifti.shape == ISOTROPIC_SHAPE
    assert nifti.get_data_dtype() == np.float32
    world = LPS_TO_RAS @ nifti.affine
    expected = brightness(world_of(nifti.shape, world))
    error = np.abs(nifti.get_fdata() - expected)[INNER].max() / expected.max()
    assert error < 0.02  # a voxel off would be 0.03
    voxels = np.linalg.inv(world) @ affine_of(OBLIQUE, SHAPE)
    np.testing.assert_allclose(voxels[:3, :3], np.diag(SPACING) / MM, atol=1e-4)
    record["input"] = f"oblique, {' x '.join(map(str, SHAPE))} voxels of 1.8 x 2 x 2.4 mm"
    record["NIfTI"] = f"{' x '.join(map(str, nifti.shape))} voxels, {nifti.get_data_dtype()}"
    record["largest error of a smooth phantom in world coordinates"] = f"{100 * error:.2f} % of its peak"
    record["seconds from start to end"] = round(study.seconds, 1)


def test_the_result_is_the_command_line_s(study, tmp_path, record):
    """The bundle itself, which reads the same series with ITK."""
    source = write_series(tmp_path / "t1", 2, "t1 mprage sag")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "bundle/configs/inference.yaml"]
    options = ["--bundle_root", "bundle", "--dataset_dir", str(source), "--output_dir", str(tmp_path / "out")]
    options += ["--report", "False", "--error_bars", "False"]  # the application makes neither
    subprocess.run(
        [*command, *options], cwd=REPOSITORY, env=environment(), check=True, capture_output=True, timeout=600
    )
    other = nib.as_closest_canonical(nib.load(next((tmp_path / "out").rglob("*.nii.gz"))))
    own = nib.as_closest_canonical(study.nifti)
    np.testing.assert_allclose(own.affine, other.affine, atol=1e-4)
    difference = np.abs(own.get_fdata() - other.get_fdata()).max()
    assert difference < 1e-3 * own.get_fdata().max()
    record["largest difference from the command line"] = f"{difference / own.get_fdata().max():.1g} of the peak"


def test_the_sidecar_says_how_the_volume_was_made(study):
    sidecar = json.loads((study.folder / f"{study.name}.json").read_text(encoding="utf-8"))
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert sidecar["SourceSpacing"] == pytest.approx([1.8, 2.0, 2.4], abs=1e-4)
    assert sidecar["Spacing"] == pytest.approx([MM] * 3, abs=1e-4)
    assert sidecar["Assumed"].startswith("assumed: 2 x 2.4 x 1.8 mm")
    assert sidecar["GeneratedBy"] == [{"Name": metadata["name"], "Version": metadata["version"]}]
    assert len(sidecar["WeightsSHA256"]) == 64


def test_the_findings_reach_the_sidecar_the_log_and_the_series(study):
    """The phantom is no brain, so that there is something to report."""
    sidecar = json.loads((study.folder / f"{study.name}.json").read_text(encoding="utf-8"))
    assert sidecar["Warnings"]
    assert sidecar["ConsistencyPSNR"] > 30
    assert (sidecar["DataConsistency"], bool(sidecar["DataConsistencyDone"])) == ("auto", True)
    image = study.images[0]
    for text in sidecar["Warnings"]:
        assert text in study.log
        assert f"Warning: {text}" in image.ImageComments
    for text in (image.ImageComments, image.DerivationDescription, study.log):
        assert f"Agreement with the scan: {sidecar['ConsistencyPSNR']:.1f} dB." in text
        assert "Data consistency auto: " in text


# The DICOM series


def test_the_series_is_new_in_the_study_of_the_same_patient(study):
    images, source = study.images, pydicom.dcmread(next(study.folder.parent.glob("in/2_*.dcm")))
    assert len(images) == ISOTROPIC_SHAPE[2]
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "AccessionNumber",
    ):
        assert {image[keyword].value for image in images} == {source[keyword].value}, keyword
    assert str(images[0].PatientName) == PATIENT["PatientName"]
    assert images[0].StudyInstanceUID == STUDY_UID
    assert images[0].FrameOfReferenceUID == FRAME_OF_REFERENCE_UID
    assert (images[0].AcquisitionTime, images[0].EchoTime) == (PATIENT["AcquisitionTime"], source.EchoTime)
    assert len({image.SeriesInstanceUID for image in images} | {source.SeriesInstanceUID}) == 2
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert all(image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID for image in images)
    assert {image.SOPClassUID for image in images} == {MRImageStorage}


def test_every_image_says_that_it_is_derived_by_what_and_not_for_diagnosis(study):
    sidecar = json.loads((study.folder / f"{study.name}.json").read_text(encoding="utf-8"))
    for image in study.images:
        assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert image.SeriesDescription == "t1 mprage sag, super-resolved, not for diagnosis"
        assert sidecar["WeightsSHA256"] in image.DerivationDescription
        assert "not for diagnosis" in image.DerivationDescription
        algorithm = image.ContributingEquipmentSequence[0]
        assert algorithm.ManufacturerModelName == sidecar["GeneratedBy"][0]["Name"]
        assert list(algorithm.SoftwareVersions) == [sidecar["GeneratedBy"][0]["Version"], sidecar["WeightsSHA256"]]
        assert float(image.WindowWidth) > 0


def test_every_slice_has_its_place_its_values_and_its_sources(study, record):
    affine, volume = LPS_TO_RAS @ study.nifti.affine, study.nifti.get_fdata()
    places = {}
    for path in study.folder.parent.glob("in/2_*.dcm"):
        source = pydicom.dcmread(path, stop_before_pixels=True)
        places[source.SOPInstanceUID] = np.array(source.ImagePositionPatient, dtype=float)
    worst = 0.0
    for index, image in enumerate(study.images):
        assert image.InstanceNumber == index + 1
        np.testing.assert_allclose(image.PixelSpacing, [MM, MM], atol=1e-5)
        np.testing.assert_allclose([image.SliceThickness, image.SpacingBetweenSlices], MM, atol=1e-5)
        np.testing.assert_allclose(image.ImageOrientationPatient[:3], affine[:3, 0] / MM, atol=1e-5)
        np.testing.assert_allclose(image.ImageOrientationPatient[3:], affine[:3, 1] / MM, atol=1e-5)
        position = affine[:3, 3] + index * affine[:3, 2]
        np.testing.assert_allclose(image.ImagePositionPatient, position, atol=1e-4)
        worst = max(worst, np.abs(image.pixel_array.T - volume[..., index]).max())
        for reference in image.SourceImageSequence:
            distance = np.abs((places[reference.ReferencedSOPInstanceUID] - position) @ affine[:3, 2] / MM)
            assert distance < 1.5 * 2.4 + 1e-3
    assert worst <= 0.5
    record["DICOM"] = f"{len(study.images)} MR images; pydicom reads the NIfTI's values within {worst:.2g} units"


def test_itk_reads_the_series_as_the_nifti(study, record):
    names = itk.GDCMSeriesFileNames.New(Directory=str(study.folder / study.name))
    (series,) = names.GetSeriesUIDs()
    image = itk.imread(names.GetFileNames(series), itk.F)
    direction, spacing = np.array(image.GetDirection()), np.array(image.GetSpacing())
    affine = nib.affines.from_matvec(direction @ np.diag(spacing), np.array(image.GetOrigin()))
    difference = np.abs(affine - LPS_TO_RAS @ study.nifti.affine).max()
    assert difference < 1e-4
    values = itk.array_view_from_image(image).transpose(2, 1, 0)
    assert np.abs(values - study.nifti.get_fdata()).max() <= 0.5
    record["ITK"] = f"one series, affine within {difference:.1g} mm of the NIfTI's"


@pytest.mark.parametrize("name", ["study", "enhanced"])
def test_dcm2niix_reads_the_series_as_the_nifti(request, tmp_path, record, name):
    result = request.getfixturevalue(name)
    program = Path(sys.executable).with_name("dcm2niix")
    command = [str(program), "-f", "out", "-o", str(tmp_path), str(result.folder / result.name)]
    process = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    (path,) = tmp_path.glob("*.nii")
    converted, own = (nib.as_closest_canonical(volume) for volume in (nib.load(path), result.nifti))
    assert converted.shape == own.shape
    difference = np.abs(converted.affine - own.affine).max()
    assert difference < 1e-3
    assert np.abs(converted.get_fdata() - own.get_fdata()).max() <= 0.5
    assert "error" not in process.stdout.lower()
    record[f"dcm2niix ({name})"] = f"one volume, affine within {difference:.1g} mm of the NIfTI's"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_the_images_are_valid_by_the_standard(study, enhanced, record):
    for result in (study, enhanced):
        path = result.folder / result.name / "00010.dcm"
        process = subprocess.run(["dciodvfy", str(path)], capture_output=True, encoding="utf-8")
        assert "Error" not in process.stdout + process.stderr
    record["dciodvfy"] = "no error"


# Thick 2-D slices


@pytest.fixture(scope="module")
def thick(tmp_path_factory) -> Result:
    folder = tmp_path_factory.mktemp("thick")
    attributes = {"MRAcquisitionType": "2D", "SliceThickness": "5", "SpacingBetweenSlices": "6"}
    source = write_series(folder / "in", 4, "t2 flair tra 2d", (64, 60, 12), np.diag([0.9, 0.9, 6.0]), **attributes)
    return result_of(source, folder / "out", "series-4_t2-flair-tra-2d_desc-sr")


def test_thick_2d_slices_become_isotropic_and_the_result_says_what_was_assumed(thick, record):
    assert thick.verdicts == {4: None}
    sidecar = json.loads((thick.folder / f"{thick.name}.json").read_text(encoding="utf-8"))
    assert sidecar["SourceSpacing"] == pytest.approx([0.9, 0.9, 6.0], abs=1e-4)
    assert sidecar["Spacing"] == pytest.approx([0.9] * 3, abs=1e-4)
    assert "slices of 5 mm every 6 mm along S (header)" in sidecar["Assumed"]
    nifti, images = thick.nifti, thick.images
    assert nifti.shape[:2] == (64, 60)
    assert nifti.shape[2] * 0.9 >= 12 * 6.0  # the field of view
    world = LPS_TO_RAS @ nifti.affine
    expected = brightness(world_of(nifti.shape, world))
    inner = (*INNER[:2], slice(10, -10))  # between the second slice and the last but one
    error = np.abs(nifti.get_fdata() - expected)[inner].max() / expected.max()
    assert error < 0.03  # half a slice off would be 0.1
    assert len(images) == nifti.shape[2]
    for index, image in enumerate(images):
        np.testing.assert_allclose(image.PixelSpacing, [0.9, 0.9], atol=1e-5)
        np.testing.assert_allclose([image.SliceThickness, image.SpacingBetweenSlices], 0.9, atol=1e-5)
        np.testing.assert_allclose(image.ImagePositionPatient, world[:3, 3] + index * world[:3, 2], atol=1e-4)
        assert image.SeriesDescription == "t2 flair tra 2d, super-resolved, not for diagnosis"
        assert "slices of 5 mm every 6 mm along S (header)" in image.ImageComments
    record["thick 2-D slices, 64 x 60 x 12 voxels of 0.9 x 0.9 x 6 mm"] = (
        f"{' x '.join(map(str, nifti.shape))} voxels of 0.9 mm, largest error {100 * error:.2f} % of the peak"
    )


# Enhanced multi-frame images


def test_an_enhanced_image_gives_what_its_single_frame_images_give(study, enhanced, record):
    """Its frames are in reverse order, compressed, and stored in half units."""
    np.testing.assert_allclose(enhanced.nifti.affine, study.nifti.affine, atol=1e-5)
    np.testing.assert_allclose(enhanced.nifti.get_fdata(), study.nifti.get_fdata(), atol=1e-3)
    record["enhanced multi-frame, JPEG 2000"] = "the same volume as from single frames"


def test_the_images_of_an_enhanced_source_keep_its_scale_window_timing_and_frames(enhanced):
    image = enhanced.images[9]  # the tenth of 44 slices, between the seventh and eighth of 33, frames 27 and 26
    assert (float(image.WindowCenter), float(image.WindowWidth)) == (450, 900)
    assert (float(image.EchoTime), float(image.RepetitionTime), image.ScanningSequence) == (2.98, 2300, "GR")
    assert sorted(int(reference.ReferencedFrameNumber) for reference in image.SourceImageSequence) == [26, 27]
    values = image.pixel_array.T * float(image.RescaleSlope)
    assert np.abs(values - enhanced.nifti.get_fdata()[..., 9]).max() <= float(image.RescaleSlope) / 2


# In a container


def test_it_runs_with_the_paths_that_a_container_gives(tmp_path):
    """A MAP passes paths as variables. Its packager puts the bundle, and each folder of it, side by side."""
    write_series(tmp_path / "input", 6, "t1", (24, 24, 20))
    ignore = shutil.ignore_patterns("outputs", "__pycache__")
    for folder in ("configs", "models", "scripts", "."):
        shutil.copytree(BUNDLE / folder, tmp_path / "models" / folder.replace(".", "bundle"), ignore=ignore)
    shutil.copytree(REPOSITORY / "deploy", tmp_path / "app")
    paths = {"INPUT": "input", "OUTPUT": "output", "MODEL": "models"}
    variables = {f"HOLOSCAN_{name}_PATH": str(tmp_path / folder) for name, folder in paths.items()}
    command = [sys.executable, str(tmp_path / "app")]
    subprocess.run(command, cwd=tmp_path, env=environment(**variables), check=True, capture_output=True, timeout=600)
    assert (tmp_path / "output" / "series-6_t1_desc-sr.nii.gz").is_file()
    assert len(list((tmp_path / "output" / "series-6_t1_desc-sr").glob("*.dcm"))) == 27


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    write_series(tmp_path / "input", 6, "t1", (24, 24, 20))
    process = run(tmp_path / "input", tmp_path / "output", model="docs")
    assert process.returncode != 0
    assert "expected the folder of one bundle, found 0. Give it with --model." in process.stderr
