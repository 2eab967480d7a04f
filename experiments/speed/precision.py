"""Training in bfloat16 against float32: validation after as many iterations, and after as much time.

Usage: python -m experiments.speed.precision DATASET [ITERATIONS [SEEDS]]

The training is that of ``recipes/shipped_weights.yaml`` with a small network from nothing. DATASET is a datalist as for
that recipe. Seconds are those of the training iterations. Each run completes its own schedule of the learning rate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from experiments.benchmark.stacks import SHIPPED
from experiments.speed.common import ON_GPU, in_child, machine, own_threads, save, table
from experiments.speed.training import Stopwatch
from experiments.speed.workflows import workflow

OVERLAYS = SHIPPED[0]
SMALL = {f"architecture::num_{name}": number for name, number in (("features", 16), ("groups", 2), ("blocks", 2))}
SMALL |= {"copies_per_scan": 1, "train::warmup_iterations": 20}
FLOAT32, BFLOAT16 = "$None", "bfloat16"
OTHERS = ("float16",) if ON_GPU else ()  # types that only a GPU computes fast
Run = dict[str, float]


def learn(dataset: Path, amp_dtype: str, iterations: int, seed: int) -> Run:
    """The ``iterations`` of one training, their ``seconds`` and the ``gain`` over the interpolation in dB."""
    torch.set_num_threads(own_threads())
    budget = {"max_iterations": iterations, "iterations_per_epoch": iterations}
    with tempfile.TemporaryDirectory() as output:
        settings = {**SMALL, **budget, "amp_dtype": amp_dtype, "seed": seed, "output_dir": output}
        made = workflow("train", "training", "train.yaml", *OVERLAYS, dataset_dir=str(dataset), **settings)
        trainer, watch = made.parser.get_parsed_content("train::trainer"), Stopwatch()
        made.parser.get_parsed_content("train::ema").attach(trainer)
        watch.attach(trainer)
        trainer.run()
        metrics = made.parser.get_parsed_content("validate::evaluator").state.metrics
    return {"iterations": iterations, "seconds": sum(watch.iterations), "gain": metrics["psnr_gain"]}


def compare(train: Callable[[str, int], Run], iterations: int) -> dict[str, Run]:
    """The types after as many iterations, and float32 after as much time as bfloat16 takes."""
    fast, slow = train(BFLOAT16, iterations), train(FLOAT32, iterations)
    fewer = max(1, round(iterations * fast["seconds"] / slow["seconds"]))
    others = {name: train(name, iterations) for name in OTHERS}
    return {"bfloat16": fast, "float32": slow, "float32, as long as bfloat16": train(FLOAT32, fewer), **others}


def tables(record: Mapping[str, Any]) -> str:
    """Markdown."""
    header = ["type", "iterations", "seconds"]
    header += [f"dB above the interpolation, seed {seed}" for seed in range(len(record["seeds"]))]
    rows = []
    for name in record["seeds"][0]:
        runs = [compared[name] for compared in record["seeds"]]
        means = [f"{mean(run[key] for run in runs):.0f}" for key in ("iterations", "seconds")]
        rows.append([name, *means, *(f"{run['gain']:+.3f}" for run in runs)])
    return table(header, rows)


def main(dataset: Path, iterations: int = 150, seeds: int = 1) -> None:
    record: dict[str, Any] = {"machine": machine(), "network": SMALL, "seeds": []}
    for seed in range(seeds):
        record["seeds"].append(compare(lambda *budget, seed=seed: in_child(learn, dataset, *budget, seed), iterations))
        print(record["seeds"][-1], flush=True)
    save("precision", record, tables(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
