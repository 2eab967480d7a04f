"""UDEAN: unsupervised degradation adaptation (Liu, Li et al., https://arxiv.org/abs/2205.06891, eq. 3-10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scripts.losses import (
    absolute_error,
    adaptation_loss,
    adversarial_loss,
    discriminator_loss,
    hinge_adversarial_loss,
    hinge_discriminator_loss,
)

from .base import Objective, Terms


class UDEAN(Objective):
    r"""Learn the degradation of the target group on the source group, and learn to undo it, without pairs.

    The source $Y_s$ is ``reals`` and the target $X_t$ is ``image``. In the paper's symbols the method publishes:

    ======================= ================= =============================================
    name                    symbol            what it is
    ======================= ================= =============================================
    ``features``            $f_s$             what the extractor finds in $Y_s$
    ``truncated``                             the k-space truncation of $Y_s$
    ``degraded``            $X_{st}$          the LR image that the degradation makes
    ``cycled_features``     $f_{sts}$         its features
    ``cycled``              $Y_{sts}$         the SR image made of these
    ``reconstructed``       $\hat Y_s$        the SR image made of $f_s$
    ``target_features``     $f_t$             features of $X_t$
    ``reconstructed_image`` $\hat X_t$        the LR image made of these
    ======================= ================= =============================================

    Images are compared as ``(B, S, H, W)``, slices as channels, intensities about [0, 1]. A network with a skip starts
    from ``truncated``, with noise where some was estimated. The papers' network ignores it.

    The generators are ``network`` (LR encoder and SR decoder, which inference keeps) and ``degradation``
    (down-sampling extractor and LR decoder). The discriminators are $D_h$ of HR slabs, $D_{da}$ of LR slabs and
    $D_{fa}$ of feature maps. Without ``feature_discriminator`` there is no feature adaptation.

    Args:
        image_adaptation: whether $X_{st}$ has to look like the target group. If not, $D_{da}$ does not see $X_{st}$.
        cycle_to_degradation: whether the cycle also moves what makes $X_{st}$, as in the paper. It then learns to leave
            out of $X_{st}$ what is hard to restore, as far as $D_{da}$ lets it. False suits a degradation that is known
            up to a residual: the cycle's gradient stops at $X_{st}$.
        hinge: train $D_{da}$ and what should deceive it by the hinge loss instead of the paper's.
        declared: ``weights``, ``generators``, ``discriminators`` and ``ssim_form``, see :class:`.Objective`. The paper
            weights L1 by 1, SSIM by 0.5, adversarial terms by 0.01, the feature cycle and both adaptations by 0.1.
    """

    generator_names = ("network", "degradation")
    discriminator_names = ("high_res_discriminator", "low_res_discriminator", "feature_discriminator")
    optional_names = ("feature_discriminator",)
    generator_terms = (
        "image_cycle_l1",
        "image_cycle_ssim",
        "image_cycle_adversarial",
        "feature_cycle_l1",
        "high_res_consistency_l1",
        "high_res_consistency_ssim",
        "high_res_consistency_adversarial",
        "low_res_consistency_l1",
        "low_res_consistency_ssim",
        "low_res_consistency_adversarial",
        "image_adaptation",
        "feature_adaptation",
    )
    discriminator_terms = (
        "high_res_discriminator_reconstructed",
        "high_res_discriminator_cycled",
        "low_res_discriminator_degraded",
        "low_res_discriminator_reconstructed_image",
        "feature_discriminator_target_features",
    )

    def __init__(
        self, *, image_adaptation: bool, cycle_to_degradation: bool, hinge: bool = False, **declared: Any
    ) -> None:
        super().__init__(**declared)
        self.hinge = hinge
        self.image_adaptation = image_adaptation
        self.cycle_to_degradation = cycle_to_degradation
        absent = set() if image_adaptation else {"image_adaptation", "low_res_discriminator_degraded"}
        if self.feature_discriminator is None:
            absent |= {"feature_adaptation", "feature_discriminator_target_features"}
        self.generator_terms = tuple(term for term in self.generator_terms if term not in absent)
        self.discriminator_terms = tuple(term for term in self.discriminator_terms if term not in absent)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        features, truncated = self.degradation.encode(reals), self.degradation.truncate(reals)
        degraded = self.degradation.decode(features, self.degradation.add_noise(truncated))
        restored = degraded if self.cycle_to_degradation else degraded.detach()
        cycled_features = self.network.encode(restored)
        target_features = self.network.encode(image)
        images = self.network.compared(
            image=image,
            reals=reals,
            truncated=truncated,
            degraded=degraded,
            cycled=self.network.decode(cycled_features, restored),
            reconstructed=self.network.decode(features, truncated),
            reconstructed_image=self.degradation.decode(target_features, image),
        )
        return {
            **images,
            "features": features,
            "cycled_features": cycled_features,
            "target_features": target_features,
        }

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x, high_res, low_res = images, self.high_res_discriminator, self.low_res_discriminator
        deceive = hinge_adversarial_loss if self.hinge else adversarial_loss
        terms = {
            **self._comparison("image_cycle", x["cycled"], x["reals"], high_res),
            "feature_cycle_l1": absolute_error(x["cycled_features"], x["features"]),
            **self._comparison("high_res_consistency", x["reconstructed"], x["reals"], high_res),
            **self._comparison("low_res_consistency", x["reconstructed_image"], x["image"], low_res, deceive),
        }
        if self.image_adaptation and self.hinge:
            terms["image_adaptation"] = deceive(low_res(x["degraded"]))
        elif self.image_adaptation:
            with torch.no_grad():  # the second half of eq. 8 depends on no generator
                constant = adaptation_loss(low_res(x["image"]))
            terms["image_adaptation"] = adaptation_loss(low_res(x["degraded"])) + constant
        if self.feature_discriminator is not None:
            logits = [self.feature_discriminator(x[name]) for name in ("target_features", "features")]
            terms["feature_adaptation"] = adaptation_loss(logits[0]) + adaptation_loss(logits[1])
        return terms

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        low_res_fakes = ["degraded", "reconstructed_image"] if self.image_adaptation else ["reconstructed_image"]
        low_res_loss = hinge_discriminator_loss if self.hinge else discriminator_loss
        terms = {
            **self.discrimination("high_res_discriminator", images, "reals", ["reconstructed", "cycled"]),
            **self.discrimination("low_res_discriminator", images, "image", low_res_fakes, low_res_loss),
        }
        if self.feature_discriminator is not None:
            terms |= self.discrimination("feature_discriminator", images, "features", ["target_features"])
        return terms

    def _comparison(
        self,
        name: str,
        made: Tensor,
        given: Tensor,
        discriminator: nn.Module,
        deceive: Callable[[Tensor], Tensor] = adversarial_loss,
    ) -> Terms:
        """The three parts of eq. 4, 6 and 7."""
        return {**self.restoration(name, made, given), f"{name}_adversarial": deceive(discriminator(made))}
