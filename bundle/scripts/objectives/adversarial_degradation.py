"""A degradation that its discriminator alone moves, and a network that restores what it makes. Ours alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scripts.losses import adaptation_loss

from .base import Objective, Terms


class AdversarialDegradation(Objective):
    """UDEAN reduced to its image adaptation, as KernelGAN (https://arxiv.org/abs/1909.06581) learns a kernel.

    The source is ``reals`` and the target is ``image``. The degradation makes ``degraded`` of the source, which should
    look like the target. The network makes ``restored`` of that. It is supervised on these pairs, and its error does
    not move the degradation.

    The generators are ``network``, which inference keeps, and ``degradation``.

    Example:
        >>> AdversarialDegradation.generator_terms
        ('restoration_l1', 'restoration_ssim', 'image_adaptation')
    """

    generator_names = ("network", "degradation")
    discriminator_names = ("low_res_discriminator",)
    generator_terms = ("restoration_l1", "restoration_ssim", "image_adaptation")
    discriminator_terms = ("low_res_discriminator_degraded",)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals = batch["reals"]
        degraded = self.degradation.degrade(reals)
        restored = self.network.restore(degraded.detach())
        return self.network.compared(image=batch["image"], reals=reals, degraded=degraded, restored=restored)

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            **self.restoration("restoration", images["restored"], images["reals"]),
            "image_adaptation": adaptation_loss(self.low_res_discriminator(images["degraded"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return self.discrimination("low_res_discriminator", images, "image", ["degraded"])
