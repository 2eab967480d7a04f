"""Streaming: pass a volume through 3-D convolutions in parts along its first axis, with the result of one pass.

Only the features of one part are in memory, and they fit a processor's cache. Nothing is computed twice::

    network = streamed(nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU()))
    network(volume)                                  # the whole volume, as before
    y = network(part, before, after, frames)         # one part

A convolution needs one slice on either side, so each layer keeps a few slices for the next part. It takes those of the
previous part from ``before``, and appends its own to ``after``. Both lists are in the order of the layers. A layer
returns the slices that it can already compute, which may be none. ``told`` holds one tensor per
:class:`FeatureModulation`, in the order of the layers, which take them out of the list. Scriptable.

``frames`` says where each convolution computes, see :func:`frames_of`. Where only some rectangle of every slice is
wanted, a convolution computes it and what the later convolutions read around it. The first entry of the list is where
``x`` lies. Each convolution takes it out, so that the next entry becomes the first.

Several parts pass at a time where :func:`scripts.utils.threads.in_turn` runs them, each behind the previous one.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .slabs import channels_last
from .ts_rcan import Residual

logger = logging.getLogger(__name__)


def cropped(x: Tensor, margins: list[int], frame: list[int]) -> Tensor:
    """What lies in a frame, of ``x``, which has other ``margins``: left, right, top, bottom, in the last two axes."""
    rows, columns = x.shape[3] - frame[3] + margins[3], x.shape[4] - frame[1] + margins[1]
    return x[:, :, :, frame[2] - margins[2] : rows, frame[0] - margins[0] : columns]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """A 3 x 3 x 3 convolution.

    PyTorch gives float32 convolutions of one small volume on a processor to a slow kernel, at a tenth of the speed.
    Here they go to oneDNN, as larger ones do.
    """
    own = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    own = own or torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available()
    if own or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.conv3d(x, weight, bias, padding=padding)
    return torch.mkldnn_convolution(x, weight, bias, padding, [1, 1, 1], [1, 1, 1], 1)


class StreamedConv3d(nn.Conv3d):
    """A 3 x 3 x 3 convolution with stride 1 and padding 1. It keeps two slices of its input."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        frames: list[list[int]] | None = None,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        if before is None or after is None or frames is None:
            return self._convolved(x, [1, 1, 1])
        margins, frame = frames.pop(0), frames[0]
        border = torch.zeros([x.shape[0], x.shape[1], 1, x.shape[3], x.shape[4]], dtype=x.dtype, device=x.device)
        given = cropped(before.pop(0), [0, 0, 0, 0], margins) if len(before) > 0 else border
        kept = x if x.shape[2] > 1 else torch.cat([given, x], dim=2)
        after.append(F.pad(kept[:, :, -2:], margins[:4]))
        slices = [given, x, border] if frame[4] == 1 else [given, x]
        joined = channels_last(torch.cat([cropped(one, margins, frame) for one in slices], dim=2))
        if joined.shape[2] < 3:
            return joined.new_zeros([x.shape[0], self.out_channels, 0, joined.shape[3], joined.shape[4]])
        return self._convolved(joined, [0, 1, 1])

    def _convolved(self, x: Tensor, padding: list[int]) -> Tensor:
        if torch.jit.is_scripting():
            return self.extended(F.conv3d(x, self.weight, self.bias, padding=padding), x, padding)
        return self.extended(convolve(x, self.weight, self.bias, padding), x, padding)

    def extended(self, own: Tensor, x: Tensor, padding: list[int]) -> Tensor:
        """The result ``own`` of ``x``, and the channels that a subclass puts behind it."""
        return own


class StreamedReLU(nn.ReLU):
    """A rectifier. It keeps nothing."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        frames: list[list[int]] | None = None,
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
        frames: list[list[int]] | None = None,
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
        frames: list[list[int]] | None = None,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        for layer in self:
            x = layer(x, before, after, frames, told)
        return x


class StreamedResidual(Residual):
    """``x + layers(x)``. It keeps the slices of ``x`` that its layers cannot compute yet."""

    def forward(
        self,
        x: Tensor,
        before: list[Tensor] | None = None,
        after: list[Tensor] | None = None,
        frames: list[list[int]] | None = None,
        told: list[Tensor] | None = None,
    ) -> Tensor:
        margins = [0, 0, 0, 0, 0] if frames is None else frames[0]
        y = x
        for layer in self:
            y = layer(y, before, after, frames, told)
        if before is None or after is None or frames is None:
            return x + y
        if len(before) > 0:
            x = torch.cat([cropped(before.pop(0), [0, 0, 0, 0], margins), x], dim=2)
        ready = y.shape[2]
        after.append(F.pad(x[:, :, ready:], margins[:4]))
        return y.add_(cropped(x[:, :, :ready], margins, frames[0]))


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
        >>> layers, volume, state = streamed(Residual(nn.Conv3d(1, 1, 3, padding=1))), torch.rand(1, 1, 6, 4, 4), []
        >>> frames = [frames_of([[0, 4, 0, 4]] * 6, [4, 4], 1, start, start + 3) for start in (0, 3, 6)]
        >>> parts = [layers(volume[:, :, :3], [], first := [], frames[0])]
        >>> parts += [layers(volume[:, :, 3:], first, second := [], frames[1])]
        >>> parts += [layers(volume[:, :, 6:], second, [], frames[2])]  # a part without slices lets the last one out
        >>> torch.allclose(torch.cat(parts, dim=2), layers(volume), atol=1e-6)
        True
    """
    for layer in module.modules():
        layer.__class__ = STREAMED[type(layer)]
    return module


