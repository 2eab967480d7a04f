"""Supervised training on crops of any acquisition, see :class:`scripts.data.pairs.AnyAcquisitionDataset`."""

from __future__ import annotations

from collections.abc import Mapping

from monai.utils import CommonKeys
from torch import Tensor

from scripts.losses import relative_error

from .base import Objective, Terms


class Restoration(Objective):
    """Restore the HR crop from the interpolated one, as a share of the interpolation's error.

    A sample's L1 error is divided by that of its interpolation. An acquisition whose residual is small therefore counts
    as much as one with thick slices. Voxels of weight 0 do not count.

    Args:
        declared: ``weights`` and ``generators`` (``network``), see :class:`.Objective`.

    Example:
        >>> from torch import nn
        >>> list(Restoration(weights={"relative_l1": 1.0}, generators={"network": nn.ReLU()}).generators)
        ['network']
    """

    generator_terms = ("relative_l1",)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pred = self.network(batch[CommonKeys.IMAGE], batch["acquisition"])
        return {CommonKeys.PRED: pred, **{key: batch[key] for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "weight")}}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        made, given, start = (images[key] for key in (CommonKeys.PRED, CommonKeys.LABEL, CommonKeys.IMAGE))
        return {"relative_l1": relative_error(made, given, start, images["weight"])}
