"""How the networks start: seeded one by one, with the signal's scale kept from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn

RESIDUAL_SCALE = 0.1
"""Gain of the last convolution of every residual branch, so that blocks start near the identity."""


def initialize(module: nn.Module, seed: int, negative_slope: float = 0.0) -> None:
    """He initialisation of every convolution and linear layer from the module's own generator.

    PyTorch's default halves the signal at every convolution, which leaves one hundredth of it after the six of an
    encoder, and Adam then learns the biases first. A network draws from its own generator so that its start depends on
    ``seed`` alone, not on what else a config instantiates before it.

    Args:
        module: network whose parameters are overwritten in the order of ``module.modules()``.
        seed: seed of the generator.
        negative_slope: slope of the activations that follow the layers, 0 for ReLU, 1 for none.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def rescale(layer: nn.Conv2d, gain: float, negative_slope: float = 0.0) -> None:
    """Give an initialised layer that no activation follows ``gain`` instead of the activation's."""
    layer.weight.mul_(gain / math.sqrt(2.0 / (1.0 + negative_slope**2)))
