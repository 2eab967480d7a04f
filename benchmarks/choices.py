"""What windows, overlap, orientations and precision cost in seconds and in dB, with the shipped weights.

Usage: python -m benchmarks.choices SCAN [REPEATS]

SCAN is a real high-resolution scan that the weights have not seen; k-space truncation makes it low-resolution.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.inferers import SlidingWindowInferer
from scripts.inferers import SlabInferer
from scripts.kspace import zero_fill
from scripts.metrics import psnr
from torch import Tensor

from benchmarks.common import interleaved, machine, save, spread, table
from benchmarks.workflows import degraded, shipped_network

WHOLE, THREE = -1, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
CHOICES = {  # title: window, overlap, type, orientations
    "windows of 64^3, overlap 0.5": (64, 0.5, "auto", 1),
    "windows of 64^3, overlap 0.25": (64, 0.25, "auto", 1),
    "windows of 64^3, overlap 0.25, float32": (64, 0.25, None, 1),
    "windows of 64^3, overlap 0.125": (64, 0.125, "auto", 1),
    "whole volume": (WHOLE, 0.0, "auto", 1),
    "whole volume, float32": (WHOLE, 0.0, None, 1),
    "whole volume, three orientations": (WHOLE, 0.0, "auto", 3),
}


def predict(image: Tensor, window: int, overlap: float, amp_dtype: str | None, orientations: int) -> Tensor:
    """SR volume ``(1, sH, sW, sD)`` of an LR one by the shipped weights."""
    tiles = SlidingWindowInferer([window] * 3, overlap=overlap, mode="gaussian", padding_mode="replicate")
    inferer = SlabInferer(tiles, THREE[:orientations], amp_dtype)
    with torch.inference_mode():
        return inferer(image[None], shipped_network())[0]


def main(scan: Path, repeats: int = 3) -> None:
    record = {"machine": machine(), "scan": scan.name.split(".")[0]}
    image, label = degraded(scan)
    record["low-resolution size"] = list(image.shape[1:])
    functions = {title: lambda choice=choice: predict(image, *choice) for title, choice in CHOICES.items()}
    quality = {title: float(psnr(function(), label)) for title, function in functions.items()}
    zero_filling = float(psnr(zero_fill(image, label.shape[1:], (1, 2, 3)), label))
    times = interleaved(functions, repeats, warm=False)
    record["choices"] = {
        title: {"seconds": spread(times[title]), "psnr": quality[title], "gain": quality[title] - zero_filling}
        for title in CHOICES
    }
    rows = [[t, f"{c['seconds']['median']:.2f}", f"{c['gain']:+.3f}"] for t, c in record["choices"].items()]
    save("choices", record, table(["choice", "seconds", "PSNR above zero-filling (dB)"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
