"""Reading scans, with errors that say which file, what was expected and what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged, Transform
from monai.utils import ensure_tuple

__all__ = ["LoadImageStrictd"]


class LoadImageStrictd(LoadImaged):
    """:class:`monai.transforms.LoadImaged`, whose errors name the file, what was expected and the remedy.

    The arguments are those of the base class. The name begins like the base's, because MONAI Deploy recognises the
    loader that it replaces by that.

    Raises:
        ValueError: when called with a path that is missing, an empty folder, or what cannot be read as an image.
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
        for path in (Path(name).expanduser() for name in ensure_tuple(filename)):
            if not path.exists():
                raise ValueError(
                    f"{path}: expected an image file or a folder with a DICOM series, but there is none. "
                    "Check the path."
                )
            if path.is_dir() and not os.listdir(path):
                raise ValueError(f"{path}: expected a DICOM series, got an empty folder. Check the path.")
        try:
            return self.loader(filename, reader)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(
                f"{filename}: expected a complete NIfTI file or DICOM series, but it cannot be read "
                f"({type(error).__name__}: {reason}). It may be truncated or of another format: export it again."
            ) from error
