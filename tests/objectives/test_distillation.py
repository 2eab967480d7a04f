"""Distillation: the network learns the mean of its teacher over the 48 orientations of a volume."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from scripts.objectives import Distillation
from scripts.objectives.distillation import from_random_orientation
from torch import Tensor, nn


class Uneven(nn.Module):
    """Depends on the orientation of its input, and adds the first number that it is told."""

    def forward(self, x: Tensor, acquisition: Tensor) -> Tensor:
        ramp = torch.arange(x.shape[2], dtype=x.dtype)[:, None, None]
        return x * ramp + acquisition[:, :1, None, None, None]


def orientations(x: Tensor, told: Tensor) -> list[Tensor]:
    results = []
    for order, signs in product(permutations(range(3)), product((False, True), repeat=3)):
        mirrored = [2 + axis for axis in range(3) if signs[axis]]
        turned = x.permute(0, 1, *(2 + axis for axis in order)).flip(mirrored)
        made = Uneven()(turned, told.reshape(-1, 3, 3)[:, list(order)].flatten(1)).flip(mirrored)
        results.append(made.permute(0, 1, *(2 + order.index(axis) for axis in range(3))))
    return results


def test_the_lessons_are_the_orientations_and_each_occurs():
    torch.manual_seed(0)
    x, told = torch.rand(1, 1, 3, 4, 5), torch.rand(1, 9)
    expected = orientations(x, told)
    seen = set()
    for _ in range(600):
        lesson = from_random_orientation(Uneven(), x, told)
        seen.add(next(i for i, one in enumerate(expected) if torch.allclose(one, lesson)))
    distinct = {tuple(one.flatten().tolist()) for one in expected}
    assert len({tuple(expected[i].flatten().tolist()) for i in seen}) == len(distinct)


def test_the_network_learns_the_mean_over_orientations():
    torch.manual_seed(0)
    x, told = torch.rand(1, 1, 3, 3, 3, dtype=torch.float64), torch.rand(1, 9, dtype=torch.float64)

    class Free(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.result = nn.Parameter(x.clone())

        def forward(self, x: Tensor, acquisition: Tensor) -> Tensor:
            return self.result

    weights = {"taught": 1.0, "relative_l1": 0.0}
    objective = Distillation(weights=weights, generators={"network": Free()}, fixed={"teacher": Uneven()})
    objective.check_weights()
    batch = {"image": x, "label": x, "weight": torch.ones_like(x), "acquisition": told}
    lessons = [objective(batch)["lesson"] for _ in range(4000)]
    mean = torch.stack(orientations(x, told)).mean(0)
    assert torch.stack(lessons).mean(0).sub(mean).abs().max() < 0.1
    images = objective(batch)
    assert not images["lesson"].requires_grad
    assert images["pred"].requires_grad


def test_a_weight_of_zero_leaves_the_teacher_alone():
    image = torch.ones(1, 1, 4, 4, 4)
    networks = {"generators": {"network": Uneven()}, "fixed": {"teacher": Uneven()}}
    objective = Distillation(weights={"taught": 1.0, "relative_l1": 1.0}, **networks)
    nothing = torch.zeros_like(image)
    batch = {"image": image, "label": nothing, "weight": nothing, "acquisition": torch.zeros(1, 9)}
    terms = objective.generator_loss(objective(batch))
    assert float(terms["relative_l1"]) == pytest.approx(0.0)
    assert float(terms["taught"]) > 0
