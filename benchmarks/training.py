"""A full contrastive iteration: the plain way and ours, the loader's share, and the cost of each term.

Usage: python -m benchmarks.training [ITERATIONS [papers | shipped]]

On synthetic scans, by train.yaml, batches of 8: with the papers' network and its slabs of 64 x 64, or with the network
that is shipped and its slabs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.utils import convert_tensor
from scripts.handlers import ContrastiveHandler
from scripts.losses import absolute_error, adaptation_loss, adversarial_loss, info_nce, ssim_loss
from scripts.objectives.base import Objective, discrimination, frozen
from torch import Tensor

from benchmarks.common import DEVICE, PAPERS, SHIPPED, clock, machine, matmul_rates, save, spread, table
from benchmarks.workflows import workflow, write_scan

SIZES = {"papers": PAPERS, "shipped": SHIPPED}
UNFUSED = {"g_optimizer#fused": False, "d_optimizer#fused": False}
CHANNELS_FIRST = {
    "network": "$@network_def.to(@device)",
    "objective": "$@objective_def.to(@device)",
    "contrastive_heads": "$@contrastive_heads_def.to(@device)",
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


def pair(name: str, real: str, made: str) -> Callable:
    """One term of a discriminator, of an objective and its images."""

    def term(o: Objective, x: Mapping[str, Tensor]) -> Tensor:
        (value,) = discrimination(name, getattr(o, name), x[real], **{made: x[made]}).values()
        return value

    return term


# what UDEAN's generator_loss and discriminator_loss compute, term by term, of the objective and its images
Term = Callable[[Any, Mapping[str, Tensor]], Tensor]
GENERATOR_TERMS: dict[str, Term] = {
    "image_cycle_l1": lambda o, x: absolute_error(x["cycled"], x["reals"]),
    "image_cycle_ssim": lambda o, x: ssim_loss(x["cycled"], x["reals"]),
    "image_cycle_adversarial": lambda o, x: adversarial_loss(o.high_res_discriminator(x["cycled"])),
    "feature_cycle_l1": lambda o, x: absolute_error(x["cycled_features"], x["features"]),
    "high_res_consistency_l1": lambda o, x: absolute_error(x["reconstructed"], x["reals"]),
    "high_res_consistency_ssim": lambda o, x: ssim_loss(x["reconstructed"], x["reals"]),
    "high_res_consistency_adversarial": lambda o, x: adversarial_loss(o.high_res_discriminator(x["reconstructed"])),
    "low_res_consistency_l1": lambda o, x: absolute_error(x["reconstructed_image"], x["image"]),
    "low_res_consistency_ssim": lambda o, x: ssim_loss(x["reconstructed_image"], x["image"]),
    "low_res_consistency_adversarial": lambda o, x: adversarial_loss(o.low_res_discriminator(x["reconstructed_image"])),
    "image_adaptation": lambda o, x: (
        adaptation_loss(o.low_res_discriminator(x["degraded"]))
        + adaptation_loss(o.low_res_discriminator(x["image"])).detach()
    ),
    "feature_adaptation": lambda o, x: sum(
        adaptation_loss(o.feature_discriminator(x[name])) for name in ("target_features", "features")
    ),
}
DISCRIMINATOR_TERMS: dict[str, Term] = {
    "high_res_discriminator_reconstructed": pair("high_res_discriminator", "reals", "reconstructed"),
    "high_res_discriminator_cycled": pair("high_res_discriminator", "reals", "cycled"),
    "low_res_discriminator_degraded": pair("low_res_discriminator", "image", "degraded"),
    "low_res_discriminator_reconstructed_image": pair("low_res_discriminator", "image", "reconstructed_image"),
    "feature_discriminator_target_features": pair("feature_discriminator", "features", "target_features"),
}


class Stopwatch:
    """Seconds of every iteration and of the wait for its batch."""

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
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    budget = {"max_iterations": iterations, "iterations_per_epoch": iterations, "validate#dataset#data": []}
    made = workflow(
        "train",
        "training",
        "train.yaml",
        *overlays,
        dataset_dir=str(dataset),
        output_dir=str(output),
        **{**budget, "warmup_iterations": 1, "batch_size": 8, **overrides},
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
    """Seconds per iteration, loader's share and memory of one way of training."""
    parser = prepare(dataset, overrides, iterations + WARM_UP, output, *overlays)
    trainer, watch = parser.get_parsed_content("train#trainer"), Stopwatch()
    parser.get_parsed_content("ema").attach(trainer)
    watch.attach(trainer)
    if compiled:
        for network in (*trainer.objective.generators, *trainer.objective.discriminators):
            for part in network.children():
                part.compile()
    trainer.run()
    times, waits = watch.iterations[WARM_UP:], watch.waits[WARM_UP:]
    measured = {
        "seconds": spread(times),
        "share of waiting for data": round(sum(waits) / sum(times), 4),
        "first iterations": watch.iterations[:WARM_UP],
        "loss of the last iteration": float(trainer.state.output["loss"]),
    }
    return measured


