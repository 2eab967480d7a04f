"""The error head: it changes nothing of the restored volume, streams with it, and has a file of its own."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine
from scripts.handlers.weights import ErrorHeadLoader, InitialWeights, WeightsLoader
from scripts.networks import FoldedNet
from torch import Tensor, nn

TINY = {"num_features": 8, "num_groups": 2, "num_blocks": 1}


def trained() -> FoldedNet:
    """A network none of whose layers is zero."""
    network = FoldedNet(**TINY).eval()
    torch.manual_seed(0)
    for layer in (network.decoder[-1], network.modulation[-1]):
        nn.init.normal_(layer.weight, std=0.1)
    return network


def headed(network: FoldedNet) -> FoldedNet:
    """A copy with an error head that is not constant."""
    network = copy.deepcopy(network).add_error_head(num_features=4)
    nn.init.normal_(network.decoder[-1].error_head.log_scale.weight, std=0.1)
    return network


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 5, 9), (41, 6, 5)])
@pytest.mark.parametrize("voxels", [None, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_restored_volume_is_the_same_bit_by_bit(shape, voxels, dtype):
    network = trained()
    network.voxels_per_pass = voxels
    other, x, told = headed(network), noise(2, 1, *shape), noise(2, 9)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        alone, both = network(x, told), other(x, told)
    assert both.shape == (2, 2, *shape)
    assert torch.equal(both[:, :1], alone)
    assert both[:, 1].min() > 0
    assert both[:, 1].std() > 0


def test_parts_give_the_scale_of_one_pass():
    network, x, told = headed(trained()).double(), noise(1, 1, 41, 8, 7).double(), noise(1, 9).double()
    whole = network(x, told)
    network.voxels_per_pass = 1
    assert torch.allclose(network(x, told), whole, atol=1e-12)


def test_scripting_changes_nothing():
    network, x, told = headed(trained()).double(), noise(1, 1, 5, 6, 7).double(), noise(1, 9).double()
    assert torch.allclose(torch.jit.script(network)(x, told), network(x, told), atol=1e-12)


def test_the_file_of_the_weights_stays_and_that_of_the_head_stands_beside_it(tmp_path):
    network = trained()
    other = headed(network)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    torch.save(other.decoder[-1].error_head.state_dict(), tmp_path / "head.pt")
    loaded = FoldedNet(**TINY, seed=5)
    engine = Engine(lambda *_: None)
    for loader in (WeightsLoader(tmp_path / "model.pt", loaded), ErrorHeadLoader(tmp_path / "head.pt", loaded)):
        loader.attach(engine)
    engine.run([0])
    x, told = noise(1, 1, 6, 7, 8), noise(1, 9)
    with torch.no_grad():
        assert torch.equal(loaded(x, told), other(x, told))


def test_a_network_with_a_head_starts_from_weights_without_one(tmp_path):
    network = trained()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    loaded, engine = FoldedNet(**TINY, seed=5).add_error_head(), Engine(lambda *_: None)
    InitialWeights(tmp_path / "model.pt", loaded).attach(engine)
    engine.run([0])
    x, told = noise(1, 1, 6, 7, 8), noise(1, 9)
    with torch.no_grad():
        assert torch.equal(loaded(x, told)[:, :1], network(x, told))


def test_weights_of_fewer_groups_grow_into_a_network_with_a_head():
    small, large = trained(), headed(FoldedNet(**{**TINY, "num_groups": 3}))
    large.load_state_dict(large.grown(small.state_dict()))
    x, told = noise(1, 1, 6, 7, 8), noise(1, 9)
    torch.testing.assert_close(large(x, told)[:, :1], small(x, told), rtol=0, atol=1e-6)


def test_a_second_run_of_an_engine_loads_the_head_again(tmp_path):
    network, x, told = trained(), noise(1, 1, 6, 6, 6), noise(1, 9)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    torch.save(headed(network).decoder[-1].error_head.state_dict(), tmp_path / "head.pt")
    engine = Engine(lambda *_: network(x, told).detach())
    ErrorHeadLoader(tmp_path / "head.pt", network).attach(engine)
    WeightsLoader(tmp_path / "model.pt", network).attach(engine)
    first, again = (engine.run([None]).output for _ in range(2))
    assert first.shape[1] == 2
    assert torch.equal(first, again)
