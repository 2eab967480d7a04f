"""The cost of windows, overlap, orientations and precision in seconds and in dB, with the shipped weights.

Usage: python -m experiments.speed.choices SCAN

SCAN is real, high-resolution and new to the weights. K-space truncation makes it low-resolution.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from monai.inferers import SlidingWindowInferer
from scripts.inferers import SlabInferer
from scripts.metrics import masked_psnr
from torch import Tensor, nn

from experiments.bundle import degraded, trained_network
from experiments.speed.common import DEVICE, interleaved, machine, save, spread, table

WHOLE, CUBES = (-1, -1, -1), (64, 64, 64)
THREE = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
REPEATS = 3


class Choice(NamedTuple):
    """The way of a volume through the network."""

    roi_size: tuple[int, int, int] = WHOLE
    overlap: float = 0.0
    amp_dtype: str | None = "auto"
    orientations: int = 1


CHOICES = {
    "windows of 64^3, overlap 0.5": Choice(CUBES, 0.5),
    "windows of 64^3, overlap 0.25": Choice(CUBES, 0.25),
    "windows of 64^3, overlap 0.25, float32": Choice(CUBES, 0.25, amp_dtype=None),
    "windows of 64^3, overlap 0.125": Choice(CUBES, 0.125),
    "whole volume": Choice(),
    "whole volume, float32": Choice(amp_dtype=None),
    "whole volume, three orientations": Choice(orientations=3),
}


def predict(image: Tensor, network: nn.Module, choice: Choice) -> Tensor:
    """The restored volume of an interpolated one, ``(1, H, W, D)``."""
    tiles = SlidingWindowInferer(choice.roi_size, overlap=choice.overlap, mode="gaussian", padding_mode="replicate")
    inferer = SlabInferer(tiles, THREE[: choice.orientations], choice.amp_dtype)
    with torch.inference_mode():
        return inferer(image[None].to(DEVICE), network)[0].cpu().as_tensor()


def main(scan: Path) -> None:
    item, network = degraded(scan), trained_network()
    image, label = item["image"], item["label"]
    functions = {title: lambda choice=choice: predict(image, network, choice) for title, choice in CHOICES.items()}
    record = {
        "machine": machine(),
        "scan": scan.name.split(".")[0],
        "low-resolution size": list(item["acquired"].shape[1:]),
    }
    quality = {title: float(masked_psnr(function(), label)) for title, function in functions.items()}
    zero_filling = float(masked_psnr(image.as_tensor(), label))
    times = interleaved(functions, REPEATS, warm=False)
    record["choices"] = {
        title: {"seconds": spread(times[title]), "psnr_deep": quality[title], "gain": quality[title] - zero_filling}
        for title in CHOICES
    }
    rows = [[t, f"{c['seconds']['median']:.2f}", f"{c['gain']:+.3f}"] for t, c in record["choices"].items()]
    save("choices", record, table(["choice", "seconds", "PSNR in deep tissue above zero-filling (dB)"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
