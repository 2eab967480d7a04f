"""Intensity: one scale for both groups."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from torch import Tensor

from scripts.metrics.quality import PERCENTILE, foreground_percentile
from scripts.physics.kspace import truncate
from scripts.transforms.utils import as_float, checked_factors, file_name, plain, spatial_dims, truncated_size

__all__ = ["ScaleIntensityRobust", "ScaleIntensityRobustd"]


SMALLEST_SCALE = 1e-30  # below it, the dark voxels of a float32 volume are denormal and lose digits


class ScaleIntensityRobust(InvertibleTransform):
    r"""Divide a volume by a high percentile of its foreground, measured at low resolution.

    The scale is the ``percentile`` of the voxels above the volume's mean. Both groups measure it at low resolution,
    because the brightest voxels of a volume depend on its resolution. An HR volume is therefore truncated, for the
    measurement alone. ``meta["intensity_scale"]`` keeps the scale. The inverse multiplies by it. Nothing is clipped.

    Args:
        percentile: in (0, 100].
        scale_factor: how much finer than low resolution the volume is, one number or one per axis. None for a volume at
            low resolution.

    Raises:
        ValueError: when ``percentile`` or ``scale_factor`` is out of range. When called, if the scale is not a positive
            number.

    Example:
        >>> import torch
        >>> volume = (torch.arange(512.0) % 2 * 40).reshape(1, 8, 8, 8)
        >>> float(ScaleIntensityRobust()(volume).max())
        1.0
    """

    def __init__(self, percentile: float = PERCENTILE, scale_factor: Sequence[float] | float | None = None) -> None:
        if not 0 < percentile <= 100:
            raise ValueError(f"percentile must be in (0, 100], got {percentile}.")
        self.percentile = percentile
        self.scale_factor = checked_factors(1 if scale_factor is None else scale_factor)

    def __call__(self, img: Tensor, scale: float | None = None) -> Tensor:
        """Scale a volume.

        Args:
            img: channel-first volume ``(C, H, W, [D, ...])``.
            scale: the divisor; None to measure it.
        """
        img = as_float(img)
        scale = self.measure(img) if scale is None else scale
        if isinstance(img, MetaTensor):
            img = self.push_transform(
                img / scale, orig_size=tuple(img.shape[1:]), extra_info={"intensity_scale": scale}
            )
            img.meta["intensity_scale"] = scale
            return img
        return img / scale

    def measure(self, img: Tensor) -> float:
        """The scale of a channel-first volume, in its units."""
        low_res = truncate(plain(img), truncated_size(self.scale_factor, img), spatial_dims(img))
        scale = foreground_percentile(low_res, self.percentile)
        if not (math.isfinite(scale) and scale > SMALLEST_SCALE):
            raise ValueError(
                f"{file_name(img)}: expected a positive intensity at percentile {self.percentile} of the voxels above "
                f"the mean, got {scale:g}. Use a volume whose tissue is brighter than zero."
            )
        return scale

    def inverse(self, data: Tensor) -> Tensor:
        """Return to the units of the input, in place."""
        scale = float(self.pop_transform(data)[TraceKeys.EXTRA_INFO]["intensity_scale"])
        data = data.mul_(scale)  # in place: volumes are large
        data.meta.pop("intensity_scale", None)
        return data


class ScaleIntensityRobustd(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`ScaleIntensityRobust`.

    Args:
        keys: the volumes to scale, each by its own scale.
        percentile: see :class:`ScaleIntensityRobust`.
        scale_factor: see there.
        measured_on: key of the volume whose scale is used for all keys. For a pair use the LR volume, because inference
            knows no other scale.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> import torch
        >>> volume = (torch.arange(512.0) % 2 * 40).reshape(1, 8, 8, 8)
        >>> scale = ScaleIntensityRobustd(["image", "label"], measured_on="image")
        >>> float(scale({"image": volume, "label": 2 * volume})["label"].max())
        2.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        percentile: float = 99.9,
        scale_factor: Sequence[float] | float | None = None,
        measured_on: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scaler = ScaleIntensityRobust(percentile, scale_factor)
        self.measured_on = measured_on

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        present = list(self.key_iterator(d))
        scale = self.scaler.measure(d[self.measured_on]) if present and self.measured_on is not None else None
        for key in present:
            d[key] = self.scaler(d[key], scale)
        return d

    def inverse(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.scaler.inverse(d[key])
        return d
