"""The benchmark: the rows of a matrix, their commands, and a run that is killed."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, head_phantom, write_scan
from scripts.handlers.checkpoints import saved_checkpoints
from scripts.utils import composition

from experiments.benchmark import execution, runner, stacks
from experiments.benchmark.matrix import Row, read_matrix
from experiments.benchmark.papers import OWN_EXPERIMENT
from experiments.bundle import read_configs
from experiments.speed.common import PAPERS_TRAIN

MATRICES = sorted((REPOSITORY / "experiments" / "benchmark" / "matrices").glob("*.yaml"))
CONFIGS = "bundle/configs"
TRAIN, METHODS = f"{CONFIGS}/train.yaml", f"{CONFIGS}/methods"
TRUNK = [f"{CONFIGS}/evaluate.yaml"]
LOW_RES_GRID = [*TRUNK, f"{CONFIGS}/networks/fixed_factor.yaml"]


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


@pytest.mark.parametrize(
    ("row", "trainings", "evaluation"),
    [
        (Row("contrastive"), [[TRAIN]], TRUNK),
        (Row("zero_filling"), [], [*LOW_RES_GRID, f"{CONFIGS}/baselines/zero_filling.yaml"]),
        (
            Row("udean", assignment="misaligned", network="paper_network"),
            [
                [
                    TRAIN,
                    f"{METHODS}/udean.yaml",
                    f"{CONFIGS}/networks/slabs.yaml",
                    f"{CONFIGS}/networks/paper_network.yaml",
                    f"{CONFIGS}/data/misaligned.yaml",
                ]
            ],
            [*LOW_RES_GRID, f"{CONFIGS}/networks/paper_network.yaml"],
        ),
        (Row("fine_tuning"), [[TRAIN, f"{CONFIGS}/recipes/fine_tuning.yaml"]], TRUNK),
        (
            Row("supervised_oracle", network="slab_network"),
            [
                [
                    TRAIN,
                    f"{METHODS}/spectral.yaml",
                    f"{METHODS}/supervised_oracle.yaml",
                    f"{CONFIGS}/networks/slabs.yaml",
                    f"{CONFIGS}/networks/slab_network.yaml",
                ]
            ],
            [*LOW_RES_GRID, f"{CONFIGS}/networks/slab_network.yaml"],
        ),
        (
            Row("supervised_misaligned", assignment="misaligned"),
            [[TRAIN, f"{METHODS}/supervised_misaligned.yaml"]],
            TRUNK,
        ),
        (Row("pseudo_sr"), [[TRAIN, f"{METHODS}/pseudo_sr.yaml"]], [*TRUNK, f"{METHODS}/pseudo_sr.yaml"]),
        (
            Row("pseudo_sr", network="slab_network"),
            [
                [
                    TRAIN,
                    f"{METHODS}/pseudo_sr.yaml",
                    f"{CONFIGS}/networks/slabs.yaml",
                    f"{CONFIGS}/networks/slab_network.yaml",
                ]
            ],
            [
                *TRUNK,
                f"{METHODS}/pseudo_sr.yaml",
                f"{CONFIGS}/networks/fixed_factor.yaml",
                f"{CONFIGS}/networks/slab_network.yaml",
            ],
        ),
        (
            Row("dasr"),
            [[TRAIN, f"{METHODS}/dasr_degradation.yaml"], [TRAIN, f"{METHODS}/dasr.yaml"]],
            TRUNK,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
def test_a_row_runs_with_the_config_files_of_its_system(row, trainings, evaluation):
    assert [list(stage.configs) for stage in row.stages()] == trainings
    assert row.evaluating() == evaluation


def test_stages_share_one_budget():
    stages = Row("dasr").stages()
    options = [stage.options({"max_iterations": 1000, "iterations_per_epoch": 50}) for stage in stages]
    assert [one["max_iterations"] for one in options] == [400, 600]
    assert [stage.weights for stage in stages] == ["degradation.pt", "model.pt"]


@pytest.mark.parametrize(("system", "weights"), [("dasr", "model.pt"), ("distillation", "distilled.pt")])
def test_the_network_of_the_last_stage_is_evaluated(tmp_path, system, weights):
    options = execution.evaluation_options(Row(system), tmp_path, "all.json", tmp_path)
    assert options["ckpt_path"] == str(tmp_path / weights)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"system": "srgan"}, "srgan"),
        ({"system": "udean", "hr_fraction": 0}, "hr_fraction"),
        ({"system": "udean", "sead": 1}, "sead"),
        ({"system": "pooled", "assignment": "misaligned"}, "pooled"),
        ({"system": "udean", "network": "large"}, "large"),
        ({"system": "distillation", "network": "paper_network"}, "a network of its own"),
        ({"system": "udean", "fold": "five"}, "five"),
        ({"system": ["udean", "udean"]}, "udean_seed0"),
        ({"seed": 1}, "must name a system"),
        ({"system": "udean", "seed": "a"}, "seed a whole number"),
        ({"system": "udean", "hr_fraction": "half"}, "hr_fraction"),
        ({"system": "udean", "scale_factor": 2}, "three whole numbers"),
        ({"system": "udean", "scale_factor": [2, 2, 0]}, "three whole numbers"),
    ],
)
def test_mistakes_of_a_matrix_are_named(tmp_path, block, said):
    with pytest.raises(ValueError, match=f"matrix.yaml.*{said}"):
        read_matrix(write_matrix(tmp_path, rows=[block]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rows": []}, "rows must be a list of blocks"),
        ({"rows": "udean"}, "rows must be a list of blocks"),
        ({"rows": ["udean"]}, "expected keys with values"),
        ({"title": None, "rows": [{"system": "udean"}]}, "title must be a text"),
        ({"tables": ["contrastive_9"], "rows": [{"system": "udean"}]}, "tables must be a list of"),
    ],
)
def test_what_a_report_will_need_is_checked_before_the_first_row(tmp_path, content, said):
    with pytest.raises(ValueError, match=f"matrix.yaml.*{said}"):
        read_matrix(write_matrix(tmp_path, **content))
    with pytest.raises(ValueError, match="expected the YAML file of a matrix, got none"):
        read_matrix(tmp_path / "none.yaml")


def test_a_row_that_an_earlier_version_started_goes_on(tmp_path):
    """Its record names an initial network, which no row has any more."""
    earlier = {"row": {"system": "udean"}, "data": "a", "initial": None, "attempts": 1, "codes": []}
    (tmp_path / "started.json").write_text(json.dumps(earlier), encoding="utf-8")
    attempts, _ = execution._start(tmp_path, {"row": {"system": "udean"}, "data": "a"})
    assert attempts == 2


@functools.cache
def content(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


def accept(stack: Sequence[str]) -> None:
    """Check the order of files, without endings, as the first step of a run does."""
    assert [
        name for one in stack for name in content(one).get("composition", content(one).get("+composition"))
    ] == stack
    composition.check_order(stack, {name: content(name).get("requires", []) for name in stack})


def accept_options(stack: Sequence[str], options: dict) -> None:
    """Check the names of options as the first step of a run does, which has the diagnostics behind a training."""
    behind = [REPOSITORY / execution.DIAGNOSTICS] if stack[0] == "train" else []
    config = read_configs(*(f"{name}.yaml" for name in stack), *behind, **options).config
    known = set().union(*(composition.option_names(content(name)) for name in stack))
    composition.check_options({key: value for key, value in config.items() if key != "_meta_"}, known)


def names(stack: Sequence[str]) -> list[str]:
    return [name.removeprefix(f"{CONFIGS}/").removesuffix(".yaml") for name in stack]


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_the_bundle_accepts_every_command_of_the_matrices_of_the_project(path):
    commands = []
    for row in read_matrix(path).rows:
        folder = Path(row.name)
        for stage in row.stages():
            commands.append((names(stage.configs), execution.training_options(row, stage, folder, "all.json")))
        if row.needs_estimate:
            commands.append((names(execution.ESTIMATING), execution.estimation_options(row, folder, "all.json")))
        commands.append((names(row.evaluating()), execution.evaluation_options(row, folder, "all.json", folder)))
    for stack, options in {str((stack, list(options))): (stack, options) for stack, options in commands}.values():
        accept(stack)
        accept_options(stack, options)


def test_the_bundle_accepts_the_papers_own_experiment():
    files = names([stacks.TRUNK, *PAPERS_TRAIN])
    accept(files)
    accept_options(files, OWN_EXPERIMENT)


def every_stack() -> list[list[str]]:
    """The files of every command that a matrix can ask for, without endings."""
    found = [[stacks.TRUNK, stacks.ESTIMATION], *([stacks.TRUNK, *stack] for stack in stacks.SHIPPED)]
    for system in {*stacks.TRAININGS, *stacks.EVALUATIONS}:
        networks = ["ours", *(stacks.BACKBONES if system not in stacks.OWN_NETWORK else ())]
        networks = ["slab_network"] if system in stacks.SLAB_NETWORK else networks
        assignments = ["unpaired", *(["misaligned"] if system not in stacks.UNPAIRED else [])]
        for row in (Row(system, network=n, assignment=a) for n in networks for a in assignments):
            found += [*(list(stage.configs) for stage in row.stages()), row.evaluating()]
    return [names(stack) for stack in found]


def test_the_bundle_accepts_every_stack():
    for stack in every_stack():
        accept(stack)


def test_the_bundle_accepts_the_diagnostics_behind_a_training():
    parser = read_configs("train.yaml", REPOSITORY / execution.DIAGNOSTICS)
    assert [one["_target_"] for one in parser["further_handlers"]] == ["scripts.handlers.gradients.TermGradientHandler"]


def test_every_overlay_of_a_method_a_baseline_and_the_data_is_in_the_stacks():
    named = {name for stack in every_stack() for name in stack}
    rooms = ("methods", "baselines", "data")
    overlays = {f"{room}/{path.stem}" for room in rooms for path in (REPOSITORY / CONFIGS / room).glob("*.yaml")}
    assert overlays - named == set()


def test_every_trained_system_but_the_tunings_is_among_every_system():
    tried = {row.system for row in read_matrix(MATRICES[0].parent / "every_system.yaml").rows}
    assert tried == {*stacks.TRAININGS, *stacks.EVALUATIONS} - {
        *stacks.TUNINGS,
        "linear_inverse_estimated",
        "linear_inverse_true",
    }


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
    command = [sys.executable, "-m", "experiments.benchmark", "run", str(matrix), "--output_dir", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_and_gives_the_same_table(tmp_path, scans):
    network = {f"architecture::num_{name}": number for name, number in (("features", 16), ("groups", 1), ("blocks", 1))}
    training = {"max_iterations": 6, "iterations_per_epoch": 1, "train::warmup_iterations": 1, "batch_size": 2}
    training |= {"crop_size": [64, 64, 10], "architecture::discriminator_features": 4, **network}
    matrix = write_matrix(
        tmp_path,
        dataset_dir=str(scans),
        training=training,
        evaluation=network,
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
