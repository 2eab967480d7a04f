"""The benchmark: which rows a matrix has, by which commands they run, and what survives kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, head_phantom, write_scan
from scripts.handlers.checkpoints import saved_checkpoints

from experiments.benchmark import execution, runner
from experiments.benchmark.lesions import box_mask
from experiments.benchmark.matrix import Row, read_matrix

MATRICES = sorted((REPOSITORY / "docs" / "benchmark" / "matrices").glob("*.yaml"))
TRAIN, METHODS = "bundle/configs/train.yaml", "bundle/configs/methods"
TRUNK = ["bundle/configs/inference.yaml", "bundle/configs/evaluate.yaml"]


def write_matrix(folder: Path, **content) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump({"title": "A test", "plan": "none", **content}))
    return path


def test_the_first_seed_and_fold_of_everything_comes_first(tmp_path):
    matrix = write_matrix(
        tmp_path,
        folds={"one": {}, "two": {}},
        rows=[{"system": ["zero_filling", "contrastive"]}, {"system": "udean", "seed": [1, 0], "hr_fraction": 0.1}],
    )
    assert [row.name for row in read_matrix(matrix).rows] == [
        "zero_filling_one_seed0",
        "contrastive_one_seed0",
        "udean_hr10_one_seed0",
        "zero_filling_two_seed0",
        "contrastive_two_seed0",
        "udean_hr10_two_seed0",
        "udean_hr10_one_seed1",
        "udean_hr10_two_seed1",
    ]


def test_learned_rows_start_from_a_row_of_their_backbone_fold_share_and_seed(tmp_path):
    matrix = write_matrix(
        tmp_path,
        training={"max_iterations": 10, "iterations_per_epoch": 5},
        initial={"max_iterations": 50},
        rows=[
            {"system": ["zero_filling", "contrastive", "dasr", "pseudo_sr"]},
            {"system": "udean", "assignment": "misaligned", "seed": [0, 1]},
            {"system": "udean", "hr_fraction": 0.5},
        ],
    )
    rows = {row.name: row for row in read_matrix(matrix).rows}
    assert [(name, row.initial and row.initial.name) for name, row in rows.items()] == [
        ("zero_filling_seed0", None),
        ("initial_seed0", None),
        ("contrastive_seed0", "initial_seed0"),
        ("dasr_seed0", "initial_seed0"),
        ("pseudo_sr_seed0", None),  # a network around another
        ("udean_misaligned_seed0", "initial_seed0"),
        ("initial_hr50_seed0", None),
        ("udean_hr50_seed0", "initial_hr50_seed0"),
        ("initial_seed1", None),
        ("udean_misaligned_seed1", "initial_seed1"),
    ]
    assert rows["initial_seed0"].training == {"max_iterations": 50, "iterations_per_epoch": 5}
    (stage,) = rows["initial_seed0"].stages()
    assert list(stage.configs) == [TRAIN, f"{METHODS}/kspace_pairs.yaml"]
    assert rows["initial_seed0"].evaluating() == TRUNK


def test_other_acquisitions_are_evaluated_where_seed_fold_and_groups_are_the_usual_ones(tmp_path):
    rows = [{"system": "udean", "seed": [0, 1]}, {"system": "udean", "hr_fraction": 0.5}]
    rows += [{"system": "cyclegan", "mismatches": False}]
    matrix = read_matrix(
        write_matrix(tmp_path, rows=rows, mismatches={"noise": {"noise_std": 1}}, best_validation=True)
    )
    few = {"methods": {"zero_filling": "zero-filling", "pred": "super-resolution"}}
    usual = {"evaluation": {}, "best_validation": {"ckpt_path": "best_model.pt", **few}}
    assert [matrix.evaluations(row) for row in matrix.rows] == [
        {**usual, "mismatches/noise": {"noise_std": 1, **few}},
        usual,
        usual,
        usual,
    ]


def test_a_lesion_s_box_is_in_millimetres_of_the_world():
    scan = nib.Nifti1Image(
        np.zeros((10, 12, 14)), np.diag([-2.0, 1.0, 1.0, 1.0]) + np.outer([6, 0, 0, 0], [0, 0, 0, 1])
    )
    mask = np.asarray(box_mask(scan, [[-2, 2], [3, 4], [0, 1]]).dataobj)
    assert np.argwhere(mask).min(axis=0).tolist() == [2, 3, 0]
    assert np.argwhere(mask).max(axis=0).tolist() == [4, 4, 1]
    with pytest.raises(ValueError, match=r"\[\[50, 60\].*holds none"):
        box_mask(scan, [[50, 60], [3, 4], [0, 1]])


@pytest.mark.parametrize(
    ("row", "trainings", "evaluation"),
    [
        (Row("contrastive"), [[TRAIN]], TRUNK),
        (Row("zero_filling"), [], [*TRUNK, f"{METHODS}/zero_filling.yaml"]),
        (
            Row("udean", assignment="misaligned", network="paper_network"),
            [[TRAIN, f"{METHODS}/udean.yaml", f"{METHODS}/paper_network.yaml", "bundle/configs/data/misaligned.yaml"]],
            [*TRUNK, f"{METHODS}/paper_network.yaml"],
        ),
        (Row("fine_tuning"), [[TRAIN, "bundle/configs/recipes/fine_tuning.yaml"]], TRUNK),
        (
            Row("spectral_tuning"),
            [
                [
                    TRAIN,
                    f"{METHODS}/kspace_pairs.yaml",
                    f"{METHODS}/spectral.yaml",
                    "bundle/configs/recipes/spectral_tuning.yaml",
                ]
            ],
            TRUNK,
        ),
        (Row("supervised_misaligned"), [[TRAIN, f"{METHODS}/supervised_misaligned.yaml"]], TRUNK),
        (Row("pseudo_sr"), [[TRAIN, f"{METHODS}/pseudo_sr.yaml"]], [*TRUNK, f"{METHODS}/pseudo_sr.yaml"]),
        (
            Row("dasr"),
            [[TRAIN, f"{METHODS}/dasr_degradation.yaml"], [TRAIN, f"{METHODS}/dasr.yaml"]],
            TRUNK,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
def test_a_row_runs_by_the_commands_of_its_overlay_s_header(row, trainings, evaluation):
    assert [list(stage.configs) for stage in row.stages()] == trainings
    assert row.evaluating() == evaluation


def test_stages_share_one_budget():
    stages = Row("dasr").stages()
    options = [stage.options({"max_iterations": 1000, "iterations_per_epoch": 50}) for stage in stages]
    assert [one["max_iterations"] for one in options] == [400, 600]
    assert [stage.weights for stage in stages] == ["degradation.pt", "model.pt"]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"system": "srgan"}, "srgan"),
        ({"system": "udean", "hr_fraction": 0}, "hr_fraction"),
        ({"system": "udean", "sead": 1}, "sead"),
        ({"system": "udean", "fold": "five"}, "five"),
        ({"system": ["udean", "udean"]}, "udean_seed0"),
    ],
)
def test_mistakes_of_a_matrix_are_named(tmp_path, block, said):
    with pytest.raises(ValueError, match=f"matrix.yaml.*{said}"):
        read_matrix(write_matrix(tmp_path, rows=[block]))


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_the_matrices_of_the_project_can_be_read(path):
    matrix = read_matrix(path)
    files = {name for row in matrix.rows for stage in row.stages() for name in stage.configs}
    files |= {name for row in matrix.rows for name in row.evaluating()}
    assert [name for name in files if not (REPOSITORY / name).is_file()] == []


def test_every_overlay_is_among_every_system():
    tried = {row.system for row in read_matrix(MATRICES[0].parent / "every_system.yaml").rows}
    overlays = {path.stem for path in (REPOSITORY / METHODS).glob("*.yaml")}
    assert tried == overlays - {"paper_network", "slab_network", "without_skip", "dasr_degradation"} | {"contrastive"}


def test_the_time_left_is_that_of_the_same_system_or_else_of_the_same_kind():
    seconds = {Row("zero_filling"): 10.0, Row("udean"): 100.0, Row("cyclegan"): 300.0}
    assert runner.estimate(Row("udean", seed=1), seconds) == 100
    assert runner.estimate(Row("contrastive"), seconds) == 200
    assert runner.estimate(Row("tricubic"), seconds) == 10


def test_a_row_that_another_process_holds_is_left_alone(tmp_path):
    with runner._lock(tmp_path / "lock", wait=False) as first, runner._lock(tmp_path / "lock", wait=False) as second:
        assert first is not None
        assert second is None


def test_a_folder_of_other_settings_is_refused(tmp_path):
    attempts = [execution._start(tmp_path, {"data": "a", "training": {}}) for _ in range(2)]
    assert [number for number, _ in attempts] == [1, 2]
    assert [len(codes) for _, codes in attempts] == [1, 1]  # both with the same code
    with pytest.raises(ValueError, match=r"same data .* Remove the folder"):
        execution._start(tmp_path, {"data": "b", "training": {}})


# What survives kill -9


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """source/ and target/ of one phantom each, test/ of two."""
    folder = tmp_path_factory.mktemp("scans")
    for seed, group in enumerate(["source", "target", "test", "test"]):
        shape, spacing = ((12, 36, 34), 2.0) if group == "target" else ((24, 72, 68), 1.0)
        write_scan(folder / group / f"sub-{seed}_T1w.nii.gz", head_phantom(seed, shape), (spacing,) * 3)
    return folder


def start(matrix: Path, output: Path) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "docs" / "benchmark"), "run", str(matrix), "--output_dir", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, start_new_session=True)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_and_gives_the_same_table(tmp_path, scans):
    network = {"num_features": 16, "num_groups": 1, "num_blocks": 1}
    training = {"max_iterations": 6, "iterations_per_epoch": 1, "warmup_iterations": 1, "batch_size": 2}
    training |= {"patch_size": [32, 32], "discriminator_features": 4, **network}
    matrix = write_matrix(
        tmp_path,
        dataset_dir=str(scans),
        training=training,
        evaluation=network,
        initial={"max_iterations": 2},
        rows=[{"system": "udean"}],
    )
    assert start(matrix, tmp_path / "whole").wait(timeout=300) == 0

    killed = start(matrix, tmp_path / "killed")
    row = tmp_path / "killed" / "rows" / "udean_seed0"
    deadline = time.monotonic() + 200
    while not saved_checkpoints(row / "checkpoints_1") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (row / "model.pt").exists()
    assert start(matrix, tmp_path / "killed").wait(timeout=300) == 0

    record = json.loads((row / "record.json").read_text(encoding="utf-8"))
    assert record["attempts"] == 2
    assert "--resume latest" in (row / "log.txt").read_text(encoding="utf-8")
    assert "initial_seed0/model.pt" in (row / "log.txt").read_text(encoding="utf-8")
    whole = tmp_path / "whole" / "rows" / "udean_seed0"
    assert (row / "evaluation/subjects.csv").read_text(encoding="utf-8") == (
        whole / "evaluation/subjects.csv"
    ).read_text(encoding="utf-8")
    assert (row / "curves.csv").read_text(encoding="utf-8") == (whole / "curves.csv").read_text(encoding="utf-8")
    assert not list(row.glob("checkpoints_*"))
    # once more: nothing is left to do
    before = (row / "record.json").stat().st_mtime_ns
    assert start(matrix, tmp_path / "killed").wait(timeout=100) == 0
    assert (row / "record.json").stat().st_mtime_ns == before
