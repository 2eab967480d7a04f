"""Acquisition: lower the resolution of a volume as a scanner does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from torch import Tensor

from scripts.physics.filters import acquisition_window
from scripts.physics.kspace import apodise, complex_noise, fftc, ifftc, truncate, zero_fill
from scripts.transforms.utils import (
    as_float,
    checked_factors,
    generator_of,
    on_same_field_of_view,
    plain,
    spatial_dims,
    truncated_size,
)

__all__ = ["KSpaceTruncate", "KSpaceTruncated"]


class KSpaceTruncate(InvertibleTransform):
    r"""Lower the resolution of a volume as a scanner does: acquire less of k-space.

    Of the $N$ samples along each axis the central $M = \lfloor N / s \rfloor$ remain: $y = \Re F^{-1} P_M F x$. The
    field of view and the intensities stay. The voxel spacing grows by $N / M$, and LR voxel $l$ sits on HR position
    $l N / M$. Unlike blur-and-subsample this leaves Gibbs ringing. The image is the real part, which is linear in the
    volume. The inverse is zero-filling.

    Args:
        scale_factor: $s \geq 1$, one number or one per spatial axis. ``(2, 2, 1)`` keeps the last axis.
        elliptical: leave out the corners of k-space beyond the inscribed ellipsoid.
        partial_fourier: per axis, the acquired fraction of k-space in (0.5, 1].
        hamming: apply the scanner's Hamming filter along every axis.
        exponential: per axis, the decay $d \geq 0$ of the signal, $e^{-d |k| / k_{max}}$.
        fermi: per axis, radius and width of a Fermi filter in units of the band, or None.
        noise_std: standard deviation of the receiver's white complex noise before any window, in the units of the
            volume, for the real and the imaginary part each.
        snr: ratio of the LR volume's mean signal to the noise's standard deviation, in place of ``noise_std``. The
            signal is the mean of the foreground, that is, of the voxels above the volume's mean.
        rician: take the magnitude of the complex image, in the units of the volume, as scanners store it. Its noise is
            Rician, so that air is not zero on average.
        seed: of the noise, together with the volume's own values. A scan has the same noise in every epoch, worker and
            run, and may be cached.

    Raises:
        ValueError: when a scale factor is below 1, ``noise_std`` is negative, ``snr`` is not positive, or both are
            given. When called, if the number of factors, or of the values of a window, is not that of the spatial axes.

    Example:
        >>> import torch
        >>> KSpaceTruncate((2, 2, 1), hamming=True)(torch.rand(1, 16, 16, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        scale_factor: Sequence[float] | float,
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
        self.scale_factor = checked_factors(scale_factor)
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
        """Truncate a channel-first volume ``(C, H, W, [D, ...])`` to ``(C, M_H, M_W, [M_D, ...])``."""
        img = as_float(img)
        low_res = self._acquire(plain(img), truncated_size(self.scale_factor, img))
        return on_same_field_of_view(low_res, img, self.get_transform_info())

    def _acquire(self, x: Tensor, matrix_size: list[int]) -> Tensor:
        dim = spatial_dims(x)
        if not (self.rician or self.noise_std or self.snr or any(self.window.values())):
            return truncate(x, matrix_size, dim)
        k = fftc(truncate(x, matrix_size, dim), dim)
        noise_std = self._noise_std(k, dim)
        if noise_std:
            k = complex_noise(k, noise_std, dim, generator_of(x, self.seed))
        y = ifftc(apodise(k, acquisition_window(matrix_size, device=k.device, **self.window), dim), dim)
        return y.abs() if self.rician else y.real

    def _noise_std(self, k: Tensor, dim: list[int]) -> float:
        if self.snr is None:
            return self.noise_std
        x = ifftc(k, dim).real
        return float(x[x > x.mean()].mean()) / self.snr

    def inverse(self, data: Tensor) -> Tensor:
        """Zero-fill to the size before truncation. A larger volume is truncated to that size."""
        size = [int(n) for n in self.pop_transform(data)[TraceKeys.ORIG_SIZE]]
        x, dim = plain(data), spatial_dims(data)
        x = truncate(x, [min(old, new) for old, new in zip(x.shape[1:], size, strict=True)], dim)
        return on_same_field_of_view(zero_fill(x, size, dim), data)


class KSpaceTruncated(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`KSpaceTruncate`.

    Args:
        keys: the volumes to truncate.
        scale_factor: see :class:`KSpaceTruncate`.
        allow_missing_keys: whether a key may be absent.
        options: further arguments of :class:`KSpaceTruncate`.

    Example:
        >>> import torch
        >>> KSpaceTruncated("image", 2)({"image": torch.rand(1, 16, 16, 8)})["image"].shape
        torch.Size([1, 8, 8, 4])
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale_factor: Sequence[float] | float,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.truncate = KSpaceTruncate(scale_factor, **options)

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
