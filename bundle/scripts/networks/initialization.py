"""Initialisation: each network starts from its own seed, and the signal keeps its scale from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn

RESIDUAL_SCALE = 0.1
"""Gain of the last convolution of every residual branch, so that blocks start near the identity."""


def initialize(module: nn.Module, seed: int, negative_slope: float = 0.0) -> None:
    """He initialisation of every convolution and linear layer, from a generator of its own.

    PyTorch's default halves the signal at every convolution. After the six convolutions of an encoder one hundredth is
    left, and Adam then learns the biases first. The start depends on ``seed`` alone, not on the order of a config.

    Args:
        module: network whose parameters are overwritten in the order of ``module.modules()``.
        seed: seed of the generator.
        negative_slope: slope of the activations that follow the layers, 0 for ReLU, 1 for none.

    Example:
        >>> layer = nn.Linear(1000, 1000)
        >>> initialize(layer, seed=0, negative_slope=1.0)
        >>> round(layer.weight.std().item() * 1000**0.5, 2)
        1.0
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def rescale(layer: nn.Conv2d, gain: float, negative_slope: float = 0.0) -> None:
    """Give an initialised layer ``gain`` instead of its activation's gain.

    Example:
        >>> layer = nn.Conv2d(100, 100, 3)
        >>> initialize(layer, seed=0)
        >>> rescale(layer, gain=1.0)
        >>> round(layer.weight.std().item() * 900**0.5, 2)
        1.0
    """
    layer.weight.mul_(gain / math.sqrt(2.0 / (1.0 + negative_slope**2)))
