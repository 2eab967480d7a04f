"""Cost: the voxels, memory and time that a result takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Estimate", "estimate"]


class Estimate(NamedTuple):
    """What a result costs: its voxels, memory in GB, and seconds of one processor core."""

    voxels: int
    gigabytes: float
    seconds: float


BASE_GIGABYTES = 1.1  # of the program itself
BYTES_PER_VOXEL = 40.0  # of the output grid
SECONDS_PER_MILLION = 3.2  # voxels of the output grid, measured in float32


def estimate(shape: Sequence[int]) -> Estimate:
    """Estimate the cost of a result of the default network. A GPU, or several cores, need less time.

    Args:
        shape: of the output grid.

    Example:
        >>> estimate((200, 200, 200)).voxels
        8000000
    """
    voxels = math.prod(shape)
    return Estimate(voxels, BASE_GIGABYTES + BYTES_PER_VOXEL * voxels / 1e9, SECONDS_PER_MILLION * voxels / 1e6)
