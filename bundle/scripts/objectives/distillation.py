"""Distillation: one pass of a network learns the mean of a larger one over axis orders and mirror images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from scripts.losses import relative_error

from .base import Objective, Terms


class Distillation(Objective):
    r"""Restore a crop as a larger network does on average over its 48 orientations (https://arxiv.org/abs/1503.02531).

    A teacher sees each crop in one random order of axes, randomly mirrored. The minimum of a squared error is a mean,
    so the network learns the teacher's mean over all orientations. The HR crop has a term of its own, which counts only
    where there is one (``weight``). The teacher also teaches where nothing is known but the scan.

    Args:
        declared: ``weights``, ``generators`` (``network``) and ``fixed`` (``teacher``), see :class:`.Objective`.

    Example:
        >>> networks = {"generators": {"network": nn.ReLU()}, "fixed": {"teacher": nn.ReLU()}}
        >>> Distillation(weights={"taught": 1.0, "relative_l1": 0.5}, **networks).generator_terms
        ('taught', 'relative_l1')
    """

    fixed_names = ("teacher",)
    generator_terms = ("taught", "relative_l1")

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image, acquisition = batch[CommonKeys.IMAGE], batch["acquisition"]
        with torch.no_grad():
            lesson = from_random_orientation(self.teacher, image, acquisition)
        given = {key: batch[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "weight")}
        return {CommonKeys.PRED: self.network(image, acquisition), "lesson": lesson, **given}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        made, start, weight = images[CommonKeys.PRED], images[CommonKeys.IMAGE], images["weight"]
        return {
            "taught": relative_error(made, images["lesson"], start, torch.ones_like(weight), power=2),
            "relative_l1": relative_error(made, images[CommonKeys.LABEL], start, weight),
        }


def from_random_orientation(network: nn.Module, x: Tensor, acquisition: Tensor) -> Tensor:
    """Restore volumes in a random order of their axes, randomly mirrored, and turn the result back.

    Args:
        network: takes volumes and the descriptions of their acquisitions.
        x: ``(B, 1, H, W, D)``.
        acquisition: ``(B, K)``, with equally many numbers for each of the three axes.

    Example:
        >>> x = torch.rand(1, 1, 4, 5, 6)
        >>> torch.equal(from_random_orientation(lambda volume, told: volume, x, torch.zeros(1, 9)), x)
        True
    """
    order = torch.randperm(3)
    mirrored = [2 + axis for axis in range(3) if torch.rand(()) < 0.5]
    turned = x.permute(0, 1, *(2 + order).tolist()).flip(mirrored)
    told = acquisition.unflatten(1, (3, -1))[:, order].flatten(1)
    return network(turned, told).flip(mirrored).permute(0, 1, *(2 + order.argsort()).tolist())
