"""Evaluation against a reference: both volumes must be on one grid, and where it counts is deep in the tissue."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from scripts.transforms.utils import file_name, plain, spacing

__all__ = ["CheckSameGridd", "ErodeMask", "ErodeMaskd"]


class CheckSameGridd(MapTransform):
    """Refuse a reference that is not on the grid that the prediction will have.

    It belongs after :class:`~scripts.transforms.DeclareHighResGridd`, which writes that grid into the image's metadata.

    Args:
        keys: the references.
        image_key: the low-resolution image with the declared grid.
        tolerance: largest distance between corresponding corners, in voxels.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when called, if the sizes differ or a corner lies elsewhere.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        image_key: Hashable = "image",
        tolerance: float = 0.05,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.tolerance = tolerance

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
        if not distance <= self.tolerance:
            raise ValueError(
                f"{file_name(label)}: expected a reference on the high-resolution grid of {file_name(image)}, got one "
                f"that lies up to {distance:.3g} voxels away. Register and resample it, or use a pair of one session."
            )


class ErodeMask(Transform):
    """Keep the voxels of a mask that lie deeper in it than a distance, in mm of the world.

    The end of the volume is no edge: tissue goes on there.

    Args:
        depth: distance in mm from a voxel's centre to that of the nearest voxel outside the mask, not negative.

    Raises:
        ValueError: when ``depth`` is negative.
    """

    def __init__(self, depth: float) -> None:
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}.")
        self.depth = depth

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: mask ``(1, H, W, D)``, positive inside.
        """
        inside = plain(img)[0].cpu().numpy() > 0
        if not inside.all():
            inside = distance_transform_edt(inside, sampling=spacing(img)) > self.depth
        eroded = torch.as_tensor(inside[None]).to(img)
        return MetaTensor(eroded).copy_meta_from(img) if isinstance(img, MetaTensor) else eroded


class ErodeMaskd(MapTransform):
    """Dictionary version of :class:`ErodeMask`.

    Args:
        keys: the masks.
        depth: see :class:`ErodeMask`.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(self, keys: KeysCollection, depth: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.erode = ErodeMask(depth)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.erode(d[key])
        return d
