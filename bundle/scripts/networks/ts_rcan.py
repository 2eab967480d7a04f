"""TS-RCAN, the thin-slab residual channel-attention network: UDEAN's decoders and the encoders that feed them.

TS-RCAN (https://arxiv.org/abs/2111.14259) is RCAN (https://arxiv.org/abs/1807.02758) with slices as channels. It has
five groups of five blocks and no mean shift. All convolutions are 2-D.
"""

from __future__ import annotations

from torch import Tensor, nn

from .initialization import RESIDUAL_SCALE, initialize, rescale

LEAKY_SLOPE = 0.2


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)


class ChannelAttention(nn.Module):
    """Scale each channel by a gate in (0, 1), which depends on the means of all channels over the image."""

    def __init__(self, num_features: int, reduction: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(num_features, num_features // reduction, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_features // reduction, num_features, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Residual(nn.Sequential):
    """``x + layers(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return x + y


def residual_block(num_features: int, reduction: int) -> Residual:
    """RCAB: convolution, ReLU, convolution, channel attention, and the skip around them."""
    return Residual(
        conv3x3(num_features, num_features),
        nn.ReLU(inplace=True),
        conv3x3(num_features, num_features),
        ChannelAttention(num_features, reduction),
    )


def residual_group(num_features: int, num_blocks: int, reduction: int) -> Residual:
    """RG: residual blocks, a convolution, and the skip around them."""
    blocks = [residual_block(num_features, reduction) for _ in range(num_blocks)]
    return Residual(*blocks, conv3x3(num_features, num_features))


class TSRCANDecoder(nn.Module):
    """Features to the slices of a slab: a convolution, residual groups with a long skip, up-sampling, a convolution.

    No activation follows the last convolution, because the output of a final ReLU can become zero for good.

    Args:
        out_channels: slices of the output slab.
        upsample_factor: in-plane factor of the pixel shuffle. With 1 there are no up-sampling layers.
        num_features: width.
        num_groups: residual groups.
        num_blocks: blocks per group.
        reduction: squeeze of the channel attention.
        zero_last: start with an output of zero, the residual to a skip. Otherwise the output has the input's scale.
        seed: seed of the initialisation.

    Example:
        >>> import torch
        >>> TSRCANDecoder(out_channels=6, upsample_factor=2, num_groups=1)(torch.rand(1, 64, 8, 8)).shape
        torch.Size([1, 6, 16, 16])
    """

    def __init__(
        self,
        out_channels: int,
        upsample_factor: int = 1,
        num_features: int = 64,
        num_groups: int = 5,
        num_blocks: int = 5,
        reduction: int = 16,
        zero_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.head = conv3x3(num_features, num_features)
        groups = [residual_group(num_features, num_blocks, reduction) for _ in range(num_groups)]
        self.body = Residual(*groups, conv3x3(num_features, num_features))
        self.upsample = nn.Sequential()
        if upsample_factor > 1:
            self.upsample = nn.Sequential(
                conv3x3(num_features, num_features * upsample_factor**2), nn.PixelShuffle(upsample_factor)
            )
        self.last = conv3x3(num_features, out_channels)
        self._initialize(seed, zero_last)

    def _initialize(self, seed: int, zero_last: bool) -> None:
        initialize(self, seed)
        for branch in self.modules():
            if isinstance(branch, Residual):
                rescale([layer for layer in branch if isinstance(layer, nn.Conv2d)][-1], RESIDUAL_SCALE)
        for layer in (self.head, self.last, *self.upsample):
            if isinstance(layer, nn.Conv2d):
                rescale(layer, gain=1.0)
        if zero_last:
            nn.init.zeros_(self.last.weight)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, num_features, H, W)`` to ``(B, out_channels, s * H, s * W)``."""
        return self.last(self.upsample(self.body(self.head(features))))


class SlabEncoder(nn.Sequential):
    """Six convolutions with LeakyReLU between them: the LR encoder or, with a stride, the down-sampling extractor.

    No activation follows the last convolution, so that features keep their sign. The kernel of the first convolution is
    centred on voxel ``stride * l`` for output voxel ``l``.

    Args:
        in_channels: slices of the input slab.
        stride: in-plane stride of the first convolution.
        num_features: width.
        seed: seed of the initialisation.

    Example:
        >>> import torch
        >>> SlabEncoder(in_channels=3, stride=2)(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 64, 4, 4])
    """

    def __init__(self, in_channels: int, stride: int = 1, num_features: int = 64, seed: int = 0) -> None:
        layers: list[nn.Module] = [conv3x3(in_channels, num_features, stride)]
        for _ in range(5):
            layers += [nn.LeakyReLU(LEAKY_SLOPE, inplace=True), conv3x3(num_features, num_features)]
        super().__init__(*layers)
        initialize(self, seed, negative_slope=LEAKY_SLOPE)
        rescale(layers[-1], gain=1.0, negative_slope=LEAKY_SLOPE)
