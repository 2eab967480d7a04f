"""Supervised training on pairs, with TS-RCAN's loss (Li, Liu et al., https://arxiv.org/abs/2111.14259)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from scripts.data.crops import learned_slices, without_margin

from .base import Objective, Terms, restoration


class Supervised(Objective):
    """Restore the high-resolution reference of a pair; what the pairs are is a matter of the data.

    Args:
        network: what is trained and what inference keeps.
        weights: one weight per term; the authors' are 100 for L1 and 50 for SSIM, here 1 and 0.5.
        ssim_form: see :func:`scripts.losses.ssim_loss`; the default is that of the authors' code.
        margin: LR voxels at the borders of a slab that are not compared: the skip interpolates there beyond what the
            crop shows. Along the slices, context does the same where slabs have it; an axis that keeps its size is not
            interpolated.
    """

    generator_terms = ("restoration_l1", "restoration_ssim")

    def __init__(
        self,
        network: nn.Module,
        weights: Mapping[str, float | None],
        ssim_form: str = "one_minus_square",
        margin: int = 0,
    ) -> None:
        super().__init__(weights)
        self.network = network
        self.ssim_form = ssim_form
        self.margin = margin

    @property
    def generators(self) -> nn.ModuleList:
        return nn.ModuleList([self.network])

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = batch["image"]
        slabs = learned_slices(self.network.slab_size, image, label=batch["label"], pred=self.network.slab(image))
        has_context = image.shape[1] > self.network.slab_size
        interpolated = slabs["label"].shape[1] > slabs["image"].shape[1]
        dims = (1, 2, 3) if interpolated and not has_context else (2, 3)
        return without_margin(self.margin, dims, **slabs)

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return restoration("restoration", images["pred"], images["label"], ssim_form=self.ssim_form)
