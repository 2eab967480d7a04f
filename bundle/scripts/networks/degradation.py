"""Degradation networks: UDEAN's, with down-sampling feature extractor and LR decoder, and what ours shares with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scripts.physics.degradation import Degradation
from scripts.physics.kspace import apodise, fftc, ifftc, truncate

from .slabs import central, compared_slabs, in_passes, slabs_to_volume, surround, volume_to_slabs
from .super_resolution import check_geometry
from .ts_rcan import SlabEncoder, TSRCANDecoder

SLAB_DIMS = (2, 3, 1)
"""The axes of a volume, the slab axis last, as dimensions of a slab ``(B, S, H, W)``."""


def truncate_mirrored(
    x: Tensor, scale_factor: Sequence[int], dim: Sequence[int], estimate: Degradation | None = None
) -> Tensor:
    """k-space truncation of a crop, which is mirrored first, so that opposite borders do not meet.

    Args:
        x: real tensor whose sizes along ``dim`` are multiples of ``scale_factor``.
        scale_factor: integer factor along each axis of ``dim``.
        dim: the axes to truncate.
        estimate: weight k-space by the transfer of this estimate, whose axes are those of ``dim`` in order.

    Example:
        >>> truncate_mirrored(torch.ones(8, 8), (2, 2), dim=(0, 1)).shape
        torch.Size([4, 4])
    """
    size = [x.shape[axis] // factor for factor, axis in zip(scale_factor, dim, strict=True)]
    for kept, factor, axis in zip(size, scale_factor, dim, strict=True):
        if factor > 1 or estimate is not None:
            x = truncate(torch.cat([x, x.flip(axis)], axis), [2 * kept], [axis])
            x = x.narrow(axis, 0, kept) if estimate is None else x
    if estimate is not None:
        x = weighted(x, dim, estimate)
        for kept, axis in zip(size, dim, strict=True):
            x = x.narrow(axis, 0, kept)
    return x


def weighted(x: Tensor, dim: Sequence[int], estimate: Degradation) -> Tensor:
    """Weight the k-space of an LR tensor by the transfer of an estimate, along ``dim``."""
    window = estimate.window([x.shape[axis] for axis in dim])
    return ifftc(apodise(fftc(x, dim), window, dim), dim).real


def add_noise(x: Tensor, dim: Sequence[int], estimate: Degradation | None) -> Tensor:
    """Add the noise of an estimate to an LR tensor. Each call draws new noise. Without an estimate nothing changes.

    Example:
        >>> float(add_noise(torch.ones(2, 2), (0, 1), estimate=None).std())
        0.0
    """
    if estimate is None or estimate.noise_std == 0:
        return x
    noise = estimate.noise_std * torch.randn_like(x)
    return x + (weighted(noise, dim, estimate) if estimate.filtered_noise else noise)


class SlabDegradation(nn.Module):
    """Base of the degradation networks: the physics that the skip adds, and the path of a slab.

    Args:
        factors: integer factors $(s, s, s_z)$, the slab axis last.
        slab_size: LR slices of the training slabs.
        skip: add the physics to what :meth:`decode` learns.
        estimate: the degradation that the physics applies, the slab axis last. None for the truncation alone.
        margin: LR voxels at the borders of a training slab that no term compares.

    Raises:
        ValueError: when there is an estimate and no skip.
    """

    def __init__(
        self, factors: Sequence[int], slab_size: int, skip: bool, estimate: Degradation | None, margin: int = 0
    ) -> None:
        super().__init__()
        if estimate is not None and not skip:
            raise ValueError("skip must be true for a degradation network that starts from an estimate, got false.")
        self.estimate = estimate
        self.through_plane = factors[2]
        self.factors = list(factors)
        self.slab_size, self.margin = slab_size, margin
        self.skip = skip

    def truncate(self, high_res: Tensor) -> Tensor:
        """The physics of an HR slab: its k-space truncation ``(B, S, H, W)``, weighted by the estimate's transfer."""
        return truncate_mirrored(high_res, self.factors, SLAB_DIMS, self.estimate)

    def add_noise(self, low_res: Tensor) -> Tensor:
        """The LR slab ``(B, S, H, W)`` with the estimated noise, if any."""
        return add_noise(low_res, SLAB_DIMS, self.estimate)

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR slab ``(B, S * s_z, s * H, s * W)`` to all slices of the LR slab ``(B, S, H, W)``."""
        return self.decode(self.encode(high_res), self.add_noise(self.truncate(high_res)))

    def compared(self, **images: Tensor) -> dict[str, Tensor]:
        """The parts of published slabs that terms compare, see :func:`.slabs.compared_slabs`."""
        return compared_slabs(self.slab_size, self.margin, **images)

    def check_volume(self, x: Tensor) -> None:
        """Refuse a tensor that is not an HR volume.

        Raises:
            ValueError: when ``x`` is not a volume of one channel, or its sizes are not multiples of the factors.
        """
        if x.ndim != 5 or x.shape[1] != 1 or any(size % s for size, s in zip(x.shape[2:], self.factors, strict=True)):
            raise ValueError(
                f"{type(self).__name__} expects volumes of shape (B, 1, H, W, D) in multiples of {self.factors}, "
                f"got {list(x.shape)}."
            )


class DegradationNet(SlabDegradation):
    """Down-sampling extractor $D_n$ and LR decoder $L$ of UDEAN (https://arxiv.org/abs/2205.06891), on thin slabs.

    As with :class:`SuperResolutionNet`, slabs may be wider than ``slab_size``. The skip sees all their slices.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        slab_size: odd number of LR slices of a slab. The papers take 3.
        num_features: width.
        num_groups: residual groups of the decoder.
        num_blocks: blocks per group.
        reduction: squeeze of the channel attention.
        skip: let the decoder learn the residual to the k-space truncation of the input. The untrained network is then
            this truncation. The papers' network has no skip.
        estimate: a degradation that the skip applies, noise included. None for the truncation alone.
        margin: LR voxels at the borders of a training slab that no term compares.
        slabs_per_pass: how many slabs of a volume pass the network at once, see :func:`.slabs.in_passes`.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the geometry is not valid, or there is an estimate and no skip.

    Example:
        >>> network = DegradationNet(num_features=16, num_groups=1, num_blocks=1)
        >>> network(torch.rand(1, 1, 16, 16, 10)).shape
        torch.Size([1, 1, 8, 8, 5])
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
        estimate: Degradation | None = None,
        margin: int = 0,
        slabs_per_pass: int | None = None,
        seed: int = 0,
    ) -> None:
        in_plane, through_plane = check_geometry(scale_factor, slab_size)
        super().__init__((in_plane, in_plane, through_plane), slab_size, skip, estimate, margin)
        self.slabs_per_pass = slabs_per_pass
        self.extractor = SlabEncoder(
            slab_size * self.through_plane, stride=in_plane, num_features=num_features, seed=seed
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
        """Features to the LR slab ``(B, S, H, W)``. The skip adds ``low_res``."""
        slab = surround(self.decoder(features), low_res.shape[1])
        return slab + low_res if self.skip else slab

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``.

        Raises:
            ValueError: when the sizes of the volume are not multiples of the scale factor.
        """
        self.check_volume(x)
        centre = self.slab_size // 2
        all_slabs = volume_to_slabs(x, self.slab_size * self.through_plane, self.through_plane)
        outputs = []
        for slabs in in_passes(all_slabs, self.slabs_per_pass):
            outputs.append(self.decoder(self.extractor(slabs))[:, centre : centre + 1])
        volume = slabs_to_volume(torch.cat(outputs), x.shape[0])
        if self.skip:
            physics = self.add_noise(self.truncate(x[:, 0].movedim(-1, 1)))
            volume = volume + physics.movedim(1, -1).unsqueeze(1)
        return volume
