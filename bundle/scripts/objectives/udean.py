"""UDEAN: unsupervised degradation adaptation (Liu, Li et al., https://arxiv.org/abs/2205.06891, eq. 3-10)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scripts.data.crops import learned_slices
from scripts.losses import absolute_error, adaptation_loss, adversarial_loss

from .base import Objective, Terms, discrimination, restoration


class UDEAN(Objective):
    r"""Learn the degradation of the target group on the source group, and to undo it, without pairs.

    In the paper's symbols, with source $Y_s$ (``reals``) and target $X_t$ (``image``): features $f_s$ (``features``),
    made LR image $X_{st}$ (``degraded``), its features $f_{sts}$ (``cycled_features``) and $Y_{sts}$ (``cycled``),
    $\hat Y_s$ (``reconstructed``), $f_t$ (``target_features``), $\hat X_t$ (``reconstructed_image``). Images are slabs
    ``(B, S, H, W)``, slices as channels, intensities about [0, 1]. ``truncated``, the k-space truncation of $Y_s$, is
    what a network with ``skip`` starts from, with noise where some was estimated; the papers' network ignores it.

    Args:
        network: LR encoder and SR decoder, what inference keeps.
        degradation: down-sampling extractor and LR decoder.
        high_res_discriminator: $D_h$, of HR slabs.
        low_res_discriminator: $D_{da}$, of LR slabs.
        feature_discriminator: $D_{fa}$, of feature maps; None leaves out the feature adaptation.
        weights: one weight per term; the paper's are 1 for L1, 0.5 for SSIM, 0.01 for adversarial terms and 0.1 for
            the feature cycle and the two adaptations.
        ssim_form: see :func:`scripts.losses.ssim_loss`.
        image_adaptation: whether $X_{st}$ is to look like the target group. If not, $D_{da}$ does not see it either, as
            it would be trained on it to no purpose.
        cycle_to_degradation: whether the gradient of the cycle passes $X_{st}$ to what made it, as in the paper, which
            then also learns to leave out of $X_{st}$ what is hard to restore, as far as $D_{da}$ lets it. Ours, for a
            degradation that is known but for a rest, stops there; $f_s$ learns from the terms that compare it.
    """

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
        self,
        network: nn.Module,
        degradation: nn.Module,
        high_res_discriminator: nn.Module,
        low_res_discriminator: nn.Module,
        feature_discriminator: nn.Module | None,
        weights: Mapping[str, float | None],
        ssim_form: str = "abs",
        image_adaptation: bool = True,
        cycle_to_degradation: bool = True,
    ) -> None:
        super().__init__(weights)
        self.network = network
        self.degradation = degradation
        self.high_res_discriminator = high_res_discriminator
        self.low_res_discriminator = low_res_discriminator
        self.feature_discriminator = feature_discriminator
        self.ssim_form = ssim_form
        self.image_adaptation = image_adaptation
        self.cycle_to_degradation = cycle_to_degradation
        absent = set() if image_adaptation else {"image_adaptation", "low_res_discriminator_degraded"}
        if feature_discriminator is None:
            absent |= {"feature_adaptation", "feature_discriminator_target_features"}
        self.generator_terms = tuple(term for term in self.generator_terms if term not in absent)
        self.discriminator_terms = tuple(term for term in self.discriminator_terms if term not in absent)

    @property
    def generators(self) -> nn.ModuleList:
        return nn.ModuleList([self.network, self.degradation])

    @property
    def discriminators(self) -> nn.ModuleList:
        networks = [self.high_res_discriminator, self.low_res_discriminator, self.feature_discriminator]
        return nn.ModuleList(network for network in networks if network is not None)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        features, truncated = self.degradation.encode(reals), self.degradation.truncate(reals)
        degraded = self.degradation.decode(features, self.degradation.add_noise(truncated))
        restored = degraded if self.cycle_to_degradation else degraded.detach()
        cycled_features = self.network.encode(restored)
        target_features = self.network.encode(image)
        images = learned_slices(
            self.network.slab_size,
            image,
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
        x = images
        terms = {
            **self._restoration("image_cycle", x["cycled"], x["reals"], self.high_res_discriminator),
            "feature_cycle_l1": absolute_error(x["cycled_features"], x["features"]),
            **self._restoration("high_res_consistency", x["reconstructed"], x["reals"], self.high_res_discriminator),
            **self._restoration(
                "low_res_consistency", x["reconstructed_image"], x["image"], self.low_res_discriminator
            ),
        }
        if self.image_adaptation:
            with torch.no_grad():  # the second half of eq. 8 depends on no generator
                constant = adaptation_loss(self.low_res_discriminator(x["image"]))
            terms["image_adaptation"] = adaptation_loss(self.low_res_discriminator(x["degraded"])) + constant
        if self.feature_discriminator is not None:
            logits = [self.feature_discriminator(x[name]) for name in ("target_features", "features")]
            terms["feature_adaptation"] = adaptation_loss(logits[0]) + adaptation_loss(logits[1])
        return terms

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x = images
        low_res_fakes = ("degraded", "reconstructed_image") if self.image_adaptation else ("reconstructed_image",)
        pairs = [
            ("high_res_discriminator", self.high_res_discriminator, "reals", ("reconstructed", "cycled")),
            ("low_res_discriminator", self.low_res_discriminator, "image", low_res_fakes),
        ]
        if self.feature_discriminator is not None:
            pairs.append(("feature_discriminator", self.feature_discriminator, "features", ("target_features",)))
        terms: Terms = {}
        for name, discriminator, real, fakes in pairs:
            terms |= discrimination(name, discriminator, x[real], **{fake: x[fake] for fake in fakes})
        return terms

    def _restoration(self, name: str, made: Tensor, given: Tensor, discriminator: nn.Module) -> Terms:
        """The three parts of eq. 4, 6 and 7."""
        return {
            **restoration(name, made, given, ssim_form=self.ssim_form),
            f"{name}_adversarial": adversarial_loss(discriminator(made)),
        }
