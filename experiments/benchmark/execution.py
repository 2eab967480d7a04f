"""Execute one row: its trainings, each from its last checkpoint on, its evaluation and its record."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.handlers.checkpoints import saved_checkpoints
from scripts.utils.atomic import write_atomically, write_text_atomically

from experiments.benchmark.matrix import CONFIGS, ROOT, Row, Stage
from experiments.benchmark.provenance import code_version, machine, save_config
from experiments.benchmark.stacks import BACKBONES, ESTIMATION, SLABS, TRUNK
from experiments.bundle import read_configs
from experiments.record import read_scalars

__all__ = ["ESTIMATING", "RECORD", "command", "estimation_options", "evaluation_options", "execute", "training_options"]

logger = logging.getLogger(__name__)

RECORD = "record.json"  # written last, so that a folder with it is complete
STARTED = "started.json"  # written first, with the settings of the folder
LOG = "log.txt"
EVALUATION = "evaluation"
DIAGNOSTICS = "experiments/benchmark/diagnostics.yaml"
ESTIMATING = [f"{CONFIGS}/{name}" for name in (TRUNK, ESTIMATION)]
ESTIMATE = "degradation/degradation.json"  # `run estimating` writes it
DISTRIBUTED = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def execute(row: Row, folder: Path, data: Mapping[str, str], lock: int) -> bool:
    """Run the missing commands of a row.

    Args:
        row: the system to train and evaluate.
        folder: of the row.
        data: the ``datalist`` and the ``digest`` of its scans.
        lock: descriptor of the lock, which the commands inherit.

    Returns:
        whether every command succeeded. The folder's ``log.txt`` holds their output.

    Raises:
        ValueError: when the row in the folder was started with other settings or scans.
    """
    settings = {"row": row.setting, "training": dict(row.training), "evaluation": dict(row.evaluation)}
    settings["data"] = data["digest"]
    attempts, codes = _start(folder, settings)
    for stage in row.stages():
        if not (folder / stage.weights).is_file() and not _train(row, stage, folder, data["datalist"], lock):
            return False
    if row.needs_estimate and not (folder / ESTIMATE).is_file() and not _estimate(row, folder, data["datalist"], lock):
        return False
    if not (folder / EVALUATION).is_dir() and not _evaluate(row, folder, data["datalist"], lock):
        return False
    _write_curves(row, folder)
    record = {**settings, "attempts": attempts, "seconds": _seconds(folder), "code": codes[-1], "codes": codes}
    write_text_atomically(folder / RECORD, json.dumps({**record, "machine": machine()}, indent=2) + "\n")
    for stage in row.stages():
        shutil.rmtree(_checkpoints(folder, stage), ignore_errors=True)  # half a gigabyte with the papers' network
    return True


def _start(folder: Path, settings: Mapping[str, Any]) -> tuple[int, list[dict[str, str]]]:
    """Record the settings of the folder, or compare them with the recorded ones.

    Returns:
        the number of starts, and the versions of the code, the present one last.
    """
    path = folder / STARTED
    settings = json.loads(json.dumps(settings))
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"attempts": 0}
    attempts, codes, code = earlier.pop("attempts") + 1, earlier.pop("codes", []), code_version()
    codes = [*(other for other in codes if other != code), code]
    different = sorted(name for name in settings if earlier and earlier.get(name) != settings[name])
    if different:
        raise ValueError(
            f"{folder}: expected the same {', '.join(different)} as at the first start of the row, got another value. "
            "Remove the folder to start the row anew, or give another --output_dir."
        )
    write_text_atomically(path, json.dumps({**settings, "attempts": attempts, "codes": codes}, indent=2) + "\n")
    return attempts, codes


def _train(row: Row, stage: Stage, folder: Path, datalist: str, lock: int) -> bool:
    """Run or resume one training."""
    configs, options = [*stage.configs, DIAGNOSTICS], training_options(row, stage, folder, datalist)
    save_config(folder / f"training_{stage.number}.yaml", configs, options)
    resume = {"resume": "latest"} if saved_checkpoints(_checkpoints(folder, stage)) else {}
    return command("training", configs, {**options, **resume}, folder, lock)


def training_options(row: Row, stage: Stage, folder: Path, datalist: str) -> dict[str, Any]:
    """The options of one training of a row."""
    return {
        **_data_options(row, folder, datalist),
        "train::checkpoint_dir": str(_checkpoints(folder, stage)),
        "train::summary_writer::log_dir": str(folder / "tensorboard" / f"stage_{stage.number}"),
        **stage.options(row.training),
    }


def _estimate(row: Row, folder: Path, datalist: str, lock: int) -> bool:
    """Estimate the degradation between the unpaired groups of the row."""
    return command("estimating", ESTIMATING, estimation_options(row, folder, datalist), folder, lock)


def estimation_options(row: Row, folder: Path, datalist: str) -> dict[str, Any]:
    """The options of `run estimating`: those of the training but what only networks of thin slabs know."""
    plain, slabs = read_configs(TRUNK, ESTIMATION), read_configs(TRUNK, SLABS, *BACKBONES["slab_network"])
    used = {name: value for name, value in row.training.items() if name in plain or name not in slabs}
    return {**_data_options(row, folder, datalist), **used}


def _data_options(row: Row, folder: Path, datalist: str) -> dict[str, Any]:
    return {
        "dataset_dir": datalist,
        "output_dir": str(folder),
        "seed": row.seed,
        "scale_factor": list(row.scale_factor),
        "hr_fraction": row.hr_fraction,
    }


def _evaluate(row: Row, folder: Path, datalist: str, lock: int) -> bool:
    """Evaluate the last network on the test subjects. The folder gets its name when it is complete."""
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    configs, options = row.evaluating(), evaluation_options(row, folder, datalist, unfinished)
    save_config(folder / f"{EVALUATION}.yaml", configs, options)
    if not command("evaluating", configs, options, folder, lock):
        return False
    unfinished.replace(folder / EVALUATION)
    return True


def evaluation_options(row: Row, folder: Path, data: str, output: Path) -> dict[str, Any]:
    """The options that evaluate the last network of a row's folder."""
    stages = row.stages()
    return {
        "dataset_dir": data,
        "output_dir": str(output),
        "pictures": False,
        "report": False,
        "scale_factor": list(row.scale_factor),
        **({"ckpt_path": str(folder / stages[-1].weights)} if stages else {}),
        **({"degradation": str(folder / ESTIMATE)} if row.needs_estimate else {}),
        **row.evaluation,
    }


