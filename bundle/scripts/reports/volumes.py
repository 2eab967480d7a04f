"""Volumes of a page: images of a scan on one grid, in 8 bits, as NIfTI files that fit into the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from torch import Tensor

from scripts.handlers.pictures import as_blocks, foreground
from scripts.physics.kspace import by_parts, truncate
from scripts.physics.separable import along_axes
from scripts.utils.compression import GzipFile

__all__ = ["DARKEST", "LEVELS", "Frames", "cube", "fitted", "frames_of", "whole"]


LEVELS = 255
LEVEL = 3  # of gzip, which ISA-L packs as tightly as zlib
ENDS = (0.1, 99.95)  # percentiles of the last image; the levels reach a little further
DARKEST = 2  # percentile below which few voxels are tissue
MARGIN = 8.0  # mm around the foreground
MOST_VOXELS = 5_000_000  # per image; more never fit, and compressing them would only take time
MOST_OF_CUBE = 96  # voxels of its side, so that it fits at full resolution


class Frames(NamedTuple):
    """Images on one grid in 8 bits, one after the other.

    Args:
        titles: one per image.
        values: ``(T, X, Y, Z)``, uint8. The axes point to the right, to anterior and to superior.
        affine: from voxels to mm, ``(4, 4)``.
        low: intensity of level 0.
        high: intensity of level 255.
    """

    titles: tuple[str, ...]
    values: np.ndarray
    affine: np.ndarray
    low: float
    high: float

    @property
    def spacing(self) -> tuple[float, ...]:
        """In mm along each axis."""
        return tuple(float(mm) for mm in affine_to_spacing(self.affine))

    def nifti(self) -> str:
        """A compressed NIfTI file of all images as a series, in base64. Its voxels have the images' intensities."""
        image = nib.Nifti1Image(np.moveaxis(self.values, 0, -1), self.affine)
        image.header.set_slope_inter((self.high - self.low) / LEVELS, self.low)
        image.header.set_xyzt_units("mm")
        content = io.BytesIO()
        with GzipFile("", "wb", LEVEL, content, mtime=0) as packed:
            image.to_stream(packed)
        return base64.b64encode(content.getvalue()).decode("ascii")


def whole(grid: MetaTensor) -> tuple[slice, ...]:
    """The part of a grid that a page shows: the foreground with a margin.

    Args:
        grid: an image, ``(1, X, Y, Z)``, whose axes point to the right, to anterior and to superior.

    Raises:
        ValueError: when the image is constant.
    """
    values = grid[0, ::2, ::2, ::2].numpy()  # every other voxel is enough
    if values.min() == values.max():
        raise ValueError(
            f"expected an image with something to show, got {values.min():g} everywhere. Look at the scan."
        )
    values = values - min(0.0, float(np.percentile(values, DARKEST)))  # tissue may be negative
    margin = MARGIN / min(affine_to_spacing(grid.affine).tolist())
    box = foreground(values, round(margin / 2))
    return tuple(slice(2 * part.start, 2 * part.stop) for part in box)


def cube(grid: MetaTensor, centre: Sequence[float], side: float = 48.0) -> tuple[slice, ...]:
    """The part of a grid around a place.

    Args:
        grid: see :func:`whole`.
        centre: in mm, in the world of the scan.
        side: of the cube in mm. A very fine grid has a smaller one.

    Raises:
        ValueError: when the place is outside the grid.

    Example:
        >>> cube(MetaTensor(torch.zeros(1, 99, 99, 99), affine=torch.eye(4)), (50, 50, 2), side=10)
        (slice(45, 56, None), slice(45, 56, None), slice(0, 8, None))
    """
    fault = ValueError(f"detail must be a place inside the scan, x, y, z in mm, got {list(centre)}.")
    middle = (torch.linalg.inv(grid.affine.double()) @ torch.tensor([*centre, 1.0], dtype=torch.float64))[:3].tolist()
    if not all(0 <= place < size for place, size in zip(middle, grid.shape[1:], strict=True)):
        raise fault
    halves = [min(side / mm, MOST_OF_CUBE) / 2 for mm in affine_to_spacing(grid.affine).tolist()]
    return tuple(slice(max(0, round(m - h)), round(m + h) + 1) for m, h in zip(middle, halves, strict=True))


