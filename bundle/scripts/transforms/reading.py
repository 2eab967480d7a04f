"""Reading: files as volumes, checked before anything is computed."""

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
    """:class:`monai.transforms.LoadImaged`, whose errors name the file, what was expected and the remedy.

    Affines are in mm. The arguments are those of the base class. The name begins like the base's, because MONAI Deploy
    recognises the loader that it replaces by that.

    Raises:
        ValueError: when called with a path that is missing, an empty folder, what cannot be read as an image, or a
            header that leaves the place of the volume open, see :mod:`scripts.transforms.headers`.
    """

    def __init__(self, keys: KeysCollection, *args: Any, **kwargs: Any) -> None:
        super().__init__(keys, *args, **kwargs)
        self._loader = _StrictLoader(self._loader)


class _StrictLoader(Transform):
    """A loader that explains why it could not read."""

    def __init__(self, loader: LoadImage) -> None:
        self.loader = loader

    @property
    def image_only(self) -> bool:
        return self.loader.image_only

    @image_only.setter
    def image_only(self, value: bool) -> None:  # MONAI Label sets it, to receive the metadata as well
        self.loader.image_only = value

    def register(self, reader: ImageReader) -> None:
        self.loader.register(reader)

    def __call__(self, filename: Sequence[PathLike] | PathLike, reader: ImageReader | None = None) -> Any:
        paths = [Path(name).expanduser() for name in ensure_tuple(filename)]
        for path in paths:
            if not path.exists():
                raise ValueError(
                    f"{path}: expected an image file or a folder with a DICOM series, but there is none. "
                    "Check the path."
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
    """Put the volume where its header says, and note what is uncertain about that."""
    for text in geometry.warnings:
        warn(img, text)
    if geometry.affine is not None:
        img.affine = torch.as_tensor(geometry.affine, dtype=img.affine.dtype)
        img.meta[MetaKeys.ORIGINAL_AFFINE] = img.affine.clone()


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
