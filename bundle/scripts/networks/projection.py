"""Projection heads: embeddings in which the contrastive loss compares images. Inference does not use them."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from .initialization import initialize

SLOPE = 0.1


class ProjectionHead(nn.Sequential):
    """Six convolutions and a two-layer perceptron, as in the encoder of DASR (https://arxiv.org/abs/2104.00416).

    It maps ``(B, in_channels, H, W)`` to ``(B, embedding_dim)``.

    Args:
        in_channels: number of features, or slices of a slab.
        embedding_dim: length of the embedding.
        num_features: width of the first layers, doubled twice.
        seed: seed of the initialisation.

    Example:
        >>> import torch
        >>> ProjectionHead(6, num_features=4)(torch.rand(2, 6, 16, 16)).shape
        torch.Size([2, 256])
    """

    def __init__(self, in_channels: int, embedding_dim: int = 256, num_features: int = 64, seed: int = 0) -> None:
        widths = [in_channels] + [num_features * factor for factor in (1, 1, 2, 2, 4, 4)]
        layers: list[nn.Module] = []
        for index, (narrow, wide) in enumerate(pairwise(widths)):
            convolution = nn.Conv2d(narrow, wide, 3, stride=2 if index in (2, 4) else 1, padding=1)
            layers += [convolution, nn.BatchNorm2d(wide), nn.LeakyReLU(SLOPE, inplace=True)]
        super().__init__(
            *layers,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], embedding_dim),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(embedding_dim, embedding_dim),
        )
        initialize(self, seed, negative_slope=SLOPE)


class PatchProjectionHead(nn.Sequential):
    """The two-layer perceptron of CUT (https://arxiv.org/abs/2007.15651), for the features of single patches.

    It maps ``(..., in_channels)`` to ``(..., embedding_dim)``.

    Args:
        in_channels: number of features.
        embedding_dim: length of the embedding, and width of the layer before it.
        seed: seed of the initialisation.

    Example:
        >>> import torch
        >>> PatchProjectionHead(64)(torch.rand(2, 10, 64)).shape
        torch.Size([2, 10, 256])
    """

    def __init__(self, in_channels: int, embedding_dim: int = 256, seed: int = 0) -> None:
        super().__init__(
            nn.Linear(in_channels, embedding_dim), nn.ReLU(inplace=True), nn.Linear(embedding_dim, embedding_dim)
        )
        initialize(self, seed)