def frames_of(
    images: Mapping[str, Tensor], grid: MetaTensor, box: Sequence[slice], ends: Sequence[float] | None = None
) -> Frames:
    """Bring images to a part of a grid and to 8 bits, with one scale for all. A very fine grid becomes coarser.

    Args:
        images: by title, each ``(1, x, y, z)`` on a grid of its own, with axes to the right, to anterior and to
            superior. Each voxel of the grid takes the nearest voxel of the image.
        grid: see :func:`whole`.
        box: the part of it.
        ends: intensities of level 0 and 255; None for percentiles of the last image.

    Example:
        >>> image = MetaTensor(torch.arange(27.0).reshape(1, 3, 3, 3), affine=torch.eye(4))
        >>> frames_of({"a": image}, image, (slice(1, 3),) * 3, ends=(0, 26)).values[0, 0, 0].tolist()
        [128, 137]
    """
    if ends is None:
        darkest, brightest = np.percentile(_part(list(images.values())[-1], grid, box)[::2, ::2, ::2].numpy(), ENDS)
        low = min(0.0, float(darkest))
        ends = low, float(brightest) + 0.15 * (float(brightest) - low)
    low, high = (float(end) for end in ends)
    high = high if high > low else low + 1.0
    levels, matrix = [], ()
    for image in images.values():
        part = _part_in_levels(image, grid, box, low, high)
        matrix = _matrix(part.shape, (part.size / MOST_VOXELS) ** (1 / 3))
        levels.append(_coarser(part, matrix))
    affine = grid.affine.double().numpy().copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in box]
    return Frames(tuple(images), np.stack(levels), affine @ _zoom(part.shape, matrix), low, high)


def _part(image: MetaTensor, grid: MetaTensor, box: Sequence[slice]) -> Tensor:
    """A part of the grid, ``(X, Y, Z)``; without a copy where the image is on it."""
    if image.shape == grid.shape and torch.allclose(image.affine, grid.affine):
        return image.as_tensor()[0][tuple(box)]
    return as_blocks(image, grid, box)[0]


def _part_in_levels(image: MetaTensor, grid: MetaTensor, box: Sequence[slice], low: float, high: float) -> np.ndarray:
    """As :func:`_part`, in 8 bits. An image on a grid of its own is smaller, so its levels come first."""
    if image.shape == grid.shape:
        return _levels(_part(image, grid, box), low, high)
    levels = torch.from_numpy(_levels(image.as_tensor()[0], low, high))[None]
    return _part(MetaTensor(levels, affine=image.affine), grid, box).numpy()


def _levels(values: Tensor, low: float, high: float) -> np.ndarray:
    def converted(part: Tensor) -> Tensor:
        return part.float().sub(low).mul_(LEVELS / (high - low)).round_().clamp_(0, LEVELS).byte()

    return by_parts(values, 0, converted).numpy()


def fitted(frames: Sequence[Frames], limit: int) -> tuple[list[Frames], list[str]]:
    """Images whose files together have at most ``limit`` characters, on a coarser grid where they need one.

    The coarser grid keeps the field of view: their k-space is truncated.

    Args:
        frames: on one grid.
        limit: characters in base64.

    Returns:
        the images and their files.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 32)).astype(np.uint8)
        >>> (coarse,), _ = fitted([Frames(("a",), noise, np.eye(4), 0.0, 1.0)], limit=10_000)
        >>> coarse.values.shape
        (1, 20, 20, 20)
    """
    shape, factor = frames[0].values.shape[1:], 1.0
    shrunk = list(frames)
    while True:
        files = [one.nifti() for one in shrunk]
        excess = sum(map(len, files)) / limit
        if excess <= 1:
            return shrunk, files
        factor *= max(1.02, 1.02 * excess ** (1 / 3))
        matrix = _matrix(shape, factor)
        shrunk = [
            one._replace(
                values=np.stack([_coarser(image, matrix) for image in one.values]),
                affine=one.affine @ _zoom(shape, matrix),
            )
            for one in frames
        ]


def _matrix(shape: Sequence[int], factor: float) -> list[int]:
    return [math.ceil(size / max(1.0, factor)) for size in shape]


def _zoom(shape: Sequence[int], matrix: Sequence[int]) -> np.ndarray:
    """Leads from voxels of a coarser grid to those of the finer one, with voxel 0 and the field of view in place."""
    return np.diag([*np.divide(shape, matrix), 1.0])


def _coarser(levels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    if list(levels.shape) == list(matrix):
        return levels
    matrices = [truncate(torch.eye(n), [m], [0]) for n, m in zip(levels.shape, matrix, strict=True)]
    return _levels(along_axes(torch.from_numpy(levels), matrices), 0, LEVELS)  # faster than by Fourier transforms
