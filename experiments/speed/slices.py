"""A scan of thick slices by SciPy, ITK and this bundle: seconds, and gain over cubic interpolation.

Usage: python -m experiments.speed.slices SCAN

SCAN is real, high-resolution and new to the weights. Slices of 4 mm every 5 mm are acquired of it. Every method puts
them at their true positions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import itk
import numpy as np
import torch
from monai.data import MetaTensor
from scripts.metrics import masked_psnr, masked_ssim
from scripts.transforms.interpolate import acquisition_of
from torch import Tensor

from experiments.bundle import degraded, trained_network
from experiments.speed.common import machine, save, table
from experiments.speed.interpolation import Grid, b_spline, by_itk, by_scipy, predict

ACQUISITION = ("unknown", "slices 5.0/4.0", "unknown")  # anterior, superior, right
KEYS = "this bundle, cubic convolution"


def output_grid(image: MetaTensor) -> Grid:
    """The grid of an interpolated scan, seen from the scan."""
    acquisition = acquisition_of(image)
    voxel = np.broadcast_to(acquisition.voxel, 3)
    step = voxel / np.asarray([one.spacing for one in acquisition.encodings])
    start = -np.broadcast_to(acquisition.start, 3) * step
    return Grid([int(n) for n in acquisition.shape], step.tolist(), start.tolist())


def main(path: Path) -> None:
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(torch.get_num_threads())
    item, network = degraded(path, ACQUISITION), trained_network()
    scan, image, label = item["acquired"], item["image"], item["label"]
    grid, acquisition, values = output_grid(image), acquisition_of(image), scan.as_tensor()

    def restored() -> Tensor:
        return predict(MetaTensor(acquisition.interpolate(values)).copy_meta_from(image), network)

    methods: dict[str, Callable[[], Tensor]] = {
        KEYS: lambda: acquisition.interpolate(values),
        "SciPy, cubic splines": partial(by_scipy, values, grid),
        "ITK, cubic B-splines": partial(by_itk, values, grid, b_spline),
        "super-resolution": restored,
    }
    record: dict[str, Any] = {"machine": machine(), "scan": path.name.split(".")[0], "methods": {}}
    for title, method in methods.items():
        begun = time.perf_counter()
        made = method()
        seconds = time.perf_counter() - begun
        scores = {"psnr_deep": float(masked_psnr(made, label)), "ssim_deep": float(masked_ssim(made, label))}
        record["methods"][title] = {"seconds": seconds, **scores}
        print(title, record["methods"][title], flush=True)
    cubic = record["methods"][KEYS]
    rows = [
        [title, f"{m['seconds']:.1f}", f"{m['psnr_deep'] - cubic['psnr_deep']:+.2f}", f"{m['ssim_deep']:.4f}"]
        for title, m in record["methods"].items()
    ]
    header = ["slices of 4 mm every 5 mm", "seconds", "PSNR in deep tissue above cubic (dB)", "SSIM in deep tissue"]
    save("slices", record, table(header, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
