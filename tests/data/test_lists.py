"""Datalists in JSON: what is understood, and what to do with the lists of other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from folders import touch
from scripts.data.datalist import unpaired_datalist

GOOD = [{"reals": "a.nii.gz"}, {"image": "b.nii.gz"}]
STRINGS = ["./a.nii.gz", "./b.nii.gz"]


@pytest.fixture
def folder(tmp_path) -> Path:
    return touch(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz")


def read(folder: Path, content: object, name: str = "list.json") -> list[dict]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return unpaired_datalist(folder / name)["training"]


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("{", ["expected a folder or a JSON datalist"]),
        (json.dumps({"training": GOOD})[:-1] + ",}", ["cannot be read as JSON", "Correct the file"]),
        ({"train": []}, [r"must hold .training. and may hold .*, got \['train'\]"]),
        (GOOD, ["got a list of 2", r'Write \{"training"']),
        ({"training": [{"hr": "a.nii.gz"}]}, [r"got the keys \['hr'\]"]),
        ({"training": [{"reals": "a.nii.gz", "mask": "b.nii.gz"}]}, [r"got the keys \['mask', 'reals'\]"]),
        ({"training": [{"reals": "none.nii.gz"}]}, ["none.nii.gz: listed in .*list.json"]),
        ({"training": []}, ["the source group must hold"]),
        ({"training": STRINGS}, [r"got the text '\./a\.nii\.gz'", r'Write \{"training"']),
        ({"training": [{"reals": ["a.nii.gz"]}]}, ["`reals` must be the path of one file, got a list of 1"]),
        ({"training": [{"reals": None}]}, ["`reals` must be the path of one file, got NoneType None"]),
        ({"training": [{"reals": "a.nii.gz", "fold": 0}]}, ["Folds are not used: remove `fold`"]),
        (
            {"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}]},
            ["the source group must hold .* list HR scans of others under `reals`"],
        ),
        (
            {"modality": {"0": "MRI"}, "training": GOOD, "test": STRINGS},
            ["got the text './a.nii.gz'", "Medical Segmentation Decathlon", "source/ and target/"],
        ),
        (
            {"channel_names": {"0": "T1"}, "labels": {"brain": 1}, "numTraining": 2, "file_ending": ".nii.gz"},
            [r"got \[\]. This is a dataset.json of nnU-Net, which names no scans", "source/ and target/"],
        ),
        ({"subjects": [{"t1": "a.nii.gz"}]}, ["a list of subjects of another tool, such as TorchIO"]),
        ([{"t1": "a.nii.gz"}], ["got a list of 1"]),
        ("3", ["must be an object with the list `training`, got int 3"]),
    ],
)
def test_lists_that_cannot_be_used_are_refused_with_a_remedy(folder, content, messages):
    for message in messages:
        with pytest.raises(ValueError, match=message):
            read(folder, content)


def test_no_message_repeats_its_remedy(folder):
    with pytest.raises(ValueError, match="source/") as error:
        read(folder, {"modality": {}, "training": GOOD, "test": STRINGS})
    assert str(error.value).count('Write {"training"') == 1


@pytest.mark.parametrize("name", ["list.json", "LIST.JSON", "list"])
def test_a_list_has_any_name_and_may_begin_with_a_mark(folder, name):
    assert [item["subject"] for item in read(folder, "\ufeff" + json.dumps({"training": GOOD}), name)] == ["a", "b"]


def test_paths_of_windows_and_of_the_home_folder_are_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    touch(folder, "deep/d.nii")
    training = read(folder, {"training": [{"reals": "deep\\d.nii"}, {"image": "~/b.nii.gz"}]})
    assert [Path(next(iter(item.values()))) for item in training] == [folder / "deep/d.nii", folder / "b.nii.gz"]


# A subject is a person


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("below", [False, True])
def test_a_folder_above_the_dataset_names_no_subject(tmp_path, absolute, below):
    root = touch(tmp_path / "sub-study7", "hr/p1.nii", "hr/p2.nii", "lr/q1.nii", "lr/q2.nii")
    folder = root if below else tmp_path
    names = ["hr/p1.nii", "hr/p2.nii", "lr/q1.nii", "lr/q2.nii"]
    paths = [str(root / name) if absolute else str((root / name).relative_to(folder)) for name in names]
    items = [{"reals" if "hr" in path else "image": path} for path in paths]
    assert [item["subject"] for item in read(folder, {"training": items})] == ["p1", "p2", "q1", "q2"]


def test_a_subject_comes_from_the_list_or_from_bids_or_from_the_whole_name(tmp_path):
    names = ("sub-1/anat/T1.nii", "sub-2/ses-1/anat/sub-2_T1w.nii", "IXI.001.T1.nii.gz", "IXI.002.T1.NII.GZ", "x.mgz")
    touch(tmp_path, *names)
    items = [{"reals": name} for name in names[:3]] + [{"image": names[3]}, {"image": names[4], "subject": 7}]
    subjects = [item["subject"] for item in read(tmp_path, {"training": items})]
    assert subjects == ["sub-1", "sub-2", "IXI.001.T1", "IXI.002.T1", "7"]


def test_scans_of_one_subject_stay_one_subject(tmp_path):
    touch(tmp_path, "sub-1/ses-1/anat/a.nii", "sub-1/ses-2/anat/b.nii")
    with pytest.raises(ValueError, match=r"no subject in common.*\['sub-1'\]"):
        read(tmp_path, {"training": [{"reals": "sub-1/ses-1/anat/a.nii"}, {"image": "sub-1/ses-2/anat/b.nii"}]})
