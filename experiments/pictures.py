"""Small pictures: what is committed stays below 300 kB, and the picture of the README and the model card.

Usage: python -m experiments.pictures SCAN

SCAN is a high-resolution scan that the shipped weights were not trained on: ``sub-03_T1w.nii.gz``, the left-out test
subject. The picture shows its k-space truncation by 2x2x2 beside zero-filling, super-resolution and the scan itself.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from monai.data import MetaTensor
from monai.transforms import Orientation
from monai.utils import convert_to_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from experiments import RESULTS
from experiments.bundle import BUNDLE, read_configs, trained_network

__all__ = ["LARGEST", "save_small"]

LARGEST = 300_000  # bytes
WIDTHS = range(1200, 200, -100)  # pixels, tried in this order
COLOURS = 128

PICTURE = RESULTS / "acquisitions" / "comparison.png"
MODEL_CARD = BUNDLE / "docs" / "comparison.png"  # the bundle is distributed alone, so it has a copy
AXIAL = 0.62  # height of the plane, from the lowest to the highest end of the head
DETAIL = 40  # mm, side of the enlarged square
WIDTH, HEADER = 12.0, 0.4  # inches, at 100 pixels per inch
INK, PAPER, FRAME = "white", "black", "gold"


def save_small(source: Path, target: Path) -> None:
    """Copy a picture as a PNG file of few colours, as wide as its size in bytes allows."""
    picture = Image.open(source).convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        smaller = picture.copy()
        smaller.thumbnail((width, picture.height))
        smaller.quantize(COLOURS).save(target, optimize=True)
        if target.stat().st_size <= LARGEST:
            return


def restored(scan: Path) -> dict[str, Tensor]:
    """The scan degraded and restored as ``evaluate.yaml`` does it, by the shipped weights."""
    parser = read_configs("evaluate.yaml", device="cpu")
    item = parser.get_parsed_content("preprocessing")({"image": str(scan), "label": str(scan)})
    with torch.no_grad():
        network = trained_network(device="cpu")
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    return parser.get_parsed_content("postprocessing")(item)


def axial_planes(item: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """One axial plane of each column and of the mask of deep tissue, anterior at the top, right on the left.

    The low-resolution scan is shown voxel by voxel, each as a block on the grid of the high-resolution scan.
    """
    label = item["label"]
    image = item["acquired_scan"].as_tensor()
    for dim in range(1, image.ndim):
        image = image.repeat_interleave(label.shape[dim] // image.shape[dim], dim=dim)
    volumes = {
        "low resolution (LR)": image,
        "zero-filling": item["zero_filling"],
        "super-resolution": item["automatic"],
        "high resolution (HR)": label,
        "deep": item["deep"],
    }
    upright = {name: _upright(volume, label.affine) for name, volume in volumes.items()}
    bright = upright["high resolution (HR)"] > 0.1 * np.percentile(upright["high resolution (HR)"], 99.8)
    box = tuple(slice(*_ends(bright, axis)) for axis in range(3))
    height = box[2].start + int(AXIAL * (box[2].stop - box[2].start))
    return {name: volume[box[0], box[1], height].T[::-1, ::-1] for name, volume in upright.items()}


def _upright(volume: Tensor, affine: Tensor) -> np.ndarray:
    """Axes towards right, anterior and superior."""
    return Orientation("RAS", labels=None)(MetaTensor(convert_to_tensor(volume).float(), affine=affine))[0].numpy()


def _ends(mask: np.ndarray, axis: int, margin: int = 3) -> tuple[int, int]:
    """First and last index of a mask along an axis, with a margin in voxels."""
    inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    return max(0, int(inside[0]) - margin), int(inside[-1]) + 1 + margin


def hardest_square(planes: Mapping[str, np.ndarray], side: int) -> tuple[int, int]:
    """First row and column of the square of deep tissue where zero-filling errs most."""
    error = (planes["zero-filling"] - planes["high resolution (HR)"]) * (planes["deep"] > 0)
    energy = F.avg_pool2d(torch.as_tensor(error[None].copy() ** 2), side, stride=1)[0]
    row, column = np.unravel_index(int(energy.argmax()), energy.shape)
    return int(row), int(column)


def draw(planes: Mapping[str, np.ndarray], path: Path, side: int) -> None:
    """A row with the plane, framed where the row below enlarges it; one grey scale for all."""
    names = [name for name in planes if name != "deep"]
    row, column = hardest_square(planes, side)
    rows, columns = planes[names[0]].shape
    white = np.percentile(planes[names[-1]], 99.8)
    panel = WIDTH / len(names)
    heights = [panel * rows / columns, panel]
    size = (WIDTH, HEADER + sum(heights))
    figure = Figure(figsize=size, facecolor=PAPER)
    grid = {"height_ratios": heights, "top": 1 - HEADER / size[1], "bottom": 0, "left": 0, "right": 1}
    axes = figure.subplots(2, len(names), gridspec_kw={**grid, "wspace": 0.01, "hspace": 0.01})
    for (whole, detail), name in zip(axes.T, names, strict=True):
        whole.imshow(planes[name], cmap="gray", vmin=0, vmax=white)
        whole.add_patch(Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=2))
        whole.set_title(name, color=INK, fontsize=16)
        square = planes[name][row : row + side, column : column + side]
        detail.imshow(square, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
    for one in axes.flat:
        one.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, facecolor=PAPER)
    save_small(path, path)


def main(scans: Sequence[str]) -> None:
    if len(scans) != 1 or not Path(scans[0]).is_file():
        sys.exit(f"expected the file of one high-resolution scan, got {list(scans)}. The picture stays as it is.")
    item = restored(Path(scans[0]))
    spacing = float(item["label"].pixdim.min())
    draw(axial_planes(item), PICTURE, round(DETAIL / spacing))
    shutil.copy(PICTURE, MODEL_CARD)
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
