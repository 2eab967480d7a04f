"""The networks of 3-D convolutions: what they start from, what they see, and that their passes change nothing."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import VolumetricNet
from torch import Tensor, nn


def network(**changes: object) -> VolumetricNet:
    return VolumetricNet(**{"num_features": 8, "num_groups": 2, "num_blocks": 1, **changes}).eval()


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
    net = trained(network(voxels_per_pass=slices * size[1] * size[2]))
    whole = trained(network())(low_res)
    assert net.reach + 1 == 9
    torch.testing.assert_close(net(low_res), whole, atol=1e-5, rtol=1e-5)


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
