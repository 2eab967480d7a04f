"""Pseudo-SR: unpaired super-resolution by pseudo-supervision (Maeda, https://arxiv.org/abs/2002.11397)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from scripts.losses import absolute_error, least_squares_adversarial_loss

from .base import Objective, Terms, frozen


class PseudoSR(Objective):
    r"""Clean the target's scans into predefined down-samplings of the source, for which super-resolution has pairs.

    The source $y$ is ``reals``, its predefined down-sampling $y_\downarrow$ is ``downsampled`` and the target $x$ is
    ``image``. The translators make $G_{Y_\downarrow X}(y_\downarrow)$ (``degraded``), $G_{XY_\downarrow}$ of that
    (``cycled``), $G_{XY_\downarrow}(x)$ (``cleaned``) and $G_{XY_\downarrow}(y_\downarrow)$ (``identity``).
    ``ensemble`` is the mean of the cleaned $x$ over its turned and mirrored copies. These keep the LR grid.

    The SR network $U$ learns from ``super_resolved`` alone, made of the detached ``cycled``. The adversarial term of
    ``super_resolved_cycled`` passes through $U$ without moving it.

    The generators are ``network`` and ``degradation``. The parts of ``network`` are ``cleaner`` ($G_{XY_\downarrow}$)
    and ``super_resolution`` ($U$); inference keeps both. The parts of ``degradation`` are ``downsampling`` and
    ``translator`` ($G_{Y_\downarrow X}$). The discriminators are those of clean LR slabs ($D_{Y_\downarrow}$), of the
    target's LR slabs ($D_X$) and of SR slabs ($D_{X_\uparrow}$). For the last, slabs made of $x$ are real and slabs
    made of $y$ are fake.
    """

    generator_names = ("network", "degradation")
    discriminator_names = ("clean_discriminator", "low_res_discriminator", "high_res_discriminator")
    generator_terms = (
        "cleaned_adversarial",
        "degraded_adversarial",
        "super_resolved_adversarial",
        "cycle_l1",
        "identity_l1",
        "geometry_l1",
        "super_resolution_l1",
    )
    discriminator_terms = (
        "clean_discriminator_cleaned",
        "low_res_discriminator_degraded",
        "high_res_discriminator_super_resolved_cycled",
    )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        clean, super_resolve = self.network.cleaner.translate, self.network.super_resolution.restore
        downsampled = self.degradation.downsampling.degrade(reals)
        degraded = self.degradation.translator.translate(downsampled)
        cycled, cleaned = clean(degraded), clean(image)
        with frozen(self.network.super_resolution):
            super_resolved_cycled, super_resolved_image = super_resolve(cycled), super_resolve(cleaned.detach())
        return self.network.compared(
            image=image,
            reals=reals,
            downsampled=downsampled,
            degraded=degraded,
            cycled=cycled,
            cleaned=cleaned,
            identity=clean(downsampled),
            ensemble=self._ensemble(image, cleaned),
            super_resolved_cycled=super_resolved_cycled,
            super_resolved_image=super_resolved_image,
            super_resolved=super_resolve(cycled.detach()),
        )

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x = images
        return {
            "cleaned_adversarial": least_squares_adversarial_loss(self.clean_discriminator(x["cleaned"])),
            "degraded_adversarial": least_squares_adversarial_loss(self.low_res_discriminator(x["degraded"])),
            "super_resolved_adversarial": least_squares_adversarial_loss(
                self.high_res_discriminator(x["super_resolved_cycled"])
            ),
            "cycle_l1": absolute_error(x["cycled"], x["downsampled"]),
            "identity_l1": absolute_error(x["identity"], x["downsampled"]),
            "geometry_l1": absolute_error(x["cleaned"], x["ensemble"]),
            "super_resolution_l1": absolute_error(x["super_resolved"], x["reals"]),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            **self.discrimination("clean_discriminator", images, "downsampled", ["cleaned"]),
            **self.discrimination("low_res_discriminator", images, "image", ["degraded"]),
            **self.discrimination("high_res_discriminator", images, "super_resolved_image", ["super_resolved_cycled"]),
        }

    def _ensemble(self, image: Tensor, cleaned: Tensor) -> Tensor:
        """The mean over the eight symmetries of the plane, each undone after cleaning. The first is ``cleaned``."""
        total = cleaned
        for mirrored, turns in list(product((False, True), range(4)))[1:]:
            given = torch.rot90(image.flip(3) if mirrored else image, turns, (2, 3))
            made = torch.rot90(self.network.cleaner.translate(given), -turns, (2, 3))
            total = total + (made.flip(3) if mirrored else made)
        return total / 8
