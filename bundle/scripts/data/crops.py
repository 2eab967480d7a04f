"""Slabs cut out of volumes, at voxels of the low-resolution (LR) grid and where there is anatomy."""

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
    "slab_axis_last",
]

REDRAWS = 20  # attempts to find a slab with anatomy


def slab_axis_last(volume: Tensor, axis: int) -> Tensor:
    """Rotate the axes of a volume (H, W, D) cyclically until ``axis`` is last.

    Example:
        >>> slab_axis_last(torch.zeros(4, 5, 6), 0).shape
        torch.Size([5, 6, 4])
    """
    return volume.permute([(axis + 1 + d) % 3 for d in range(3)])


def draw_start(rng: np.random.Generator, shape: Sequence[int], size: Sequence[int], step: Sequence[int]) -> list[int]:
    """Draw the first voxel of a slab, uniformly on the LR grid.

    Args:
        rng: source of randomness.
        shape: sizes of the volume.
        size: sizes of the slab.
        step: voxels of this volume per LR voxel along each axis. Every slab then starts on an LR voxel.
    """
    return [s * int(rng.integers((n - w) // s + 1)) for n, w, s in zip(shape, size, step, strict=True)]


def crop_slab(volume: Tensor, start: Sequence[int], size: Sequence[int], context: int = 0) -> Tensor:
    """Cut a slab out of a volume, with its slices as channels in their order along D.

    Args:
        volume: tensor (H, W, D).
        start: first voxel of the slab.
        size: sizes (h, w, d) of the slab without context.
        context: further slices on either side. Beyond its ends, the volume's first or last slice is repeated.

    Returns:
        tensor (d + 2 * context, h, w).

    Example:
        >>> crop_slab(torch.zeros(8, 8, 8), start=(0, 0, 0), size=(4, 4, 3), context=1).shape
        torch.Size([5, 4, 4])
    """
    for axis in (0, 1):
        volume = volume.narrow(axis, start[axis], size[axis])
    slices = torch.arange(start[2] - context, start[2] + size[2] + context).clamp(0, volume.shape[2] - 1)
    return volume.index_select(2, slices).movedim(-1, 0).contiguous()


def is_informative(slab: Tensor) -> bool:
    """Whether a slab shows more than air, for intensities with bright tissue at about 1.

    The rule is that of the papers' authors with higher bounds (theirs: 0.005 and 0.05). Their scans are masked, but the
    air of a raw scan holds noise of a few hundredths.
    """
    return bool(slab.std() >= 0.05 or slab.mean() > 0.1)


def draw_informative_start(
    volume: Tensor, size: Sequence[int], step: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Draw the first voxel of a slab that shows anatomy.

    It is the first informative one of 20 draws, or else the one whose slab varies most. For the arguments see
    :func:`draw_slab`.
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
        context: further slices on either side, see :func:`crop_slab`.

    Returns:
        tensor (d + 2 * context, h, w).
    """
    return crop_slab(volume, draw_informative_start(volume, size, step, rng), size, context)
