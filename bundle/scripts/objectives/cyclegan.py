"""CycleGAN (Zhu et al., https://arxiv.org/abs/1703.10593) between two groups of scans of different resolution."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from scripts.data.crops import learned_slices
from scripts.losses import least_squares_adversarial_loss

from .base import Objective, Terms, discrimination, restoration


class CycleGAN(Objective):
    r"""Degrade and super-resolve, so that either after the other returns the scan.

    With the source $Y$ (``reals``) and the target $X$ (``image``): $X_s = Down(Y)$ (``degraded``), $Y_t = Up(X)$
    (``super_resolved``), $Up(X_s)$ (``cycled``) and $Down(Y_t)$ (``cycled_image``). There is no identity loss, as the
    groups differ in size, and no pool of past images. Slabs are ``(B, S, H, W)``, slices as channels.

    Args:
        network: $Up$, what inference keeps.
        degradation: $Down$.
        high_res_discriminator: of HR slabs.
        low_res_discriminator: of LR slabs.
        weights: one weight per term; the papers' authors take 1 for L1, 0.5 for SSIM and 0.01 for the adversarial term
            of either cycle, and 0.1 for the adversarial terms of $X_s$ and $Y_t$.
        ssim_form: see :func:`scripts.losses.ssim_loss`.
    """

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

    def __init__(
        self,
        network: nn.Module,
        degradation: nn.Module,
        high_res_discriminator: nn.Module,
        low_res_discriminator: nn.Module,
        weights: Mapping[str, float | None],
        ssim_form: str = "one_minus_square",
    ) -> None:
        super().__init__(weights)
        self.network = network
        self.degradation = degradation
        self.high_res_discriminator = high_res_discriminator
        self.low_res_discriminator = low_res_discriminator
        self.ssim_form = ssim_form

    @property
    def generators(self) -> nn.ModuleList:
        return nn.ModuleList([self.network, self.degradation])

    @property
    def discriminators(self) -> nn.ModuleList:
        return nn.ModuleList([self.high_res_discriminator, self.low_res_discriminator])

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        degraded, super_resolved = self.degradation.slab(reals), self.network.slab(image)
        return learned_slices(
            self.network.slab_size,
            image,
            reals=reals,
            degraded=degraded,
            super_resolved=super_resolved,
            cycled=self.network.slab(degraded),
            cycled_image=self.degradation.slab(super_resolved),
        )

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x, high_res, low_res = images, self.high_res_discriminator, self.low_res_discriminator
        return {
            **restoration("high_res_cycle", x["cycled"], x["reals"], ssim_form=self.ssim_form),
            "high_res_cycle_adversarial": least_squares_adversarial_loss(high_res(x["cycled"])),
            **restoration("low_res_cycle", x["cycled_image"], x["image"], ssim_form=self.ssim_form),
            "low_res_cycle_adversarial": least_squares_adversarial_loss(low_res(x["cycled_image"])),
            "high_res_adversarial": least_squares_adversarial_loss(high_res(x["super_resolved"])),
            "low_res_adversarial": least_squares_adversarial_loss(low_res(x["degraded"])),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x, high_res, low_res = images, self.high_res_discriminator, self.low_res_discriminator
        return {
            **discrimination(
                "high_res_discriminator",
                high_res,
                x["reals"],
                cycled=x["cycled"],
                super_resolved=x["super_resolved"],
            ),
            **discrimination(
                "low_res_discriminator",
                low_res,
                x["image"],
                cycled_image=x["cycled_image"],
                degraded=x["degraded"],
            ),
        }
