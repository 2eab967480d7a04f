"""Degradation: make low-resolution scans like those of a group, as far as its spectra tell."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection, PathLike
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from scripts.degradation import Degradation, read_degradation
from scripts.kspace import apodise, complex_noise, fftc, ifftc, truncate
from scripts.transforms.utils import as_float, on_same_field_of_view, plain, spatial_dims, truncated_size

__all__ = ["RandDegraded"]


class RandDegraded(RandomizableTransform, MapTransform):
    """Lower the resolution as an estimate says that a group of scans was, differently each time within its uncertainty.

    k-space is truncated, weighted by the estimated transfer, and given the estimated noise. The logarithms of the
    transfer along each axis and of the noise are drawn around the estimate with its standard errors. The grid is that
    of :class:`KSpaceTruncated`; there is no inverse, for what was weighted down is lost in noise.

    Args:
        keys: high-resolution volumes (1, H, W, D) in the canonical frame, on the common intensity scale.
        degradation: the estimate, or the file where it was saved.
        scale_factor: how much coarser the result is along each axis.
        strength: of the variation, in standard errors; 0 makes the estimate itself.
        seed: of the draws, one after another.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when ``strength`` is negative.
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
        """Draw deviations of the three transfers and of the noise, in standard errors, and the noise's seed."""
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
