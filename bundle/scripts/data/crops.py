"""Cutting slabs out of volumes: where they start on the low-resolution grid, and whether they show anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "crop_slab",
    "draw_informative_start",
    "draw_slab",
    "draw_start",
    "is_informative",
    "learned_slices",
    "slab_axis_last",
    "without_margin",
]


REDRAWS = 20


def slab_axis_last(volume: Tensor, axis: int) -> Tensor:
    """Rotate the axes of a volume (H, W, D) cyclically until ``axis`` is last."""
    return volume.permute([(axis + 1 + d) % 3 for d in range(3)])


def draw_start(rng: np.random.Generator, shape: Sequence[int], size: Sequence[int], step: Sequence[int]) -> list[int]:
    """Draw where a slab starts, uniformly on the low-resolution grid.

    Args:
        rng: source of randomness.
        shape: sizes of the volume.
        size: sizes of the slab.
        step: voxels of this volume per low-resolution voxel along each axis (1 for a low-resolution volume), so that
            every slab starts on a low-resolution voxel.
    """
    return [s * int(rng.integers((n - w) // s + 1)) for n, w, s in zip(shape, size, step, strict=True)]


def crop_slab(volume: Tensor, start: Sequence[int], size: Sequence[int], context: int = 0) -> Tensor:
    """Cut a slab out of a volume (H, W, D) and make its slices the channels, (d, h, w), in their order along D.

    Args:
        volume: tensor (H, W, D).
        start: its first voxel.
        size: its sizes (h, w, d) without context.
        context: how many more slices on either side; the first and last of the volume are replicated beyond its ends.
    """
    for axis in (0, 1):
        volume = volume.narrow(axis, start[axis], size[axis])
    slices = torch.arange(start[2] - context, start[2] + size[2] + context).clamp(0, volume.shape[2] - 1)
    return volume.index_select(2, slices).movedim(-1, 0).contiguous()


def is_informative(slab: Tensor) -> bool:
    """Whether a slab, of intensities such that bright tissue is about 1, shows more than air.

    The rule of the papers' authors with higher bounds (theirs: 0.005 and 0.05): their scans are masked, whereas the air
    of a raw scan holds noise of a few hundredths.
    """
    return bool(slab.std() >= 0.05 or slab.mean() > 0.1)


def draw_informative_start(
    volume: Tensor, size: Sequence[int], step: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Draw where a slab that shows anatomy starts: the first of a few that does, or else that of the most varied slab.

    The arguments are those of :func:`draw_slab`.
    """
    starts: list[list[int]] = []
    for _ in range(REDRAWS):
        starts.append(draw_start(rng, volume.shape, size, step))
        if is_informative(crop_slab(volume, starts[-1], size)):
            return starts[-1]
    return max(starts, key=lambda start: float(crop_slab(volume, start, size).std()))


def draw_slab(
    volume: Tensor, size: Sequence[int], step: Sequence[int], rng: np.random.Generator, context: int = 0
) -> Tensor:
    """Draw a slab that shows anatomy, see :func:`draw_informative_start`.

    Args:
        volume: tensor (H, W, D), slab axis last.
        size: sizes (h, w, d) of the slab.
        step: see :func:`draw_start`.
        rng: source of randomness.
        context: more slices on either side, see :func:`crop_slab`.

    Returns:
        tensor (d + 2 * context, h, w).
    """
    return crop_slab(volume, draw_informative_start(volume, size, step, rng), size, context)


def learned_slices(slab_size: int, image: Tensor, **images: Tensor) -> dict[str, Tensor]:
    """Of slabs that are wider than the networks' the slices that the networks learn, the others being context.

    Args:
        slab_size: slices of the networks' slabs.
        image: LR slab, of which the middle ``slab_size`` slices are kept.
        images: slabs of the same extent, of which the same part is kept.
    """
    slabs = {"image": image, **images}
    kept = {name: slab.shape[1] * slab_size // image.shape[1] for name, slab in slabs.items()}
    return {name: slab.narrow(1, (slab.shape[1] - kept[name]) // 2, kept[name]) for name, slab in slabs.items()}


def without_margin(margin: int, dims: Sequence[int], image: Tensor, **images: Tensor) -> dict[str, Tensor]:
    """Slabs without their borders.

    Args:
        margin: LR voxels to leave out on either side.
        dims: along which dimensions.
        image: LR slab (B, d, h, w).
        images: slabs of the same extent on finer grids, of which the same part is kept.

    Raises:
        ValueError: when nothing would be left.
    """
    if 2 * margin >= min(image.shape[dim] for dim in dims):
        raise ValueError(f"margin must leave something of slabs {list(image.shape[1:])}, got {margin}. Lower it.")
    slabs = {"image": image, **images}
    for dim in dims:
        size = slabs["image"].shape[dim]
        for name, slab in slabs.items():
            cut = margin * slab.shape[dim] // size
            slabs[name] = slab.narrow(dim, cut, slab.shape[dim] - 2 * cut)
    return slabs
