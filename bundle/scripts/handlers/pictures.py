"""Pictures of an evaluation, one page per subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from monai.config import PathLike
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from monai.utils import convert_to_tensor
from torch import Tensor

from scripts.metrics.quality import psnr

__all__ = ["PLANES", "ComparisonPictureHandler", "as_blocks", "foreground", "plane", "save_comparison", "upright"]


# axis that the plane cuts: its place between the ends of the anatomy, its name
PLANES = {
    0: (0.4, "sagittal, anterior left"),
    1: (0.5, "coronal, right on the left"),
    2: (0.62, "axial, right on the left"),
}
AXIAL = 2
DETAIL = 40.0  # mm, side of the enlarged square
COLUMN, HEADER, MARGIN = 2.6, 0.75, 0.3  # inches
INK, PAPER, FRAME = "#f2f2f2", "black", "#ffd24a"


def save_comparison(
    path: PathLike, volumes: Mapping[str, np.ndarray], label: np.ndarray, spacing: Sequence[float], title: str = ""
) -> None:
    """Draw volumes beside their reference in three planes, with maps of the absolute error and an enlarged detail.

    All images share the grey scale of the reference. All error maps share one colour scale, which ends at the 99.8th
    percentile of the errors. The detail is the axial square in which the first method has the largest error.

    Args:
        path: the PNG file to write.
        volumes: the acquisition and then the methods, by title and in the order of the columns. Arrays (X, Y, Z) of one
            shape, whose axes point to the right, to anterior and to superior.
        label: the reference, of the same shape. It becomes the last column.
        spacing: mm per voxel along each axis.
        title: heading of the page.

    Example:
        >>> volumes = dict.fromkeys(["low resolution", "tricubic"], np.random.rand(50, 50, 50))
        >>> save_comparison("comparison.png", volumes, np.random.rand(50, 50, 50), (1, 1, 1))  # doctest: +SKIP
    """
    box = foreground(label)
    columns = [*(volume[box] for volume in volumes.values()), label[box]]
    errors = [100 * np.abs(volume - columns[-1]) / label.max() for volume in columns[1:-1]]
    grey = {"cmap": "gray", "vmin": 0, "vmax": np.percentile(columns[-1], 99.8)}
    colour = {"cmap": "inferno", "vmin": 0, "vmax": np.percentile(np.stack(errors), 99.8)}
    figure, axes = _page(columns[-1].shape, spacing, len(columns))
    for axis, (images, maps) in zip(PLANES, axes[:-1].reshape(len(PLANES), 2, -1), strict=True):
        for panel, volume in zip(images, columns, strict=True):
            _draw(panel, plane(volume, axis), _in_plane(spacing, axis), **grey)
        for panel, error in zip(maps[1:-1], errors, strict=True):
            drawn = _draw(panel, plane(error, axis), _in_plane(spacing, axis), **colour)
        _annotate(images, PLANES[axis][1], _in_plane(spacing, axis)[0])
    _colour_bar(figure, axes[1, -1], drawn)
    _draw_details(axes[-1], axes[-3], columns, plane(errors[0], AXIAL), _in_plane(spacing, AXIAL), **grey)
    for panel, heading in zip(axes[0], _headings(volumes, label, spacing), strict=True):
        panel.set_title(heading, color=INK, fontsize=11)
    figure.text(0.5, 1 - 0.1 / figure.get_figheight(), title, color=INK, fontsize=12, ha="center", va="top")
    figure.savefig(path, dpi=150, facecolor=PAPER)


def foreground(label: np.ndarray, margin: int = 3) -> tuple[slice, ...]:
    """The box around all voxels brighter than a tenth of white, with a margin in voxels.

    Example:
        >>> foreground(np.pad(np.ones((4, 4, 4)), 8), margin=1)
        (slice(7, 13, None), slice(7, 13, None), slice(7, 13, None))
    """
    bright = label > 0.1 * np.percentile(label, 99.8)
    ends = [np.flatnonzero(bright.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    return tuple(slice(max(0, int(first) - margin), int(last) + 1 + margin) for first, last in ends)


def _in_plane(values: Sequence[float], axis: int) -> list[float]:
    """The values of the horizontal and of the vertical axis of a plane."""
    return [value for other, value in enumerate(values) if other != axis]


def plane(volume: np.ndarray, axis: int) -> np.ndarray:
    """A plane in radiological orientation, with the first row at the bottom.

    Args:
        volume: axes point to the right, to anterior and to superior.
        axis: that the plane cuts, a key of :data:`PLANES`.

    Example:
        >>> plane(np.zeros((3, 4, 5)), axis=2).shape
        (4, 3)
    """
    return volume.take(int(PLANES[axis][0] * (volume.shape[axis] - 1)), axis).T[:, ::-1]


def _page(shape: Sequence[int], spacing: Sequence[float], columns: int) -> tuple[Figure, np.ndarray]:
    """A page with rows for the images and errors of each plane and for a square detail, each as high as its content."""
    extents = [_in_plane(np.multiply(shape, spacing), axis) for axis in PLANES]
    heights = [vertical / horizontal for horizontal, vertical in extents for _ in range(2)] + [1.0]
    width, height = columns * COLUMN + MARGIN, sum(heights) * COLUMN + HEADER
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    grid = {"height_ratios": heights, "left": MARGIN / width, "right": 1, "bottom": 0, "top": 1 - HEADER / height}
    axes = figure.subplots(len(heights), columns, gridspec_kw={**grid, "wspace": 0.02, "hspace": 0.02})
    for panel in axes.flat:
        panel.set_axis_off()
    return figure, axes


def _draw(panel: Axes, pixels: np.ndarray, spacing: Sequence[float], **scale: object) -> AxesImage:
    return panel.imshow(pixels, origin="lower", aspect=spacing[1] / spacing[0], interpolation="nearest", **scale)


def _annotate(images: Sequence[Axes], name: str, spacing: float, length: float = 30.0) -> None:
    """Write the plane's name on the left, and draw a bar of ``length`` mm in the lower right corner."""
    images[0].text(-0.05, 0.5, name, color=INK, transform=images[0].transAxes, rotation=90, ha="right", va="center")
    right, bottom = images[-1].get_xlim()[1] * 0.97, images[-1].get_ylim()[1] * 0.03
    left = right - length / spacing
    images[-1].plot([left, right], [bottom, bottom], color=INK, linewidth=2)
    images[-1].text((left + right) / 2, bottom, f"{length:g} mm", color=INK, ha="center", va="bottom", fontsize=9)


