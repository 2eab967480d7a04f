"""Export: the program of torch.export is the network, for every size."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import FoldedNet, VolumetricNet, export_network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network with weights that act, and its program read from the file."""
    network = FoldedNet(num_features=8, num_groups=2, num_blocks=1)
    state = {
        name: torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) / 10
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    path = export_network(network, tmp_path_factory.mktemp("export") / "inner" / "model.pt2")
    return network, torch.export.load(path).module()


@pytest.mark.parametrize("shape", [(18, 21, 15), (16, 12, 20), (9, 7, 5), (64, 33, 70), (3, 40, 4)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_program_gives_the_result_of_the_network(exported, shape, batch):
    network, program = exported
    rng = torch.Generator().manual_seed(1)
    volume, acquisition = torch.rand(batch, 1, *shape, generator=rng), torch.rand(batch, 9, generator=rng)
    with torch.no_grad():
        expected, found = network(volume, acquisition), program(volume, acquisition)
    assert (expected - volume).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # which kernel runs depends on the strides


def test_the_program_is_told_the_acquisition(exported):
    volume = torch.rand(1, 1, 12, 12, 12)
    assert not torch.equal(exported[1](volume, torch.zeros(1, 9)), exported[1](volume, torch.ones(1, 9)))


def test_only_the_network_for_any_acquisition_is_exported(tmp_path):
    network = VolumetricNet(num_features=8, num_groups=1, num_blocks=1)
    with pytest.raises(ValueError, match="must be a FoldedNet, got a VolumetricNet"):
        export_network(network, tmp_path / "model.pt2")


def test_the_name_must_say_what_the_file_is(tmp_path):
    with pytest.raises(ValueError, match=r"must end with \.pt2, got .*model\.ts"):
        export_network(FoldedNet(8), tmp_path / "model.ts")
