"""Supervised training on pairs, with the loss of TS-RCAN (Li, Liu et al., https://arxiv.org/abs/2111.14259)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scripts.data.crops import learned_slices, without_margin

from .base import Objective, Terms


class Supervised(Objective):
    """Restore the HR reference of a pair. The data decide what the pairs are.

    Args:
        margin: LR voxels at the borders of a slab that the loss ignores. There the skip interpolates beyond the crop.
            Along the slices, context has the same purpose. An axis that keeps its size needs no margin.
        declared: ``weights``, ``generators`` (``network``) and ``ssim_form``, see :class:`.Objective`. The authors
            weight L1 by 100 and SSIM by 50; here that is 1 and 0.5.

    Example:
        >>> from torch import nn
        >>> weights = {"restoration_l1": 1.0, "restoration_ssim": 0.5}
        >>> list(Supervised(weights=weights, generators={"network": nn.ReLU()}, ssim_form="abs", margin=0).generators)
        ['network']
    """

    generator_terms = ("restoration_l1", "restoration_ssim")

    def __init__(self, *, margin: int, **declared: Any) -> None:
        super().__init__(**declared)
        self.margin = margin

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        slabs = learned_slices(self.network.slab_size, image, label=batch["label"], pred=self.network.slab(image))
        has_context = image.shape[1] > self.network.slab_size
        interpolated = slabs["label"].shape[1] > slabs["image"].shape[1]
        dims = (1, 2, 3) if interpolated and not has_context else (2, 3)
        return without_margin(self.margin, dims, **slabs)

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return self.restoration("restoration", images["pred"], images["label"])
