"""Super-resolution: the inference network of UDEAN, LR encoder and SR decoder, from volume to volume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .interpolation import SlabInterpolation
from .slabs import central, compared_slabs, in_passes, slabs_to_volume, surround, volume_to_slabs
from .ts_rcan import SlabEncoder, TSRCANDecoder


def check_geometry(scale_factor: Sequence[int], slab_size: int) -> tuple[int, int]:
    """The in-plane and through-plane factors of a valid geometry.

    Raises:
        ValueError: when the factors are not integers of the form ``(s, s, s_z)``, or the slab has no central slice.

    Example:
        >>> check_geometry((2, 2, 1), slab_size=3)
        (2, 1)
    """
    factors = [int(s) for s in scale_factor]
    if len(factors) != 3 or factors != list(scale_factor) or factors[0] != factors[1] or min(factors) < 1:
        raise ValueError(f"scale_factor must be integers (s, s, s_z), the slab axis last, got {tuple(scale_factor)}.")
    if slab_size < 1 or slab_size % 2 == 0:
        raise ValueError(f"slab_size must be odd, so that a slab has a central slice, got {slab_size}.")
    return factors[0], factors[2]


class SuperResolutionNet(nn.Module):
    """LR encoder $E$ and SR decoder $S$ of UDEAN (https://arxiv.org/abs/2205.06891), on thin slabs.

    A volume passes as one slab per slice along its last axis. The output of each slab's central slice is kept.
    Training calls :meth:`restore`, or :meth:`encode` and :meth:`decode`, which return all slices that they are given.

    A slab may be wider than ``slab_size``. The slices around its middle are context for the skip, whose interpolation
    reaches much further than a thin slab. Their own output is the interpolation alone.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        slab_size: odd number of LR slices of a slab. The papers take 3.
        num_features: width.
        num_groups: residual groups of the decoder.
        num_blocks: blocks per group.
        reduction: squeeze of the channel attention.
        skip: let the decoder learn the residual to a fixed interpolation of the LR slab. The untrained network is then
            this interpolation. The papers' network has no skip.
        slab_step: slices from one slab of a volume to the next, odd and at most ``slab_size``. Each slab gives this
            number of slices from its middle, and the work shrinks by the same factor.
        margin: LR voxels at the borders of a training slab that no term compares.
        slabs_per_pass: how many slabs of a volume pass the network at once, see :func:`.slabs.in_passes`.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the geometry or ``slab_step`` is not valid.

    Example:
        >>> network = SuperResolutionNet(num_features=16, num_groups=1, num_blocks=1)
        >>> network(torch.rand(1, 1, 8, 8, 5)).shape
        torch.Size([1, 1, 16, 16, 10])
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        slab_size: int = 3,
        num_features: int = 64,
        num_groups: int = 5,
        num_blocks: int = 5,
        reduction: int = 16,
        skip: bool = False,
        slab_step: int = 1,
        margin: int = 0,
        slabs_per_pass: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        in_plane, through_plane = check_geometry(scale_factor, slab_size)
        self.through_plane = through_plane
        self.slab_size, self.margin = slab_size, margin
        if slab_step not in range(1, slab_size + 1, 2):
            raise ValueError(f"slab_step must be odd and at most slab_size ({slab_size}), got {slab_step}.")
        self.slab_step = slab_step
        self.slabs_per_pass = slabs_per_pass
        self.skip = skip
        self.encoder = SlabEncoder(slab_size, num_features=num_features, seed=seed)
        self.decoder = TSRCANDecoder(
            out_channels=slab_size * through_plane,
            upsample_factor=in_plane,
            num_features=num_features,
            num_groups=num_groups,
            num_blocks=num_blocks,
            reduction=reduction,
            zero_last=skip,
            seed=seed + 1,
        )
        self.interpolation = SlabInterpolation((in_plane, in_plane, through_plane))

    def encode(self, low_res: Tensor) -> Tensor:
        """LR slab ``(B, S, H, W)`` to features ``(B, num_features, H, W)`` of its central ``slab_size`` slices."""
        return self.encoder(central(low_res, self.slab_size))

    def decode(self, features: Tensor, low_res: Tensor) -> Tensor:
        """Features to the SR slab ``(B, S * s_z, s * H, s * W)``. The skip interpolates ``low_res``."""
        slab = surround(self.decoder(features), low_res.shape[1] * self.through_plane)
        if self.skip:
            slab = slab + self.interpolation(low_res)
        return slab

    def restore(self, low_res: Tensor) -> Tensor:
        """LR slab ``(B, S, H, W)`` to all slices of the SR slab ``(B, S * s_z, s * H, s * W)``."""
        return self.decode(self.encode(low_res), low_res)

    def compared(self, **images: Tensor) -> dict[str, Tensor]:
        """The parts of published slabs that terms compare, see :func:`.slabs.compared_slabs`."""
        return compared_slabs(self.slab_size, self.margin, **images)

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to SR volume ``(B, 1, s * H, s * W, s_z * D)``.

        Raises:
            ValueError: when the input is not a volume of one channel.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"SuperResolutionNet expects volumes of shape (B, 1, H, W, D), got {list(x.shape)}.")
        depth = x.shape[4]
        whole = F.pad(x, [0, -depth % self.slab_step, 0, 0, 0, 0], mode="replicate")
        outputs = []
        for slabs in in_passes(volume_to_slabs(whole, self.slab_size, self.slab_step), self.slabs_per_pass):
            outputs.append(central(self.decoder(self.encoder(slabs)), self.slab_step * self.through_plane))
        volume = slabs_to_volume(torch.cat(outputs), x.shape[0])[..., : depth * self.through_plane]
        if self.skip:
            volume = volume + self.interpolation(x[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
        return volume
