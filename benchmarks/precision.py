"""Training in bfloat16 against float32: validation after as many iterations, and after as much time.

Usage: python -m benchmarks.precision DATASET [ITERATIONS [SEEDS]]

By train.yaml, methods/kspace_pairs.yaml and shipped_weights.yaml, with a small network, on the scans of DATASET that
the latter names. The validation subject is truncated in k-space; seconds are those of the training iterations alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from benchmarks.common import in_child, machine, save, table
from benchmarks.training import Stopwatch
from benchmarks.workflows import workflow

OVERLAYS = ("methods/kspace_pairs.yaml", "shipped_weights.yaml")
SMALL = {"num_features": 16, "num_groups": 1, "num_blocks": 2, "learning_rate": 2.0e-3, "copies_per_scan": 1}
AVERAGED = {"ema#momentum": 0.02, "ema#warmup_iters": 20}  # an average as short as the run
TYPES = {"float32": "$None", "bfloat16": "bfloat16"}
VALIDATIONS = 8


def learn(dataset: Path, amp_dtype: str, iterations: int, seed: int) -> dict[str, list[float]]:
    """The curve of one training: ``iterations``, ``seconds`` so far, and dB above zero-filling."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    budget = {"max_iterations": iterations, "iterations_per_epoch": iterations // VALIDATIONS, "warmup_iterations": 20}
    curve: dict[str, list[float]] = {"iterations": [], "seconds": [], "gain": []}
    with tempfile.TemporaryDirectory() as output:
        settings = {**SMALL, **AVERAGED, **budget, "amp_dtype": amp_dtype, "seed": seed, "output_dir": output}
        made = workflow("train", "training", "train.yaml", *OVERLAYS, dataset_dir=str(dataset), **settings)
        trainer = made.parser.get_parsed_content("train#trainer")
        evaluator = made.parser.get_parsed_content("validate#evaluator")
        made.parser.get_parsed_content("ema").attach(trainer)
        watch = Stopwatch()
        watch.attach(trainer)

        @evaluator.on(Events.COMPLETED)
        def remember(engine: Engine) -> None:
            curve["iterations"].append(trainer.state.iteration)
            curve["seconds"].append(sum(watch.iterations))
            curve["gain"].append(engine.state.metrics["psnr_gain"])

        trainer.run()
    return curve


def after_equal_time(curves: dict[str, list[dict[str, list[float]]]]) -> dict[str, Any]:
    """Mean dB of each type when the fastest run of all has ended, between validations by straight lines."""
    end = min(curve["seconds"][-1] for runs in curves.values() for curve in runs)
    gains = {name: [float(np.interp(end, c["seconds"], c["gain"])) for c in runs] for name, runs in curves.items()}
    return {"seconds": end, "gain": gains}


def main(dataset: Path, iterations: int = 240, seeds: int = 2) -> None:
    record: dict[str, Any] = {"machine": machine(), "network": SMALL}
    curves = {
        name: [in_child(learn, dataset, amp_dtype, iterations, seed) for seed in range(seeds)]
        for name, amp_dtype in TYPES.items()
    }
    record |= {"curves": curves, "after equal time": after_equal_time(curves)}
    header = ["type"]
    header += [f"dB above zero-filling after {iterations} iterations, seed {seed}" for seed in range(seeds)]
    header += ["seconds of these", f"dB after {record['after equal time']['seconds']:.0f} seconds, mean"]
    rows = [
        [
            name,
            *(f"{curve['gain'][-1]:+.3f}" for curve in runs),
            f"{np.mean([curve['seconds'][-1] for curve in runs]):.0f}",
            f"{np.mean(record['after equal time']['gain'][name]):+.3f}",
        ]
        for name, runs in curves.items()
    ]
    save("precision", record, table(header, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
