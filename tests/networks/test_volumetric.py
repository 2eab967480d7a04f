"""The networks of 3-D convolutions: what they start from, what they see, and that their passes change nothing."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import VolumetricDegradationNet, VolumetricNet
from scripts.physics.kspace import truncate
from torch import Tensor, nn


def network(**changes: object) -> VolumetricNet:
    return VolumetricNet(**{"num_features": 8, "num_groups": 2, "num_blocks": 1, "slab_size": 6, **changes}).eval()


def trained(net: VolumetricNet) -> VolumetricNet:
    """As after some training: no layer is zero."""
    nn.init.normal_(net.decoder[-1].weight, std=0.05, generator=torch.Generator().manual_seed(7))
    return net


def volume(*size: int) -> Tensor:
    return torch.rand((1, 1, *size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_untrained_it_is_the_interpolation(scale_factor):
    net = network(scale_factor=scale_factor)
    low_res = volume(6, 5, 7)
    expected = net.interpolation(low_res[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
    torch.testing.assert_close(net(low_res), expected)
    assert net(low_res)[0, 0, :: scale_factor[0], :: scale_factor[1], :: scale_factor[2]].equal(low_res[0, 0])


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 5, 6), (9, 5, 6), (10, 5, 6), (1, 3, 2)])
@pytest.mark.parametrize("slices", [1, 2, 7, 40])
def test_passes_change_nothing(size, slices):
    """Also where the last one brings a single slice, or the volume is thinner than what the convolutions reach."""
    low_res = volume(*size)
    net = trained(network(voxels_per_pass=slices * size[1] * size[2], slab_size=size[2]))
    whole = net.restore(low_res[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
    assert net.reach + 1 == 9
    torch.testing.assert_close(net(low_res), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_slab_is_a_small_volume():
    net, slab = trained(network()), torch.rand(2, 6, 8, 8)
    torch.testing.assert_close(net.restore(slab), net(slab.movedim(1, -1).unsqueeze(1))[:, 0].movedim(-1, 1))


@torch.no_grad()
def test_slices_of_context_are_interpolated_and_not_learned():
    net, slab = trained(network()), torch.rand(1, 12, 8, 8)
    learned = net.restore(slab) - net.interpolation(slab)
    assert learned[:, :6].abs().max() < 1e-6
    assert learned[:, 18:].abs().max() < 1e-6
    torch.testing.assert_close(learned[:, 6:18], (net.restore(slab[:, 3:9]) - net.interpolation(slab[:, 3:9])))


@torch.no_grad()
def test_a_voxel_reaches_as_far_as_there_are_convolutions():
    net, low_res = trained(network(skip=False)), volume(1, 1, 41)
    moved = low_res.clone()
    moved[..., 20] += 1
    changed = (net(moved) - net(low_res)).abs().amax((0, 1, 2, 3)).nonzero().flatten()
    assert net.reach == sum(isinstance(layer, nn.Conv3d) for layer in net.modules())
    assert int(changed.min()) >= 2 * (20 - net.reach)
    assert int(changed.max()) <= 2 * (20 + net.reach) + 1


@torch.no_grad()
def test_it_sees_the_axes_alike():
    """With its kernels transposed, the network of a transposed volume is the transposed network."""
    net, low_res = trained(network()), volume(8, 7, 9)
    turned = network()
    turned.load_state_dict(
        {k: w.permute(0, 1, 3, 4, 2).contiguous() if w.ndim == 5 else w for k, w in net.state_dict().items()}
    )
    phases = torch.arange(8).reshape(2, 2, 2).permute(1, 2, 0).flatten()
    turned.decoder[-1].weight.copy_(turned.decoder[-1].weight[phases].clone())
    expected = net(low_res).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(turned(low_res.permute(0, 1, 3, 4, 2)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [1, 2, 4])
def test_it_grows_from_a_network_of_fewer_groups_without_becoming_another_function(given):
    small, large = trained(network(num_groups=given, seed=1)), network(num_groups=4)
    large.load_state_dict(large.grown(small.state_dict()))
    low_res = volume(7, 6, 5)
    assert torch.equal(large(low_res), small(low_res))


def test_what_has_grown_learns_from_the_first_iteration_on():
    large = network(num_groups=3)
    large.load_state_dict(large.grown(trained(network(num_groups=2)).state_dict()))
    large(volume(7, 6, 5)).square().mean().backward()
    assert float(large.decoder[1][-1].weight.grad.abs().min()) > 0


def test_parameters_follow_from_the_layers():
    width = 27 * 32 * 32 + 32
    expected = 27 * 32 + 32 + 2 * (2 * 3 + 1) * width + 27 * 32 * 8 + 8
    assert sum(p.numel() for p in VolumetricNet().parameters()) == expected == 395_336


@torch.no_grad()
def test_it_can_be_scripted():
    net, low_res = trained(network()), volume(6, 6, 6)
    torch.testing.assert_close(torch.jit.script(net)(low_res), net(low_res))


@pytest.mark.parametrize("scale_factor", [(2, 2), (2, 2, 1.5), (2, 0, 2), (2, 1, 2)])
def test_factors_are_whole_numbers(scale_factor):
    with pytest.raises(ValueError, match="must be integers"):
        VolumetricNet(scale_factor=scale_factor)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, 1, H, W, D\)"):
        network()(torch.rand(1, 2, 4, 4, 4))


# The degradation network


def degradation(**changes: object) -> VolumetricDegradationNet:
    settings = {"num_features": 8, "num_groups": 2, "num_blocks": 1, "slab_size": 6, **changes}
    return VolumetricDegradationNet(**settings).eval()


@torch.no_grad()
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_untrained_the_degradation_is_the_truncation_of_the_mirrored_volume(scale_factor):
    high_res = volume(8, 12, 12)
    mirrored = high_res
    for axis in (2, 3, 4):
        mirrored = torch.cat([mirrored, mirrored.flip(axis)], axis)
    sizes = [n // s for n, s in zip((8, 12, 12), scale_factor, strict=True)]
    expected = truncate(mirrored, [2 * n for n in sizes], (2, 3, 4))[:, :, : sizes[0], : sizes[1], : sizes[2]]
    if scale_factor[2] == 1:
        expected = truncate(mirrored[..., :12], [2 * n for n in sizes[:2]], (2, 3))[:, :, : sizes[0], : sizes[1]]
    torch.testing.assert_close(degradation(scale_factor=scale_factor)(high_res), expected)


@torch.no_grad()
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_both_networks_make_features_of_one_shape(scale_factor):
    low_res, high_res = torch.rand(2, 6, 8, 8), torch.rand(2, 6 * scale_factor[2], 16, 16)
    shapes = [
        network(scale_factor=scale_factor).encode(low_res).shape,
        degradation(scale_factor=scale_factor).encode(high_res).shape,
    ]
    assert shapes == [(2, 8 * 6, 8, 8)] * 2


@torch.no_grad()
def test_a_feature_sits_on_the_high_resolution_voxel_of_its_own():
    """The first convolution of a low-resolution voxel l is centred on high-resolution voxel 2l."""
    first = degradation().extractor[0]
    nn.init.zeros_(first.weight)
    first.weight[:, 0, 1, 1, 1] = 1
    high_res = volume(8, 8, 8)
    torch.testing.assert_close(first(high_res)[0, 0], high_res[0, 0, ::2, ::2, ::2])


@torch.no_grad()
def test_a_slab_of_the_degradation_is_a_small_volume():
    net, slab = degradation(), torch.rand(2, 12, 16, 16)
    nn.init.normal_(net.decoder[-1].weight, std=0.05)
    torch.testing.assert_close(net.degrade(slab), net(slab.movedim(1, -1).unsqueeze(1))[:, 0].movedim(-1, 1))


def test_a_volume_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiples of"):
        degradation()(volume(8, 8, 9))
