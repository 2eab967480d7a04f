"""ZSSR: learns from the test volume alone, leaves the shared network alone, and keeps the grid."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK, head_phantom
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from scripts.inferers import ZSSRInferer
from scripts.networks import SuperResolutionNet
from scripts.physics.kspace import truncate, zero_fill


def network(**settings) -> SuperResolutionNet:
    return SuperResolutionNet(slab_size=3, skip=True, **{**TINY_NETWORK, **settings}).eval()


def low_res(seed: int = 0, shape: tuple = (32, 32, 16)) -> torch.Tensor:
    """An LR volume of a head, intensities of about 1."""
    head = head_phantom(seed, [2 * n for n in shape]) / 1000
    return truncate(head, shape, (0, 1, 2))[None, None]


def zssr(**settings) -> ZSSRInferer:
    arguments = {"patch_size": (16, 16), "batch_size": 2, "num_iterations": 3}
    return ZSSRInferer(SimpleInferer(), **{**arguments, **settings})


def test_the_shared_network_stays_bit_identical_and_in_its_mode():
    shared = network().requires_grad_(False)
    before = copy.deepcopy(shared.state_dict())
    zssr()(low_res(), shared)
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())
    assert not shared.training
    assert not any(p.requires_grad or p.grad is not None for p in shared.parameters())


def test_each_volume_starts_anew_whatever_came_before():
    shared, inferer = network(), zssr()
    first = inferer(low_res(0), shared)
    torch.manual_seed(1)
    inferer(low_res(1), shared)
    assert torch.equal(inferer(low_res(0), shared), first)


def test_the_seed_decides_the_slabs():
    assert not torch.equal(zssr(seed=1)(low_res(), network()), zssr(seed=2)(low_res(), network()))


def test_the_untrained_copy_is_the_network():
    torch.testing.assert_close(zssr(num_iterations=0)(low_res(), network()), network()(low_res()).detach())


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("size", [(16, 12, 8), (17, 13, 9)])
def test_the_pair_keeps_low_res_voxels_on_every_second_voxel(scale_factor, size):
    kept = [n // s for n, s in zip(size, scale_factor, strict=True)]
    coarse = torch.rand([n - 1 + n % 2 for n in kept], generator=torch.Generator().manual_seed(0))
    band_limited = zero_fill(coarse, [n * s for n, s in zip(kept, scale_factor, strict=True)], (0, 1, 2))
    padded = torch.zeros(size)
    padded[tuple(slice(n) for n in band_limited.shape)] = band_limited  # what is left over must not matter
    image, label = zssr(scale_factor=scale_factor)._pair(padded)
    every = tuple(slice(None, None, s) for s in scale_factor)
    torch.testing.assert_close(image, label[every], rtol=0, atol=1e-6)


def test_slabs_of_a_batch_show_the_same_place_in_both_volumes():
    label = torch.rand(24, 20, 12, generator=torch.Generator().manual_seed(0))
    low, high = zssr(batch_size=5)._draw(label[::2, ::2, ::2], label, np.random.default_rng(0))
    assert low.shape == (5, 3, 12, 10)
    assert torch.equal(high[:, ::2, ::2, ::2], low)


def test_it_runs_in_an_evaluator_where_gradients_are_off():
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([{"image": low_res()[0]}], batch_size=1),
        network=network(),
        inferer=zssr(),
        decollate=False,
    )
    evaluator.run()
    assert evaluator.state.output["pred"].shape == (1, 1, 64, 64, 32)


def test_it_learns_to_restore_the_volume_from_its_truncation():
    inferer = zssr(context=4, num_iterations=300, learning_rate=2e-3)  # with context for the skip
    volume = low_res()
    image, label = inferer._pair(volume[0, 0])
    trained = inferer._adapt(network(), volume[0, 0])
    untrained_error, trained_error = (
        float((net(image[None, None])[0, 0] - label).detach().square().mean()) for net in (network(), trained)
    )
    assert trained_error < 0.8 * untrained_error


def test_several_volumes_are_refused():
    with pytest.raises(ValueError, match="the batch must hold one, got 2"):
        zssr()(low_res().expand(2, -1, -1, -1, -1), network())


def test_a_volume_too_thin_for_a_slab_is_refused():
    with pytest.raises(ValueError, match=r"at least 6 slices .* got 5"):
        zssr()(low_res(shape=(16, 16, 5)), network())
