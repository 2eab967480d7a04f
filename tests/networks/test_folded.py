"""The network for any acquisition: folding, exactness, how far it sees, and how it is told what it restores."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import FoldedNet, VolumetricNet, folded
from scripts.networks.folded import fold, to_even, unfold
from scripts.networks.streaming import rectangles_around, share_computed
from scripts.physics.kspace import zero_fill
from torch import Tensor, nn

TINY = {"num_features": 8, "num_groups": 2, "num_blocks": 1}


def trained(seed: int = 0, **options) -> FoldedNet:
    """A network none of whose layers is zero, in double precision."""
    network = FoldedNet(**{**TINY, **options}, seed=seed).double().eval()
    torch.manual_seed(seed)
    for layer in (network.decoder[-1], network.modulation[-1]):
        nn.init.normal_(layer.weight, std=0.1)
    return network


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_default_has_so_many_parameters():
    assert sum(parameter.numel() for parameter in FoldedNet().parameters()) == 818_792


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 8, 9), (5, 5, 5), (2, 1, 3)])
@pytest.mark.parametrize("told", [False, True])
def test_an_untrained_network_returns_the_interpolation_exactly(shape, told):
    x = torch.rand(2, 1, *shape)
    assert torch.equal(FoldedNet(**TINY)(x, torch.randn(2, 9) if told else None), x)


def test_folding_puts_the_voxels_of_a_block_into_channels():
    x = torch.arange(4 * 4 * 4.0).reshape(1, 1, 4, 4, 4)
    assert torch.equal(fold(x)[0, :, 1, 0, 1], x[0, 0, 2:4, 0:2, 2:4].flatten())
    assert torch.equal(unfold(fold(x)), x)
    assert fold(x).is_contiguous(memory_format=torch.channels_last_3d)


def test_odd_sizes_repeat_their_last_slice():
    x = noise(1, 1, 5, 6, 7)
    network = trained()
    assert torch.equal(network(x), network(to_even(x))[:, :, :5, :6, :7])


def test_a_shift_by_two_voxels_commutes_and_by_one_voxel_changes_only_what_the_folding_sees():
    network, x = trained(), noise(1, 1, 44, 4, 4)
    inner = slice(network.reach + 1, 44 - network.reach - 3)
    by_two, by_one = (network(x.roll(-shift, 2)).roll(shift, 2)[:, :, inner] for shift in (2, 1))
    whole = network(x)[:, :, inner]
    assert torch.allclose(by_two, whole, atol=1e-12)
    residual = (whole - x[:, :, inner]).std()
    assert 0 < (by_one - whole).std() < 2 * residual  # another restoration of the same size, on the same grid


def test_an_output_voxel_sees_as_far_as_reach_says_and_no_further():
    network = trained()
    size = 2 * network.reach + 5
    sees = []
    for at in (network.reach + 1, network.reach + 2):  # both phases of the folding
        x = noise(1, 1, size, 2, 2).requires_grad_()
        network(x)[0, 0, at].sum().backward()
        seen = x.grad[0, 0].abs().amax((1, 2)).nonzero().flatten()
        sees += [int(at - seen.min()), int(seen.max() - at)]
    assert max(sees) == network.reach


@pytest.mark.parametrize("shape", [(64, 6, 5), (41, 8, 8)])
def test_parts_give_the_result_of_one_pass(shape):
    network, x, told = trained(), noise(1, 1, *shape), noise(1, 9)
    whole = network(x, told)
    network.voxels_per_pass = 1
    assert torch.allclose(network(x, told), whole, atol=1e-12)


def tissue_of(x: Tensor, seed: int, share: float = 0.02) -> Tensor:
    """Random marks of blocks of 4 x 4 x 4 voxels."""
    shape = [x.shape[0], 1, *(-(-size // 4) for size in x.shape[2:])]
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def marked_voxels(tissue: Tensor, x: Tensor) -> Tensor:
    marks = tissue.any(0, keepdim=True).expand(len(x), -1, -1, -1, -1)
    for axis in (2, 3, 4):
        marks = marks.repeat_interleave(4, axis).narrow(axis, 0, x.shape[axis])
    return marks


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("per_pass", [1, 200, 2**30])
@pytest.mark.parametrize("shape", [(1, 1, 64, 30, 44), (2, 1, 41, 37, 26), (1, 1, 3, 70, 5)])
def test_tissue_is_restored_as_without_marks_and_far_air_stays(monkeypatch, shape, per_pass, threads):
    monkeypatch.setattr(folded, "threads_for", lambda x: threads)
    network, x, told = trained(voxels_per_pass=per_pass), noise(*shape), noise(shape[0], 9)
    with torch.inference_mode():
        whole = trained(voxels_per_pass=2**30)(x, told)
        for seed in range(4):
            tissue = tissue_of(x, seed)
            marks, restored = marked_voxels(tissue, x), network(x, told, tissue)
            torch.testing.assert_close(restored[marks], whole[marks], rtol=0, atol=1e-12)
            where = (restored - x).abs() > 0  # a rectangle in each slice, which has no further slices
            torch.testing.assert_close(restored[where], whole[where], rtol=0, atol=1e-12)
            slices = marks.any(3, keepdim=True).any(4, keepdim=True).expand_as(x)
            assert torch.equal(restored[~slices], x[~slices])


def test_an_empty_volume_stays_and_a_full_one_is_restored_as_without_marks():
    network, x = trained(voxels_per_pass=200), noise(1, 1, 41, 22, 26)
    with torch.inference_mode():
        assert torch.equal(network(x, tissue=tissue_of(x, 0, share=0.0)), x)
        torch.testing.assert_close(network(x, tissue=tissue_of(x, 0, share=1.0)), network(x), rtol=0, atol=1e-12)


def test_marks_in_a_corner_save_most_of_the_work():
    network, x, seen = trained(voxels_per_pass=200), noise(1, 1, 96, 96, 96), []
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda _, inputs, output: seen.append(output[0, 0].numel()))
    tissue = torch.zeros(1, 1, 24, 24, 24)
    with torch.inference_mode():
        network(x, tissue=tissue)
        nothing = sum(seen)
        tissue[..., :4, :4, :4] = 1
        network(x, tissue=tissue)
    convolutions = network.folded_reach
    shape = [48, 48, 48]
    rectangles, step = rectangles_around(tissue, shape), max(1, 200 // (48 * 48))
    share = share_computed(rectangles, shape[1:], convolutions, step)
    assert sum(seen) - nothing == pytest.approx(share * convolutions * 48**3)
    assert nothing < 0.01 * convolutions * 48**3
    assert convolutions * 8**3 < sum(seen) - nothing < 0.1 * convolutions * 48**3


def test_marks_of_another_volume_are_refused():
    with pytest.raises(ValueError, match=r"4 x 4 x 4 voxels of the volume, got \[1, 1, 2, 2, 3\]"):
        FoldedNet(**TINY)(torch.rand(1, 1, 8, 8, 8), tissue=torch.ones(1, 1, 2, 2, 3))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_give_the_result_of_one_in_reduced_precision_too(monkeypatch, threads):
    network, x = trained(voxels_per_pass=1).float(), noise(1, 1, 41, 8, 8).float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        alone = network(x)
        monkeypatch.setattr(folded, "threads_for", lambda x: threads)
        assert torch.equal(network(x), alone)
    assert not torch.equal(network(x), alone)  # bfloat16 rounds


def test_encoder_and_decoder_make_the_forward():
    network, x, told = trained(), noise(2, 1, 6, 7, 8), noise(2, 9)
    features = network.encode(x, told)
    assert features.shape == (2, 8 * 4, 3, 4)  # slices are channels
    assert torch.allclose(network.decode(features, x, told), network(x, told), atol=1e-12)
    assert torch.allclose(network.decode(network.encode(x), x), network(x), atol=1e-12)


def test_each_volume_of_a_batch_is_restored_by_its_own_acquisition():
    network, x, told = trained(), noise(2, 1, 6, 6, 6), noise(2, 9)
    apart = torch.cat([network(x[i : i + 1], told[i : i + 1]) for i in range(2)])
    assert torch.allclose(network(x, told), apart, atol=1e-12)
    assert not torch.allclose(network(x, told.flip(0)), apart, atol=1e-6)


def test_a_blind_network_and_an_untrained_perceptron_do_the_same():
    network, x = trained(), noise(1, 1, 6, 6, 6)
    nn.init.zeros_(network.modulation[-1].weight)
    assert torch.equal(network(x, noise(1, 9)), network(x))


def test_the_perceptron_learns_from_the_second_step_on():
    network = trained()
    nn.init.zeros_(network.modulation[-1].weight)
    network(noise(1, 1, 6, 6, 6), noise(1, 9)).square().mean().backward()
    assert network.modulation[-1].weight.grad.abs().max() > 0


def test_scripting_changes_nothing():
    network, x, told = trained(), noise(1, 1, 5, 6, 7), noise(1, 9)
    scripted = torch.jit.script(network)
    assert torch.allclose(scripted(x, told), network(x, told), atol=1e-12)
    assert torch.allclose(scripted(x), network(x), atol=1e-12)
    x, tissue = noise(1, 1, 41, 12, 12), torch.zeros(1, 1, 11, 3, 3)
    tissue[..., 4, 1, 1] = 1
    assert torch.allclose(scripted(x, told, tissue), network(x, told, tissue), atol=1e-12)


def test_reduced_precision_leaves_the_interpolation_in_float32():
    network, x = FoldedNet(**TINY), torch.rand(1, 1, 6, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(x, torch.zeros(1, 9)), x)


def test_what_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 1, H, W, D\), got \[1, 2, 4, 4, 4\]"):
        FoldedNet(**TINY)(torch.rand(1, 2, 4, 4, 4))


def test_a_description_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \[1, 9\].*got \[1, 6\]"):
        FoldedNet(**TINY)(torch.rand(1, 1, 4, 4, 4), torch.zeros(1, 6))


def test_weights_of_the_network_for_a_fixed_factor_are_a_start_that_does_the_same():
    given = VolumetricNet(**TINY).double()
    nn.init.normal_(given.decoder[-1].weight, std=0.1)
    low_res = noise(1, 1, 7, 7, 5)  # odd sizes have no unpaired harmonic
    interpolated = zero_fill(low_res, (14, 14, 10), (2, 3, 4))
    network = FoldedNet(**TINY).double()
    network.load_state_dict(network.grown(given.state_dict()))
    residual = given(low_res) - given.interpolation(low_res[:, 0].movedim(-1, 1)).movedim(1, -1)[:, None]
    assert torch.allclose(network(interpolated, noise(1, 9)) - interpolated, residual, atol=1e-6)


@pytest.mark.parametrize("given", [1, 2, 4])
@pytest.mark.parametrize("told", [False, True])
def test_it_grows_from_a_network_of_fewer_groups_without_becoming_another_function(given, told):
    small, large = trained(num_groups=given, seed=1), trained(num_groups=4)
    large.load_state_dict(large.grown(small.state_dict()))
    x = noise(1, 1, 7, 6, 5)
    description = noise(1, 9) if told else None
    torch.testing.assert_close(large(x, description), small(x, description), rtol=0, atol=1e-12)


def test_it_grows_from_a_network_for_a_fixed_factor_of_fewer_groups():
    small = VolumetricNet(**TINY).double()
    same, large = FoldedNet(**TINY).double(), FoldedNet(**{**TINY, "num_groups": 3}).double()
    for network in (same, large):
        network.load_state_dict(network.grown(small.state_dict()))
    x = noise(1, 1, 6, 6, 6)
    torch.testing.assert_close(large(x, noise(1, 9)), same(x, noise(1, 9)), rtol=0, atol=1e-12)


def test_what_has_grown_learns_from_the_first_iteration_on():
    large = trained(num_groups=3)
    large.load_state_dict(large.grown(trained(num_groups=2).state_dict()))
    large(noise(1, 1, 7, 6, 5)).square().mean().backward()
    assert float(large.decoder[1][-1].weight.grad.abs().min()) > 0


def test_what_no_smaller_network_has_comes_back_unchanged():
    network, other = FoldedNet(**TINY), nn.Conv3d(1, 1, 3)
    for weights in (network.state_dict(), FoldedNet(**{**TINY, "num_groups": 3}).state_dict(), other.state_dict()):
        found = network.grown(weights)
        assert all(found[name] is value for name, value in weights.items())
        assert len(found) == len(weights)
