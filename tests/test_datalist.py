"""Datalists: disjoint, seeded, nested groups of subjects from every kind of dataset, and refusals."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from scripts import datalist as datalist_module
from scripts.datalist import unpaired_datalist


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


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


def test_misaligned_groups_are_the_same_subjects(tmp_path):
    datalist = unpaired_datalist(bids(tmp_path, 10), assignment="misaligned")
    assert subjects(datalist, "training", "reals") == subjects(datalist, "training")
    assert len(subjects(datalist, "training")) == 8


def test_the_recorded_list_is_a_datalist_that_gives_the_same(tmp_path):
    output = tmp_path / "record" / "datalist.json"
    datalist = unpaired_datalist(bids(tmp_path / "data", 6), seed=5, output=output)
    assert unpaired_datalist(output) == datalist
    assert json.loads(output.read_text())["provenance"]["seed"] == 5
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
        (("source/a.nii.gz", "target/readme.txt"), "the target group must hold at least one NIfTI scan"),
        (("source/readme.txt", "target/a.nii.gz"), "the source group must hold at least one NIfTI scan"),
        (("source/a.nii.gz", "target/a.nii.gz"), r"no subject in common.*\['a'\]"),
        (("source/sub-1/sub-1_T1w.nii.gz", "target/sub-1_acq-fast_T1w.nii.gz"), r"no subject in common.*\['sub-1'\]"),
        (
            ("source/a.nii.gz", "target/b.nii.gz", "test/a.nii.gz"),
            r"test must have no subject of the training.*\['a'\]",
        ),
        (("sub-1/anat/sub-1_T2w.nii.gz", "sub-2/anat/sub-2_T2w.nii.gz"), r"two subjects.*_T1w.nii.gz, got \[\]"),
    ],
)
def test_folders_that_hold_no_unpaired_dataset_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(touch(tmp_path, *names))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a JSON file"),
        ({"train": []}, r"the first at least, got \['train'\]"),
        ({"training": [{"hr": "a.nii.gz"}]}, r"got the keys \['hr'\]"),
        ({"training": [{"reals": "a.nii.gz", "mask": "b.nii.gz"}]}, r"got the keys \['mask', 'reals'\]"),
        ({"training": [{"reals": "none.nii.gz"}]}, r"none.nii.gz: listed in .*list.json"),
        ({"training": []}, "the source group must hold"),
    ],
)
def test_datalists_that_cannot_be_used_are_refused(tmp_path, content, message):
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    (tmp_path / "list.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(tmp_path / "list.json")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: dataset_dir must be a folder"):
        unpaired_datalist(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assignment": "paired"}, "assignment must be one of .*got 'paired'"),
        ({"hr_fraction": 0.0}, r"hr_fraction must be in \(0, 1\], got 0.0"),
        ({"split": (0.5, 0.5)}, r"split must be the shares of .*got \[0.5, 0.5\]"),
        ({"split": (0.5, 0.0, 0.25, 0.25)}, "positive for the first two"),
        ({"split": (0.5, 0.6, 0.0, 0.0)}, "sum 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        unpaired_datalist(bids(tmp_path, 6), **settings)
