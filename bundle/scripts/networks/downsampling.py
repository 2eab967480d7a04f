r"""Down-sampling: linear, predefined or learned, on the grid where LR voxel $l$ sits on HR voxel $sl$."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.physics.interpolation import interpolate_cubic

from .initialization import initialize
from .interpolation import KAISER_BETA
from .super_resolution import check_geometry

RADIUS = 6
"""Reach of the learned kernel in HR voxels: that of convolutions of 7, 5 and 3 together."""


class CubicDownsampling(nn.Module):
    """Anti-aliased cubic down-sampling: the transpose of cubic interpolation, borders replicated.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        centred: place LR voxels in the centre of their block of HR voxels, as ``imresize`` does. k-space truncation
            places them at its beginning.

    Example:
        >>> CubicDownsampling((2, 2, 1))(torch.rand(1, 1, 8, 8, 3)).shape
        torch.Size([1, 1, 4, 4, 3])
    """

    def __init__(self, scale_factor: Sequence[int] = (2, 2, 2), centred: bool = False) -> None:
        super().__init__()
        self.in_plane, self.through_plane = check_geometry(scale_factor, 1)
        self.factors = [self.in_plane, self.in_plane, self.through_plane]
        impulse = torch.zeros(5, dtype=torch.float64)
        impulse[2] = 1
        for factor in {self.in_plane, self.through_plane} - {1}:
            taps = interpolate_cubic(impulse, factor, 0, centred=centred) / factor
            self.register_buffer(f"taps_{factor}", taps.float(), persistent=False)

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR slab ``(B, S * s_z, s * H, s * W)`` to the LR slab ``(B, S, H, W)``."""
        for axis, factor in ((1, self.through_plane), (2, self.in_plane), (3, self.in_plane)):
            high_res = self._downsample(high_res, axis, factor)
        return high_res

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``."""
        return self.degrade(x[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)

    def _downsample(self, x: Tensor, dim: int, factor: int) -> Tensor:
        """A sum of shifted copies. Autocast leaves it in the input's precision."""
        size, margin = x.shape[dim], 2 * factor
        if factor == 1:
            return x
        index = torch.arange(-margin, size + margin, device=x.device).clamp(0, size - 1)
        padded = x.index_select(dim, index).unflatten(dim, (-1, factor))
        count = size // factor
        taps = getattr(self, f"taps_{factor}").to(x.dtype).unflatten(0, (-1, factor))
        return sum(
            taps[block, phase] * padded.select(dim + 1, phase).narrow(dim, block, count)
            for block in range(len(taps))
            for phase in range(factor)
        )


def low_pass(scale_factor: int) -> Tensor:
    """A Kaiser-windowed sinc that cuts at the LR Nyquist frequency, as 13 taps of sum 1.

    Example:
        >>> low_pass(2).shape
        torch.Size([13])
    """
    offset = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    taps = torch.sinc(offset / scale_factor) * torch.special.i0(KAISER_BETA * (1 - (offset / RADIUS) ** 2).sqrt())
    return taps / taps.sum()


class LinearDegradation(nn.Module):
    r"""The deep linear network of KernelGAN (https://arxiv.org/abs/1909.06581): any blur, then every $s$-th voxel.

    Its convolutions have neither biases nor activations. Together they are one kernel of 13 x 13 x 13 voxels, which is
    applied at once. KernelGAN first matches a bicubic kernel, which would put LR voxels on $2l + 1/2$. Here the layers
    learn the residual to a low-pass filter centred on $sl$. Everything is in float32, because rounding an image to
    bfloat16 is a degradation, too.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        num_features: width.
        seed: seed of the initialisation.

    Example:
        >>> LinearDegradation((2, 2, 1))(torch.rand(1, 1, 8, 8, 3)).shape
        torch.Size([1, 1, 4, 4, 3])
    """

    def __init__(self, scale_factor: Sequence[int] = (2, 2, 2), num_features: int = 16, seed: int = 0) -> None:
        super().__init__()
        in_plane, through_plane = check_geometry(scale_factor, 1)
        self.factors = [in_plane, in_plane, through_plane]
        self.stride = (through_plane, in_plane, in_plane)
        widths = [1, *[num_features] * 5, 1]
        self.layers = nn.Sequential(
            *(
                nn.Conv3d(widths[index], widths[index + 1], size, bias=False)
                for index, size in enumerate((7, 5, 3, 1, 1, 1))
            )
        )
        initialize(self, seed, negative_slope=1.0)
        nn.init.zeros_(self.layers[-1].weight)
        start = reduce(lambda product, taps: product[..., None] * taps, [low_pass(factor) for factor in self.stride])
        self.register_buffer("start", start.float(), persistent=False)

    def kernel(self) -> Tensor:
        """The kernel ``(13, 13, 13)`` of all layers together, with the axes (slices, rows, columns)."""
        impulse = torch.zeros((1, 1, *[4 * RADIUS + 1] * 3), device=self.start.device, dtype=self.start.dtype)
        impulse[..., 2 * RADIUS, 2 * RADIUS, 2 * RADIUS] = 1
        with torch.autocast(impulse.device.type, enabled=False):
            return self.start + self.layers(impulse)[0, 0].flip((0, 1, 2))

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR slab ``(B, S * s_z, s * H, s * W)`` to the LR slab ``(B, S, H, W)``. Borders are replicated."""
        padded = F.pad(high_res.to(self.start.dtype).unsqueeze(1), [RADIUS] * 6, mode="replicate")
        with torch.autocast(padded.device.type, enabled=False):
            return F.conv3d(padded, self.kernel()[None, None], stride=self.stride)[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``."""
        return self.degrade(x[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
