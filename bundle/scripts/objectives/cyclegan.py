"""CycleGAN (Zhu et al., https://arxiv.org/abs/1703.10593) between two groups of scans of different resolution."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scripts.losses import least_squares_adversarial_loss

from .base import Objective, Terms


class CycleGAN(Objective):
    r"""Degrade and super-resolve, so that either after the other returns the scan.

    The source $Y$ is ``reals`` and the target $X$ is ``image``. The images are $X_s = Down(Y)$ (``degraded``),
    $Y_t = Up(X)$ (``super_resolved``), $Up(X_s)$ (``cycled``) and $Down(Y_t)$ (``cycled_image``). They are
    compared as ``(B, S, H, W)``, slices as channels. There is no identity loss, because the groups differ in
    resolution. There is no pool of past images.

    The generators are ``network`` ($Up$, which inference keeps) and ``degradation`` ($Down$). The authors of UDEAN
    weight either cycle by 1 (L1), 0.5 (SSIM) and 0.01 (adversarial), and the adversarial terms of $X_s$ and $Y_t$ by
    0.1.
    """

    generator_names = ("network", "degradation")
    discriminator_names = ("high_res_discriminator", "low_res_discriminator")
    generator_terms = (
        "high_res_cycle_l1",
        "high_res_cycle_ssim",
        "high_res_cycle_adversarial",
        "low_res_cycle_l1",
        "low_res_cycle_ssim",
        "low_res_cycle_adversarial",
        "high_res_adversarial",
        "low_res_adversarial",
    )
    discriminator_terms = (
        "high_res_discriminator_cycled",
        "high_res_discriminator_super_resolved",
        "low_res_discriminator_cycled_image",
        "low_res_discriminator_degraded",
    )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        degraded, super_resolved = self.degradation.degrade(reals), self.network.restore(image)
        return self.network.compared(
            image=image,
            reals=reals,
            degraded=degraded,
            super_resolved=super_resolved,
            cycled=self.network.restore(degraded),
            cycled_image=self.degradation.degrade(super_resolved),
        )

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x, high_res, low_res = images, self.high_res_discriminator, self.low_res_discriminator
        return {
            **self.restoration("high_res_cycle", x["cycled"], x["reals"]),
            "high_res_cycle_adversarial": least_squares_adversarial_loss(high_res(x["cycled"])),
            **self.restoration("low_res_cycle", x["cycled_image"], x["image"]),
            "low_res_cycle_adversarial": least_squares_adversarial_loss(low_res(x["cycled_image"])),
            "high_res_adversarial": least_squares_adversarial_loss(high_res(x["super_resolved"])),
            "low_res_adversarial": least_squares_adversarial_loss(low_res(x["degraded"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            **self.discrimination("high_res_discriminator", images, "reals", ["cycled", "super_resolved"]),
            **self.discrimination("low_res_discriminator", images, "image", ["cycled_image", "degraded"]),
        }
