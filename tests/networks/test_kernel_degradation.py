"""A degradation of seven numbers: it starts as the truncation, with the stated kernel and noise."""

from __future__ import annotations

import math

import pytest
import torch
from scripts.networks import KernelDegradationNet
from scripts.networks.kernel_degradation import NOISE_RATE, START_NOISE


def kernel(*taps: float, noise: float = 0.0) -> KernelDegradationNet:
    network = KernelDegradationNet((2, 2, 1), num_features=4, rate=1.0)
    with torch.no_grad():
        network.taps[0, : len(taps)] = torch.tensor(taps)
        network.noise.fill_(noise)
    return network


def test_the_untrained_kernel_is_the_truncation():
    slab = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    network = kernel()
    torch.testing.assert_close(network.truncate(slab), super(KernelDegradationNet, network).truncate(slab))
    assert sum(parameter.numel() for parameter in (network.taps, network.noise)) == 7


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 1.0])
def test_the_kernel_has_the_stated_modulation_transfer(u):
    taps = (0.15, -0.02)
    wave = torch.cos(math.pi * u * torch.arange(64)).reshape(1, 1, 64, 1).expand(1, 3, 64, 8)
    network = kernel(*taps)
    network.factors = [1, 1, 1]  # an LR slab as it is
    expected = 1 - 2 * sum(tap * (1 - math.cos(math.pi * r * u)) for r, tap in enumerate(taps, start=1))
    torch.testing.assert_close(network.truncate(wave)[:, :, 3:-3], expected * wave[:, :, 3:-3], atol=1e-5, rtol=0)


def test_the_noise_is_that_of_a_magnitude():
    torch.manual_seed(0)
    air = kernel(noise=1 / NOISE_RATE).add_noise(torch.zeros(1, 3, 64, 64))
    assert float(air.detach().mean()) == pytest.approx(START_NOISE * math.e * math.sqrt(math.pi / 2), rel=0.02)


def test_what_compares_degraded_images_moves_all_seven_numbers():
    network = kernel()
    degraded = network.degrade(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    degraded.square().sum().backward()
    assert bool((network.taps.grad != 0).all())
    assert float(network.noise.grad) != 0
