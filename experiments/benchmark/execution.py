"""Executing one row: its trainings, each resumed where it stopped, its evaluations, and the record of it all."""

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

from experiments.benchmark.matrix import MODEL, ROOT, Matrix, Row, Stage
from experiments.benchmark.provenance import code_version, machine, save_config
from experiments.record import read_scalars

__all__ = ["RECORD", "execute"]

logger = logging.getLogger(__name__)

RECORD = "record.json"  # written last: a folder that has it is complete
STARTED = "started.json"  # written first: what the folder was made from
LOG = "log.txt"
DIAGNOSTICS = "experiments/benchmark/diagnostics.yaml"
TRAIN = "bundle/configs/train.yaml"
ESTIMATE = "degradation/degradation.json"  # what `run estimating` leaves behind
DISTRIBUTED = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def execute(row: Row, folder: Path, data: Mapping[str, str], matrix: Matrix, lock: int) -> bool:
    """Do what is missing of a row.

    Args:
        row: what to train and evaluate.
        folder: of the row.
        data: its ``datalist`` and the ``digest`` of the scans.
        matrix: that the row is of, for its evaluations.
        lock: descriptor that the commands inherit.

    Returns:
        whether every command succeeded; their output is in the folder's ``log.txt``.

    Raises:
        ValueError: when the folder holds a row that was started with other settings or scans.
    """
    settings = {"row": row.setting, "training": dict(row.training), "evaluation": dict(row.evaluation)}
    settings |= {"data": data["digest"], "initial": row.initial and row.initial.name}
    attempts, codes = _start(folder, settings)
    for stage in row.stages():
        if not (folder / stage.weights).is_file() and not _train(row, stage, folder, data["datalist"], lock):
            return False
    if row.needs_estimate and not (folder / ESTIMATE).is_file() and not _estimate(row, folder, data["datalist"], lock):
        return False
    for name, options in matrix.evaluations(row).items():
        if not (folder / name).is_dir() and not _evaluate(row, folder, name, options, data["datalist"], lock):
            return False
    _write_curves(row, folder)
    record = {**settings, "attempts": attempts, "seconds": _seconds(folder), "code": codes[-1], "codes": codes}
    write_text_atomically(folder / RECORD, json.dumps({**record, "machine": machine()}, indent=2) + "\n")
    for stage in row.stages():
        shutil.rmtree(_checkpoints(folder, stage), ignore_errors=True)  # half a gigabyte with the papers' networks
    return True


def _start(folder: Path, settings: Mapping[str, Any]) -> tuple[int, list[dict[str, str]]]:
    """Record what the folder is made from, or compare it with what it was.

    Returns:
        how often it was started, and with which versions of the code, the present one last.
    """
    path = folder / STARTED
    settings = json.loads(json.dumps(settings))
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"attempts": 0}
    attempts, codes, code = earlier.pop("attempts") + 1, earlier.pop("codes", []), code_version()
    codes = [*(other for other in codes if other != code), code]
    different = sorted(name for name in settings if earlier and earlier.get(name) != settings[name])
    if different:
        raise ValueError(
            f"{folder}: expected a row with the same {', '.join(different)} as when it was started, got other ones. "
            "Remove the folder to start the row anew, or give another --output_dir."
        )
    write_text_atomically(path, json.dumps({**settings, "attempts": attempts, "codes": codes}, indent=2) + "\n")
    return attempts, codes


def _train(row: Row, stage: Stage, folder: Path, datalist: str, lock: int) -> bool:
    """Run or resume one training."""
    checkpoints = _checkpoints(folder, stage)
    options = {
        **_data_options(row, folder, datalist),
        "ckpt_dir": str(checkpoints),
        "summary_writer#log_dir": str(folder / "tensorboard" / f"stage_{stage.number}"),
        **stage.options(row.training),
    }
    if row.initial is not None and stage.weights == MODEL:
        options["init_weights"] = str(folder.parent / row.initial.name / MODEL)
    configs = [*stage.configs, DIAGNOSTICS]
    save_config(folder / f"training_{stage.number}.yaml", configs, options)
    resume = {"resume": "latest"} if saved_checkpoints(checkpoints) else {}
    return _command("training", configs, {**options, **resume}, folder, lock)


def _estimate(row: Row, folder: Path, datalist: str, lock: int) -> bool:
    """Estimate the degradation between the unpaired groups of the row."""
    options = {**_data_options(row, folder, datalist), **row.training}
    return _command("estimating", [TRAIN], options, folder, lock)


def _data_options(row: Row, folder: Path, datalist: str) -> dict[str, Any]:
    return {
        "dataset_dir": datalist,
        "output_dir": str(folder),
        "seed": row.seed,
        "scale_factor": list(row.scale_factor),
        "hr_fraction": row.hr_fraction,
    }


def _evaluate(row: Row, folder: Path, name: str, options: Mapping[str, Any], datalist: str, lock: int) -> bool:
    """Evaluate on the test subjects what the last training left behind; the folder takes its name when complete."""
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    options = {
        "dataset_dir": datalist,
        "output_dir": str(unfinished),
        "pictures": False,
        "scale_factor": list(row.scale_factor),
        **({"ckpt_path": MODEL} if row.stages() else {}),
        **({"degradation": str(folder / ESTIMATE)} if row.needs_estimate else {}),
        **row.evaluation,
        **options,
    }
    if "ckpt_path" in options:
        options["ckpt_path"] = str(folder / options["ckpt_path"])
    configs = row.evaluating()
    save_config(folder / f"{name.replace('/', '_')}.yaml", configs, options)
    if not _command("evaluating", configs, options, folder, lock):
        return False
    (folder / name).parent.mkdir(exist_ok=True)
    unfinished.replace(folder / name)
    return True


def _command(run_id: str, configs: Sequence[str], options: Mapping[str, Any], folder: Path, lock: int) -> bool:
    """One command of the bundle, as a user would type it at the repository's root."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(list(configs)), *words]
    environment = {name: value for name, value in os.environ.items() if name not in DISTRIBUTED}
    if "LOCAL_RANK" in os.environ:  # each process of torchrun has a GPU of its own
        environment["CUDA_VISIBLE_DEVICES"] = os.environ["LOCAL_RANK"]
    started = time.time()
    with open(folder / LOG, "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        result = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock], check=False
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
    """Of all commands that came to an end; what a killed one had done is not counted, see ``attempts``."""
    with open(folder / "times.csv", newline="", encoding="utf-8") as file:
        return round(sum(float(seconds) for _, seconds, _ in csv.reader(file)), 1)


def _write_curves(row: Row, folder: Path) -> None:
    """All scalars of the TensorBoard folders as ``curves.csv``; of a step that was made twice, the last."""
    lines = [["stage", "tag", "step", "value"]]
    for stage in row.stages():
        for tag, events in sorted(read_scalars(folder / "tensorboard" / f"stage_{stage.number}").items()):
            last = {event.step: event.value for event in sorted(events, key=lambda event: event.wall_time)}
            lines += [[stage.number, tag, step, f"{value:.6g}"] for step, value in sorted(last.items())]

    def write(path: Path) -> None:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)

    write_atomically(folder / "curves.csv", write)
