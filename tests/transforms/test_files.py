from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_dicom_series
from scripts.data.listing import inference_datalist, reference_datalist, require_scans
from scripts.transforms.naming import DerivativeLayout, derivative_name


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w.nii.gz", "sub-01_desc-sr_T1w"),
        ("sub-01_ses-2_acq-mprage_run-1_T1w.nii", "sub-01_ses-2_acq-mprage_run-1_desc-sr_T1w"),
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_desc-preprocsr_T1w"),
        ("sub-01_acq-t1+t2_T1w.nii.gz", "sub-01_acq-t1+t2_desc-sr_T1w"),
        ("scan.nii.gz", "scan_desc-sr"),
        ("scan.mha", "scan_desc-sr"),
        ("head.1.2.nii", "head.1.2_desc-sr"),
        ("1.2.840.113619", "1.2.840.113619_desc-sr"),
        ("SCAN.NII.GZ", "SCAN_desc-sr"),
        ("scan.MGZ", "scan_desc-sr"),
        ("scan.hdr", "scan_desc-sr"),
    ],
)
def test_results_have_the_names_of_bids_derivatives(name, expected):
    assert derivative_name(name) == expected


def test_results_mirror_the_folders_of_the_input():
    layout = DerivativeLayout("out", "data")
    assert layout.filename("data/sub-01/anat/sub-01_T1w.nii.gz") == Path("out/sub-01/anat/sub-01_desc-sr_T1w.nii.gz")
    assert layout.filename("data/scan.nii") == Path("out/scan_desc-sr.nii.gz")
    assert layout.filename("elsewhere/scan.nii") == Path("out/scan_desc-sr.nii.gz")
    assert DerivativeLayout("out").filename("data/scan.nii") == Path("out/scan_desc-sr.nii.gz")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (".", "sub-1/ses-2/anat"),
        ("sub-1", "sub-1/ses-2/anat"),
        ("sub-1/ses-2", "sub-1/ses-2/anat"),
        ("sub-1/ses-2/anat", "sub-1/ses-2/anat"),
        ("sub-1/ses-2/anat/sub-1_ses-2_T1w.nii", "sub-1/ses-2/anat"),
    ],
)
def test_results_of_a_part_of_a_bids_dataset_lie_where_those_of_the_whole_do(part, expected):
    root = Path("sub-study7")
    scan = root / "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii"
    result = DerivativeLayout("out", root / part).filename(scan)
    assert result == Path("out") / expected / "sub-1_ses-2_desc-sr_T1w.nii.gz"


def test_a_single_scan_is_taken_as_it_is(tmp_path):
    touch(tmp_path, "scan.mha")
    assert inference_datalist(tmp_path / "scan.mha") == [{"image": str(tmp_path / "scan.mha")}]


def test_dicom_series_are_found_one_per_folder(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (3, 8, 8))
    write_dicom_series(tmp_path / "patient" / "t1", values)
    write_dicom_series(tmp_path / "patient" / "t2", values, number=2)
    expected = [str(tmp_path / "patient" / name) for name in ("t1", "t2")]
    assert [item["image"] for item in inference_datalist(tmp_path)] == expected
    assert inference_datalist(tmp_path / "patient" / "t1") == [{"image": expected[0]}]


@pytest.mark.parametrize("other", ["a.nii.gz", "A.nii", "a.nrrd"])
def test_scans_whose_results_would_have_one_name_are_at_fault_and_others_are_not(tmp_path, other):
    touch(tmp_path, "a.nii", other, "b.nii", "elsewhere/a.nii")
    items = inference_datalist(tmp_path)
    faults = {Path(item["image"]).relative_to(tmp_path).as_posix(): item.get("fault") for item in items}
    assert f"a.nii: expected another name than {other} beside it" in faults["a.nii"]
    assert f"{other}: expected another name than a.nii beside it" in faults[other]
    assert [name for name, fault in faults.items() if fault is None] == ["b.nii", "elsewhere/a.nii"]


def test_references_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "a.nii", "a.nii.gz")
    with pytest.raises(ValueError, match=r"a\.nii: expected another name than a\.nii\.gz"):
        reference_datalist(tmp_path, "")


def test_a_folder_of_earlier_results_alone_is_refused_with_their_names(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "derivatives/a.nii", "sub-1/anat/sub-1_T1map.nii")
    (tmp_path / "sub-1/anat/sub-1_T1w.nii").unlink()
    with pytest.raises(ValueError, match=r"found none\. Correct it\.\n- .*sub-1_T1map\.nii: left out, because it is a"):
        inference_datalist(tmp_path / "sub-1")


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none: dataset_dir must be a scan or a folder of scans, got no such path"):
        inference_datalist(tmp_path / "none")


def test_a_folder_without_scans_is_refused(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match=r"expected scans \(.nii.gz, .nii, .* or DICOM series, found none"):
        inference_datalist(tmp_path)


def test_the_bundle_can_be_inspected_but_not_run_without_data(tmp_path):
    assert inference_datalist(None) == []
    assert reference_datalist(None, tmp_path / "datalist.json") == []
    with pytest.raises(ValueError, match=r"got None\. Give it by --dataset_dir"):
        require_scans([], None)
    require_scans([{"image": "scan.nii"}], "scan.nii")


def test_references_come_from_the_datalist_of_the_training(tmp_path):
    names = ("s.nii", "t.nii", "low.nii", "high.nii")
    touch(tmp_path, *names)
    training = [{"reals": "s.nii"}, {"image": "t.nii"}]
    datalist = {"training": training, "test": [{"image": "low.nii", "label": "high.nii"}]}
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    expected = [{"image": str(tmp_path / "low.nii"), "label": str(tmp_path / "high.nii")}]
    assert reference_datalist(None, tmp_path / "datalist.json") == expected
    with pytest.raises(ValueError, match="expected scans in the section 'validation', found none"):
        reference_datalist(tmp_path / "datalist.json", "", section="validation")


def test_references_come_from_the_test_folder_or_from_all_scans(tmp_path):
    touch(tmp_path, "source/a.nii", "test/b.nii")
    assert reference_datalist(tmp_path, "") == [dict.fromkeys(("image", "label"), str(tmp_path / "test/b.nii"))]
    assert reference_datalist(tmp_path / "source", "")[0]["label"] == str(tmp_path / "source/a.nii")


@pytest.mark.parametrize("names", [("source", "target"), ("HR", "LR"), ("source", "validation")])
def test_groups_without_the_section_are_not_evaluated_together(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii").touch()
    with pytest.raises(ValueError, match=r"expected a folder test/ with the HR scans .* choose another --section"):
        reference_datalist(tmp_path, "")
    assert len(reference_datalist(tmp_path / names[0], "")) == 1
