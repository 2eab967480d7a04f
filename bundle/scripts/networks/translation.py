"""Translation: from one group of LR scans to another, and the networks that contain it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .slabs import central, in_passes, slabs_to_volume, surround, volume_to_slabs
from .super_resolution import check_geometry
from .ts_rcan import SlabEncoder, TSRCANDecoder


class TranslationNet(nn.Module):
    """LR to LR on thin slabs: the encoder of :class:`.SuperResolutionNet` and a decoder without up-sampling.

    Args:
        slab_size: odd number of slices of a slab. The papers take 3.
        num_features: width.
        num_groups: residual groups of the decoder.
        num_blocks: blocks per group.
        reduction: squeeze of the channel attention.
        skip: let the decoder learn the residual to its input. The untrained network is then the identity.
        noise: give the encoder one more channel, new white Gaussian noise for every slab. One input then has many
            outputs.
        slabs_per_pass: how many slabs of a volume pass the network at once, see :func:`.slabs.in_passes`.
        seed: seed of the initialisation.

    Raises:
        ValueError: when ``slab_size`` is not odd.

    Example:
        >>> TranslationNet(num_features=16, num_groups=1, num_blocks=1)(torch.rand(1, 1, 8, 8, 5)).shape
        torch.Size([1, 1, 8, 8, 5])
    """

    def __init__(
        self,
        slab_size: int = 3,
        num_features: int = 64,
        num_groups: int = 5,
        num_blocks: int = 5,
        reduction: int = 16,
        skip: bool = False,
        noise: bool = False,
        slabs_per_pass: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_geometry((1, 1, 1), slab_size)
        self.slab_size = slab_size
        self.slabs_per_pass = slabs_per_pass
        self.skip = skip
        self.noise = noise
        self.encoder = SlabEncoder(slab_size + int(noise), num_features=num_features, seed=seed)
        self.decoder = TSRCANDecoder(
            out_channels=slab_size,
            num_features=num_features,
            num_groups=num_groups,
            num_blocks=num_blocks,
            reduction=reduction,
            zero_last=skip,
            seed=seed + 1,
        )

    def translate(self, low_res: Tensor) -> Tensor:
        """LR slab ``(B, S, H, W)`` to the LR slab ``(B, S, H, W)`` of the other group.

        The slab may be wider than ``slab_size``, as in :class:`.SuperResolutionNet`.
        """
        given = central(low_res, self.slab_size)
        if self.noise:
            given = torch.cat([given, torch.randn_like(given[:, :1])], 1)
        slab = surround(self.decoder(self.encoder(given)), low_res.shape[1])
        return slab + low_res if self.skip else slab

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to LR volume ``(B, 1, H, W, D)``.

        Raises:
            ValueError: when the input is not a volume of one channel.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"TranslationNet expects volumes of shape (B, 1, H, W, D), got {list(x.shape)}.")
        centre = self.slab_size // 2
        outputs = []
        for slabs in in_passes(volume_to_slabs(x, self.slab_size, 1), self.slabs_per_pass):
            outputs.append(self.translate(slabs)[:, centre : centre + 1])
        return slabs_to_volume(torch.cat(outputs), x.shape[0])


class CleanedSuperResolutionNet(nn.Module):
    """Pseudo-SR's inference (https://arxiv.org/abs/2002.11397): clean the scan, then super-resolve it.

    Args:
        cleaner: LR volume of the target group to an LR volume as the predefined down-sampling would make it.
        super_resolution: clean LR volume to SR volume.

    Example:
        >>> CleanedSuperResolutionNet(nn.Identity(), nn.Upsample(scale_factor=2))(torch.rand(1, 1, 4, 4, 4)).shape
        torch.Size([1, 1, 8, 8, 8])
    """

    def __init__(self, cleaner: nn.Module, super_resolution: nn.Module) -> None:
        super().__init__()
        self.cleaner = cleaner
        self.super_resolution = super_resolution

    def compared(self, **images: Tensor) -> dict[str, Tensor]:
        """The parts of published images that terms compare, see the SR network."""
        return self.super_resolution.compared(**images)

    def forward(self, x: Tensor, acquisition: Tensor | None = None) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to SR volume, on the output grid.

        Both networks learn one factor, so that ``acquisition`` says nothing new.
        """
        return self.super_resolution(self.cleaner(x))


class TranslatedDegradation(nn.Module):
    """A degradation in two steps: down-sample, then translate the result into the target group.

    Args:
        downsampling: HR volume to LR volume.
        translator: LR volume to LR volume of the target group.

    Example:
        >>> from scripts.networks import CubicDownsampling
        >>> TranslatedDegradation(CubicDownsampling(), nn.Identity())(torch.rand(1, 1, 8, 8, 8)).shape
        torch.Size([1, 1, 4, 4, 4])
    """

    def __init__(self, downsampling: nn.Module, translator: nn.Module) -> None:
        super().__init__()
        self.factors = downsampling.factors
        self.downsampling = downsampling
        self.translator = translator

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``."""
        return self.translator(self.downsampling(x))
