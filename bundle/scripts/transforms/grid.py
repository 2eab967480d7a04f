"""Grid: where the voxels of scan, prediction and reference lie."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, TraceableTransform, Transform
from monai.utils import MetaKeys
from torch import Tensor

from scripts.physics.kspace import truncate
from scripts.transforms.utils import (
    as_float,
    checked_factors,
    factors_of,
    file_name,
    on_same_field_of_view,
    plain,
    spacing,
    spatial_dims,
)

__all__ = [
    "CheckSameGridd",
    "DeclareHighResGrid",
    "DeclareHighResGridd",
    "DeclareRestoredGridd",
    "KSpaceSpacing",
    "KSpaceSpacingd",
]

logger = logging.getLogger(__name__)

LARGEST_DISTANCE = 0.05  # voxels between corresponding corners of a reference and the prediction


class KSpaceSpacing(Transform):
    """Bring a volume to a coarser voxel spacing by k-space truncation, which keeps the field of view.

    The matrix is a whole number, so the new spacing differs from ``pixdim`` by up to half a voxel over the field of
    view. The change is logged. ``Compose.inverse`` does not undo it: the volume stays on the coarser grid.

    Args:
        pixdim: the new spacing, in mm per spatial axis.
        tolerance: relative deviation within which an axis stays as it is.

    Raises:
        ValueError: when called with a volume that is coarser than ``pixdim``, such as one with thick slices.

    Example:
        >>> import torch
        >>> KSpaceSpacing((2.0, 2.0, 1.0))(MetaTensor(torch.rand(1, 16, 16, 8), affine=torch.eye(4))).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, pixdim: Sequence[float], tolerance: float = 0.02) -> None:
        self.pixdim = tuple(float(value) for value in pixdim)
        self.tolerance = tolerance

    def __call__(self, img: Tensor) -> Tensor:
        """Coarsen a channel-first volume ``(C, H, W, [D, ...])``."""
        img = as_float(img)
        present = spacing(img)
        if len(self.pixdim) != len(present):
            raise ValueError(f"{file_name(img)}: pixdim must have {len(present)} values, got {self.pixdim}.")
        if any(h > target * (1 + self.tolerance) for h, target in zip(present, self.pixdim, strict=True)):
            raise ValueError(
                f"{file_name(img)}: expected a spacing of at most {_in_mm(self.pixdim)}, got {_in_mm(present)}. "
                "Truncation only makes voxels larger. Leave this scan out, or use scans of the other group with a "
                "larger spacing."
            )
        matrix_size = [self._matrix(*axis) for axis in zip(img.shape[1:], present, self.pixdim, strict=True)]
        if matrix_size == list(img.shape[1:]):
            return img
        out = on_same_field_of_view(truncate(plain(img), matrix_size, spatial_dims(img)), img)
        logger.info("%s: changed the spacing from %s to %s.", file_name(img), _in_mm(present), _in_mm(spacing(out)))
        return out

    def _matrix(self, size: int, present: float, target: float) -> int:
        return size if abs(present / target - 1) <= self.tolerance else max(1, round(size * present / target))


def _in_mm(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values) + " mm"


class KSpaceSpacingd(MapTransform):
    """Dictionary version of :class:`KSpaceSpacing`.

    Args:
        keys: the volumes to bring to ``pixdim``.
        pixdim: see :class:`KSpaceSpacing`.
        tolerance: see there.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> import torch
        >>> data = {"image": MetaTensor(torch.rand(1, 16, 16, 8), affine=torch.eye(4))}
        >>> KSpaceSpacingd("image", (2.0, 2.0, 1.0))(data)["image"].shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float],
        tolerance: float = 0.02,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = KSpaceSpacing(pixdim, tolerance)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.spacing(d[key])
        return d


class DeclareHighResGrid(Transform):
    """Write the grid of the prediction into the metadata of the low-resolution input. The voxels stay as they are.

    A sliding-window inferer gives its output the affine of its input. This transform therefore sets it beforehand, so
    that the command line, MONAI Label and MONAI Deploy all write the right one. ``meta["low_res_affine"]`` keeps the
    low-resolution affine. The change is not traced, because the inversion of other transforms must keep this grid.

    Args:
        scale_factor: one number for all spatial axes, or one per axis in the present order, after any ``Orientation``.

    Example:
        >>> import torch
        >>> DeclareHighResGrid(2)(MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.eye(4))).pixdim.tolist()
        [0.5, 0.5, 0.5]
    """

    def __init__(self, scale_factor: Sequence[float] | float) -> None:
        self.scale_factor = checked_factors(scale_factor)

    def __call__(self, img: Tensor) -> Tensor:
        """Declare the grid of a channel-first volume ``(C, H, W, [D, ...])``. Without metadata nothing changes."""
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

    Example:
        >>> import torch
        >>> data = {"image": MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.eye(4))}
        >>> DeclareHighResGridd("image", (2, 2, 1))(data)["image"].pixdim.tolist()
        [0.5, 0.5, 1.0]
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
    """Write the grid of a finished prediction into the metadata of its input, so that MONAI Label keeps that grid.

    MONAI Label's last transform resizes a prediction to the ``spatial_shape`` of the input, and gives it the input's
    ``original_affine``. Both now describe the prediction, so that nothing is resampled. The transform belongs after the
    inversion of the preprocessing. The voxels stay as they are.

    Args:
        keys: the inputs.
        pred_key: the prediction, in the user's orientation.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> import torch
        >>> data = {"image": MetaTensor(torch.rand(1, 4, 4, 4)), "pred": MetaTensor(torch.rand(1, 8, 8, 8))}
        >>> DeclareRestoredGridd("image")(data)["image"].meta["spatial_shape"].tolist()
        [8, 8, 8]
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


class CheckSameGridd(MapTransform):
    """Refuse a reference that is not on the grid of the future prediction.

    It belongs after :class:`~scripts.transforms.DeclareHighResGridd`, which writes that grid into the image's metadata.

    Args:
        keys: the references.
        image_key: the low-resolution image with the declared grid.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when called, if the sizes differ or a corner lies more than 0.05 voxels away.

    Example:
        >>> import torch
        >>> image = DeclareHighResGrid(2)(MetaTensor(torch.rand(1, 4, 4, 4), affine=torch.eye(4)))
        >>> data = {"image": image, "label": MetaTensor(torch.rand(1, 8, 8, 8), affine=image.affine)}
        >>> CheckSameGridd()(data) == data
        True
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: Hashable = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            self._check(d[key], d[self.image_key])
        return d

    def _check(self, label: Tensor, image: Tensor) -> None:
        size = tuple(int(n) for n in image.meta[MetaKeys.SPATIAL_SHAPE])
        if tuple(label.shape[1:]) != size:
            raise ValueError(
                f"{file_name(label)}: expected a reference of {size} voxels, the high-resolution grid of "
                f"{file_name(image)}, got {tuple(label.shape[1:])}. Use a pair of scans with one field of view."
            )
        corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(size) - 1), 1]
        to_label = np.linalg.inv(np.asarray(label.affine)) @ np.asarray(image.affine)
        distance = np.abs(corners @ to_label.T - corners).max()
        if not distance <= LARGEST_DISTANCE:
            raise ValueError(
                f"{file_name(label)}: expected a reference on the high-resolution grid of {file_name(image)}, got one "
                f"that lies up to {distance:.3g} voxels away. Register and resample it, or use a pair of one session."
            )
