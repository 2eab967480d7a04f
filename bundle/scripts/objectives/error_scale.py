"""Error scale: an error head learns how far a frozen network's result is from the HR crop, voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai.utils import CommonKeys
from torch import Tensor

from .base import Objective, Terms


class ErrorScale(Objective):
    r"""Maximise the likelihood of the errors under Laplace distributions, whose scales the error head predicts.

    With the error $e = y - \hat y$, the scale $b$ and the weight $w$ of each voxel, the loss is
    $\sum w (|e| / b + \log b) / \sum w$. Its minimum is $b = E|e|$. Only the error head learns.

    Args:
        declared: ``weights``, ``generators`` (``error_head``) and ``fixed`` (``network``, which has this head), see
            :class:`.Objective`.

    Example:
        >>> from scripts.networks import FoldedNet
        >>> network = FoldedNet().add_error_head()
        >>> networks = {"generators": {"error_head": network.decoder[-1].error_head}, "fixed": {"network": network}}
        >>> objective = ErrorScale(weights={"laplace": 1.0}, **networks)
        >>> sum(parameter.requires_grad for parameter in network.parameters())
        4
    """

    generator_names = ("error_head",)
    fixed_names = ("network",)
    generator_terms = ("laplace",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network.requires_grad_(False)
        self.error_head.requires_grad_(True)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pred, scale = self.network(batch[CommonKeys.IMAGE], batch["acquisition"]).split(1, dim=1)
        given = {key: batch[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "weight")}
        return {CommonKeys.PRED: pred.detach(), "scale": scale, **given}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        error, b, w = images[CommonKeys.LABEL] - images[CommonKeys.PRED], images["scale"], images["weight"]
        return {"laplace": (w * (error.abs() / b + b.log())).sum() / w.sum().clamp(min=1)}