def _colour_bar(figure: Figure, panel: Axes, drawn: AxesImage) -> None:
    bar = figure.colorbar(drawn, cax=panel.inset_axes([0.1, 0.1, 0.05, 0.8]))
    bar.set_label("absolute error\n(% of the reference's maximum)", color=INK)
    bar.ax.tick_params(colors=INK)


def _draw_details(
    panels: Sequence[Axes],
    images: Sequence[Axes],
    columns: Sequence[np.ndarray],
    error: np.ndarray,
    spacing: Sequence[float],
    **scale: object,
) -> None:
    """Enlarge the axial square with the largest ``error``, and frame it in the images."""
    width, height = (min(round(DETAIL / h), n) for h, n in zip(spacing, error.shape[::-1], strict=True))
    energy = F.avg_pool2d(torch.as_tensor(error[None] ** 2), (height, width), stride=1)[0]
    bottom, left = np.unravel_index(int(energy.argmax()), energy.shape)
    for panel, image, volume in zip(panels, images, columns, strict=True):
        _draw(panel, plane(volume, AXIAL)[bottom : bottom + height, left : left + width], spacing, **scale)
        image.add_patch(Rectangle((left - 0.5, bottom - 0.5), width, height, fill=False, edgecolor=FRAME))
    panels[0].text(
        -0.05, 0.5, "detail, axial", color=INK, transform=panels[0].transAxes, rotation=90, ha="right", va="center"
    )


