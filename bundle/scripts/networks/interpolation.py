r"""Fixed interpolation inside a network, true to the grid on which LR voxel $l$ sits on HR voxel $sl$."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def windowed_sinc(scale_factor: int, num_taps: int, beta: float = 3.0) -> Tensor:
    r"""Kaiser-windowed sinc weights, one row per phase $p / s$; row 0 is the sample itself.

    Args:
        scale_factor: number of phases $s$.
        num_taps: even number of low-resolution neighbours, at offsets ``-num_taps // 2 + 1`` to ``num_taps // 2``.
        beta: shape of the Kaiser window.

    Returns:
        float32 tensor of shape ``(scale_factor, num_taps)``; each row sums to 1.
    """
    offset = torch.arange(num_taps, dtype=torch.float64) - (num_taps // 2 - 1)
    distance = torch.arange(scale_factor, dtype=torch.float64)[:, None] / scale_factor - offset
    radius = (1 - (distance / (num_taps / 2)) ** 2).clamp(min=0).sqrt()
    weights = torch.sinc(distance) * torch.special.i0(beta * radius)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


class SlabInterpolation(nn.Module):
    """Separable windowed-sinc interpolation of a slab, close to zero-filling but local, so that tiles agree.

    Sums of shifted copies rather than convolutions: autocast leaves them in the input's precision.

    Args:
        scale_factor: integer factors along ``(H, W, slices)``.
        num_taps: even numbers of neighbours along ``(H, W, slices)``; beyond the borders the last sample is replicated.
    """

    def __init__(self, scale_factor: Sequence[int], num_taps: Sequence[int] = (32, 32, 32)) -> None:
        super().__init__()
        self.scale_factor = [int(s) for s in scale_factor]
        for name, factor, taps in zip(("rows", "columns", "slices"), self.scale_factor, num_taps, strict=True):
            self.register_buffer(name, windowed_sinc(factor, taps), persistent=False)

    def forward(self, slab: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """``(B, S, H, W)`` to ``(B, S * s_z, s_h * H, s_w * W)``; or the part of it that begins on the rows from
        ``start`` to ``end`` of the slab, as it is in the whole."""
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
