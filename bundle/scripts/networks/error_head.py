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
MAGNITUDE = 0.08  # of features and residuals of a trained network, on average


def centred_magnitude(x: Tensor, typical: float = MAGNITUDE) -> Tensor:
    """``|x|`` around 0 at unit size. An error is as large where detail is bright as where it is dark.

    Example:
        >>> centred_magnitude(torch.tensor([-0.08, 0.08, 0.16]))
        tensor([0., 0., 1.])
    """
    return x.abs() / typical - 1


class ErrorHead(nn.Module):
    """The logarithm of the scale of the error, from the features in front of the last convolution and its residual.

    Magnitudes of the features pass a convolution and ReLU. A pointwise convolution adds those of the residual. The head
    sees as far as the last convolution, and streams with it.

    Args:
        in_channels: features in front of the last convolution.
        out_channels: results of the last convolution.
        num_features: width.
        seed: seed of the initialisation.

    Example:
        >>> features, residual = torch.rand(1, 32, 4, 4, 4), torch.rand(1, 8, 4, 4, 4)
        >>> ErrorHead(32, 8)(features, residual, padding=[1, 1, 1]).unique().item()
        -4.0
    """

    def __init__(self, in_channels: int, out_channels: int, num_features: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.features = nn.Conv3d(in_channels, num_features, kernel_size=3)
        self.log_scale = nn.Conv3d(num_features + out_channels, out_channels, kernel_size=1)
        initialize(self, seed)
        nn.init.zeros_(self.log_scale.weight)
        nn.init.constant_(self.log_scale.bias, LOG_SCALE)

    def forward(self, x: Tensor, residual: Tensor, padding: list[int]) -> Tensor:
        """Features ``(B, C, H, W, D)`` and residual ``(B, N, ...)`` to the latter's shape.

        ``padding`` is that of the last convolution, whose zeros are features, too.
        """
        y = F.relu(self.features(centred_magnitude(F.pad(x, [1, 1, 1, 1, padding[0], padding[0]]))))
        return self.log_scale(torch.cat([y, centred_magnitude(residual)], dim=1)).clamp(-12.0, 0.0)  # at most white


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
        super().__init__(conv.in_channels, 2 * conv.out_channels, kernel_size=3, padding=1)
        self.weight, self.bias = conv.weight, conv.bias
        self.error_head = error_head

    def extended(self, own: Tensor, x: Tensor, padding: list[int]) -> Tensor:
        return torch.cat([own, self.error_head(x, own, padding)], dim=1)