def _headings(volumes: Mapping[str, np.ndarray], label: np.ndarray, spacing: Sequence[float]) -> list[str]:
    """Titles of the columns, with the PSNR of each method."""
    first, *methods = volumes
    reference = torch.as_tensor(label.copy())
    scores = [f"{name}\n{psnr(torch.as_tensor(volumes[name].copy()), reference):.2f} dB" for name in methods]
    return [first, *scores, f"high resolution\n{_in_mm(spacing)}"]


def _in_mm(spacing: Sequence[float]) -> str:
    return " × ".join(f"{h:.3g}" for h in spacing) + " mm"


class ComparisonPictureHandler:
    """Save a picture of every subject of an evaluation, see :func:`save_comparison`.

    Args:
        output_dir: folder for the files ``<name>_comparison.png``.
        methods: titles of the methods by their key in the evaluator's output, in the order of the columns.
        names: gives the name of an evaluated scan, see :class:`scripts.data.names.ScanNames`.
    """

    def __init__(
        self, output_dir: PathLike, methods: Mapping[str, str], names: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self.output_dir = Path(output_dir)
        self.methods = dict(methods)
        self.names = names

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for item in engine.state.output:
            image = item["image"]
            scan = item.get("acquired_scan")  # of an interpolated image
            acquired = upright(image, image.meta["low_res_affine"]) if scan is None else upright(scan, scan.affine)
            methods = {title: item[key] for key, title in self.methods.items()}
            self._save(self.names(item), acquired, item["label"], methods)

    def _save(self, name: str, acquired: MetaTensor, label: MetaTensor, methods: Mapping[str, Tensor]) -> None:
        reference = upright(label, label.affine)
        low_res = f"low resolution\n{_in_mm(affine_to_spacing(acquired.affine).tolist())}"
        volumes = {low_res: as_blocks(acquired, reference)}
        volumes |= {title: upright(volume, label.affine) for title, volume in methods.items()}
        path = self.output_dir / f"{name}_comparison.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_comparison(
            path,
            {title: volume[0].numpy() for title, volume in volumes.items()},
            reference[0].numpy(),
            affine_to_spacing(reference.affine).tolist(),
            title=name,
        )


def upright(volume: Tensor, affine: Tensor) -> MetaTensor:
    """The volume on the CPU with axes that point to the right, to anterior and to superior.

    It is a copy only where an axis is flipped.

    Example:
        >>> upright(torch.zeros(1, 3, 4, 5), torch.diag(torch.tensor([-1.0, 1, 1, 1]))).affine[0, 0].item()
        1.0
    """
    placed = MetaTensor(convert_to_tensor(volume).detach().cpu(), affine=affine.cpu())
    return Orientation("RAS", labels=None)(placed)


def as_blocks(low_res: MetaTensor, reference: MetaTensor, box: Sequence[slice] = (slice(None),) * 3) -> Tensor:
    """Give each voxel of the reference the value of the nearest voxel of the acquisition, the lower one of two.

    Args:
        low_res: the acquisition, ``(1, h, w, d)``, whose axes have the directions of the reference's.
        reference: names the grid, ``(1, H, W, D)``.
        box: the part of the reference to fill; by default all of it.

    Example:
        >>> scan = MetaTensor(torch.tensor([[[[1.0, 2.0]]]]), affine=torch.diag(torch.tensor([1.0, 1, 2, 1])))
        >>> as_blocks(scan, MetaTensor(torch.zeros(1, 1, 1, 4), affine=torch.eye(4)))[0, 0, 0].tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    to_scan, blocks = torch.linalg.inv(low_res.affine) @ reference.affine, low_res.as_tensor()
    for axis, (size, part) in enumerate(zip(reference.shape[1:], box, strict=True)):
        places = to_scan[axis, axis] * torch.arange(size)[part] + to_scan[axis, 3]
        nearest = (places - 0.5 - 1e-6).ceil().long().clamp(0, blocks.shape[axis + 1] - 1)
        blocks = blocks.index_select(axis + 1, nearest)
    return blocks
