r"""Interpolation: fixed, inside a network, on the grid where LR voxel $l$ sits on HR voxel $sl$."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NUM_TAPS = 32
"""LR neighbours of an interpolated voxel along each axis."""

KAISER_BETA = 3.0
"""Shape of the Kaiser window of every sinc here."""


def windowed_sinc(scale_factor: int, num_taps: int) -> Tensor:
    r"""Kaiser-windowed sinc weights, one row per phase $p / s$. Row 0 is the sample itself.

    Args:
        scale_factor: number of phases $s$.
        num_taps: even number of low-resolution neighbours, at offsets ``-num_taps // 2 + 1`` to ``num_taps // 2``.

    Returns:
        float32 tensor of shape ``(scale_factor, num_taps)``. Each row sums to 1.

    Example:
        >>> windowed_sinc(2, num_taps=4).sum(dim=1).tolist()
        [1.0, 1.0]
    """
    offset = torch.arange(num_taps, dtype=torch.float64) - (num_taps // 2 - 1)
    distance = torch.arange(scale_factor, dtype=torch.float64)[:, None] / scale_factor - offset
    radius = (1 - (distance / (num_taps / 2)) ** 2).clamp(min=0).sqrt()
    weights = torch.sinc(distance) * torch.special.i0(KAISER_BETA * radius)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


class SlabInterpolation(nn.Module):
    """Separable windowed-sinc interpolation of a slab. It is close to zero-filling but local, so that tiles agree.

    Beyond the borders the last sample is replicated. The code sums shifted copies instead of convolving, because
    autocast leaves such sums in the input's precision.

    Args:
        scale_factor: integer factors along ``(H, W, slices)``.

    Example:
        >>> SlabInterpolation((2, 2, 1))(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(self, scale_factor: Sequence[int]) -> None:
        super().__init__()
        self.scale_factor = [int(s) for s in scale_factor]
        for name, factor in zip(("rows", "columns", "slices"), self.scale_factor, strict=True):
            self.register_buffer(name, windowed_sinc(factor, NUM_TAPS), persistent=False)

    def forward(self, slab: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """``(B, S, H, W)`` to ``(B, S * s_z, s_h * H, s_w * W)``, or the rows from LR row ``start`` to ``end``."""
        slab = self._interpolate(slab, 2, self.rows, start, slab.shape[2] if end is None else end)
        slab = self._interpolate(slab, 3, self.columns, 0, slab.shape[3])
        return self._interpolate(slab, 1, self.slices, 0, slab.shape[1])

    def _interpolate(self, x: Tensor, dim: int, weights: Tensor, start: int, end: int) -> Tensor:
        phases, taps = weights.shape[0], weights.shape[1]
        size = end - start
        index = torch.arange(start - (taps // 2 - 1), end + taps // 2, device=x.device).clamp(0, x.shape[dim] - 1)
        padded = x.index_select(dim, index)
        outputs = [x.narrow(dim, start, size)]
        for phase in range(1, phases):
            value = weights[phase, 0] * padded.narrow(dim, 0, size)
            for tap in range(1, taps):
                value = value.addcmul_(weights[phase, tap], padded.narrow(dim, tap, size))  # one pass of the memory
            outputs.append(value)
        return torch.stack(outputs, dim + 1).flatten(dim, dim + 1)
