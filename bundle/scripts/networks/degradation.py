"""The degradation learning network: down-sampling feature extractor and LR decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scripts.kspace import truncate

from .slabs import central, in_passes, slabs_to_volume, surround, volume_to_slabs
from .super_resolution import check_geometry
from .ts_rcan import SlabEncoder, TSRCANDecoder


def truncate_mirrored(x: Tensor, scale_factor: Sequence[int], dim: Sequence[int]) -> Tensor:
    """k-space truncation of a crop, continued by its mirror image so that opposite borders do not meet.

    Args:
        x: real tensor whose sizes along ``dim`` are multiples of ``scale_factor``.
        scale_factor: integer factor along each axis of ``dim``.
        dim: the axes to truncate.
    """
    for factor, axis in zip(scale_factor, dim, strict=True):
        size = x.shape[axis] // factor
        if factor > 1:
            x = truncate(torch.cat([x, x.flip(axis)], axis), [2 * size], [axis]).narrow(axis, 0, size)
    return x


class DegradationNet(nn.Module):
    """Down-sampling extractor $D_n$ and LR decoder $L$ of UDEAN (https://arxiv.org/abs/2205.06891), by thin slabs.

    As with :class:`SuperResolutionNet`, slabs may be wider than ``slab_size``; the skip sees all of them.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        slab_size: odd number of LR slices of a slab; the papers' is 3.
        num_features: width.
        num_groups: residual groups of the decoder.
        num_blocks: blocks per group.
        reduction: squeeze of the channel attention.
        skip: let the decoder learn the rest to the k-space truncation of its input. The papers' network has none. With
            it the untrained network is the truncation.
        slabs_per_pass: how many slabs of a volume pass the network at once, see :func:`.slabs.in_passes`.
        seed: seed of the initialisation.
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
        slabs_per_pass: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.in_plane, self.through_plane = check_geometry(scale_factor, slab_size)
        self.slab_size = slab_size
        self.slabs_per_pass = slabs_per_pass
        self.skip = skip
        self.extractor = SlabEncoder(
            slab_size * self.through_plane, stride=self.in_plane, num_features=num_features, seed=seed
        )
        self.decoder = TSRCANDecoder(
            out_channels=slab_size,
            num_features=num_features,
            num_groups=num_groups,
            num_blocks=num_blocks,
            reduction=reduction,
            zero_last=skip,
            seed=seed + 1,
        )

    def encode(self, high_res: Tensor) -> Tensor:
        """HR slab ``(B, S * s_z, s * H, s * W)`` to features ``(B, num_features, H, W)`` of its central slices."""
        return self.extractor(central(high_res, self.slab_size * self.through_plane))

    def decode(self, features: Tensor, low_res: Tensor) -> Tensor:
        """Features to the LR slab ``(B, S, H, W)``; ``low_res`` is what the skip adds, untouched."""
        slab = surround(self.decoder(features), low_res.shape[1])
        return slab + low_res if self.skip else slab

    def truncate(self, high_res: Tensor) -> Tensor:
        """What physics alone predicts of an HR slab: its k-space truncation ``(B, S, H, W)``."""
        return truncate_mirrored(high_res, (self.through_plane, self.in_plane, self.in_plane), (1, 2, 3))

    def slab(self, high_res: Tensor) -> Tensor:
        """HR slab ``(B, S * s_z, s * H, s * W)`` to the LR slab ``(B, S, H, W)``, all its slices."""
        return self.decode(self.encode(high_res), self.truncate(high_res))

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``.

        Raises:
            ValueError: when the volume is no whole multiple of the scale factor.
        """
        factors = [self.in_plane, self.in_plane, self.through_plane]
        if x.ndim != 5 or x.shape[1] != 1 or any(size % s for size, s in zip(x.shape[2:], factors, strict=True)):
            raise ValueError(
                f"DegradationNet expects volumes of shape (B, 1, H, W, D) in multiples of {factors}, "
                f"got {list(x.shape)}."
            )
        centre = self.slab_size // 2
        all_slabs = volume_to_slabs(x, self.slab_size * self.through_plane, self.through_plane)
        outputs = []
        for slabs in in_passes(all_slabs, self.slabs_per_pass):
            outputs.append(self.decoder(self.extractor(slabs))[:, centre : centre + 1])
        volume = slabs_to_volume(torch.cat(outputs), x.shape[0])
        if self.skip:
            volume = volume + self.truncate(x[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
        return volume
