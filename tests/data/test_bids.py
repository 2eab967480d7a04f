"""BIDS: raw magnitude anatomy alone is taken, and a choice among scans of a subject follows a rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_series import write_dicom_series
from folders import outcomes, touch, write
from monai.data import MetaTensor
from scripts.data.bids import ANATOMY, Dataset, choose, glob_pattern
from scripts.data.datalist import unpaired_datalist
from scripts.data.layouts import choose_scans
from scripts.transforms.saving import Derivatives, SaveImageDerivatived


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((f"sub-1/anat/sub-1_{suffix}.nii.gz", "scan") for suffix in ANATOMY),
        ("sub-1/ses-a/anat/sub-1_ses-a_acq-x_ce-gd_rec-n_run-01_echo-2_part-mag_T1w.nii", "scan"),
        *((f"sub-1/anat/sub-1_part-{part}_T1w.nii.gz", "magnitude") for part in ("phase", "real", "imag")),
        *((f"sub-1/anat/sub-1_{suffix}.nii.gz", "a mask") for suffix in ("defacemask", "desc-brain_mask")),
        *((f"sub-1/anat/sub-1_{suffix}.nii.gz", "a segmentation") for suffix in ("dseg", "label-GM_probseg")),
        ("sub-1/anat/sub-1_inv-1_MP2RAGE.nii.gz", "a part of a series"),
        ("sub-1/anat/sub-1_UNIT1.nii.gz", "whose background is noise"),
        ("sub-1/anat/sub-1_T1map.nii.gz", "a computed map"),
        ("sub-1/anat/sub-1_unheard.nii.gz", "no suffix of anatomical images"),
        ("sub-1/anat/T1.nii.gz", "its name is not of BIDS"),
        ("sub-1/func/sub-1_task-rest_bold.nii.gz", "no anatomical image"),
        ("sub-1/fmap/sub-1_magnitude1.nii.gz", "a field map"),
        ("sub-1/extra/sub-1_T1w.nii.gz", "not in a folder anat/"),
        ("average.nii.gz", "its name is not of BIDS"),
    ],
)
def test_raw_magnitude_anatomy_alone_is_taken(tmp_path, name, reason):
    touch(tmp_path, "dataset_description.json", "sub-2/anat/sub-2_T1w.nii.gz", name)
    assert reason in outcomes(tmp_path)[name]


@pytest.mark.parametrize("folder", ["derivatives", "sourcedata", "code"])
def test_derived_and_source_data_are_left_out_unless_they_are_the_root(tmp_path, folder):
    inner = f"{folder}/tool/sub-1/anat/sub-1_desc-preproc_T1w.nii.gz"
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", inner, f"{folder}/tool/dataset_description.json")
    found = outcomes(tmp_path)
    assert found.pop("sub-1/anat/sub-1_T1w.nii.gz") == "scan"
    assert found == {folder: f"BIDS keeps no raw scans in {folder}/. To process it, give it as dataset_dir"}
    assert outcomes(tmp_path / folder) == {inner.partition("/")[2]: "scan"}


def test_an_empty_folder_of_derivatives_is_not_named(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "code/run.py")
    assert outcomes(tmp_path) == {"sub-1/anat/sub-1_T1w.nii.gz": "scan"}


def test_dicom_in_a_bids_dataset_is_left_out(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    write_dicom_series(tmp_path / "sub-1/dicom", np.ones((3, 8, 8), int))
    assert outcomes(tmp_path)["sub-1/dicom"].startswith("BIDS keeps DICOM in sourcedata/")


@pytest.mark.parametrize("part", ["sub-1", "sub-1/ses-2", "sub-1/ses-2/anat"])
def test_a_part_of_a_dataset_follows_the_whole_one(tmp_path, part):
    touch(tmp_path, *(f"sub-1/ses-2/anat/sub-1_ses-2_{suffix}.nii" for suffix in ("T1w", "dseg", "T2w")))
    (tmp_path / ".bidsignore").write_text("*_T2w*\n")
    (tmp_path / "dataset_description.json").touch()
    assert sorted(outcomes(tmp_path / part).values()) == [
        ".bidsignore excludes it",
        "it is a segmentation (dseg)",
        "scan",
    ]


@pytest.mark.parametrize(
    ("patterns", "excluded"),
    [
        ("*_T2w*", {"sub-1/anat/sub-1_T2w.nii", "sub-2/anat/sub-2_T2w.nii"}),
        ("sub-1/", {"sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T2w.nii"}),
        ("/sub-1/anat/*_T1w.nii", {"sub-1/anat/sub-1_T1w.nii"}),
        ("**/sub-[2-9]*", {"sub-2/anat/sub-2_T1w.nii", "sub-2/anat/sub-2_T2w.nii"}),
        ("sub-*/**/*_T1w.nii\n!sub-2/**", {"sub-1/anat/sub-1_T1w.nii"}),
        ("# sub-1/\n\nextra/", set()),
        ("anat/sub-1_T1w.nii", set()),
    ],
)
def test_bidsignore_follows_the_rules_of_gitignore(tmp_path, patterns, excluded):
    names = {f"sub-{n}/anat/sub-{n}_{suffix}.nii" for n in (1, 2) for suffix in ("T1w", "T2w")}
    (tmp_path / ".bidsignore").write_text(patterns)
    dataset = Dataset(touch(tmp_path, *names))
    assert {name for name in names if dataset.left_out(tmp_path / name)} == excluded


def test_without_a_dataset_only_what_names_itself_no_anatomy_is_left_out(tmp_path):
    touch(tmp_path, "scan.nii", "sub-1_T1w.nii", "sub-1_part-phase_T1w.nii", "sub-1_desc-brain_mask.nii", "mask.nii")
    scans = {name for name, reason in outcomes(tmp_path).items() if reason == "scan"}
    assert scans == {"scan.nii", "sub-1_T1w.nii", "mask.nii"}


# The choice of training


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("ses-2", "ses-1"), "ses-1"),
        (("ses-10", "ses-9"), "ses-9"),
        (("run-1", "run-2", "run-10"), "run-10"),
        (("acq-a", "acq-b"), "acq-b"),
        (("ses-1_acq-a_run-2", "ses-1_acq-b_run-1", "ses-2_acq-b"), "ses-1_acq-b_run-1"),
        (("echo-1", "echo-2"), "echo-1"),
    ],
)
def test_the_choice_follows_the_rule_whatever_the_order(names, chosen):
    scans = [Path(f"sub-1_{name}_T1w.nii.gz") for name in names]
    for order in (scans, scans[::-1]):
        assert choose(order, Counter({"acq-b": 3, "acq-a": 1}))[0].name == f"sub-1_{chosen}_T1w.nii.gz"


def test_the_commonest_acquisition_of_the_dataset_wins(tmp_path):
    touch(tmp_path, *(f"sub-{n}/anat/sub-{n}_acq-z_T1w.nii" for n in range(4)), "sub-1/anat/sub-1_acq-a_T1w.nii")
    choice = choose_scans(tmp_path, "T1w")
    assert choice.scans["sub-1"][0].name == "sub-1_acq-z_T1w.nii"
    reason = choice.left_out[tmp_path / "sub-1/anat/sub-1_acq-a_T1w.nii"]
    assert "sub-1_acq-z_T1w.nii of the same subject was chosen: first session, then the commonest acq" in reason


def test_phase_images_that_sort_first_are_never_trained_on(tmp_path):
    for n in (1, 2, 3):
        touch(tmp_path, f"sub-{n}/anat/sub-{n}_acq-b_part-phase_T1w.nii", f"sub-{n}/anat/sub-{n}_run-1_T1w.nii")
    items = [item for section in unpaired_datalist(tmp_path).values() for item in section]
    assert all("run-1" in str(item) for item in items)


def test_subjects_of_two_datasets_stay_apart(tmp_path):
    touch(tmp_path, *(f"{name}/sub-1/anat/sub-1_T1w.nii" for name in ("ds1", "ds2")))
    assert set(choose_scans(tmp_path, "T1w").scans) == {"ds1_sub-1", "ds2_sub-1"}


def test_patterns_stay_within_a_folder_unless_they_say_otherwise():
    assert not re.fullmatch(glob_pattern("*.nii"), "a/b.nii")
    assert re.fullmatch(glob_pattern("**/[!a]?.nii"), "a/b1.nii")


# The derivative


@pytest.fixture
def results(tmp_path) -> Path:
    """The results of two scans of a dataset, one of them without the skull."""
    root, output = tmp_path / "raw", tmp_path / "out"
    scans = [write(root / f"sub-{n}/anat/sub-{n}_{kind}T1w.nii.gz") for n, kind in ((1, ""), (2, "desc-brain_"))]
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Heads", "DatasetDOI": "doi:10.1/x"}))
    for scan in scans:
        affine = torch.eye(4, dtype=torch.float64)
        meta = {"filename_or_obj": str(scan), "original_affine": affine}
        pred = MetaTensor(torch.rand(1, 8, 8, 8), affine=affine, meta=meta)
        SaveImageDerivatived("pred", Derivatives(output, root))({"pred": pred})
    (output / "summary.csv").touch()
    return output


def test_results_of_a_bids_dataset_are_a_derivative(results):
    description = json.loads((results / "dataset_description.json").read_text(encoding="utf-8"))
    source = (results.parent / "raw").as_uri()
    assert description["DatasetType"] == "derivative"
    assert description["Name"] == "Super-resolved scans of Heads"
    assert {"Name", "Version"} == set(description["GeneratedBy"][0])
    assert description["SourceDatasets"] == [{"URL": source, "DOI": "doi:10.1/x"}]
    for number, stripped in ((1, False), (2, True)):
        (sidecar,) = (results / f"sub-{number}/anat").glob("*.json")
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        assert record["SkullStripped"] is stripped  # required of derivatives
        (name,) = record["Sources"]
        dataset, _, path = name.removeprefix("bids:").partition(":")
        assert description["DatasetLinks"][dataset] == source  # required where BIDS URIs are used
        assert (results.parent / "raw" / path).is_file()


def test_the_validator_of_bids_accepts_the_results(results):
    validator = shutil.which(
        "bids-validator-deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if validator is None:
        pytest.skip("needs bids-validator-deno")
    shown = subprocess.run(
        [validator, str(results), "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    issues = json.loads(shown.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_a_description_that_exists_stays_and_other_scans_get_none(tmp_path):
    for folder, name in (("plain", "scan.nii.gz"), ("raw", "sub-1/anat/sub-1_T1w.nii.gz")):
        scan, affine = write(tmp_path / folder / name), torch.eye(4, dtype=torch.float64)
        meta = {"filename_or_obj": str(scan), "original_affine": affine}
        output = tmp_path / f"{folder}_out"
        if folder == "raw":
            touch(output, "dataset_description.json")
        pred = MetaTensor(torch.rand(1, 8, 8, 8), affine=affine, meta=meta)
        SaveImageDerivatived("pred", Derivatives(output, tmp_path / folder))({"pred": pred})
    assert not (tmp_path / "plain_out/dataset_description.json").exists()
    assert (tmp_path / "raw_out/dataset_description.json").read_bytes() == b""


def describe(root: Path, **fields) -> None:
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0", **fields}))


@pytest.mark.parametrize(
    ("fields", "raw"),
    [({}, True), ({"DatasetType": "raw"}, True), ({"DatasetType": "derivative"}, False), ({"GeneratedBy": []}, False)],
)
def test_derived_scans_are_taken_from_a_derivative_alone(tmp_path, fields, raw):
    name = "sub-1/anat/sub-1_space-MNI_desc-preproc_T1w.nii"
    touch(tmp_path, name)
    describe(tmp_path, **fields)
    reason = "the entity space marks a derivative, not a raw scan"
    assert outcomes(tmp_path) == {name: reason if raw else "scan"}


@pytest.mark.parametrize("name", ["sub-1/anat/sub-2_T1w.nii", "sub-1/ses-1/anat/sub-1_ses-2_T1w.nii"])
def test_a_name_that_contradicts_its_folder_is_left_out(tmp_path, name):
    touch(tmp_path, name)
    describe(tmp_path)
    assert "its name is not" in outcomes(tmp_path)[name]


def test_bidsignore_excludes_a_dataset_inside(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "old/sub-2/anat/sub-2_T1w.nii")
    (tmp_path / ".bidsignore").write_text("old/\n")
    assert outcomes(tmp_path) == {"sub-1/anat/sub-1_T1w.nii": "scan", "old": ".bidsignore excludes it"}
