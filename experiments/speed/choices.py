"""What windows, overlap, slab step, orientations and precision cost in seconds and in dB, with trained weights.

Usage: python -m experiments.speed.choices SCAN [SLAB_WEIGHTS]

SCAN is a real high-resolution scan that the weights have not seen; k-space truncation makes it low-resolution. Without
SLAB_WEIGHTS the shipped weights are used; these are of thin slabs as experiments/benchmark/matrices/ablation.yaml trains them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.inferers import SlidingWindowInferer
from scripts.inferers import SlabInferer
from scripts.metrics import psnr
from scripts.physics.kspace import zero_fill
from torch import Tensor, nn

from experiments.speed.common import DEVICE, interleaved, machine, save, spread, table
from experiments.speed.workflows import degraded, trained_network

WHOLE, THREE = (-1, -1, -1), [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
CUBES, TILES = (64, 64, 64), (64, 64, -1)
SLABS: Mapping[str, Any] = {"num_features": 16, "num_groups": 1, "num_blocks": 2}  # of the ablation's thin slabs
REPEATS = 3


class Choice(NamedTuple):
    """How a volume passes the network."""

    roi_size: tuple[int, int, int] = WHOLE
    overlap: float = 0.0
    amp_dtype: str | None = "auto"
    orientations: int = 1
    slab_step: int = 1


VOLUMETRIC = {
    "windows of 64^3, overlap 0.5": Choice(CUBES, 0.5),
    "windows of 64^3, overlap 0.25": Choice(CUBES, 0.25),
    "windows of 64^3, overlap 0.25, float32": Choice(CUBES, 0.25, amp_dtype=None),
    "windows of 64^3, overlap 0.125": Choice(CUBES, 0.125),
    "whole volume": Choice(),
    "whole volume, float32": Choice(amp_dtype=None),
    "whole volume, three orientations": Choice(orientations=3),
}
THIN = {
    "a slab per slice, tiles of 64 x 64, overlap 0.5": Choice(TILES, 0.5),
    "a slab per slice, tiles of 64 x 64, overlap 0.25": Choice(TILES, 0.25),
    "a slab per slice, whole planes": Choice(),
    "a slab per slice, whole planes, float32": Choice(amp_dtype=None),
    "a slab every three slices, whole planes": Choice(slab_step=3),
    "a slab per slice, whole planes, three orientations": Choice(orientations=3),
    "a slab every three slices, whole planes, three orientations": Choice(orientations=3, slab_step=3),
}


def predict(image: Tensor, network: nn.Module, choice: Choice) -> Tensor:
    """SR volume ``(1, sH, sW, sD)`` of an LR one."""
    tiles = SlidingWindowInferer(choice.roi_size, overlap=choice.overlap, mode="gaussian", padding_mode="replicate")
    inferer = SlabInferer(tiles, THREE[: choice.orientations], choice.amp_dtype)
    with torch.inference_mode():
        return inferer(image[None].to(DEVICE), network)[0].cpu()


def networks(weights: Path | None) -> dict[int, nn.Module]:
    """The trained network for each slab step."""
    if weights is None:
        return {1: trained_network()}
    settings = {**SLABS, "ckpt_path": str(weights)}
    overlay = "networks/slab_network.yaml"
    return {step: trained_network(overlay, **settings, **{"network_def#slab_step": step}) for step in (1, 3)}


def main(scan: Path, weights: Path | None = None) -> None:
    choices = THIN if weights else VOLUMETRIC
    record = {"machine": machine(), "scan": scan.name.split(".")[0]}
    image, label = degraded(scan)
    record["low-resolution size"] = list(image.shape[1:])
    trained = networks(weights)
    functions = {
        title: lambda choice=choice: predict(image, trained[choice.slab_step], choice)
        for title, choice in choices.items()
    }
    quality = {title: float(psnr(function(), label)) for title, function in functions.items()}
    zero_filling = float(psnr(zero_fill(image, label.shape[1:], (1, 2, 3)), label))
    times = interleaved(functions, REPEATS, warm=False)
    record["choices"] = {
        title: {"seconds": spread(times[title]), "psnr": quality[title], "gain": quality[title] - zero_filling}
        for title in choices
    }
    rows = [[t, f"{c['seconds']['median']:.2f}", f"{c['gain']:+.3f}"] for t, c in record["choices"].items()]
    name = "choices_slabs" if weights else "choices"
    save(name, record, table(["choice", "seconds", "PSNR above zero-filling (dB)"], rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