def rectangles_around(tissue: Tensor, shape: list[int]) -> list[list[int]]:
    """The rectangle around the tissue in every slice of blocks of 2 x 2 x 2 voxels, see :func:`frames_of`.

    Args:
        tissue: blocks of 4 x 4 x 4 voxels, ``(B, 1, h, w, d)``. Volumes of a batch share their rectangles.
        shape: number of blocks of 2 x 2 x 2 voxels along each axis.

    Raises:
        ValueError: when the blocks do not cover that shape.

    Example:
        >>> rectangles_around(torch.tensor([0, 1, 0]).reshape(1, 1, 1, 3, 1), [2, 6, 1])
        [[2, 4, 0, 1], [2, 4, 0, 1]]
    """
    if list(tissue.shape[2:]) != [(size + 1) // 2 for size in shape]:
        raise ValueError(f"tissue must have a block per 4 x 4 x 4 voxels of the volume, got {list(tissue.shape)}.")
    marked = (tissue > 0).flatten(0, 1).any(0)
    rectangles: list[list[int]] = []
    for index in range(shape[0]):
        places = marked[index // 2].nonzero()
        rectangle = [shape[1], 0, shape[2], 0]
        if len(places) > 0:
            low, high = 2 * places.amin(0), 2 * places.amax(0) + 2
            rectangle = [int(low[0]), min(int(high[0]), shape[1]), int(low[1]), min(int(high[1]), shape[2])]
        rectangles.append(rectangle)
    return rectangles


def frames_of(rectangles: list[list[int]], plane: list[int], reach: int, start: int, end: int) -> list[list[int]]:
    """Where each of ``reach`` convolutions computes, for the part of the slices from ``start`` to ``end``.

    A voxel depends on one more voxel around it with every convolution. So what is needed before the last convolution is
    one voxel larger than the rectangles, and so on. The slices also spread: convolution ``k`` of a part returns those
    from ``start - k`` to ``end - k``. Parts go on behind the last slice, by ``reach`` slices, until all have returned.

    Args:
        rectangles: of every slice, what is wanted: first row, last row plus 1, first column, last column plus 1.
            ``[rows, 0, columns, 0]`` where nothing is wanted.
        plane: rows and columns of a slice.
        reach: number of convolutions.
        start: first slice of the part.
        end: last slice of the part plus 1.

    Returns:
        what enters, then what each convolution computes: margins left, right, top and bottom, and 1 where the
        convolution meets the end of the volume, else 0.

    Example:
        >>> frames_of([[2, 6, 2, 6]], [8, 8], reach=2, start=0, end=3)
        [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    """
    rows, columns = plane[0], plane[1]
    frames: list[list[int]] = []
    for layer in range(reach + 1):
        around = reach - layer + 1  # what the later convolutions read, and one voxel that this one reads
        top, bottom, left, right = rows, 0, columns, 0
        for wanted in rectangles[max(0, start - reach) : max(0, end + reach - 2 * layer)]:
            top, bottom = min(top, wanted[0]), max(bottom, wanted[1])
            left, right = min(left, wanted[2]), max(right, wanted[3])
        last = int(start - layer < len(rectangles) and len(rectangles) <= end - layer)
        if bottom > top:
            frame = [max(0, left - around), max(0, columns - right - around)]
            frames.append([frame[0], frame[1], max(0, top - around), max(0, rows - bottom - around), last])
        else:  # nothing is wanted: one voxel, inside of the previous frame
            left, top = (frames[-1][0], frames[-1][2]) if len(frames) > 0 else (0, 0)
            frames.append([left, columns - left - 1, top, rows - top - 1, last])
    return frames


def share_computed(rectangles: list[list[int]], plane: list[int], reach: int, step: int) -> float:
    """The share of the convolutions' voxels that parts of ``step`` slices compute, see :func:`frames_of`.

    Example:
        >>> share_computed([[3, 5, 3, 5]] * 8, [8, 8], reach=1, step=4)  # and a voxel around
        0.25
    """
    rows, columns = plane[0], plane[1]
    computed = 0
    for start in range(0, len(rectangles) + reach, step):
        for layer, frame in enumerate(frames_of(rectangles, plane, reach, start, start + step)):
            slices = min(start + step - layer, len(rectangles)) - max(0, start - layer)
            if layer > 0 and slices > 0:
                computed += slices * (columns - frame[0] - frame[1]) * (rows - frame[2] - frame[3])
    return computed / (reach * len(rectangles) * rows * columns)


def log_share(rectangles: list[list[int]], plane: list[int], reach: int, step: int) -> None:
    """Log :func:`share_computed` where some slice is not wanted as a whole."""
    if any(wanted != [0, plane[0], 0, plane[1]] for wanted in rectangles):
        share = share_computed(rectangles, plane, reach, step)
        logger.info("The network computes %.0f %% of what the whole volume takes.", 100 * share)
