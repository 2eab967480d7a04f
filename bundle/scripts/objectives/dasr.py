"""DASR: domain-distance aware super-resolution (Wei, Gu et al., https://arxiv.org/abs/2004.01178), in two stages."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.data.crops import learned_slices
from scripts.losses import absolute_error, log_adversarial_loss, log_discriminator_loss, ssim_loss

from .base import Objective, Terms, discrimination


def smooth(slab: Tensor) -> Tensor:
    """In-plane filter of weights 1/4, 1/2, 1/4, centred on its voxel, without the borders: two 2 x 2 means in turn."""
    return F.avg_pool2d(F.avg_pool2d(slab, 2, stride=1), 2, stride=1)


class DASRDegradation(Objective):
    r"""First stage: degrade the source $y$ (``reals``) into slabs ``degraded`` that look like the target (``image``).

    Low frequencies are held to those of the k-space truncation of $y$ (``truncated``), where the paper takes a bicubic
    one, which sits half a voxel off; the high frequencies are the discriminator's. The paper's perceptual term on a
    network trained on photographs is left out.

    Args:
        degradation: what is learned.
        low_res_discriminator: of the high frequencies of LR slabs, patch by patch; its probabilities are the second
            stage's domain distance.
        weights: one weight per term; the paper's are 1 for the colour and 0.005 for the texture.
    """

    generator_terms = ("colour", "texture")
    discriminator_terms = ("low_res_discriminator_degraded",)

    def __init__(
        self, degradation: nn.Module, low_res_discriminator: nn.Module, weights: Mapping[str, float | None]
    ) -> None:
        super().__init__(weights)
        self.degradation = degradation
        self.low_res_discriminator = low_res_discriminator

    @property
    def generators(self) -> nn.ModuleList:
        return nn.ModuleList([self.degradation])

    @property
    def discriminators(self) -> nn.ModuleList:
        return nn.ModuleList([self.low_res_discriminator])

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals = batch["reals"]
        return learned_slices(
            self.degradation.slab_size,
            batch["image"],
            truncated=self.degradation.truncate(reals),
            degraded=self.degradation.slab(reals),
        )

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            "colour": absolute_error(smooth(images["degraded"]), smooth(images["truncated"])),
            "texture": log_adversarial_loss(self.low_res_discriminator(images["degraded"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return discrimination(
            "low_res_discriminator",
            self.low_res_discriminator,
            images["image"],
            loss=log_discriminator_loss,
            degraded=images["degraded"],
        )


class DASR(Objective):
    r"""Second stage: super-resolve ``degraded`` where it looks real, and the target (``image``) so that it looks HR.

    The domain distance $\omega$ (``distance``) weights the absolute error of ``restored``, made of ``degraded``; both
    come from the first stage, whose networks get no gradient. The GAN sees high frequencies only, of
    ``super_resolved`` and of the source $y$ (``reals``).

    Args:
        network: what inference keeps.
        degradation: of the first stage.
        low_res_discriminator: of the first stage.
        high_res_discriminator: of the high frequencies of HR slabs, patch by patch.
        weights: one weight per term.
        ssim_form: see :func:`scripts.losses.ssim_loss`.
    """

    generator_terms = ("weighted_l1", "restoration_ssim", "low_frequency_l1", "adversarial")
    discriminator_terms = ("high_res_discriminator_super_resolved",)

    def __init__(
        self,
        network: nn.Module,
        degradation: nn.Module,
        low_res_discriminator: nn.Module,
        high_res_discriminator: nn.Module,
        weights: Mapping[str, float | None],
        ssim_form: str = "abs",
    ) -> None:
        super().__init__(weights)
        self.network = network
        self.degradation = degradation
        self.low_res_discriminator = low_res_discriminator
        self.high_res_discriminator = high_res_discriminator
        self.ssim_form = ssim_form

    @property
    def generators(self) -> nn.ModuleList:
        return nn.ModuleList([self.network])

    @property
    def discriminators(self) -> nn.ModuleList:
        return nn.ModuleList([self.high_res_discriminator])

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        with torch.no_grad():
            degraded = self.degradation.slab(reals)
        images = learned_slices(
            self.network.slab_size,
            image,
            reals=reals,
            degraded=degraded,
            restored=self.network.slab(degraded),
            super_resolved=self.network.slab(image),
        )
        with torch.no_grad():
            distance = self.low_res_discriminator.domain_distance(images["degraded"])
        return {**images, "distance": F.interpolate(distance, size=reals.shape[2:])}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        made, given, distance = images["restored"], images["reals"], images["distance"]
        return {
            "weighted_l1": absolute_error(distance * made, distance * given),
            "restoration_ssim": ssim_loss(made, given, form=self.ssim_form),
            "low_frequency_l1": absolute_error(F.avg_pool2d(made, 2), F.avg_pool2d(given, 2)),  # Haar's LL band, halved
            "adversarial": log_adversarial_loss(self.high_res_discriminator(images["super_resolved"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return discrimination(
            "high_res_discriminator",
            self.high_res_discriminator,
            images["reals"],
            loss=log_discriminator_loss,
            super_resolved=images["super_resolved"],
        )
