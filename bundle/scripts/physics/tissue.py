"""Tissue: which blocks of a volume hold more than the noise of the air, so that a network need not restore air."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BLOCK", "noise_floor", "tissue_blocks"]


BLOCK = 4  # voxels along each edge of a block
FAINTEST = 0.02  # of bright tissue: a fainter voxel counts as air, also where the air is empty and edges ring
LOUDEST = 0.15  # of bright tissue: what is brighter never counts as noise of the air
AIR = (0.1, 0.2)  # shares of the blocks that are air, in any head scan that has air
EVEN = 1.5  # most that the noise differs between the two
HEADROOM = 2.0  # largest noise of a volume over the largest of a typical block of 8 x 8 x 8 voxels
SLICES = 64  # voxels along the first axis at a time, so that magnitudes take little memory


def block_maxima(volume: Tensor) -> Tensor:
    """The largest magnitude in each block of a volume ``(H, W, D)``, rounded up to ``(H / 4, W / 4, D / 4)``.

    Example:
        >>> block_maxima(-torch.ones(5, 4, 4)).shape
        torch.Size([2, 1, 1])
    """
    slabs = [F.max_pool3d(slab.abs()[None], BLOCK, ceil_mode=True)[0] for slab in volume.split(SLICES)]
    return torch.cat(slabs)


def noise_floor(maxima: Tensor) -> float:
    """The magnitude that no noise of the air exceeds, from the quietest blocks of a volume.

    Noise is as loud in one block of air as in the next. Where the quietest blocks differ, or are too bright for noise,
    they are no air. Then the floor is the lowest one, and hardly anything counts as air.

    Args:
        maxima: of the blocks, see :func:`block_maxima`, of a volume whose bright tissue is at about 1.

    Example:
        >>> noise_floor(torch.ones(8, 8, 8)), round(noise_floor(torch.full((8, 8, 8), 0.03)), 3)
        (0.02, 0.06)
    """
    larger = F.max_pool3d(maxima[None].float(), 2, ceil_mode=True).flatten()
    quiet, typical = larger.sort().values[[int(share * (len(larger) - 1)) for share in AIR]].tolist()
    floor = HEADROOM * typical
    return floor if FAINTEST < floor <= LOUDEST and typical <= EVEN * quiet else FAINTEST


def tissue_blocks(volume: Tensor) -> Tensor:
    """The blocks that hold a voxel above the noise floor, and their neighbours.

    Args:
        volume: ``(H, W, D)``, bright tissue at about 1.

    Returns:
        boolean tensor, ``(H / 4, W / 4, D / 4)`` rounded up.

    Example:
        >>> volume = torch.zeros(40, 40, 40)
        >>> volume[20, 20, 20] = 1.0
        >>> int(tissue_blocks(volume).sum())
        27
    """
    maxima = block_maxima(volume)
    above = (maxima > noise_floor(maxima)).float()
    return F.max_pool3d(above[None], 3, stride=1, padding=1)[0] > 0
