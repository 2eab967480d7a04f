"""Supervised training on pairs, with the loss of TS-RCAN (Li, Liu et al., https://arxiv.org/abs/2111.14259)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .base import Objective, Terms


class Supervised(Objective):
    """Restore the HR reference of a pair. The data decide what the pairs are.

    Args:
        declared: ``weights``, ``generators`` (``network``) and ``ssim_form``, see :class:`.Objective`. The authors
            weight L1 by 100 and SSIM by 50; here that is 1 and 0.5.

    Example:
        >>> from torch import nn
        >>> weights = {"restoration_l1": 1.0, "restoration_ssim": 0.5}
        >>> list(Supervised(weights=weights, generators={"network": nn.ReLU()}, ssim_form="abs").generators)
        ['network']
    """

    generator_terms = ("restoration_l1", "restoration_ssim")

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        return self.network.compared(image=image, label=batch["label"], pred=self.network.restore(image))

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return self.restoration("restoration", images["pred"], images["label"])
