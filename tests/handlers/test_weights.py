from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from scripts.handlers.weights import InitialWeights, WeightsLoader
from scripts.networks import FoldedNet


def load(path, network, **options):
    engine = Engine(lambda _, batch: batch)
    WeightsLoader(path, network, **options).attach(engine)
    engine.run([0])


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}], ids=["plain", "wrapped"])
def test_weights_are_restored(tmp_path, wrap):
    trained, fresh = torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(2, 3, 3)
    torch.save(wrap(trained.state_dict()), tmp_path / "model.pt")
    load(tmp_path / "model.pt", fresh)
    assert torch.equal(fresh.weight, trained.weight)


def test_weights_of_fewer_groups_are_loaded_where_the_network_is_to_grow(tmp_path):
    small, large = (FoldedNet(num_features=4, num_groups=groups, num_blocks=1) for groups in (1, 3))
    torch.save(small.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"decoder\.0\..* got absent"):
        load(tmp_path / "model.pt", large)
    load(tmp_path / "model.pt", large, grow=True)
    assert torch.equal(large.encoder[0].weight, small.encoder[0].weight)
    wide = FoldedNet(num_features=6, num_groups=3, num_blocks=1)
    with pytest.raises(ValueError, match=r"encoder\.0\.weight \(expected \[6, 8, 3"):
        load(tmp_path / "model.pt", wide, grow=True)


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(torch.nn.Conv2d(2, 4, 3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"a Conv2d .* 2 parameters .* weight \(expected \[3, 2, 3, 3\], got \[4, 2, 3"
    ):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))


def test_missing_and_surplus_parameters_are_refused(tmp_path):
    torch.save(torch.nn.Conv2d(2, 3, 3, bias=False).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"bias \(expected \[3\], got absent\)"):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))
    torch.save(torch.nn.Conv2d(2, 3, 3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"bias \(expected absent, got \[3\]\)"):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3, bias=False))


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.pt: expected weights, found no such file\. Train, or set"):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 half a file"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt: expected weights, but it cannot be read \(.*Copy it again"):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = torch.nn.Conv2d(2, 3, 3)
    torch.nn.init.constant_(network.bias, float("nan"))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"expected finite weights, got 1 parameters .* the first bias\. The training that"
    ):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))


def test_a_tensor_alone_is_no_state_dictionary(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="it holds a Tensor instead of a dictionary"):
        load(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3))


def test_initial_weights_are_loaded_at_the_start_and_may_be_of_fewer_groups(tmp_path):
    small, large = (FoldedNet(num_features=4, num_groups=n, num_blocks=1, seed=n) for n in (1, 3))
    torch.save(small.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda _, batch: batch)
    InitialWeights(tmp_path / "model.pt", large).attach(engine)
    assert not torch.equal(large.encoder[0].weight, small.encoder[0].weight)
    engine.run([0])
    assert torch.equal(large.encoder[0].weight, small.encoder[0].weight)


def test_without_initial_weights_a_network_stays_as_it_is():
    network, engine = torch.nn.Conv2d(2, 3, 3), Engine(lambda _, batch: batch)
    before = network.weight.clone()
    InitialWeights(None, network).attach(engine)
    engine.run([0])
    assert torch.equal(network.weight, before)


def test_missing_initial_weights_are_refused_with_their_option(tmp_path):
    engine = Engine(lambda _, batch: batch)
    InitialWeights(tmp_path / "model.pt", torch.nn.Conv2d(2, 3, 3)).attach(engine)
    with pytest.raises(ValueError, match=r"found no such file\. Train, or set --init_weights"):
        engine.run([0])
