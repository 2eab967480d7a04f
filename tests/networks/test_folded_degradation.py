"""Degradation on the output grid: physics at the start, the band of an LR scan, features like those of FoldedNet."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import (
    CubicDownsampling,
    FoldedDegradationNet,
    FoldedNet,
    FoldedTranslationNet,
    InterpolatedDownsampling,
)
from scripts.networks.folded_degradation import limit_band
from scripts.physics.degradation import known_degradation
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import KSpaceTruncate
from torch import Tensor, nn

TINY = {"num_features": 8, "num_groups": 2, "num_blocks": 1}
FACTORS = pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
SHAPES = pytest.mark.parametrize("shape", [(16, 16, 8), (15, 16, 9)])


def trained(network: nn.Module) -> nn.Module:
    """A network none of whose layers is zero."""
    nn.init.normal_(network.decoder[-1].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return network.eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int) -> Tensor:
    """A volume that ends well before its borders, with detail."""
    x = noise(1, 1, *shape)
    for dim, size in enumerate(shape, start=2):
        x = x * torch.hann_window(size, periodic=False).reshape([-1 if d == dim else 1 for d in range(5)])
    return x


@FACTORS
@SHAPES
def test_untrained_it_is_the_truncation_zero_filled(scale_factor, shape):
    x = noise(2, 1, *shape)
    network = FoldedDegradationNet(scale_factor, **TINY)
    assert torch.equal(network.degrade(x), limit_band(x, scale_factor))
    assert torch.equal(network(x), network.degrade(x))


@FACTORS
def test_the_truncation_of_a_crop_is_that_of_the_volume_away_from_borders(scale_factor):
    x = smooth(48, 40, 32)
    matrix = [n // s for n, s in zip(x.shape[2:], scale_factor, strict=True)]
    expected = zero_fill(truncate(x, matrix, (2, 3, 4)), x.shape[2:], (2, 3, 4))
    made = limit_band(x, scale_factor)
    inner = (..., slice(8, -8), slice(8, -8), slice(8, -8))
    assert (made - expected)[inner].std() < 0.2 * (x - expected)[inner].std()  # for white noise


@FACTORS
@SHAPES
@torch.no_grad()
def test_what_it_makes_has_the_band_of_a_scan(scale_factor, shape):
    """Beyond that band a cycle could hide what it has to restore."""
    network, x = trained(FoldedDegradationNet(scale_factor, **TINY)), noise(2, 1, *shape)
    made = network.degrade(x)
    assert (made - network.truncate(x)).std() > 1e-3
    torch.testing.assert_close(limit_band(made, scale_factor), made, atol=1e-5, rtol=0)


@SHAPES
@torch.no_grad()
def test_both_networks_make_features_of_one_shape_that_the_other_decodes(shape):
    x = noise(2, 1, *shape)
    network, degradation = trained(FoldedNet(**TINY, scale_factor=(2, 2, 2))), trained(FoldedDegradationNet(**TINY))
    features = [one.encode(x) for one in (network, degradation)]
    assert features[0].shape == features[1].shape == (2, 8 * ((shape[2] + 1) // 2), (shape[0] + 1) // 2, shape[1] // 2)
    assert network.decode(features[1], x).shape == degradation.decode(features[0], x).shape == x.shape


def test_terms_compare_slices_as_channels():
    x = noise(2, 1, 6, 5, 4)
    for network in (FoldedNet(**TINY), FoldedDegradationNet(**TINY)):
        made = network.compared(image=x)["image"]
        assert torch.equal(made, x[:, 0].movedim(-1, 1))


@torch.no_grad()
def test_an_estimate_weights_the_band_and_its_noise_is_new_each_time():
    x = smooth(48, 40, 32)
    estimate = known_degradation(hamming=True)
    true, plain = (
        zero_fill(KSpaceTruncate(2, hamming=one)(x[0]).as_tensor()[None], x.shape[2:], (2, 3, 4))
        for one in (True, False)
    )
    made = FoldedDegradationNet(**TINY, estimate=estimate)(x)
    assert (made - true).std() < 0.2 * (plain - true).std()
    noisy = FoldedDegradationNet(**TINY, estimate=estimate._replace(noise_std=0.2, filtered_noise=False))
    silent = torch.zeros(2, 1, 64, 64, 33)
    torch.manual_seed(0)
    first, second = noisy.degrade(silent), noisy.degrade(silent)
    assert float(first.std()) == pytest.approx(0.2, rel=0.1)
    assert not torch.equal(first, second)


def test_a_translation_starts_as_the_identity_and_may_have_noise():
    x = noise(2, 1, 8, 7, 6)
    assert torch.equal(FoldedTranslationNet(**TINY).translate(x), x)
    network = trained(FoldedTranslationNet(**TINY, noise=True))
    outputs = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        outputs.append(network(x))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.allclose(outputs[0], outputs[1])


def test_a_downsampling_is_zero_filled_and_keeps_its_voxels():
    x = smooth(16, 16, 12)
    downsampling = CubicDownsampling()
    made = InterpolatedDownsampling(downsampling).degrade(x)
    torch.testing.assert_close(made[..., ::2, ::2, ::2], downsampling(x), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match=r"multiples of \[2, 2, 2\], got \[15, 16, 12\]"):
        InterpolatedDownsampling(downsampling).degrade(x[:, :, 1:])


def test_a_network_of_one_factor_is_told_it_once():
    network = FoldedNet(**TINY, scale_factor=(2, 2, 1))
    nn.init.normal_(network.modulation[-1].weight, std=0.1)
    trained(network)
    x, told = noise(2, 1, 6, 6, 6), torch.tensor([[0, -0.5, 0, 0, -0.5, 0, -0.5, -0.5, 0]]).expand(2, -1)
    assert torch.equal(network(x), network(x, told))
    assert torch.equal(network.restore(x), network(x))
    blind = FoldedNet(**TINY)
    blind.load_state_dict(network.state_dict())  # inference describes the scan
    assert torch.equal(blind(x, told), network(x))
    assert not torch.equal(blind(x), network(x))


def test_what_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 1, H, W, D\), got \[1, 2, 4, 4, 4\]"):
        FoldedDegradationNet(**TINY)(torch.rand(1, 2, 4, 4, 4))
    with pytest.raises(ValueError, match="scale_factor must be integers"):
        FoldedDegradationNet((2, 1, 2), **TINY)
