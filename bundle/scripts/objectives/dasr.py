"""DASR: domain-distance aware super-resolution (Wei, Gu et al., https://arxiv.org/abs/2004.01178), in two stages."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.losses import absolute_error, log_adversarial_loss, log_discriminator_loss, ssim_loss

from .base import Objective, Terms


def smooth(slab: Tensor) -> Tensor:
    """Low-pass a slab in-plane by the centred weights 1/4, 1/2, 1/4. The result loses a border of one voxel.

    Example:
        >>> smooth(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 6, 6])
    """
    return F.avg_pool2d(F.avg_pool2d(slab, 2, stride=1), 2, stride=1)


class DASRDegradation(Objective):
    r"""First stage: degrade the source $y$ (``reals``) into slabs ``degraded`` that look like the target (``image``).

    The colour term ties low frequencies to those of the k-space truncation of $y$ (``truncated``). The paper takes a
    bicubic image instead, which sits half a voxel off. The discriminator rules the high frequencies. The paper's
    perceptual term is left out, because its network was trained on photographs.

    ``low_res_discriminator`` judges the high frequencies of LR slabs, patch by patch. The second stage takes its
    probabilities for the domain distance. The paper weights the colour by 1 and the texture by 0.005.
    """

    generator_names = ("degradation",)
    discriminator_names = ("low_res_discriminator",)
    generator_terms = ("colour", "texture")
    discriminator_terms = ("low_res_discriminator_degraded",)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals = batch["reals"]
        return self.degradation.compared(
            image=batch["image"],
            truncated=self.degradation.truncate(reals),
            degraded=self.degradation.degrade(reals),
        )

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            "colour": absolute_error(smooth(images["degraded"]), smooth(images["truncated"])),
            "texture": log_adversarial_loss(self.low_res_discriminator(images["degraded"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return self.discrimination("low_res_discriminator", images, "image", ["degraded"], loss=log_discriminator_loss)


class DASR(Objective):
    r"""Second stage: super-resolve ``degraded`` where it looks real, and the target (``image``) so that it looks HR.

    The domain distance $\omega$ (``distance``) weights the absolute error of ``restored``, which is made of
    ``degraded``. Both come from the networks of the first stage, ``degradation`` and ``low_res_discriminator``, which
    stay fixed. ``high_res_discriminator`` sees high frequencies only, of ``super_resolved`` and of the source $y$
    (``reals``). Inference keeps ``network``.
    """

    fixed_names = ("degradation", "low_res_discriminator")
    discriminator_names = ("high_res_discriminator",)
    generator_terms = ("weighted_l1", "restoration_ssim", "low_frequency_l1", "adversarial")
    discriminator_terms = ("high_res_discriminator_super_resolved",)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        with torch.no_grad():
            degraded = self.degradation.degrade(reals)
        images = self.network.compared(
            image=image,
            reals=reals,
            degraded=degraded,
            restored=self.network.restore(degraded),
            super_resolved=self.network.restore(image),
        )
        with torch.no_grad():
            distance = self.low_res_discriminator.domain_distance(images["degraded"])
        return {**images, "distance": F.interpolate(distance, size=images["reals"].shape[2:])}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        made, given, distance = images["restored"], images["reals"], images["distance"]
        return {
            "weighted_l1": absolute_error(distance * made, distance * given),
            "restoration_ssim": ssim_loss(made, given, form=self.ssim_form),
            "low_frequency_l1": absolute_error(F.avg_pool2d(made, 2), F.avg_pool2d(given, 2)),  # Haar's LL band, halved
            "adversarial": log_adversarial_loss(self.high_res_discriminator(images["super_resolved"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return self.discrimination(
            "high_res_discriminator", images, "reals", ["super_resolved"], loss=log_discriminator_loss
        )
