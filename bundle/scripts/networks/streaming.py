"""Streaming: pass a volume through 3-D convolutions in parts along its first axis, with the result of one pass.

Only the features of one part are in memory, and they fit a processor's cache. Nothing is computed twice::

    network = streamed(nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU()))
    network(volume)                                  # the whole volume, as before
    y = network(part, before, after, last=False)     # one part

A convolution needs one slice on either side, so each layer keeps a few slices for the next part. It takes those of the
previous part from ``before``, and appends its own to ``after``. Both lists are in the order of the layers. A layer
returns the slices that it can already compute. ``last`` marks the last part. ``told`` holds one tensor per
:class:`FeatureModulation`, in the order of the layers, which take them out of the list. Scriptable.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ts_rcan import Residual


class StreamedConv3d(nn.Conv3d):
    """A 3 x 3 x 3 convolution with stride 1 and padding 1. It keeps two slices of its input."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        last: bool = True,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        if before is None or after is None:
            return self.convolve(x, 1)
        border = torch.zeros_like(x[:, :, :1])
        slices = [before.pop(0) if len(before) > 0 else border, x]
        if last:
            slices.append(border)
        joined = torch.cat(slices, dim=2)
        after.append(joined[:, :, -2:].clone())
        return self.convolve(joined, 0)

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        """Convolve, with ``padding`` slices of zeros at either end of the first axis."""
        return F.conv3d(x, self.weight, self.bias, padding=[padding, 1, 1])


class StreamedReLU(nn.ReLU):
    """A rectifier. It keeps nothing."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        last: bool = True,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        return F.relu(x, inplace=self.inplace)


class FeatureModulation(nn.Module):
    """Scale and shift each feature (FiLM, https://arxiv.org/abs/1709.07871). It keeps nothing.

    It takes its values ``(B, 2 * C, 1, 1, 1)`` out of ``told``: what is added to a scale of 1, then the shifts. Without
    values the features stay.
    """

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        last: bool = True,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        if told is None or len(told) == 0:
            return x
        scale, shift = told.pop(0).chunk(2, dim=1)
        return torch.addcmul(shift, x, 1.0 + scale)


class StreamedSequential(nn.Sequential):
    """Layers one after the other."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        last: bool = True,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        for layer in self:
            x = layer(x, before, after, last, told)
        return x


class StreamedResidual(Residual):
    """``x + layers(x)``. It keeps the slices of ``x`` that its layers cannot compute yet."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        last: bool = True,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        y = x
        for layer in self:
            y = layer(y, before, after, last, told)
        if before is None or after is None:
            return x + y
        waiting = torch.cat([before.pop(0), x], dim=2) if len(before) > 0 else x
        ready = y.shape[2]
        after.append(waiting[:, :, ready:].clone())
        return y.add_(waiting[:, :, :ready])


STREAMED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: StreamedConv3d,
    nn.ReLU: StreamedReLU,
    FeatureModulation: FeatureModulation,
    nn.Sequential: StreamedSequential,
    Residual: StreamedResidual,
}


def streamed(module: nn.Module) -> nn.Module:
    """Make a network of ordinary layers pass volumes in parts. Its weights and their names stay.

    Args:
        module: a network of the layers in :data:`STREAMED`, which is changed in place.

    Raises:
        KeyError: when it has another kind of layer.

    Example:
        >>> layers, state = streamed(Residual(nn.Conv3d(1, 1, 3, padding=1))), []
        >>> volume = torch.rand(1, 1, 6, 4, 4)
        >>> parts = [layers(volume[:, :, :3], [], state, last=False), layers(volume[:, :, 3:], state, [])]
        >>> torch.allclose(torch.cat(parts, dim=2), layers(volume), atol=1e-6)
        True
    """
    for layer in module.modules():
        layer.__class__ = STREAMED[type(layer)]
    return module