def cost_by_term(dataset: Path, overlays: Sequence[str], repeats: int, output: Path) -> dict[str, Any]:
    """Seconds of each part of an iteration, ours: terms forth and back to the images, generators once for all terms."""
    parser = prepare(dataset, {}, repeats, output, *overlays)
    trainer = parser.get_parsed_content("train#trainer")
    objective = trainer.objective.train()
    (contrastive,) = (h for h in parser.get_parsed_content("train#handlers") if isinstance(h, ContrastiveHandler))
    batch = convert_tensor(next(iter(parser.get_parsed_content("train#dataloader"))), device=DEVICE)
    times: dict[str, list[float]] = {}

    def clocked(name: str, function: Callable[[], Any]) -> Any:
        started = clock()
        value = function()
        times.setdefault(name, []).append(clock() - started)
        return value

    def forth_and_back(term: Term, images: Mapping[str, Tensor]) -> None:
        with trainer._autocast():
            value = term(objective, images)
        value.backward()

    def contrast(head: str, first: str, second: str) -> Term:
        def term(_: Any, x: Mapping[str, Tensor]) -> Tensor:
            return info_nce(*contrastive.heads[head](torch.cat([x[first], x[second]])).chunk(2))

        return term

    terms = GENERATOR_TERMS | {name: contrast(*pair) for name, pair in contrastive.pairs.items()}
    assert set(GENERATOR_TERMS) == set(objective.generator_terms), "the benchmark's terms must be the objective's"
    for _ in range(repeats + 1):
        with trainer._autocast():
            made = clocked("images: forward of the generators", lambda: objective(batch))
        leaves = {name: image.detach().requires_grad_() for name, image in made.items()}
        for name, term in DISCRIMINATOR_TERMS.items():
            images = {key: image.detach() for key, image in made.items()}
            clocked(name, lambda term=term, images=images: forth_and_back(term, images))
        clocked("discriminators' optimiser", trainer.d_optimizer.step)
        with frozen(objective.discriminators):
            for name, term in terms.items():
                clocked(name, lambda term=term, leaves=leaves: forth_and_back(term, leaves))
        compared = [name for name, image in made.items() if image.requires_grad and leaves[name].grad is not None]
        images, gradients = [made[name] for name in compared], [leaves[name].grad for name in compared]
        clocked(
            "images: back through the generators",
            lambda images=images, gradients=gradients: torch.autograd.backward(images, gradients),
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
        record["terms"] = cost_by_term(dataset, overlays, iterations, output)
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
    total = sum(part["median"] for part in record["terms"].values())
    parts = [[n, f"{p['median']:.3f}", f"{100 * p['median'] / total:.1f} %"] for n, p in record["terms"].items()]
    text += "\n" + table(["part of an iteration, ours", "seconds", "share"], parts)
    save(f"training_{size}", record, text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
