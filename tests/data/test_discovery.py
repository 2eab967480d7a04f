"""Discovery: every scan that a person would count is a scan, a fault, or left out with the reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_dicom_series
from folders import outcomes, touch, write
from scripts.data import discovery
from scripts.data.listing import inference_datalist
from scripts.transforms.naming import bundle_metadata

VALUES = np.random.default_rng(0).integers(0, 99, (3, 8, 8))
HIDDEN, RESULT = "a hidden file", "a result of this bundle"


def record(result: Path, name: str = bundle_metadata()["name"]) -> None:
    sidecar = result.with_name(result.name.removesuffix(".nii.gz") + ".json")
    sidecar.write_text(json.dumps({"GeneratedBy": [{"Name": name}]}))


@pytest.mark.parametrize(
    "name",
    [
        *("a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz", "a.mgh", "A.NII.GZ", "A.Nii", "a.nii.GZ"),
        *("#1@%x$y.nii.gz", "new\nline.nii.gz", "scan[1]{a}.nii", "-dash.nii.gz", "Müller_José_脑.nii.gz", "a.img"),
    ],
)
def test_a_file_counts_by_its_ending_in_any_case(tmp_path, name):
    assert outcomes(touch(tmp_path, name, "notes.txt", "table.csv")) == {name: "scan"}


@pytest.mark.parametrize("name", ["scan", "scan.dat", "1.2.840.113619"])
def test_a_file_counts_by_its_content(tmp_path, name):
    write(tmp_path / "_.nii").rename(tmp_path / name)
    assert outcomes(tmp_path) == {name: "scan"}


@pytest.mark.parametrize("names", [("pair.hdr", "pair.img"), ("PAIR.HDR", "PAIR.IMG"), ("pair.hdr", "pair.IMG")])
def test_a_pair_is_one_scan(tmp_path, names):
    write(tmp_path / "x.hdr", image=nib.Nifti1Pair)
    for old, new in zip(("x.hdr", "x.img"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    assert outcomes(tmp_path) == {names[0]: "scan"}


@pytest.mark.parametrize("name", ["a.mnc", "a.PAR", "a.nii.bz2", "a.BRIK"])
def test_a_format_that_is_not_read_is_left_out(tmp_path, name):
    assert outcomes(touch(tmp_path, "b.nii", name))[name].startswith("this format is not read. Convert")


def test_hidden_files_are_named_only_where_they_are_scans(tmp_path):
    touch(tmp_path, "a.nii", "._a.nii", ".DS_Store", ".snapshot/b.nii", ".cache/notes.txt", ".git/annex/c.nii")
    write(tmp_path / ".old.nii")
    assert outcomes(tmp_path) == {"a.nii": "scan", ".old.nii": HIDDEN, ".snapshot": "a hidden folder"}


# Results


def test_results_of_this_bundle_are_left_out_and_those_of_other_tools_are_scans(tmp_path):
    touch(tmp_path, "a.nii", "a_desc-sr.nii.gz")  # interrupted before the record was written
    for name in ("out/a_desc-sr.nii.gz", "out/sub-1_desc-preprocsr_T1w.nii.gz", "out/a_desc-srerror.nii.gz"):
        record(write(tmp_path / name))
    record(write(tmp_path / "b_desc-gibbssr.nii.gz"), "another tool")
    record(write(tmp_path / "c_desc-sr_T1w.nii.gz"), "another tool")
    write(tmp_path / "d_desc-sr.nii.gz")
    (tmp_path / "d_desc-sr.json").write_text("no JSON")
    found = outcomes(tmp_path)
    assert {name for name, reason in found.items() if reason == RESULT} == {
        *("a_desc-sr.nii.gz", "out/a_desc-sr.nii.gz"),
        *("out/sub-1_desc-preprocsr_T1w.nii.gz", "out/a_desc-srerror.nii.gz"),
    }
    scans = {name for name, reason in found.items() if reason == "scan"}
    assert scans == {"a.nii", "b_desc-gibbssr.nii.gz", "c_desc-sr_T1w.nii.gz", "d_desc-sr.nii.gz"}


# Links and folders


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "store/sub-2/scan.nii")
    root = tmp_path / "data"
    write(root / "a/one.nii")
    for link, target in (
        *(("b", "../store/sub-2"), ("c", "../store/sub-2"), ("a/loop", "."), ("up", ".."), ("self", "self")),
        *(("same.nii", "a/one.nii"), ("linked.nii", "../store/sub-2/scan.nii"), ("lost.nii.gz", "nowhere")),
        *(("lost.txt", "nowhere"), ("other.nii", "../elsewhere.nii")),
    ):
        (root / link).symlink_to(target)
    write(tmp_path / "elsewhere.nii")
    found = outcomes(root)
    assert [name for name, reason in found.items() if reason == "scan"] == ["a/one.nii", "b/scan.nii", "other.nii"]
    assert found["lost.nii.gz"] == "fault"
    assert found["same.nii"] == f"the same file as {root / 'a/one.nii'}"
    assert found["linked.nii"].startswith("the same file as")
    assert all("searched under another name" in found[name] for name in ("c", "a/loop", "up"))
    assert "lost.txt" not in found
    (fault,) = (item["fault"] for item in inference_datalist(root) if "fault" in item)
    assert "lost.nii.gz: expected a scan, got a link to nowhere, where nothing is. Fetch the file" in fault


def test_a_folder_that_cannot_be_read_is_a_fault(tmp_path, monkeypatch):
    touch(tmp_path, "a.nii", "closed/b.nii")
    listed = Path.iterdir

    def refuse(path: Path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert outcomes(tmp_path) == {"a.nii": "scan", "closed": "fault"}


def test_a_file_that_cannot_be_read_is_still_a_scan(tmp_path, monkeypatch):
    def refuse(path: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(discovery, "identify", refuse)
    assert outcomes(touch(tmp_path, "a.nii", "notes.txt")) == {"a.nii": "scan"}


def test_a_pipe_is_no_scan(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    assert outcomes(touch(tmp_path, "a.nii")) == {"a.nii": "scan"}


# DICOM


def test_dicom_without_endings_lies_beside_other_scans(tmp_path):
    write(tmp_path / "a.nii")
    write_dicom_series(tmp_path / "study/t1", VALUES)
    for file in (tmp_path / "study/t1").iterdir():
        file.rename(file.with_suffix(""))
    write(tmp_path / "study/t1/b.nii")
    touch(tmp_path, "study/readme.txt")
    assert outcomes(tmp_path) == {"a.nii": "scan", "study/t1": "scan", "study/t1/b.nii": "scan"}


def test_each_series_of_a_folder_is_a_scan(tmp_path):
    write_dicom_series(tmp_path / "mixed", VALUES)
    write_dicom_series(tmp_path / "mixed", VALUES, number=2)
    assert outcomes(tmp_path) == {"mixed/1_000.dcm": "scan", "mixed/2_000.dcm": "scan"}
    assert outcomes(tmp_path / "mixed") == {"1_000.dcm": "scan", "2_000.dcm": "scan"}


def test_a_folder_that_is_a_series_is_a_scan(tmp_path):
    write_dicom_series(tmp_path, VALUES)
    assert inference_datalist(tmp_path) == [{"image": str(tmp_path)}]


# The same of BIDS: tests/data/test_bids.py


def test_parts_of_one_series_in_two_folders_are_faults(tmp_path):
    write_dicom_series(tmp_path / "a", VALUES)
    (tmp_path / "b").mkdir()
    for file in sorted((tmp_path / "a").iterdir())[2:]:
        file.rename(tmp_path / "b" / file.name)
    assert outcomes(tmp_path) == {"a": "fault", "b": "fault"}
    fault = inference_datalist(tmp_path)[0]["fault"]
    assert "expected all slices of its series, got others in" in fault
    assert outcomes(tmp_path / "a") == {".": "scan"}


def test_copies_and_echoes_of_a_series_are_scans(tmp_path):
    for name in ("a", "b"):  # the same positions
        write_dicom_series(tmp_path / name, VALUES)
    assert outcomes(tmp_path) == {"a": "scan", "b": "scan"}


def test_a_link_that_leads_nowhere_is_named_whatever_its_ending(tmp_path):
    touch(tmp_path, "a.nii")
    for name in ("sub-03", "b.dcm", "notes.txt"):
        os.symlink("/nowhere", tmp_path / name)
    found = outcomes(tmp_path)
    assert found == {"a.nii": "scan", "b.dcm": "fault", "sub-03": "a link to /nowhere, where nothing is"}


@pytest.mark.parametrize("name", ["study.zip", "sub-1.tar.gz", "001.dcm.gz"])
def test_an_archive_is_left_out_by_name(tmp_path, name):
    assert outcomes(touch(tmp_path, "a.nii", name))[name] == "an archive. Unpack it if it holds scans"
