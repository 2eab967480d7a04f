"""Reading: load files as volumes, and check them before anything is computed."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged, MapTransform, Transform
from monai.utils import MetaKeys, ensure_tuple
from torch import Tensor

from scripts.transforms.headers import Geometry, HeaderError, check_geometry
from scripts.transforms.utils import file_name, plain, spacing, warn

__all__ = ["CheckVolume", "CheckVolumed", "LoadImageStrictd"]


class LoadImageStrictd(LoadImaged):
    """:class:`monai.transforms.LoadImaged` with errors that name the file, what was expected, and the remedy.

    Affines are in mm. The arguments are those of the base class. MONAI Deploy replaces the loader of a bundle, and
    recognises it by the first letters of its name.

    Raises:
        ValueError: when called with a missing path, an empty folder, or a file that is not an image. When the header
            does not define the position of the volume, see :mod:`scripts.transforms.headers`.

    Example:
        >>> LoadImageStrictd("image")({"image": "missing.nii"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: missing.nii: expected an image file or a folder with a DICOM series, but there is none...
    """

    def __init__(self, keys: KeysCollection, *args: Any, **kwargs: Any) -> None:
        super().__init__(keys, *args, **kwargs)
        self._loader = _StrictLoader(self._loader)


class _StrictLoader(Transform):
    """A loader whose errors explain why it could not read."""

    def __init__(self, loader: LoadImage) -> None:
        self.loader = loader

    @property
    def image_only(self) -> bool:
        return self.loader.image_only

    @image_only.setter
    def image_only(self, value: bool) -> None:  # MONAI Label sets it to get the metadata, too
        self.loader.image_only = value

    def register(self, reader: ImageReader) -> None:
        self.loader.register(reader)

    def __call__(self, filename: Sequence[PathLike] | PathLike, reader: ImageReader | None = None) -> Any:
        paths = [Path(name).expanduser() for name in ensure_tuple(filename)]
        for path in paths:
            if not path.exists():
                raise ValueError(
                    f"{path}: expected an image file or a folder with a DICOM series, but there is none. Check the "
                    "path."
                )
            if path.is_dir() and not os.listdir(path):
                raise ValueError(f"{path}: expected a DICOM series, got an empty folder. Check the path.")
        try:
            geometries = [check_geometry(path) for path in paths]
            img = self.loader(filename, reader)
        except HeaderError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(
                f"{filename}: expected a complete NIfTI, NRRD or MetaImage file or DICOM series, but it cannot be read "
                f"({type(error).__name__}: {reason}). It may be truncated or of another format: export it again."
            ) from error
        _place(img if isinstance(img, MetaTensor) else img[0], geometries[0])
        return img


def _place(img: MetaTensor, geometry: Geometry) -> None:
    """Place the volume where its header says, and keep the warnings about its position."""
    for text in geometry.warnings:
        warn(img, text)
    if geometry.affine is not None:
        img.affine = torch.as_tensor(geometry.affine, dtype=img.affine.dtype)
        img.meta[MetaKeys.ORIGINAL_AFFINE] = img.affine.clone()


SMALLEST_SIZE = 8  # voxels along each axis
SMALLEST_BOX_SHARE = 0.1  # volume of a voxel over that of a box with its edges; affines of registrations have more


class CheckVolume(Transform):
    """Refuse volumes that the networks cannot process. A valid volume passes unchanged.

    A valid volume has three spatial axes of at least 8 voxels and one channel. Its voxels are finite and not all the
    same. Its spacing is finite and positive, and its axes span a volume.

    Raises:
        ValueError: when called with another volume.

    Example:
        >>> CheckVolume()(torch.rand(2, 16, 16, 16))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: volume: expected one channel, got 2 of shape (16, 16, 16). Extract one volume of the series...
    """

    def __call__(self, img: Tensor) -> Tensor:
        """Check a channel-first volume, which should have the shape ``(1, H, W, D)``."""
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
        if min(shape[1:]) < SMALLEST_SIZE:
            smallest = (SMALLEST_SIZE,) * 3
            yield f"at least {smallest} voxels", f"{shape[1:]}", "Use a larger field of view, or leave it out."
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
            if not (np.isfinite(affine).all() and volume > SMALLEST_BOX_SHARE):
                yield (
                    "axes that span a volume",
                    f"the affine {affine.round(4).tolist()}",
                    "Correct the header's affine.",
                )


class CheckVolumed(MapTransform):
    """Dictionary version of :class:`CheckVolume`. It belongs after ``EnsureChannelFirstd``.

    Args:
        keys: the volumes to check.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> CheckVolumed("image")({"image": torch.rand(1, 16, 16, 16)})["image"].shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckVolume()

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key])
        return d
