"""What a volume is: a check that the networks can work with it, and the grid that their output will have."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, TraceableTransform, Transform
from monai.utils import MetaKeys
from torch import Tensor

from scripts.transforms.utils import checked_factors, factors_of, file_name, plain, spacing

__all__ = ["CheckVolume", "CheckVolumed", "DeclareHighResGrid", "DeclareHighResGridd", "DeclareRestoredGridd"]


LEAST_ANGLE = 0.1  # volume of a voxel over that of a box with its edges; sheared affines of registrations have more


class CheckVolume(Transform):
    """Refuse what the networks cannot work with: a volume passes unchanged or ends in an error.

    Args:
        min_size: smallest number of voxels, one for all axes or one per axis.

    Raises:
        ValueError: when called, unless the volume has three spatial axes of ``min_size`` or more, one channel, finite
            voxels that are not all the same, a finite, positive spacing, and axes that span a volume.
    """

    def __init__(self, min_size: Sequence[int] | int = 8) -> None:
        self.min_size = min_size

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: channel-first volume, which should have the shape (1, H, W, D).
        """
        fault = next(self._faults(img), None)
        if fault is not None:
            raise ValueError("{}: expected {}, got {}. {}".format(file_name(img), *fault))
        return img

    def _faults(self, img: Tensor) -> Iterator[tuple[str, str, str]]:
        """Yield expectation, finding and remedy, the more basic faults first."""
        shape = tuple(img.shape)
        if img.ndim != 4:
            yield "a volume of 3 spatial axes", f"{img.ndim - 1} of shape {shape[1:]}", "Use a 3-D acquisition."
        if shape[0] != 1:
            yield "one channel", f"{shape[0]} of shape {shape[1:]}", "Extract one volume of the series, or average it."
        smallest = self.min_size if isinstance(self.min_size, Sequence) else (self.min_size,) * 3
        if any(size < least for size, least in zip(shape[1:], smallest, strict=True)):
            yield f"at least {tuple(smallest)} voxels", f"{shape[1:]}", "Use a larger field of view, or leave it out."
        values = plain(img)
        if bad := int((~torch.isfinite(values)).sum()):
            yield "finite voxels", f"{bad} that are NaN or infinite", "Replace them, by 0 where nothing was measured."
        if values.min() == values.max():
            yield "an image", f"the constant {float(values.min()):g}", "Check how the file was written."
        mm = spacing(img)
        if not all(math.isfinite(h) and h > 0 for h in mm):
            yield "a positive, finite voxel spacing", f"{np.round(mm, 4).tolist()} mm", "Correct the header's affine."
        if isinstance(img, MetaTensor):
            affine = np.asarray(img.affine)
            volume = abs(np.linalg.det(affine[:3, :3])) / np.prod(mm)
            if not (np.isfinite(affine).all() and volume > LEAST_ANGLE):
                yield (
                    "axes that span a volume",
                    f"the affine {affine.round(4).tolist()}",
                    "Correct the header's affine.",
                )


class CheckVolumed(MapTransform):
    """Dictionary version of :class:`CheckVolume`, to stand after ``EnsureChannelFirstd``.

    Args:
        keys: the volumes to check.
        min_size: see :class:`CheckVolume`.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(
        self, keys: KeysCollection, min_size: Sequence[int] | int = 8, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckVolume(min_size)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key])
        return d


class DeclareHighResGrid(Transform):
    """Write the grid of the prediction into the metadata of the low-resolution input; its voxels stay as they are.

    A sliding-window inferer gives its output the input's affine. Declared beforehand, that affine is right for the
    prediction, in the command line, MONAI Label and MONAI Deploy alike. The low-resolution one is kept in
    ``meta["low_res_affine"]``. Not traced: inverting the other transforms on the prediction must keep this grid.

    Args:
        scale_factor: one number or one per spatial axis of the volume as it stands, after any ``Orientation``.
    """

    def __init__(self, scale_factor: Sequence[float] | float) -> None:
        self.scale_factor = checked_factors(scale_factor)

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: channel-first volume of shape (C, H, W, [D, ...]); without metadata it is returned unchanged.
        """
        if not isinstance(img, MetaTensor):
            return img
        factors = factors_of(self.scale_factor, img)
        low_res_affine = img.affine.clone()
        columns = np.diag([*(1 / factor for factor in factors), 1.0])
        out = MetaTensor(plain(img)).copy_meta_from(TraceableTransform.track_transform_meta(img, affine=columns))
        out.meta["low_res_affine"] = low_res_affine
        out.meta["spatial_shape"] = np.asarray(
            [round(size * factor) for size, factor in zip(img.shape[1:], factors, strict=True)]
        )
        return out


class DeclareHighResGridd(MapTransform):
    """Dictionary version of :class:`DeclareHighResGrid`.

    Args:
        keys: the low-resolution inputs.
        scale_factor: see :class:`DeclareHighResGrid`.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(
        self, keys: KeysCollection, scale_factor: Sequence[float] | float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.declare = DeclareHighResGrid(scale_factor)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.declare(d[key])
        return d


class DeclareRestoredGridd(MapTransform):
    """Write the grid of a finished prediction into the metadata of its input, as the grid to restore to.

    MONAI Label ends with a transform of its own that resizes a prediction to the ``spatial_shape`` of the input and
    gives it the input's ``original_affine``. Both then describe what is there already, so that nothing is resampled.
    It belongs after the inversion of the preprocessing; the voxels stay as they are.

    Args:
        keys: the inputs.
        pred_key: the prediction, in the user's orientation.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(self, keys: KeysCollection, pred_key: Hashable = "pred", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pred_key = pred_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        pred = d[self.pred_key]
        for key in self.key_iterator(d):
            if isinstance(d[key], MetaTensor) and isinstance(pred, MetaTensor):
                d[key] = MetaTensor(plain(d[key])).copy_meta_from(d[key])
                d[key].meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(pred.shape[1:])
                d[key].meta[MetaKeys.ORIGINAL_AFFINE] = np.asarray(pred.affine)
        return d
