"""Restoration: the error relative to the interpolation's, inside the weight."""

from __future__ import annotations

import pytest
import torch
from scripts.objectives import Restoration
from torch import Tensor, nn


class Halved(nn.Module):
    """Removes half of the interpolation's error towards 0."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, acquisition: Tensor) -> Tensor:
        return self.factor * x


def batch(errors: tuple[float, ...], weight: float = 1.0) -> dict[str, Tensor]:
    image = torch.tensor(errors).reshape(-1, 1, 1, 1, 1).expand(-1, 1, 4, 4, 4)
    return {
        "image": image,
        "label": torch.zeros_like(image),
        "weight": torch.full_like(image, weight),
        "acquisition": torch.zeros(len(errors), 9),
    }


def loss(one: dict[str, Tensor]) -> Tensor:
    objective = Restoration(weights={"relative_l1": 1.0}, generators={"network": Halved()})
    objective.check_weights()
    return objective.total(objective.generator_loss(objective(one))).detach()


def test_an_easy_sample_counts_as_much_as_a_hard_one():
    assert float(loss(batch((0.01, 0.5)))) == pytest.approx(0.5)


def test_the_interpolation_itself_has_error_one():
    objective = Restoration(weights={"relative_l1": 1.0}, generators={"network": Halved()})
    images = batch((0.1, 0.2))
    assert float(objective.generator_loss({**images, "pred": images["image"]})["relative_l1"]) == pytest.approx(1.0)


def test_voxels_without_weight_do_not_count():
    one = batch((0.1,))
    one["weight"] = one["weight"].clone()
    one["weight"][:, :, :2] = 0
    one["label"] = one["label"].clone()
    one["label"][:, :, :2] = 100
    assert float(loss(one)) == pytest.approx(0.5)


def test_a_crop_without_weight_and_a_perfect_interpolation_leave_the_loss_finite():
    assert float(loss(batch((0.1, 0.2), weight=0.0))) == 0
    assert float(loss(batch((0.0,)))) == 0
