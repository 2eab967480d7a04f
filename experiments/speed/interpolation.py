"""The network beside interpolation by SciPy, ITK, stock MONAI and this bundle.

Usage: python -m experiments.speed.interpolation SCAN [REPEATS]

SCAN is real, high-resolution and new to the weights. K-space truncation makes it low-resolution. Every method puts LR
voxel l on HR voxel 2l, except the one that its title marks. Scores are those of deep tissue.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Resize
from scipy import ndimage
from scripts.inferers import SlabInferer
from scripts.metrics import masked_psnr, masked_ssim
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import zero_fill
from torch import Tensor, nn

from experiments.bundle import degraded, trained_network
from experiments.speed.common import DEVICE, interleaved, machine, save, spread, table

SPATIAL = (1, 2, 3)
THREE = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]  # orders of the axes
RADIUS = 3  # of the window in LR voxels; ITK's Python packages hold no larger one for volumes


class Grid(NamedTuple):
    """An output grid, seen from the voxels of a scan, along each axis.

    Args:
        size: its voxels.
        step: voxels of the scan from one to the next.
        start: where the first one lies, in voxels of the scan.
    """

    size: Sequence[int]
    step: Sequence[float]
    start: Sequence[float]


def predict(image: Tensor, network: nn.Module, *acquisition: Tensor, orientations: int = 1) -> Tensor:
    """The restored volume of an interpolated one, ``(1, H, W, D)``."""
    inferer = SlabInferer(SlidingWindowInferer((-1, -1, -1)), THREE[:orientations], "auto")
    with torch.inference_mode():
        return inferer(image[None].to(DEVICE), network, *acquisition)[0, :1].cpu().as_tensor()


def by_itk(image: Tensor, grid: Grid, interpolator: Callable[[Any], Any]) -> Tensor:
    """Resample ``(1, H, W, D)``. ITK's axes are those of the array in reverse."""
    volume = itk.GetImageFromArray(image[0].numpy())
    size, step, start = (list(reversed(values)) for values in grid)
    made = itk.resample_image_filter(
        volume, interpolator=interpolator(volume), size=size, output_spacing=step, output_origin=start
    )
    return torch.from_numpy(itk.GetArrayFromImage(made))[None]


def b_spline(volume: Any) -> Any:
    return itk.BSplineInterpolateImageFunction.New(volume, SplineOrder=3)


def windowed_sinc(volume: Any) -> Any:
    return itk.WindowedSincInterpolateImageFunction[type(volume), RADIUS, itk.HammingWindowFunction[RADIUS]].New()


def by_scipy(image: Tensor, grid: Grid) -> Tensor:
    """Cubic splines."""
    size, step, start = (np.asarray(values) for values in grid)
    made = ndimage.affine_transform(image[0].numpy(), step, start, output_shape=tuple(size), order=3, mode="nearest")
    return torch.from_numpy(made)[None]


def methods(item: Mapping[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    image, size, network = item["acquired"].as_tensor(), item["image"].shape[1:], trained_network()
    grid = Grid([2 * n for n in image.shape[1:]], [0.5] * 3, [0.0] * 3)
    ours = {"super-resolution": 1, "super-resolution, three orientations": 3}
    return {
        "MONAI Resize, trilinear, half a voxel off": lambda: Resize(size, mode="trilinear")(image),
        "SciPy, cubic splines": lambda: by_scipy(image, grid),
        "ITK, cubic B-splines": lambda: by_itk(image, grid, b_spline),
        f"ITK, windowed sinc (Hamming, radius {RADIUS})": lambda: by_itk(image, grid, windowed_sinc),
        "this bundle, tricubic": lambda: interpolate_cubic(image, 2, SPATIAL),
        "this bundle, zero-filling": lambda: zero_fill(image, size, SPATIAL),
        **{
            title: lambda number=number: predict(item["image"], network, orientations=number)
            for title, number in ours.items()
        },
    }


def _keep(made: dict[str, Tensor], title: str, function: Callable[[], Tensor]) -> None:
    made[title] = torch.as_tensor(function())


def main(scan: Path, repeats: int = 3) -> None:
    record: dict[str, Any] = {"machine": machine(), "scan": scan.name.split(".")[0]}
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(torch.get_num_threads())
    item = degraded(scan)
    label = item["label"]
    made: dict[str, Tensor] = {}
    functions = {title: partial(_keep, made, title, function) for title, function in methods(item).items()}
    times = interleaved(functions, repeats, warm=False)
    record["methods"] = {
        title: {
            "seconds": spread(times[title]),
            "psnr_deep": float(masked_psnr(pred, label)),
            "ssim_deep": float(masked_ssim(pred, label)),
        }
        for title, pred in made.items()
    }
    rows = [
        [title, f"{row['seconds']['median']:.2f}", f"{row['psnr_deep']:.2f}", f"{row['ssim_deep']:.4f}"]
        for title, row in record["methods"].items()
    ]
    save("interpolation", record, table(["method", "seconds", "PSNR in deep tissue (dB)", "SSIM in deep tissue"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
