"""Error head: a small branch beside the last convolution of a trained network, which predicts the scale of its error.

Its file stands beside the weights, which stay as they are::

    network = FoldedNet().add_error_head()
    restored, scale = network(volume).split(1, dim=1)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .initialization import initialize
from .streaming import StreamedConv3d

HEAD = ".error_head."  # in the names of its parameters within a network
LOG_SCALE = -4.0  # where its training starts: errors of about 2 % of white


class ErrorHead(nn.Module):
    """The logarithm of the scale of the error, from the features in front of the last convolution.

    A convolution, ReLU and a pointwise convolution. It sees as far as the last convolution, and streams with it.

    Args:
        in_channels: features in front of the last convolution.
        out_channels: results of the last convolution.
        num_features: width.
        seed: seed of the initialisation.

    Example:
        >>> ErrorHead(32, 8, 16)(torch.rand(1, 32, 4, 4, 4), padding=1).unique().item()
        -4.0
    """

    def __init__(self, in_channels: int, out_channels: int, num_features: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Conv3d(in_channels, num_features, kernel_size=3, padding=1)
        self.log_scale = nn.Conv3d(num_features, out_channels, kernel_size=1)
        initialize(self, seed)
        nn.init.zeros_(self.log_scale.weight)
        nn.init.constant_(self.log_scale.bias, LOG_SCALE)

    def forward(self, x: Tensor, padding: int) -> Tensor:
        """Features ``(B, C, H, W, D)`` to ``(B, N, ...)``, see :meth:`.streaming.StreamedConv3d.convolve`."""
        y = F.conv3d(x, self.features.weight, self.features.bias, padding=[padding, 1, 1])
        return self.log_scale(F.relu(y)).clamp(-12.0, 0.0)  # at most white


class ConvWithHead(StreamedConv3d):
    """A convolution with an error head beside it, whose channels follow its own. These stay as they are, bit by bit.

    Args:
        conv: the convolution, whose parameters it shares.
        error_head: the head.

    Example:
        >>> conv = nn.Conv3d(32, 8, 3, padding=1)
        >>> ConvWithHead(conv, ErrorHead(32, 8))(torch.rand(1, 32, 4, 4, 4)).shape
        torch.Size([1, 16, 4, 4, 4])
    """

    def __init__(self, conv: nn.Conv3d, error_head: ErrorHead) -> None:
        super().__init__(conv.in_channels, conv.out_channels, kernel_size=3, padding=1)
        self.weight, self.bias = conv.weight, conv.bias
        self.error_head = error_head

    def convolve(self, x: Tensor, padding: int) -> Tensor:
        own = F.conv3d(x, self.weight, self.bias, padding=[padding, 1, 1])
        return torch.cat([own, self.error_head(x, padding)], dim=1)
