"""Layers that take a volume in parts along its first axis, so that only features of one part are in memory. Scriptable.

Each layer takes a part ``x`` of its input. From ``before`` it takes the slices that it kept of the previous part. It
appends to ``after`` the slices that it keeps for the next part. It returns the slices that it can compute by now. Both
lists are in the order of the layers, and ``last`` marks the last part. Nothing is computed twice, and the features of
one part fit a processor's cache. Without the two lists a layer takes a whole volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ts_rcan import Residual


class StreamedConv3d(nn.Conv3d):
    """A 3 x 3 x 3 convolution with padding 1. In parts it needs a stride of 1."""

    def forward(
        self, x: Tensor, before: list[Tensor] | None = None, after: list[Tensor] | None = None, last: bool = True
    ) -> Tensor:
        if before is None or after is None:
            return self._conv_forward(x, self.weight, self.bias)
        border = torch.zeros_like(x[:, :, :1])
        slices = [before.pop(0) if len(before) > 0 else border, x]
        if last:
            slices.append(border)
        joined = torch.cat(slices, dim=2)
        after.append(joined[:, :, -2:].clone())
        return F.conv3d(joined, self.weight, self.bias, padding=[0, 1, 1])


class StreamedReLU(nn.ReLU):
    """A rectifier, which keeps nothing."""

    def forward(
        self, x: Tensor, before: list[Tensor] | None = None, after: list[Tensor] | None = None, last: bool = True
    ) -> Tensor:
        return F.relu(x, inplace=self.inplace)


class StreamedSequential(nn.Sequential):
    """Layers one after the other."""

    def forward(
        self, x: Tensor, before: list[Tensor] | None = None, after: list[Tensor] | None = None, last: bool = True
    ) -> Tensor:
        for layer in self:
            x = layer(x, before, after, last)
        return x


class StreamedResidual(Residual):
    """``x + layers(x)``. Slices of ``x`` wait until the layers have computed theirs.

    Example:
        >>> layers, volume, state = StreamedResidual(conv3x3x3(1, 1)), torch.rand(1, 1, 6, 4, 4), []
        >>> first = layers(volume[:, :, :3], [], state, last=False)
        >>> rest = layers(volume[:, :, 3:], state, [])
        >>> torch.allclose(torch.cat([first, rest], dim=2), layers(volume), atol=1e-6)
        True
    """

    def forward(
        self, x: Tensor, before: list[Tensor] | None = None, after: list[Tensor] | None = None, last: bool = True
    ) -> Tensor:
        y = x
        for layer in self:
            y = layer(y, before, after, last)
        if before is None or after is None:
            return x + y
        waiting = torch.cat([before.pop(0), x], dim=2) if len(before) > 0 else x
        ready = y.shape[2]
        after.append(waiting[:, :, ready:].clone())
        return y.add_(waiting[:, :, :ready])


def conv3x3x3(in_channels: int, out_channels: int, stride: Sequence[int] = (1, 1, 1)) -> StreamedConv3d:
    return StreamedConv3d(in_channels, out_channels, kernel_size=3, stride=tuple(stride), padding=1)
