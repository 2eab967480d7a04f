"""Error scale: only the head learns, and it learns the size of the error."""

from __future__ import annotations

import torch
from scripts.networks import FoldedNet
from scripts.objectives import ErrorScale
from torch import Tensor


def objective() -> ErrorScale:
    network = FoldedNet(num_features=4, num_groups=1, num_blocks=1).add_error_head(num_features=4)
    networks = {"generators": {"error_head": network.decoder[-1].error_head}, "fixed": {"network": network}}
    return ErrorScale(weights={"laplace": 1.0}, **networks)


def batch(scale: float, weight: float = 1.0) -> dict[str, Tensor]:
    """Crops whose errors have a Laplace distribution: an untrained network returns the image."""
    torch.manual_seed(0)
    image = torch.rand(2, 1, 12, 12, 12)
    error = torch.distributions.Laplace(0.0, scale).sample(image.shape)
    weights = torch.full_like(image, weight)
    return {"image": image, "label": image + error, "weight": weights, "acquisition": torch.zeros(2, 9)}


def test_it_learns_the_scale_of_the_errors_and_the_network_stays():
    one, crops = objective(), batch(0.1)
    one.check_weights()
    before = {name: value.clone() for name, value in one.network.encoder.state_dict().items()}
    optimizer = torch.optim.Adam(one.generators.parameters(), lr=0.05)
    for _ in range(60):
        loss = one.total(one.generator_loss(one(crops)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scale = one(crops)["scale"].detach()
    assert 0.09 < float(scale.mean()) < 0.11
    assert all(torch.equal(value, before[name]) for name, value in one.network.encoder.state_dict().items())


def test_only_the_head_has_gradients():
    one = objective()
    one.total(one.generator_loss(one(batch(0.1)))).backward()
    trained = {name for name, parameter in one.network.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in one.network.named_parameters() if ".error_head." in name}


def test_voxels_without_weight_do_not_count():
    one, crops = objective(), batch(0.1)
    crops["weight"][:, :, :6] = 0
    changed = {**crops, "label": crops["label"].clone()}
    changed["label"][:, :, :6] = 100
    losses = [float(one.generator_loss(one(given))["laplace"].detach()) for given in (crops, changed)]
    assert losses[0] == losses[1]
    assert float(one.generator_loss(one(batch(0.1, weight=0.0)))["laplace"].detach()) == 0
