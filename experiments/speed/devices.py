"""Several devices: one process and two train the network of train.yaml on this machine.

Usage: python -m experiments.speed.devices [ITERATIONS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from experiments import ROOT
from experiments.speed.common import machine, save, table
from experiments.speed.training import WARM_UP, Stopwatch, prepare, write_dataset

BATCH, PROCESSES = 8, 2


def one_rank(dataset: Path, output: Path, iterations: int, batch_size: int) -> None:
    """Train in this process, alone or with others. The first process writes the seconds per iteration."""
    overrides = {"batch_size": batch_size, "rank": int(os.environ.get("RANK", 0))}
    parser = prepare(dataset, overrides, iterations + WARM_UP, output, "launch/multi_gpu_train.yaml")
    trainer, watch = parser.get_parsed_content("train::trainer"), Stopwatch()
    watch.attach(trainer)
    trainer.run()
    if int(os.environ.get("RANK", 0)) == 0:
        (output / "seconds.json").write_text(json.dumps(watch.iterations[WARM_UP:]), encoding="utf-8")
    if dist.is_initialized():
        dist.destroy_process_group()


def processes(dataset: Path, output: Path, iterations: int, number: int) -> float:
    """Median seconds per iteration of ``BATCH`` samples in all, in the first of ``number`` processes."""
    output.mkdir(parents=True, exist_ok=True)
    arguments = [str(dataset), str(output), str(iterations), str(BATCH // number)]
    launcher = ["torch.distributed.run", "--nproc_per_node", str(number), "--standalone", "-m"] if number > 1 else []
    command = [sys.executable, "-m", *launcher, "experiments.speed.devices", "rank", *arguments]
    hidden = (
        {} if torch.cuda.device_count() >= PROCESSES else {"CUDA_VISIBLE_DEVICES": ""}
    )  # two processes do not share a GPU
    subprocess.run(command, cwd=ROOT, env={**os.environ, **hidden, "OMP_NUM_THREADS": "1"}, check=True)
    return median(json.loads((output / "seconds.json").read_text(encoding="utf-8")))


def main(iterations: int = 3) -> None:
    record: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        dataset, output = write_dataset(Path(folder) / "data"), Path(folder)
        record["two processes"] = {
            "one process": processes(dataset, output / "1", iterations, 1),
            "two processes, four samples each": processes(dataset, output / "2", iterations, PROCESSES),
        }
    seconds = [[title, f"{value:.2f}"] for title, value in record["two processes"].items()]
    save("devices", record, table([f"the same {BATCH} samples", "seconds of the first process per iteration"], seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        one_rank(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main(*map(int, sys.argv[1:]))
