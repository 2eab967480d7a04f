"""Reading scans, with errors that say which file, what was expected and what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged, Transform
from monai.utils import MetaKeys, ensure_tuple

from scripts.transforms.headers import Geometry, HeaderError, check_geometry
from scripts.transforms.utils import warn

__all__ = ["LoadImageStrictd"]


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
