"""Blind-SR, reconstructed from the title of Zhou et al., IEEE JBHI 2023; text and code were not available."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scripts.losses import absolute_error, least_squares_adversarial_loss

from .base import Objective, Terms


def kernel_penalties(kernel: Tensor) -> Terms:
    """What KernelGAN (https://arxiv.org/abs/1909.06581) asks of a kernel: sum 1, dark borders, centred, few taps.

    Args:
        kernel: cube ``(K, K, K)``, K odd. Its centre lies on the voxel that it makes.

    Example:
        >>> impulse = torch.zeros(13, 13, 13)
        >>> impulse[6, 6, 6] = 1
        >>> float(kernel_penalties(impulse)["kernel_sum"])
        0.0
    """
    size = kernel.shape[0]
    offset = torch.arange(size, device=kernel.device, dtype=kernel.dtype) - size // 2
    bell = torch.exp(-((offset / size) ** 2) / 2)
    border = 1 - bell[:, None, None] * bell[:, None] * bell
    margin = (size // 2) // 2 - 1
    border[margin:-margin, margin:-margin, margin:-margin] = 0
    profiles = [kernel.sum([other for other in range(3) if other != axis]) for axis in range(3)]
    centre = torch.stack([(profile * offset).sum() / kernel.sum() for profile in profiles])
    return {
        "kernel_sum": (kernel.sum() - 1).abs(),
        "kernel_border": (30 * border * kernel).abs().mean(),
        "kernel_centre": centre.square().mean(),
        "kernel_sparsity": (kernel.square() + 1e-8).pow(0.1).mean(),  # |k|^0.2, whose slope is infinite at 0
    }


class BlindSR(Objective):
    r"""Learn an unknown linear degradation, a translation into the target group, and super-resolution.

    The source $Y_s$ is ``reals`` and the target $X_t$ is ``image``. The networks are the linear degradation $K$, the
    translator $T$ and the SR network $S$. The images are $K(Y_s)$ (``downsampled``), $T(K(Y_s))$ (``degraded``), $S$ of
    that (``cycled``), $S(X_t)$ (``super_resolved``) and $K(S(X_t))$ (``cycled_image``).

    The generators are ``network`` ($S$, which inference keeps) and ``degradation``, whose parts are ``downsampling``
    ($K$, with its ``kernel()``) and ``translator`` ($T$).
    """

    generator_names = ("network", "degradation")
    discriminator_names = ("high_res_discriminator", "low_res_discriminator")
    generator_terms = (
        "high_res_cycle_l1",
        "high_res_cycle_ssim",
        "low_res_cycle_l1",
        "low_res_cycle_ssim",
        "high_res_adversarial",
        "low_res_adversarial",
        "translation_l1",
        "kernel_sum",
        "kernel_border",
        "kernel_centre",
        "kernel_sparsity",
    )
    discriminator_terms = ("high_res_discriminator_super_resolved", "low_res_discriminator_degraded")

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        reals, image = batch["reals"], batch["image"]
        downsampled = self.degradation.downsampling.degrade(reals)
        degraded = self.degradation.translator.translate(downsampled)
        super_resolved = self.network.restore(image)
        images = self.network.compared(
            image=image,
            reals=reals,
            downsampled=downsampled,
            degraded=degraded,
            cycled=self.network.restore(degraded),
            super_resolved=super_resolved,
            cycled_image=self.degradation.downsampling.degrade(super_resolved),
        )
        return {**images, "kernel": self.degradation.downsampling.kernel()}

    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        x = images
        return {
            **self.restoration("high_res_cycle", x["cycled"], x["reals"]),
            **self.restoration("low_res_cycle", x["cycled_image"], x["image"]),
            "high_res_adversarial": least_squares_adversarial_loss(self.high_res_discriminator(x["super_resolved"])),
            "low_res_adversarial": least_squares_adversarial_loss(self.low_res_discriminator(x["degraded"])),
            "translation_l1": absolute_error(x["degraded"], x["downsampled"]),
            **kernel_penalties(x["kernel"]),
        }

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        return {
            **self.discrimination("high_res_discriminator", images, "reals", ["super_resolved"]),
            **self.discrimination("low_res_discriminator", images, "image", ["degraded"]),
        }
