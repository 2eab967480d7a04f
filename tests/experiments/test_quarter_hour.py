"""The program for a quarter of an hour on a GPU, rehearsed on phantoms by a small network. No test looks at a time."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import head_phantom, write_scan

from experiments import ROOT
from experiments.studies import quarter_hour

SUBJECTS = sorted(subject for subjects in quarter_hour.GROUPS.values() for subject in subjects)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Phantoms under the names of the subjects that the program takes, and one more."""
    root = tmp_path_factory.mktemp("ds000011")
    for seed, subject in enumerate([*SUBJECTS, "sub-06"]):
        write_scan(root / subject / "anat" / f"{subject}_T1w.nii.gz", head_phantom(seed), (1.3, 1.3, 1.3))
    (root / "participants.tsv").write_text("participant_id\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The papers' network with few features, on patches that fit into a phantom."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = {"num_features": 16, "num_groups": 1, "num_blocks": 1}
    training = {"patch_size": [32, 32], "architecture::discriminator_features": 4, "train::warmup_iterations": 1}
    monkeypatch.setattr(quarter_hour, "NETWORK", {f"architecture::{name}": value for name, value in small.items()})
    monkeypatch.setattr(quarter_hour, "TRAINING", training)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_rehearsal_runs_every_part(dataset, phantom_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(quarter_hour.GROUPS, "test", ["sub-08"])
    monkeypatch.setattr(quarter_hour, "write_dataset", lambda _: phantom_dataset())  # smaller
    arguments = ["--dataset_dir", str(dataset), "--output_dir", str(tmp_path), "--iterations", "2"]
    assert quarter_hour.main(arguments) == 0
    made = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(made) == {
        *(f"{method}.pt" for method in quarter_hour.METHODS),
        *(f"curves_{method}.csv" for method in quarter_hour.METHODS),
        *("speed.json", "subjects.csv", "record.json"),
    }
    assert max(made.values()) < 16e6

    curves = {method: read(tmp_path / f"curves_{method}.csv") for method in quarter_hour.METHODS}
    names = {method: {row["name"] for row in rows} for method, rows in curves.items()}
    contrast = {"contrastive_feature", "contrastive_consistency", "contrastive_cycle"}
    assert names["contrastive"] - names["without_contrastive"] == contrast
    assert {"image_cycle_l1", "psnr_gain"} <= names["without_contrastive"]

    weights = [torch.load(tmp_path / f"{method}.pt", weights_only=True) for method in quarter_hour.METHODS]
    assert weights[0].keys() == weights[1].keys()
    assert {value.dtype for value in weights[0].values()} == {torch.float32}

    rows = read(tmp_path / "subjects.csv")
    assert {(row["network"], row["subject"]) for row in rows} == {
        (method, "sub-08_T1w") for method in quarter_hour.METHODS
    }
    assert {"zero_filling", "pred"} <= {row["method"] for row in rows}
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert list(record) == list(quarter_hour.PARTS)
    assert record["contrastive"]["iterations"] == 2
    assert {told["commit"] for told in record.values()} == {quarter_hour.commit(dataset)}
    assert record["speed"]["training"].keys() == quarter_hour.WAYS["training"].keys()
    assert record["speed"]["inference"].keys() == quarter_hour.WAYS["inference"].keys()


def test_a_training_stops_by_the_clock_and_leaves_its_network(dataset, tmp_path):
    run = quarter_hour.Run(dataset, tmp_path, tmp_path, None)
    told = quarter_hour.train("without_contrastive", run, 1000, 1, seconds=1)
    assert 0 < told["iterations"] < told["planned"] == 1000
    assert all(value.isfinite().all() for value in torch.load(tmp_path / "without_contrastive.pt").values())


def test_both_trainings_get_the_iterations_that_fit(dataset, tmp_path, monkeypatch):
    """Of 270 seconds, 10 go to set-up and 5 x 8 to validations; an iteration takes a tenth of a second."""
    asked = []

    def train(method, run, iterations, epochs, seconds, probe=False):
        asked.append((method, iterations, epochs, probe))
        return {"set-up": 10.0, "validation": 8.0, "iteration": 0.1}

    monkeypatch.setattr(quarter_hour, "train", train)
    arguments = ["--dataset_dir", str(dataset), "--output_dir", str(tmp_path), "--parts"]
    for method in quarter_hour.METHODS:  # a command each
        assert quarter_hour.main([*arguments, method]) == 0
    probe, first, second = asked
    assert probe == ("contrastive", quarter_hour.PROBE, 1, True)
    assert first[:1] + first[2:] == ("contrastive", 4, False)
    assert first[1] == pytest.approx(0.97 * (270 - 10 - 5 * 8) / 0.1, rel=0.01)
    assert second == ("without_contrastive", *first[1:])


def test_a_part_that_fails_is_recorded_and_the_next_one_runs(dataset, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(quarter_hour, "PARTS", {"speed": fail, "evaluate": lambda *_: {"rows": 0}})
    assert quarter_hour.main(["--dataset_dir", str(dataset), "--output_dir", str(tmp_path)]) == 1
    parts = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert parts["speed"]["failed"] == "RuntimeError: out of memory"
    assert parts["evaluate"]["rows"] == 0
    assert "out of memory" in capsys.readouterr().err


def test_no_part_begins_when_the_time_is_over(dataset, tmp_path):
    assert quarter_hour.main(["--dataset_dir", str(dataset), "--output_dir", str(tmp_path), "--minutes", "0"]) == 0
    parts = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert all(told["skipped"] == "no time was left" for told in parts.values())


@pytest.mark.parametrize(("limit", "left"), [(2.0**20, []), (0.0, quarter_hour.GROUPS["test"])])
def test_only_the_subjects_that_fit_are_prepared(dataset, tmp_path, monkeypatch, capsys, limit, left):
    monkeypatch.setattr(quarter_hour, "LIMIT", limit)
    quarter_hour.prepare(dataset, tmp_path / "subset")
    copied = sorted(path.parent.parent.name for path in (tmp_path / "subset").glob("*/anat/*_T1w.nii.gz"))
    assert copied == [subject for subject in SUBJECTS if subject not in left]
    assert (tmp_path / "subset" / "participants.tsv").is_file()
    printed = capsys.readouterr().out
    assert [subject for subject in SUBJECTS if f"{subject} stays behind" in printed] == left
    assert quarter_hour.commit(tmp_path / "subset") == quarter_hour.commit(tmp_path)


def test_git_ignores_what_is_prepared():
    ignored = ["git", "check-ignore", "--quiet", str(quarter_hour.SUBSET / "commit.txt")]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
