"""Acquire: any separable acquisition of a volume, such as thick slices with a gap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from torch import Tensor

from scripts.physics.encoding import Encoding, FrequencyEncoding
from scripts.physics.separable import SeparableAcquisition, receive
from scripts.transforms.utils import as_float, file_name, generator_of, on_grid, plain, spacing

__all__ = ["Acquire", "Acquired"]


class Acquire(InvertibleTransform):
    """Acquire a volume as a scanner does that encodes each axis in its own way.

    :class:`scripts.transforms.KSpaceTruncate` acquires less of k-space along all axes. This transform also acquires
    slices, and spacings that do not divide the field of view. Voxel 0 of the scan lies on a voxel of the volume, and
    the affine is exact. The inverse interpolates to the grid of the volume: zero-filling, and Keys' cubic along slices.

    Args:
        encodings: of the three axes, see :mod:`scripts.physics.encoding`; None leaves an axis as it is.
        snr: mean signal of the scan's foreground over the standard deviation of its Rician noise; None for no noise.
        seed: of the noise, together with the volume's own values. A scan has the same noise in every run.

    Raises:
        ValueError: when there are not three encodings, or ``snr`` is not positive. When called, if the volume does not
            have three axes.

    Example:
        >>> import torch
        >>> from scripts.physics.encoding import SliceSelection
        >>> Acquire((None, None, SliceSelection(5.0, 4.0)))(torch.rand(1, 16, 16, 40)).shape
        torch.Size([1, 16, 16, 8])
    """

    def __init__(self, encodings: Sequence[Encoding | None], snr: float | None = None, seed: int = 0) -> None:
        if len(encodings) != 3 or not all(one is None or isinstance(one, Encoding) for one in encodings):
            raise ValueError(f"encodings must be one for each of the three axes, or None for an axis, got {encodings}.")
        self.encodings = tuple(encodings)
        self.snr, self.seed = checked_snr(snr), seed

    def __call__(self, img: Tensor) -> Tensor:
        """Acquire a channel-first volume ``(C, H, W, D)``."""
        img = as_float(img)
        if img.ndim != 4:
            raise ValueError(f"{file_name(img)}: expected a volume of the shape (C, H, W, D), got {tuple(img.shape)}.")
        acquisition = self._of(img.shape[1:], spacing(img))
        info = {**self.get_transform_info(), TraceKeys.EXTRA_INFO: {"voxel": spacing(img).tolist()}}
        y = with_noise(acquisition.acquire(plain(img)), self.snr, img, self.seed)
        return on_grid(y, img, scan_to_grid(acquisition), info)

    def inverse(self, data: Tensor) -> Tensor:
        """Interpolate a scan to the grid of the volume."""
        trace = self.pop_transform(data)
        size = [int(n) for n in trace[TraceKeys.ORIG_SIZE]]
        acquisition = self._of(size, trace[TraceKeys.EXTRA_INFO]["voxel"])
        return on_grid(acquisition.interpolate(plain(data)), data, np.linalg.inv(scan_to_grid(acquisition)))

    def _of(self, shape: Sequence[int], voxel: Sequence[float]) -> SeparableAcquisition:
        mm = [float(one) for one in voxel]
        encodings = [FrequencyEncoding(h) if one is None else one for one, h in zip(self.encodings, mm, strict=True)]
        return SeparableAcquisition.of_volume(encodings, shape, mm)


def checked_snr(snr: float | None) -> float | None:
    """The ratio of signal to noise, which is positive; None for no noise."""
    if snr is not None and not snr > 0:
        raise ValueError(f"snr must be positive, or null for no noise, got {snr}.")
    return snr


def with_noise(y: Tensor, snr: float | None, volume: Tensor, seed: int) -> Tensor:
    """A scan ``y`` of a volume, as a receiver with noise stores it, see :class:`Acquire`."""
    if snr is None:
        return y
    signal = float(y[y >= y.mean()].mean())
    return receive(y, signal / snr, generator=generator_of(volume, seed))


def scan_to_grid(acquisition: SeparableAcquisition) -> np.ndarray:
    """The affine from voxels of the scan to voxels of the output grid."""
    affine = np.diag([*(one.spacing for one in acquisition.encodings), 1.0])
    affine[:3, :3] /= np.asarray(acquisition.voxel)[:, None]
    affine[:3, 3] = acquisition.start
    return affine


class Acquired(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`Acquire`.

    Args:
        keys: the volumes to acquire.
        encodings: see :class:`Acquire`.
        allow_missing_keys: whether a key may be absent.
        options: further arguments of :class:`Acquire`.

    Example:
        >>> import torch
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> in_plane = FrequencyEncoding(1.5)
        >>> Acquired("image", (in_plane, in_plane, None))({"image": torch.rand(1, 16, 16, 8)})["image"].shape
        torch.Size([1, 10, 10, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        encodings: Sequence[Encoding | None],
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.acquire = Acquire(encodings, **options)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.acquire(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.acquire.inverse(d[key])
        return d
