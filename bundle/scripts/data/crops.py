"""Slabs and crops cut out of volumes, where there is anatomy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from scripts.physics.encoding import FrequencyEncoding
from scripts.physics.separable import SeparableAcquisition

__all__ = [
    "Crops",
    "Slabs",
    "crop_slab",
    "draw_informative_start",
    "draw_start",
    "is_informative",
    "slab_axis_last",
]

REDRAWS = 20  # attempts to find a sample with anatomy


def slab_axis_last(volume: Tensor, axis: int) -> Tensor:
    """Rotate the axes of a volume (H, W, D) cyclically until ``axis`` is last.

    Example:
        >>> slab_axis_last(torch.zeros(4, 5, 6), 0).shape
        torch.Size([5, 6, 4])
    """
    return volume.permute([(axis + 1 + d) % 3 for d in range(3)])


def draw_start(rng: np.random.Generator, shape: Sequence[int], size: Sequence[int], step: Sequence[int]) -> list[int]:
    """Draw the first voxel of a sample, uniformly.

    Args:
        rng: source of randomness.
        shape: sizes of the volume.
        size: sizes of the sample.
        step: a sample starts at a multiple of it along each axis. Slabs start on LR voxels.
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


def is_informative(sample: Tensor) -> bool:
    """Whether a sample shows more than air, for intensities with bright tissue at about 1.

    The rule is that of the papers' authors with higher bounds (theirs: 0.005 and 0.05). Their scans are masked, but the
    air of a raw scan holds noise of a few hundredths.
    """
    return bool(sample.std() >= 0.05 or sample.mean() > 0.1)


def draw_informative_start(
    shape: Sequence[int],
    size: Sequence[int],
    step: Sequence[int],
    rng: np.random.Generator,
    look: Callable[[Sequence[int]], Tensor],
) -> list[int]:
    """Draw the first voxel of a sample that shows anatomy.

    It is the first informative one of 20 draws, or else the one that varies most.

    Args:
        shape: sizes of the volume.
        size: sizes of the sample.
        step: see :func:`draw_start`.
        rng: source of randomness.
        look: the sample that starts at a voxel.
    """
    starts: list[list[int]] = []
    for _ in range(REDRAWS):
        starts.append(draw_start(rng, shape, size, step))
        if is_informative(look(starts[-1])):
            return starts[-1]
    return max(starts, key=lambda start: float(look(start).std()))


class Slabs:
    """How samples are cut for networks of slabs: slabs (d, h, w) of the scans' own grids, with slices as channels.

    Args:
        scale_factor: integer ratio of LR to HR spacing along each axis of the canonical frame.
        patch_size: in-plane sizes of an LR slab in voxels.
        slab_size: slices of an LR slab that are learned.
        context: further LR slices on either side, and as many mm of HR slices, for the networks' skips alone. Beyond
            its ends, the volume's first or last slice is repeated.

    Example:
        >>> Slabs((2, 2, 2), patch_size=(4, 4), slab_size=3).cut(torch.zeros(9, 9, 9), False, [0, 0, 0]).shape
        torch.Size([6, 8, 8])
    """

    options = "patch_size or slab_size"

    def __init__(
        self, scale_factor: Sequence[int], patch_size: Sequence[int] = (64, 64), slab_size: int = 3, context: int = 0
    ) -> None:
        self.scale_factor = tuple(scale_factor)
        self.slab = (*patch_size, slab_size)
        self.context = context

    def size(self, low_res: bool) -> list[int]:
        """The voxels of a volume that a sample needs."""
        return [s * n for s, n in zip(self._step(low_res), self.slab, strict=True)]

    def draw(self, volume: Tensor, low_res: bool, rng: np.random.Generator) -> list[int]:
        """Draw where a sample (LR voxel) starts in a volume (H, W, D), so that it shows anatomy."""
        size, step = self.size(low_res), self._step(low_res)
        start = draw_informative_start(volume.shape, size, step, rng, lambda start: crop_slab(volume, start, size))
        return [n // s for n, s in zip(start, step, strict=True)]

    def cut(self, volume: Tensor, low_res: bool, start: Sequence[int]) -> Tensor:
        """The sample that starts at an LR voxel."""
        step = self._step(low_res)
        first = [s * n for s, n in zip(step, start, strict=True)]
        return crop_slab(volume, first, self.size(low_res), step[2] * self.context)

    def _step(self, low_res: bool) -> tuple[int, ...]:
        return (1, 1, 1) if low_res else self.scale_factor


class Crops:
    """How samples are cut for networks on the output grid: crops (1, h, w, d) that start at any voxel.

    An LR volume is zero-filled to the output grid, where a crop of it has the size of an HR crop.

    Args:
        scale_factor: integer ratio of LR to HR spacing along each axis of the canonical frame.
        size: voxels of a crop along each axis.

    Example:
        >>> crops = Crops((2, 2, 2), size=(8, 8, 5))
        >>> [crops.cut(torch.zeros(9, 9, 9), low_res, [1, 0, 2]).shape for low_res in (True, False)]
        [torch.Size([1, 8, 8, 5]), torch.Size([1, 8, 8, 5])]
    """

    options = "crop_size"

    def __init__(self, scale_factor: Sequence[int], size: Sequence[int]) -> None:
        self.scale_factor = tuple(scale_factor)
        self.crop = tuple(size)

    def size(self, low_res: bool) -> list[int]:
        """The voxels of a volume that a sample needs."""
        return [-(-n // s) for n, s in zip(self.crop, self._factors(low_res), strict=True)]

    def draw(self, volume: Tensor, low_res: bool, rng: np.random.Generator) -> list[int]:
        """Draw where a sample (voxel of the output grid) starts in a volume (H, W, D), so that it shows anatomy."""
        shape = [n * s for n, s in zip(volume.shape, self._factors(low_res), strict=True)]
        return draw_informative_start(shape, self.crop, (1, 1, 1), rng, lambda start: self.cut(volume, low_res, start))

    def cut(self, volume: Tensor, low_res: bool, start: Sequence[int]) -> Tensor:
        """The sample that starts at a voxel of the output grid."""
        window = [slice(first, first + n) for first, n in zip(start, self.crop, strict=True)]
        if low_res:
            return zero_filling(tuple(volume.shape), self.scale_factor).interpolate(volume, window)[None]
        return volume[tuple(window)][None].contiguous()

    def _factors(self, low_res: bool) -> tuple[int, ...]:
        return self.scale_factor if low_res else (1, 1, 1)


@lru_cache(maxsize=64)
def zero_filling(shape: tuple[int, ...], scale_factor: tuple[int, ...]) -> SeparableAcquisition:
    """The acquisition whose scans of ``shape`` are zero-filled by whole factors.

    Example:
        >>> zero_filling((4, 4, 3), (2, 2, 1)).interpolate(torch.ones(4, 4, 3)).shape
        torch.Size([8, 8, 3])
    """
    encodings = tuple(FrequencyEncoding(float(factor)) for factor in scale_factor)
    grid = tuple(n * factor for n, factor in zip(shape, scale_factor, strict=True))
    return SeparableAcquisition(encodings, grid, 1.0, shape)
