"""A full contrastive iteration: the plain way and ours, the wait for data, and the cost of each part.

Usage: python -m experiments.speed.training [ITERATIONS [papers | shipped]]

The program trains by train.yaml on synthetic scans in batches of 8. The network is the papers', on thin
slabs, or the shipped one, on crops.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.utils import convert_tensor
from scripts.handlers.contrastive import ContrastiveHandler
from scripts.objectives.base import frozen
from torch import Tensor

from experiments.speed.common import (
    DEVICE,
    PAPERS_TRAIN,
    SHIPPED,
    clock,
    machine,
    matmul_rates,
    own_threads,
    save,
    spread,
    table,
)
from experiments.speed.workflows import workflow, write_scan

SIZES = {"papers": PAPERS_TRAIN, "shipped": SHIPPED}
UNFUSED = {"train::g_optimizer::fused": False, "train::d_optimizer::fused": False}
CHANNELS_FIRST = {
    "network": "$@network_def.to(@device)",
    "objective": "$@objective_def.to(@device)",
    "contrastive_terms::network": "$torch.nn.ModuleDict(@contrastive_terms::heads).to(@device)",
}
WARM_UP = 1
PLAIN, OURS = "float32, channels first, optimisers not fused: plain", "bfloat16, channels_last, fused optimisers: ours"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {"amp_dtype": "$None", **CHANNELS_FIRST, **UNFUSED},
    "float32, channels_last, fused optimisers": {"amp_dtype": "$None"},
    "bfloat16, channels_last, optimisers not fused": UNFUSED,
    OURS: {},
}
COMPILED = "ours, with torch.compile of the networks' parts"


class Stopwatch:
    """The seconds of every iteration and of the wait for its batch."""

    def __init__(self) -> None:
        self.started = 0.0
        self.waits: list[float] = []
        self.iterations: list[float] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, lambda: self.waits.append(self.elapsed()))
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.iterations.append(self.elapsed()))

    def start(self) -> None:
        self.started = clock()

    def elapsed(self) -> float:
        return clock() - self.started


def prepare(dataset: Path, overrides: Mapping[str, Any], iterations: int, output: Path, *overlays: str) -> Any:
    """The parser of a training that is ready to run."""
    torch.set_num_threads(own_threads())
    budget = {"max_iterations": iterations, "iterations_per_epoch": iterations, "validate::dataset::data": []}
    made = workflow(
        "train",
        "training",
        "train.yaml",
        *overlays,
        dataset_dir=str(dataset),
        output_dir=str(output),
        **{**budget, "train::warmup_iterations": 1, "batch_size": 8, **overrides},
    )
    return made.parser


def train(
    dataset: Path,
    overrides: Mapping[str, Any],
    iterations: int,
    output: Path,
    overlays: Sequence[str] = (),
    compiled: bool = False,
) -> dict[str, Any]:
    """Seconds per iteration and the share of waiting for data, for one way of training."""
    parser = prepare(dataset, overrides, iterations + WARM_UP, output, *overlays)
    trainer, watch = parser.get_parsed_content("train::trainer"), Stopwatch()
    parser.get_parsed_content("train::ema").attach(trainer)
    watch.attach(trainer)
    if compiled:
        for network in (*trainer.objective.generators.values(), *trainer.objective.discriminators.values()):
            for part in network.children():
                part.compile()
    trainer.run()
    times, waits = watch.iterations[WARM_UP:], watch.waits[WARM_UP:]
    return {
        "seconds": spread(times),
        "share of waiting for data": round(sum(waits) / sum(times), 4),
        "first iterations": watch.iterations[:WARM_UP],
        "loss of the last iteration": float(trainer.state.output["loss"]),
    }


def cost_by_part(dataset: Path, overlays: Sequence[str], repeats: int, output: Path) -> dict[str, Any]:
    """Seconds of each part of our iteration.

    The terms of a step are timed together. The gradients of the generators' terms stop at the compared images. The way
    back from the images through the generators is a part of its own.
    """
    parser = prepare(dataset, {}, repeats, output, *overlays)
    trainer = parser.get_parsed_content("train::trainer")
    objective = trainer.objective.train()
    (contrastive,) = (h for h in parser.get_parsed_content("train::handlers") if isinstance(h, ContrastiveHandler))
    batch = convert_tensor(next(iter(parser.get_parsed_content("train::dataloader"))), device=DEVICE)
    times: dict[str, list[float]] = {}

    def clocked(name: str, function: Callable[[], Any]) -> Any:
        started = clock()
        value = function()
        times.setdefault(name, []).append(clock() - started)
        return value

    def forth_and_back(terms: Callable[[], Mapping[str, Tensor]]) -> None:
        with trainer._autocast():
            loss = objective.total(terms())
        loss.backward()

    def contrast() -> Mapping[str, Tensor]:
        trainer.state.terms = {}
        contrastive(trainer)
        return trainer.state.terms

    for _ in range(repeats + 1):
        with trainer._autocast():
            made = clocked("images: forward of the generators", lambda: objective(batch))
        images = {name: image.detach() for name, image in made.items()}
        clocked("discriminators' terms", lambda x=images: forth_and_back(lambda: objective.discriminator_loss(x)))
        clocked("discriminators' optimiser", trainer.d_optimizer.step)
        leaves = trainer.state.output = {name: image.clone().requires_grad_() for name, image in images.items()}
        with frozen(objective.discriminators):
            clocked("generators' terms", lambda x=leaves: forth_and_back(lambda: objective.generator_loss(x)))
        clocked("contrastive terms", lambda: forth_and_back(contrast))
        compared = [name for name, image in made.items() if image.requires_grad and leaves[name].grad is not None]
        ends, gradients = [made[name] for name in compared], [leaves[name].grad for name in compared]
        clocked(
            "images: back through the generators",
            lambda ends=ends, gradients=gradients: torch.autograd.backward(ends, gradients),
        )
        clocked("generators' optimiser", trainer.g_optimizer.step)
    return {name: spread(values[1:]) for name, values in times.items()}


def write_dataset(root: Path) -> Path:
    """Two synthetic source and two target scans."""
    for seed in range(2):
        write_scan(root / "source" / f"sub-{seed}_T1w.nii.gz", (64, 176, 176), spacing=1.0, seed=seed)
        write_scan(root / "target" / f"sub-{seed + 2}_T1w.nii.gz", (32, 88, 88), spacing=2.0, seed=seed + 2)
    return root


def main(iterations: int = 3, size: str = "papers") -> None:
    record: dict[str, Any] = {"machine": machine(), "matrix product (GFLOP/s)": matmul_rates(), "network": size}
    overlays = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        dataset, output = write_dataset(Path(folder) / "data"), Path(folder) / "output"
        ways = {title: train(dataset, overrides, iterations, output, overlays) for title, overrides in VARIANTS.items()}
        ways[COMPILED] = train(dataset, {}, iterations, output, overlays, compiled=True)
        record["ways"] = ways
        record["parts"] = cost_by_part(dataset, overlays, iterations, output)
    plain = ways[PLAIN]["seconds"]["median"]
    rows = []
    for title, way in ways.items():
        way["times as fast as plain"] = round(plain / way["seconds"]["median"], 2)
        seconds = way["seconds"]
        rows.append(
            [
                title,
                f"{seconds['median']:.2f} ({seconds['least']:.2f} to {seconds['most']:.2f})",
                f"{way['times as fast as plain']:.2f}",
                f"{100 * way['share of waiting for data']:.1f} %",
                f"{way['first iterations'][0]:.1f}",
            ]
        )
    header = ["way", "seconds per iteration", "times as fast as plain", "waiting for data", "first iteration (s)"]
    text = table(header, rows)
    total = sum(part["median"] for part in record["parts"].values())
    parts = [[n, f"{p['median']:.3f}", f"{100 * p['median'] / total:.1f} %"] for n, p in record["parts"].items()]
    text += "\n" + table(["part of an iteration, ours", "seconds", "share"], parts)
    save(f"training_{size}", record, text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
