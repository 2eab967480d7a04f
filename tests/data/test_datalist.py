"""Datalists: disjoint, seeded, nested groups of subjects from every kind of dataset, and refusals."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_dicom_series
from folders import touch
from scripts.data import datalist as datalist_module
from scripts.data.datalist import paired_items, unpaired_datalist


def bids(root: Path, count: int) -> Path:
    return touch(root, *(f"sub-{n:03d}/anat/sub-{n:03d}_T1w.nii.gz" for n in range(count)))


def subjects(datalist: dict, section: str, key: str = "image") -> list[str]:
    return [item["subject"] for item in datalist[section] if key in item]


def test_two_folders_become_unpaired_groups(tmp_path):
    touch(tmp_path, "source/a.nii.gz", "source/deep/b.nii", "target/c.nii.gz", "target/notes.txt", "test/d.nii.gz")
    datalist = unpaired_datalist(tmp_path)
    assert datalist["training"] == [
        {"reals": str(tmp_path / "source/a.nii.gz"), "subject": "a"},
        {"reals": str(tmp_path / "source/deep/b.nii"), "subject": "b"},
        {"image": str(tmp_path / "target/c.nii.gz"), "subject": "c"},
    ]
    test_file = str(tmp_path / "test/d.nii.gz")
    assert datalist["test"] == [{"image": test_file, "label": test_file, "subject": "d"}]
    assert datalist["validation"] == []


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(2, (1, 1, 0, 0)), (3, (1, 1, 1, 0)), (6, (2, 2, 1, 1)), (10, (4, 4, 1, 1)), (300, (120, 120, 30, 30))],
)
def test_bids_subjects_are_split_once_each(tmp_path, count, sizes):
    datalist = unpaired_datalist(bids(tmp_path, count))
    groups = [subjects(datalist, "training", "reals"), subjects(datalist, "training")]
    groups += [subjects(datalist, "validation"), subjects(datalist, "test")]
    assert tuple(map(len, groups)) == sizes
    assert len(set().union(*groups)) == count


def test_the_split_follows_the_seed(tmp_path):
    bids(tmp_path, 20)
    assert unpaired_datalist(tmp_path, seed=3) == unpaired_datalist(tmp_path, seed=3)
    assert unpaired_datalist(tmp_path, seed=3) != unpaired_datalist(tmp_path, seed=4)


def test_one_scan_of_the_suffix_is_taken_per_bids_subject(tmp_path):
    bids(tmp_path, 4)
    touch(tmp_path, "sub-000/ses-2/anat/sub-000_ses-2_T1w.nii.gz", "sub-001/anat/sub-001_T2w.nii.gz")
    files = [item.get("reals", item.get("image")) for items in unpaired_datalist(tmp_path).values() for item in items]
    assert len(files) == 4
    assert all(file.endswith("_T1w.nii.gz") for file in files)


def test_high_res_fractions_are_nested_and_leave_the_target_alone(tmp_path):
    bids(tmp_path, 300)
    lists = [unpaired_datalist(tmp_path, hr_fraction=f) for f in (1.0, 0.7, 0.5, 0.3, 0.1, 0.001)]
    sources = [set(subjects(datalist, "training", "reals")) for datalist in lists]
    assert [len(source) for source in sources] == [120, 84, 60, 36, 12, 1]
    assert all(smaller < larger for larger, smaller in pairwise(sources))
    assert all(subjects(datalist, "training") == subjects(lists[0], "training") for datalist in lists)


def test_misaligned_groups_are_the_same_subjects_as_many_as_an_unpaired_source_has(tmp_path):
    datalist = unpaired_datalist(bids(tmp_path, 300), assignment="misaligned")
    assert subjects(datalist, "training", "reals") == subjects(datalist, "training")
    assert len(subjects(datalist, "training")) == 120
    unpaired = unpaired_datalist(tmp_path)
    assert subjects(datalist, "training", "reals") == subjects(unpaired, "training", "reals")
    assert datalist["test"] == unpaired["test"]


def test_a_fraction_of_misaligned_subjects_leaves_the_target_complete(tmp_path):
    datalist = unpaired_datalist(bids(tmp_path, 300), assignment="misaligned", hr_fraction=0.1)
    assert (len(subjects(datalist, "training", "reals")), len(subjects(datalist, "training"))) == (12, 120)


def test_two_folders_become_misaligned_groups_by_the_source_alone(tmp_path):
    touch(tmp_path, "source/a.nii.gz", "source/b.nii.gz", "target/c.nii.gz")
    datalist = unpaired_datalist(tmp_path, assignment="misaligned")
    assert [item["image"] for item in datalist["training"][2:]] == [
        str(tmp_path / "source" / name) for name in ("a.nii.gz", "b.nii.gz")
    ]


def test_two_folders_of_one_subject_each_way_stay_as_they_are_when_misaligned(tmp_path):
    touch(tmp_path, "source/sub-1_T1w.nii.gz", "target/sub-1_acq-fast_T1w.nii.gz")
    datalist = unpaired_datalist(tmp_path, assignment="misaligned")
    assert datalist["training"][1]["image"].endswith("sub-1_acq-fast_T1w.nii.gz")


def test_pairs_are_of_one_subject_or_else_of_one_scan(tmp_path):
    touch(tmp_path, "source/sub-1_T1w.nii.gz", "source/sub-2_T1w.nii.gz", "target/sub-1_acq-fast_T1w.nii.gz")
    first, second = paired_items(unpaired_datalist(tmp_path, assignment="misaligned")["training"])
    assert (first["subject"], Path(first["image"]).name) == ("sub-1", "sub-1_acq-fast_T1w.nii.gz")
    assert Path(first["label"]).name == "sub-1_T1w.nii.gz"
    assert second["image"] == second["label"] == str(tmp_path / "source/sub-2_T1w.nii.gz")


HCP = (
    "{0}/unprocessed/3T/T1w_MPR1/{0}_3T_T1w_MPR1.nii.gz",
    "{0}/unprocessed/3T/T1w_MPR1/{0}_3T_AFI.nii.gz",
    "{0}/unprocessed/3T/T2w_SPC1/{0}_3T_T2w_SPC1.nii.gz",
    "{0}/T1w/T1w_acpc_dc_restore.nii.gz",
    "{0}/T1w/T1w_acpc_dc_restore_brain.nii.gz",
    "{0}/T1w/T1w_acpc_dc.nii.gz",
)
BRATS = tuple(f"BraTS20_Training_{{0}}/BraTS20_Training_{{0}}_{name}.nii.gz" for name in ("flair", "seg", "t1", "t1ce"))


@pytest.mark.parametrize(
    ("names", "suffix", "expected"),
    [
        (HCP, "T1w", HCP[0]),
        (HCP, "T2w", HCP[2]),
        (HCP[3:], "T1w", HCP[3]),
        (HCP[4:], "T1w", HCP[4]),
        (HCP[5:], "T1w", HCP[5]),
        (BRATS, "t1ce", BRATS[3]),
        (BRATS, "t1", BRATS[2]),
        (
            tuple(f"MICCAI_BraTS2020_TrainingData/{name}" for name in BRATS),
            "t1ce",
            "MICCAI_BraTS2020_TrainingData/" + BRATS[3],
        ),
        (("BraTS-GLI-{0}-000/BraTS-GLI-{0}-000-t1c.nii.gz",), "t1c", "BraTS-GLI-{0}-000/BraTS-GLI-{0}-000-t1c.nii.gz"),
        (
            ("sub-{0}/anat/sub-{0}_T1w.nii.gz", "derivatives/x/sub-{0}/anat/sub-{0}_desc-brain_T1w.nii.gz"),
            "T1w",
            "sub-{0}/anat/sub-{0}_T1w.nii.gz",
        ),
        (("{0}x/b_T1w.nii.gz", "{0}x/a_mask.nii.gz"), "T1w", "{0}x/b_T1w.nii.gz"),
        (("{0}x/deep/scan.nii",), "T1w", "{0}x/deep/scan.nii"),
        (("{0}x.nii.gz",), "T1w", "{0}x.nii.gz"),
    ],
)
def test_published_and_plain_layouts_yield_one_scan_per_subject(tmp_path, names, suffix, expected):
    identifiers = [f"{100000 + 7 * n}" for n in range(10)]
    touch(tmp_path, *(name.format(i) for i in identifiers for name in names))
    datalist = unpaired_datalist(tmp_path, suffix=suffix, split=(3, 4, 1, 2))
    groups = {"reals": datalist["training"][:3], "image": datalist["training"][3:]}
    files = [item[key] for key, items in groups.items() for item in items]
    files += [item["label"] for section in ("validation", "test") for item in datalist[section]]
    assert sorted(files) == sorted(str(tmp_path / expected.format(i)) for i in identifiers)
    assert len({item["subject"] for items in datalist.values() for item in items}) == 10


def test_a_split_may_be_numbers_that_leave_subjects_over(tmp_path):
    datalist = unpaired_datalist(bids(tmp_path, 20), split=(6, 5, 4, 3))
    assert len(subjects(datalist, "training", "reals")) == 6
    assert [len(subjects(datalist, section)) for section in ("training", "validation", "test")] == [5, 4, 3]


def test_groups_may_be_named(tmp_path):
    groups = {"source": ["sub-003", "sub-001"], "target": ["sub-000"], "test": ["sub-004"]}
    datalist = unpaired_datalist(bids(tmp_path, 6), groups=groups, output=tmp_path / "list.json")
    assert subjects(datalist, "training", "reals") == ["sub-003", "sub-001"]
    assert subjects(datalist, "training") == ["sub-000"]
    assert (subjects(datalist, "validation"), subjects(datalist, "test")) == ([], ["sub-004"])
    assert json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))["provenance"]["groups"] == groups


def test_named_subjects_may_be_numbers(tmp_path):
    touch(tmp_path, *(name.format(100000 + n) for n in range(2) for name in HCP))
    datalist = unpaired_datalist(tmp_path, groups={"source": [100000], "target": [100001]})
    assert subjects(datalist, "training") == ["100001"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"source": ["sub-000"], "training": ["sub-001"]}, r"got the groups \['source', 'training'\]"),
        ({"source": ["sub-000"], "target": ["sub-9"]}, r"the unknown subjects \['sub-9'\]"),
        ({"source": ["sub-000"], "target": ["sub-000"]}, r"no subject in common.*\['sub-000'\]"),
        ({"source": ["sub-000"], "target": ["sub-001"], "test": ["sub-001"]}, r"test must have no subject"),
        ({"source": ["sub-000"]}, "the target group must hold at least one"),
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path, groups, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(bids(tmp_path, 3), groups=groups)


def test_the_recorded_list_is_a_datalist_that_gives_the_same(tmp_path):
    output = tmp_path / "record" / "datalist.json"
    datalist = unpaired_datalist(bids(tmp_path / "data", 6), seed=5, output=output)
    assert unpaired_datalist(output) == datalist
    assert json.loads(output.read_text(encoding="utf-8"))["provenance"]["seed"] == 5
    assert [path.name for path in output.parent.iterdir()] == ["datalist.json"]


def test_a_datalist_counts_relative_paths_from_its_folder(tmp_path):
    touch(tmp_path, "hr/a.nii.gz", "lr/b.nii.gz")
    content = {"name": "mine", "training": [{"reals": "hr/a.nii.gz"}, {"image": "lr/b.nii.gz", "subject": 7}]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    training = unpaired_datalist(tmp_path / "list.json")["training"]
    assert training[0] == {"reals": str(tmp_path / "hr/a.nii.gz"), "subject": "a"}
    assert training[1] == {"image": str(tmp_path / "lr/b.nii.gz"), "subject": "7"}


def test_without_a_dataset_the_demonstration_cohort_is_used(tmp_path, monkeypatch):
    def generate(folder, scale_factor):
        assert tuple(scale_factor) == (2, 2, 1)
        return touch(folder, "source/sub-001_T1w.nii.gz", "target/sub-002_T1w.nii.gz")

    monkeypatch.setattr(datalist_module, "generate_cohort", generate)
    datalist = unpaired_datalist(cohort_dir=tmp_path / "cohort", scale_factor=(2, 2, 1))
    assert subjects(datalist, "training", "reals") == ["sub-001"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"must hold the folders source/ and target/.*got \[\]"),
        (("scans/a.nii.gz",), r"must hold the folders source/ and target/.*got \['scans'\]"),
        (("source/a.nii.gz", "target/readme.txt"), "the target group must hold at least one scan"),
        (("source/readme.txt", "target/a.nii.gz"), "the source group must hold at least one scan"),
        (("source/a.nii.gz", "target/a.nii.gz"), r"no subject in common.*\['a'\]"),
        (("source/sub-1/sub-1_T1w.nii.gz", "target/sub-1_acq-fast_T1w.nii.gz"), r"no subject in common.*\['sub-1'\]"),
        (
            ("source/a.nii.gz", "target/b.nii.gz", "test/a.nii.gz"),
            r"test must have no subject of the training.*\['a'\]",
        ),
        (("sub-1/anat/sub-1_T2w.nii.gz", "sub-2/anat/sub-2_T2w.nii.gz"), r"2 subjects.*_T1w, got \[\]"),
    ],
)
def test_folders_that_hold_no_unpaired_dataset_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(touch(tmp_path, *names))


# Folders of groups


@pytest.mark.parametrize(
    "folders",
    [
        *(("Source", "TARGET", "Validation", "Test"), ("HR", "LR", "val", "testing"), ("hr", "lr", "valid", "test")),
        *(("High-Res", "low_res", "VAL", "TEST"), ("high resolution", "LowResolution", "validation", "test")),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_group_folders_have_names_in_any_case_and_no_seed_swaps_them(tmp_path, folders, seed):
    for folder, name in zip(folders, ("a.nii", "b.NII.GZ", "c.mgz", "d.nii.gz"), strict=True):
        touch(tmp_path, f"{folder}/{name}")
    datalist = unpaired_datalist(tmp_path, seed=seed)
    assert (subjects(datalist, "training", "reals"), subjects(datalist, "training")) == (["a"], ["b"])
    assert (subjects(datalist, "validation"), subjects(datalist, "test")) == (["c"], ["d"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("HR/a.nii", "other/b.nii"), r"groups \['source', 'target'\], got \['HR'\]. Name them source/ or HR/"),
        (("target/a.nii", "b.nii"), r"expected the folders of the groups \['source', 'target'\], got \['target'\]"),
        (("HR/a.nii", "source/b.nii", "LR/c.nii"), r"one folder of the source group, got \['HR', 'source'\]"),
        (("3T/a.nii", "3T/b.nii", "7T/c.nii", "7T/d.nii"), r"got 3T \(2 scans\), 7T \(2 scans\). If these are groups"),
        (("HR_1mm/a.nii", "LR_2mm/b.nii"), r"got HR_1mm \(1 scans\), LR_2mm .* name their folders source/ or HR/"),
        (("train/a.nii", "test/b.nii"), r"expected a folder per subject, or a folder per group"),
        (("HR_1.nii", "HR_2.nii", "LR_1.nii", "LR_2.nii"), r"got HR_1.nii, HR_2.nii, LR_1.nii"),
    ],
)
def test_folders_that_look_like_groups_are_never_split_by_the_seed(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(touch(tmp_path, *names))


def test_dots_belong_to_the_name_of_a_subject(tmp_path):
    touch(tmp_path, *(f"source/IXI.00{n}.T1.nii.gz" for n in (1, 2)), *(f"target/IXI.00{n}.T1.nii" for n in (3, 4)))
    datalist = unpaired_datalist(tmp_path)
    assert subjects(datalist, "training", "reals") == ["IXI.001.T1", "IXI.002.T1"]
    assert subjects(datalist, "training") == ["IXI.003.T1", "IXI.004.T1"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("p1/T1.nii", "p2/T1.nii", "p3/T1.nii", "p3/FLAIR.nii"), ["p1", "p2", "p3", "p3"]),
        (("siteA/a.nii", "siteA/b.nii", "siteB/a.nii", "siteB/b.nii"), ["siteA_a", "siteA_b", "siteB_a", "siteB_b"]),
        (("sub-1/ses-1/scan.nii", "sub-2/ses-1/scan.nii"), ["sub-1", "sub-2"]),
        (("deep/a.nii", "deep/b.nii"), ["a", "b"]),
    ],
)
def test_names_that_repeat_are_told_apart_by_their_folders(tmp_path, names, expected):
    touch(tmp_path, *(f"source/{name}" for name in names), "target/t.nii")
    assert sorted(subjects(unpaired_datalist(tmp_path), "training", "reals")) == expected


def test_unused_scans_are_named_in_the_log_and_in_the_provenance(tmp_path, caplog):
    touch(tmp_path, "source/a.nii", "target/b.nii", "more/c.nii", "d.nii.gz", "readme.txt")
    (tmp_path / "source/lost.nii").symlink_to("nowhere")
    output = tmp_path / "out.json"
    unpaired_datalist(tmp_path, output=output)
    left_out = json.loads(output.read_text(encoding="utf-8"))["provenance"]["left_out"]
    assert {Path(path).relative_to(tmp_path).as_posix(): reason for path, reason in left_out.items()} == {
        "source/lost.nii": "expected a scan, got a link to nowhere, where nothing is. Fetch the file, for instance by "
        "`datalad get`, or remove the link.",
        **dict.fromkeys(("more/c.nii", "d.nii.gz"), "it is in no folder of a group"),
    }
    assert "3 scans left out" in caplog.text
    assert all(path in caplog.text for path in left_out)


def test_subjects_in_no_group_are_named(tmp_path, caplog):
    unpaired_datalist(bids(tmp_path, 4), groups={"source": ["sub-000"], "target": ["sub-001"]})
    assert "sub-002 is in no group" in caplog.text
    assert "sub-003 is in no group" in caplog.text


def test_a_link_to_a_scan_may_be_in_both_misaligned_groups(tmp_path):
    touch(tmp_path, "source/a.nii", "target/notes.txt")
    (tmp_path / "target/a.nii").symlink_to(tmp_path / "source/a.nii")
    datalist = unpaired_datalist(tmp_path, assignment="misaligned")
    assert subjects(datalist, "training") == subjects(datalist, "training", "reals") == ["a"]


def test_dicom_series_train_too(tmp_path):
    for name in ("HR/p1", "LR/p2"):
        write_dicom_series(tmp_path / name, np.ones((3, 8, 8), int))
    datalist = unpaired_datalist(tmp_path)
    assert (subjects(datalist, "training", "reals"), subjects(datalist, "training")) == (["p1"], ["p2"])


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: dataset_dir must be a folder"):
        unpaired_datalist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assignment": "paired"}, "assignment must be one of .*got 'paired'"),
        ({"hr_fraction": 0.0}, r"hr_fraction must be in \(0, 1\], got 0.0"),
        ({"split": (0.5, 0.5)}, r"split must be shares of .*got \[0.5, 0.5\]"),
        ({"split": (0.5, 0.0, 0.25, 0.25)}, r"positive for \('source', 'target'\)"),
        ({"split": (0.5, 0.6, 0.0, 0.0)}, "sum 1"),
        ({"split": (3, 3, 1, 0)}, r"numbers of the 6 subjects, got \[3, 3, 1, 0\]"),
        ({"split": (2, 1.5, 1, 0)}, r"got \[2, 1.5, 1, 0\]"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(bids(tmp_path, 6), **settings)


# HR scans alone


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (10, (8, 1, 1))])
def test_without_a_target_the_source_takes_its_share(tmp_path, count, sizes):
    datalist = unpaired_datalist(bids(tmp_path, count), assignment="hr_only")
    groups = [subjects(datalist, "training", "reals"), subjects(datalist, "validation"), subjects(datalist, "test")]
    assert tuple(map(len, groups)) == sizes
    assert subjects(datalist, "training") == []


def test_a_source_alone_is_enough_and_a_target_stays(tmp_path):
    touch(tmp_path, "HR/a.nii.gz", "HR/b.nii.gz", "validation/c.nii.gz")
    datalist = unpaired_datalist(tmp_path, assignment="hr_only")
    assert subjects(datalist, "training", "reals") == ["a", "b"]
    assert subjects(datalist, "validation") == ["c"]
    touch(tmp_path, "LR/d.nii.gz")
    assert subjects(unpaired_datalist(tmp_path, assignment="hr_only"), "training") == ["d"]


def test_a_list_and_named_groups_need_no_target(tmp_path):
    bids(tmp_path, 3)
    named = unpaired_datalist(tmp_path, assignment="hr_only", groups={"source": ["sub-000"], "test": ["sub-001"]})
    assert subjects(named, "training", "reals") == ["sub-000"]
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": [{"reals": "sub-000/anat/sub-000_T1w.nii.gz"}]}))
    assert subjects(unpaired_datalist(path, assignment="hr_only"), "training", "reals") == ["sub-000"]


@pytest.mark.parametrize("names", [("target/a.nii.gz",), ("notes.txt",)])
def test_without_a_target_there_are_hr_scans(tmp_path, names):
    with pytest.raises(ValueError, match=r"groups \['source'\], got \['target'\]|at least 1 subject with"):
        unpaired_datalist(touch(tmp_path, *names), assignment="hr_only")