def command(
    run_id: str, configs: Sequence[str], options: Mapping[str, Any], folder: Path, lock: int | None = None
) -> bool:
    """Run one command of the bundle at the repository's root, as a user would. Return whether it succeeded."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    line = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(list(configs)), *words]
    environment = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
    if "LOCAL_RANK" in os.environ:  # each process of torchrun has a GPU of its own
        environment["CUDA_VISIBLE_DEVICES"] = os.environ["LOCAL_RANK"]
    started = time.time()
    with open(folder / LOG, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(line)}\n")
        log.flush()
        result = subprocess.run(
            line,
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[] if lock is None else [lock],
            check=False,
        )
    with open(folder / "times.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([run_id, f"{time.time() - started:.1f}", result.returncode])
    logger.info(
        "    %s: %.0f s%s", run_id, time.time() - started, f", failed ({result.returncode})" * bool(result.returncode)
    )
    return result.returncode == 0


def _checkpoints(folder: Path, stage: Stage) -> Path:
    return folder / f"checkpoints_{stage.number}"


def _seconds(folder: Path) -> float:
    """Seconds of all commands that ended. The time of a killed command is not counted; see ``attempts``."""
    with open(folder / "times.csv", newline="", encoding="utf-8") as file:
        return round(sum(float(seconds) for _, seconds, _ in csv.reader(file)), 1)


def _write_curves(row: Row, folder: Path) -> None:
    """Write all scalars of the TensorBoard folders to ``curves.csv``, with the last value of a repeated step."""
    lines = [["stage", "tag", "step", "value"]]
    for stage in row.stages():
        for tag, events in sorted(read_scalars(folder / "tensorboard" / f"stage_{stage.number}").items()):
            last = {event.step: event.value for event in sorted(events, key=lambda event: event.wall_time)}
            lines += [[stage.number, tag, step, f"{value:.6g}"] for step, value in sorted(last.items())]

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)

    write_atomically(folder / "curves.csv", write)
