"""Several devices: two processes on this machine, and an estimate of the communication between GPUs.

Usage: python -m experiments.speed.devices [ITERATIONS]

The estimate counts operations and bytes of one contrastive iteration. The rates of GPUs are assumptions, see
``ASSUMED``. The two processes train the network of train.yaml by multi_gpu_train.yaml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

from experiments import ROOT
from experiments.speed.common import PAPERS_TRAIN, SHIPPED, in_child, machine, save, table
from experiments.speed.training import WARM_UP, Stopwatch, prepare, write_dataset

BATCH, PROCESSES = 8, 2
ASSUMED = {  # none of these was measured
    "bfloat16 rate of one GPU (TFLOP/s): 40 % of 989": 0.4 * 989,
    "between the GPUs of a node (GB/s per direction)": 450.0,
    "between nodes (GB/s per direction and GPU)": 50.0,
}


def count(dataset: Path, overlays: Sequence[str], output: Path) -> dict[str, float]:
    """Operations and bytes of one contrastive iteration of ``BATCH`` samples, counted for two samples and scaled."""
    parser = prepare(dataset, {"batch_size": 2}, 1, output, *overlays)
    trainer = parser.get_parsed_content("train::trainer")
    with FlopCounterMode(display=False) as counter:
        trainer.run()
    groups = {"generators": trainer.g_optimizer, "discriminators": trainer.d_optimizer}
    sizes = {n: sum(p.numel() for group in o.param_groups for p in group["params"]) for n, o in groups.items()}
    embeddings = parser.get_parsed_content("contrastive_terms::weights")
    return {
        "tflop": counter.get_total_flops() * BATCH / 2 / 1e12,
        "gradients (MB)": 4 * sum(sizes.values()) / 1e6,
        "embeddings (MB)": 4 * 256 * 2 * BATCH * len(embeddings) / 1e6,
    }


def on_paper(counted: dict[str, float]) -> list[dict[str, Any]]:
    """Time of computing and of communicating, one after the other, for GPUs with ``BATCH`` samples each."""
    rate, within, between = ASSUMED.values()
    rows = []
    for gpus, nodes in ((1, 1), (2, 1), (8, 1), (16, 2), (64, 8)):
        compute = counted["tflop"] / rate
        # a ring all-reduce sends 2 (n - 1) / n of the bytes; the embeddings are gathered from n - 1 and summed back
        megabytes = 2 * (gpus - 1) / gpus * counted["gradients (MB)"] + 3 * (gpus - 1) * counted["embeddings (MB)"]
        communicate = megabytes / 1e3 / (within if nodes == 1 else between)
        rows.append(
            {
                "GPUs": gpus,
                "nodes": nodes,
                "computing (ms)": 1e3 * compute,
                "communicating (MB)": megabytes,
                "communicating (ms)": 1e3 * communicate,
                "efficiency": compute / (compute + communicate),
            }
        )
    return rows


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
    record: dict[str, Any] = {"machine": machine(), "assumed": ASSUMED}
    with tempfile.TemporaryDirectory() as folder:
        dataset, output = write_dataset(Path(folder) / "data"), Path(folder) / "output"
        networks = {"the papers' network": PAPERS_TRAIN, "the shipped network": SHIPPED}
        record["counted"] = {title: in_child(count, dataset, files, output) for title, files in networks.items()}
        record["two processes"] = {
            "one process": processes(dataset, output / "1", iterations, 1),
            "two processes, four samples each": processes(dataset, output / "2", iterations, PROCESSES),
        }
    record["on paper"] = {title: on_paper(counted) for title, counted in record["counted"].items()}
    seconds = [[title, f"{value:.2f}"] for title, value in record["two processes"].items()]
    text = table(["the same 8 samples", "seconds of the first process per iteration"], seconds)
    rows = [
        [
            title,
            row["GPUs"],
            row["nodes"],
            *(f"{row[key]:.1f}" for key in list(row)[2:5]),
            f"{100 * row['efficiency']:.0f} %",
        ]
        for title, paper in record["on paper"].items()
        for row in paper
    ]
    header = ["on paper, not measured", "GPUs", "nodes", "computing (ms)", "communicating (MB)", "communicating (ms)"]
    save("devices", record, f"{text}\n{table([*header, 'efficiency'], rows)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        one_rank(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main(*map(int, sys.argv[1:]))
