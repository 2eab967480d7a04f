"""Degradation: lower the resolution of a volume by an estimated degradation, or by keeping every s-th voxel."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection, PathLike
from monai.transforms import MapTransform, RandomizableTransform, Transform
from torch import Tensor

from scripts.physics.degradation import Degradation, read_degradation
from scripts.physics.kspace import apodise, complex_noise, fftc, ifftc, truncate
from scripts.transforms.utils import (
    as_float,
    checked_factors,
    factors_of,
    file_name,
    on_same_field_of_view,
    plain,
    spatial_dims,
    truncated_size,
)

__all__ = ["RandDegraded", "Subsample", "Subsampled"]


class RandDegraded(RandomizableTransform, MapTransform):
    """Lower the resolution by an estimated degradation, each time with another draw from its uncertainty.

    It truncates k-space, weights it by the estimated transfer, and adds the estimated noise. It draws the logarithms of
    the noise and of the transfer along each axis around the estimate, with its standard errors. The grid is that of
    :class:`.KSpaceTruncated`. It has no inverse, because weighted detail is lost in the noise.

    Args:
        keys: HR volumes ``(1, H, W, D)`` in the canonical frame, on the common intensity scale.
        degradation: the estimate, or its file.
        scale_factor: how much coarser the result is along each axis.
        strength: of the variation, in standard errors. With 0 every draw is the estimate itself.
        seed: of the sequence of draws.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when ``strength`` is negative.

    Example:
        >>> from scripts.physics.degradation import known_degradation
        >>> degrade = RandDegraded("image", known_degradation(hamming=True), (2, 2, 1))
        >>> degrade({"image": torch.rand(1, 16, 16, 8)})["image"].shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        degradation: Degradation | PathLike,
        scale_factor: Sequence[float],
        strength: float = 1.0,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}.")
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.degradation = degradation if isinstance(degradation, Degradation) else read_degradation(degradation)
        self.scale_factor = tuple(scale_factor)
        self.strength = strength
        self.set_random_state(seed)

    def randomize(self, data: object = None) -> None:
        """Draw the deviations of three transfers and of the noise, in standard errors, and the seed of the noise."""
        super().randomize(data)
        self.deviations = (self.strength * self.R.normal(size=4).clip(-2, 2)).tolist()
        self.noise_seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        self.randomize()
        for key in self.key_iterator(d):
            d[key] = self._degraded(d[key])
        return d

    def _degraded(self, img: Tensor) -> Tensor:
        img, found = as_float(img), self.degradation
        dim, size = spatial_dims(img), truncated_size(self.scale_factor, img)
        k = fftc(truncate(plain(img), size, dim), dim)
        noise_std = found.noise_std * math.exp(self.deviations[3] * found.noise_spread)
        window = found.window(size, self.deviations[:3])
        if not found.filtered_noise:
            k = apodise(k, window, dim)
        if noise_std:
            k = complex_noise(k, noise_std, dim, torch.Generator().manual_seed(self.noise_seed))
        if found.filtered_noise:
            k = apodise(k, window, dim)
        return on_same_field_of_view(ifftc(k, dim).real, img)


class Subsample(Transform):
    """Nearest-neighbour down-sampling: keep every s-th voxel, from the first voxel on.

    Frequencies above the new Nyquist frequency are aliased. The grid is that of k-space truncation.

    Args:
        scale_factor: whole number s, one for all or one per spatial axis.

    Raises:
        ValueError: when called with a volume whose sizes are not multiples of the scale factor.

    Example:
        >>> Subsample((2, 2, 1))(torch.rand(1, 16, 16, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, scale_factor: Sequence[int] | int) -> None:
        self.scale_factor = checked_factors(scale_factor)

    def __call__(self, img: Tensor) -> Tensor:
        """Subsample a channel-first volume ``(C, H, W, [D, ...])``."""
        factors = [int(factor) for factor in factors_of(self.scale_factor, img)]
        if any(size % factor for size, factor in zip(img.shape[1:], factors, strict=True)):
            raise ValueError(
                f"{file_name(img)}: expected sizes in multiples of {factors}, got {tuple(img.shape[1:])}. Pad it first."
            )
        kept = plain(img)[(slice(None), *(slice(None, None, factor) for factor in factors))]
        return on_same_field_of_view(kept.contiguous(), img)


class Subsampled(MapTransform):
    """Dictionary version of :class:`Subsample`.

    Args:
        keys: the volumes to subsample.
        scale_factor: see :class:`Subsample`.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> Subsampled("image", 2)({"image": torch.rand(1, 16, 16, 8)})["image"].shape
        torch.Size([1, 8, 8, 4])
    """

    def __init__(
        self, keys: KeysCollection, scale_factor: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.subsample = Subsample(scale_factor)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.subsample(d[key])
        return d
