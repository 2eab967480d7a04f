"""Acquisition: lower the resolution of a volume as a scanner does, or as wrong assumptions have it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection, PathLike
from monai.transforms import InvertibleTransform, MapTransform, RandomizableTransform, Transform
from monai.utils import TraceKeys
from torch import Tensor

from scripts.physics.degradation import Degradation, read_degradation
from scripts.physics.filters import acquisition_window
from scripts.physics.kspace import apodise, complex_noise, crop_kspace, fftc, ifftc, truncate, zero_fill
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

__all__ = ["KSpaceTruncate", "KSpaceTruncated", "RandDegraded", "Subsample", "Subsampled"]


class KSpaceTruncate(InvertibleTransform):
    r"""Lower the resolution of a volume as a scanner does: acquire less of k-space.

    Keeps the central $M = \lfloor N / s \rfloor$ of the $N$ samples along each axis, $y = \Re F^{-1} P_M F x$. The
    field of view is unchanged, the voxel spacing grows by $N / M$, and low-resolution voxel $l$ sits on high-resolution
    position $l N / M$. Intensities are preserved. Unlike blur-and-subsample it leaves Gibbs ringing. The inverse is
    zero-filling.

    Args:
        scale_factor: $s \geq 1$, one number or one per spatial axis; ``(2, 2, 1)`` keeps the last axis.
        magnitude: take the magnitude of the complex image and divide it by its maximum, as the papers' authors do,
            instead of the real part, which is linear in the volume.
        elliptical: leave out the corners of k-space beyond the inscribed ellipsoid.
        partial_fourier: per axis, the acquired fraction of k-space in (0.5, 1].
        hamming: apply the scanner's Hamming filter along every axis.
        exponential: per axis, the decay $d \geq 0$ of the signal, $e^{-d |k| / k_{max}}$.
        fermi: per axis, radius and width of a Fermi filter in units of the band, or None.
        noise_std: standard deviation of the receiver's white complex noise, before any window, in the units of the
            volume, for the real and the imaginary part each.
        snr: signal over noise, instead of ``noise_std``, which then is the low-resolution volume's mean signal divided
            by it; signal is what is above the volume's mean, the head.
        rician: take the magnitude of the complex image, in the units of the volume, as scanners store it: its noise is
            Rician, and air is not zero on average.
        seed: together with the volume's own values it seeds the noise, so that a scan has the same noise in every
            epoch, worker and run, and may be cached.

    Raises:
        ValueError: when a scale factor is below 1, ``noise_std`` is negative or ``snr`` not positive, or both are
            given, as are ``magnitude`` and ``rician``; when called, if the number of factors, or of the values of a
            window, is not that of the spatial axes.
    """

    def __init__(
        self,
        scale_factor: Sequence[float] | float,
        magnitude: bool = False,
        elliptical: bool = False,
        partial_fourier: Sequence[float] | None = None,
        hamming: bool = False,
        exponential: Sequence[float] | None = None,
        fermi: Sequence[Sequence[float] | None] | None = None,
        noise_std: float = 0.0,
        snr: float | None = None,
        rician: bool = False,
        seed: int = 0,
    ) -> None:
        if noise_std < 0:
            raise ValueError(f"noise_std must not be negative, got {noise_std}.")
        if snr is not None and (snr <= 0 or noise_std):
            raise ValueError(f"snr must be positive, and noise_std then 0, got {snr} and {noise_std}.")
        if magnitude and rician:
            raise ValueError("magnitude and rician must not both be true, got both: one divides by the maximum.")
        self.scale_factor = checked_factors(scale_factor)
        self.magnitude = magnitude
        self.rician = rician
        self.window = {
            "elliptical": elliptical,
            "partial_fourier": partial_fourier,
            "hamming": hamming,
            "exponential": exponential,
            "fermi": fermi,
        }
        self.noise_std = noise_std
        self.snr = snr
        self.seed = seed

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: channel-first volume of shape (C, H, W, [D, ...]).

        Returns:
            volume of shape (C, M_H, M_W, [M_D, ...]).
        """
        img = as_float(img)
        low_res = self._acquire(plain(img), truncated_size(self.scale_factor, img))
        return on_same_field_of_view(low_res, img, self.get_transform_info())

    def _acquire(self, x: Tensor, matrix_size: list[int]) -> Tensor:
        dim = spatial_dims(x)
        if not (self.magnitude or self.rician or self.noise_std or self.snr or any(self.window.values())):
            return truncate(x, matrix_size, dim)
        if self.magnitude:
            k = crop_kspace(fftc(x, dim), matrix_size, dim) * (math.prod(matrix_size) / math.prod(x.shape[1:]))
        else:
            k = fftc(truncate(x, matrix_size, dim), dim)
        noise_std = self._noise_std(k, dim)
        if noise_std:
            generator = torch.Generator().manual_seed(zlib.crc32(x.cpu().contiguous().numpy(), self.seed))
            k = complex_noise(k, noise_std, dim, generator)
        y = ifftc(apodise(k, acquisition_window(matrix_size, device=k.device, **self.window), dim), dim)
        if self.rician:
            return y.abs()
        return y.abs() / y.abs().max() if self.magnitude else y.real

    def _noise_std(self, k: Tensor, dim: list[int]) -> float:
        if self.snr is None:
            return self.noise_std
        x = ifftc(k, dim).real
        return float(x[x > x.mean()].mean()) / self.snr

    def inverse(self, data: Tensor) -> Tensor:
        """Zero-fill to the size before; a prediction that has that size, or a finer one, is brought to it alike."""
        size = [int(n) for n in self.pop_transform(data)[TraceKeys.ORIG_SIZE]]
        x, dim = plain(data), spatial_dims(data)
        x = truncate(x, [min(old, new) for old, new in zip(x.shape[1:], size, strict=True)], dim)
        return on_same_field_of_view(zero_fill(x, size, dim), data)


class KSpaceTruncated(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`KSpaceTruncate`.

    Args:
        keys: the volumes to truncate.
        scale_factor: see :class:`KSpaceTruncate`, as are the following.
        magnitude: see there.
        elliptical: see there.
        partial_fourier: see there.
        hamming: see there.
        exponential: see there.
        fermi: see there.
        noise_std: see there.
        snr: see there.
        rician: see there.
        seed: see there.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale_factor: Sequence[float] | float,
        magnitude: bool = False,
        elliptical: bool = False,
        partial_fourier: Sequence[float] | None = None,
        hamming: bool = False,
        exponential: Sequence[float] | None = None,
        fermi: Sequence[Sequence[float] | None] | None = None,
        noise_std: float = 0.0,
        snr: float | None = None,
        rician: bool = False,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.truncate = KSpaceTruncate(
            scale_factor,
            magnitude,
            elliptical,
            partial_fourier,
            hamming,
            exponential,
            fermi,
            noise_std,
            snr,
            rician,
            seed,
        )

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.truncate(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.truncate.inverse(d[key])
        return d


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


class Subsample(Transform):
    """Keep every s-th voxel, the first among them, and nothing of the others: nearest-neighbour down-sampling.

    What lies above the new Nyquist frequency is aliased. The voxels kept are those on which low-resolution voxels of
    k-space truncation sit, so that the two differ by their transfer of detail, not by their grid.

    Args:
        scale_factor: whole number s, one or one per spatial axis.

    Raises:
        ValueError: when called with a volume whose sizes are no multiples of the scale factor.
    """

    def __init__(self, scale_factor: Sequence[int] | int) -> None:
        self.scale_factor = checked_factors(scale_factor)

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: channel-first volume of shape (C, H, W, [D, ...]).
        """
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
