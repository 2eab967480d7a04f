"""Degradation on the output grid: networks that make interpolated LR crops, beside :class:`.FoldedNet`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scripts.physics.degradation import Degradation
from scripts.physics.kspace import truncate, zero_fill

from .degradation import add_noise, weighted
from .folded import PHASES, fold, to_even, unfold
from .slabs import channels_to_volume, volume_to_channels
from .super_resolution import check_geometry
from .volumetric import OUTPUT_SCALE, conv3x3x3, initialize_branches, residual_group

AXES = (2, 3, 4)  # of a crop (B, 1, H, W, D)


def kept_harmonics(period: int, factor: int) -> int:
    """How many harmonics an interpolated LR scan has along an axis; below the output grid's own band an odd number.

    An even number has one unpaired harmonic, which is not symmetric about the border where a crop is mirrored.

    Example:
        >>> kept_harmonics(128, 2), kept_harmonics(128, 1)
        (63, 128)
    """
    return period if factor == 1 else max(1, (period // factor - 1) // 2 * 2 + 1)


def acquire_mirrored(x: Tensor, scale_factor: Sequence[int]) -> Tensor:
    """The LR scan of a crop ``(B, 1, H, W, D)`` and of its mirror images, one period per axis.

    The crop is mirrored first, so that opposite borders do not meet.

    Example:
        >>> acquire_mirrored(torch.ones(1, 1, 8, 8, 5), (2, 2, 1)).shape
        torch.Size([1, 1, 8, 8, 10])
    """
    for axis, factor in zip(AXES, scale_factor, strict=True):
        period = 2 * x.shape[axis]
        x = truncate(torch.cat([x, x.flip(axis)], axis), [max(1, round(period / factor))], [axis])
    return x


def interpolate_period(y: Tensor, scale_factor: Sequence[int], size: Sequence[int]) -> Tensor:
    """Zero-fill one period of an LR scan, and keep the crop of ``size``. See :func:`acquire_mirrored`."""
    kept = [kept_harmonics(2 * n, factor) for n, factor in zip(size, scale_factor, strict=True)]
    x = zero_fill(truncate(y, kept, AXES), [2 * n for n in size], AXES)
    return x[:, :, : size[0], : size[1], : size[2]]


def limit_band(x: Tensor, scale_factor: Sequence[int]) -> Tensor:
    """What an LR scan holds of a crop ``(B, 1, H, W, D)``: its truncation, zero-filled. Twice is the same as once.

    Example:
        >>> x = torch.rand(1, 1, 8, 7, 6)
        >>> once = limit_band(x, (2, 2, 1))
        >>> torch.allclose(limit_band(once, (2, 2, 1)), once, atol=1e-6)
        True
    """
    for axis, factor in zip(AXES, scale_factor, strict=True):
        if factor > 1:
            size = x.shape[axis]
            y = truncate(torch.cat([x, x.flip(axis)], axis), [kept_harmonics(2 * size, factor)], [axis])
            x = zero_fill(y, [2 * size], [axis]).narrow(axis, 0, size)
    return x


class LowResolutionNet(nn.Module):
    """Base of the networks whose output is an LR scan on the output grid: a given image and a learned residual.

    The residual has the band of an LR scan. An interpolated scan holds nothing beyond that band, where a cycle could
    otherwise hide what it has to restore.

    Args:
        scale_factor: integer factors $(s, s, s_z)$.
        in_channels: phases that enter.
        num_features: width.
        num_groups: residual groups, of which the first belongs to the extractor.
        num_blocks: blocks per group, each of two convolutions.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the factors are not of that form.
    """

    def __init__(
        self,
        scale_factor: Sequence[int],
        in_channels: int,
        num_features: int,
        num_groups: int,
        num_blocks: int,
        seed: int,
    ) -> None:
        super().__init__()
        in_plane, through_plane = check_geometry(scale_factor, slab_size=1)
        self.factors = [in_plane, in_plane, through_plane]
        groups = [residual_group(num_features, num_blocks) for _ in range(num_groups)]
        self.extractor = nn.Sequential(conv3x3x3(in_channels, num_features), *groups[:1])
        self.decoder = nn.Sequential(*groups[1:], conv3x3x3(num_features, PHASES))
        initialize_branches(self, first=self.extractor[0], last=self.decoder[-1], zero_last=True, seed=seed)

    def encode(self, x: Tensor) -> Tensor:
        """Crop ``(B, 1, H, W, D)`` to features, see :meth:`.FoldedNet.encode`."""
        return volume_to_channels(self.extractor(fold(to_even(x))))

    def decode(self, features: Tensor, low_res: Tensor) -> Tensor:
        """Features to an interpolated LR crop, the shape of ``low_res``, to which the residual is added."""
        height, width, depth = low_res.shape[2:]
        phases = self.decoder(channels_to_volume(features, (depth + 1) // 2))
        residual = OUTPUT_SCALE * unfold(phases)[:, :, :height, :width, :depth]
        return low_res + limit_band(residual.to(low_res.dtype), self.factors)

    def compared(self, **images: Tensor) -> dict[str, Tensor]:
        """Crops as terms compare them, see :meth:`.FoldedNet.compared`."""
        return {name: volume_to_channels(image) for name, image in images.items()}


class FoldedDegradationNet(LowResolutionNet):
    r"""The degradation network beside :class:`.FoldedNet`. It makes the same kind of features from HR crops.

    An HR crop becomes an LR crop of the same shape, interpolated to the output grid. What the network learns is added
    to the physics, which is the k-space truncation, zero-filled. The untrained network is the physics.

    Args:
        scale_factor: integer factors $(s, s, s_z)$.
        num_features: width.
        num_groups: residual groups, of which the first belongs to the extractor.
        num_blocks: blocks per group, each of two convolutions.
        estimate: a degradation that the physics applies, noise included. None for the truncation alone.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the factors are not of that form.

    Example:
        >>> FoldedDegradationNet()(torch.rand(1, 1, 16, 15, 12)).shape
        torch.Size([1, 1, 16, 15, 12])
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        num_features: int = 32,
        num_groups: int = 2,
        num_blocks: int = 3,
        estimate: Degradation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(scale_factor, PHASES, num_features, num_groups, num_blocks, seed)
        self.estimate = estimate

    def truncate(self, high_res: Tensor) -> Tensor:
        """The physics of an HR crop: its k-space truncation, weighted by the estimate's transfer, and zero-filled."""
        if self.estimate is None:
            return limit_band(high_res, self.factors)
        low_res = weighted(acquire_mirrored(high_res, self.factors), AXES, self.estimate)
        return interpolate_period(low_res, self.factors, high_res.shape[2:])

    def add_noise(self, low_res: Tensor) -> Tensor:
        """The interpolated crop with the estimated noise, if any. It arises in the scan, so it is interpolated, too."""
        if self.estimate is None or self.estimate.noise_std == 0:
            return low_res
        silent = torch.zeros_like(acquire_mirrored(low_res, self.factors))
        return low_res + interpolate_period(add_noise(silent, AXES, self.estimate), self.factors, low_res.shape[2:])

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR crop ``(B, 1, H, W, D)`` to the LR crop, interpolated to the same grid."""
        return self.decode(self.encode(high_res), self.add_noise(self.truncate(high_res)))

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`degrade`, for a whole volume of any sizes.

        Raises:
            ValueError: when the input is not a volume of one channel.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"FoldedDegradationNet expects volumes of shape (B, 1, H, W, D), got {list(x.shape)}.")
        return self.degrade(x)


class FoldedTranslationNet(LowResolutionNet):
    """From one group of interpolated LR scans to another. The untrained network is the identity.

    Args:
        scale_factor: integer factors $(s, s, s_z)$ between the scans and the output grid.
        num_features: width.
        num_groups: residual groups, of which the first belongs to the extractor.
        num_blocks: blocks per group, each of two convolutions.
        noise: give the extractor new white Gaussian noise beside the image. One input then has many outputs.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the factors are not of that form.

    Example:
        >>> x = torch.rand(1, 1, 8, 7, 6)
        >>> torch.equal(FoldedTranslationNet()(x), x)
        True
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        num_features: int = 32,
        num_groups: int = 2,
        num_blocks: int = 3,
        noise: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(scale_factor, (1 + noise) * PHASES, num_features, num_groups, num_blocks, seed)
        self.noise = noise

    def encode(self, x: Tensor) -> Tensor:
        """Crop ``(B, 1, H, W, D)`` to features, see :meth:`.FoldedNet.encode`."""
        folded = fold(to_even(x))
        given = torch.cat([folded, torch.randn_like(folded)], 1) if self.noise else folded
        return volume_to_channels(self.extractor(given))

    def translate(self, low_res: Tensor) -> Tensor:
        """Interpolated LR crop ``(B, 1, H, W, D)`` to one of the other group."""
        return self.decode(self.encode(low_res), low_res)

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`translate`, for a whole volume of any sizes."""
        return self.translate(x)


class InterpolatedDownsampling(nn.Module):
    """A down-sampling whose result is zero-filled to the grid of its input.

    LR voxel 0 lies on voxel 0 of the crop. The sizes of a crop are multiples of the factors.

    Args:
        downsampling: :class:`.CubicDownsampling` or :class:`.LinearDegradation`.

    Example:
        >>> from scripts.networks import CubicDownsampling
        >>> InterpolatedDownsampling(CubicDownsampling())(torch.rand(1, 1, 8, 8, 6)).shape
        torch.Size([1, 1, 8, 8, 6])
    """

    def __init__(self, downsampling: nn.Module) -> None:
        super().__init__()
        self.factors = downsampling.factors
        self.downsampling = downsampling

    def kernel(self) -> Tensor:
        """The kernel of the down-sampling."""
        return self.downsampling.kernel()

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR crop ``(B, 1, H, W, D)`` to the LR crop, interpolated to the same grid.

        Raises:
            ValueError: when the sizes are not multiples of the factors.
        """
        size = high_res.shape[2:]
        if any(n % factor for n, factor in zip(size, self.factors, strict=True)):
            raise ValueError(
                f"a crop must have sizes in multiples of {self.factors}, got {list(size)}. Set --crop_size."
            )
        y = self.downsampling(high_res)
        for axis in AXES:
            y = torch.cat([y, y.flip(axis)], axis)
        return interpolate_period(y, self.factors, size)

    def forward(self, x: Tensor) -> Tensor:
        """As :meth:`degrade`."""
        return self.degrade(x)
