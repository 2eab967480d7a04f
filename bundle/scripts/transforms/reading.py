"""Reading: load a scan of any format as a volume, and check it before anything is computed."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import LoadImaged, MapTransform, Transform
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys, ensure_tuple_rep
from torch import Tensor

from scripts.transforms.dicom import read_dicom
from scripts.transforms.evidence import PROTOCOL
from scripts.transforms.formats import HEADER_FILES, VOXEL_FILES, HeaderError, Volume, describe, identify, partner
from scripts.transforms.nifti import read_analyze, read_mgh, read_nifti
from scripts.transforms.nrrd import read_metaimage, read_nrrd
from scripts.transforms.utils import file_name, plain, spacing, warn

__all__ = ["CheckVolume", "CheckVolumed", "LoadImageStrictd"]


READERS = {
    "nifti": read_nifti,
    "mgh": read_mgh,
    "nrrd": read_nrrd,
    "metaimage": read_metaimage,
    "dicom": read_dicom,
    "analyze": read_analyze,
}


class LoadImageStrictd(LoadImaged):
    """Load a scan by what its first bytes are, whatever its name says.

    A scan is a NIfTI, MGH, NRRD or MetaImage file, a folder with one DICOM series, or one DICOM file, which stands for
    its series. The volume is a float32 ``MetaTensor`` ``(X, Y, Z)``; its affine leads to mm in the RAS frame. A doubt
    about the position goes to the warnings in its metadata. MONAI Deploy replaces the loader of a bundle, and
    recognises it by the first letters of its name.

    Args:
        keys: the files to load.
        analyze: whether to accept Analyze 7.5, which has no orientation, with a warning.
        image_only: False returns the metadata as well, under the key that ends with ``_meta_dict``.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when called with a missing path or a file that is not a complete scan. When the header does not
            define the position of the volume or the meaning of its voxels.

    Example:
        >>> LoadImageStrictd("image")({"image": "missing.nii"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: missing.nii: expected an image file or a folder with a DICOM series, but there is none...
    """

    def __init__(
        self, keys: KeysCollection, analyze: bool = False, image_only: bool = True, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)  # LoadImaged would make readers that change pydicom
        self._loader = _StrictLoader(analyze, image_only)
        self.meta_keys = ensure_tuple_rep(None, len(self.keys))
        self.meta_key_postfix = ensure_tuple_rep("meta_dict", len(self.keys))
        self.overwriting = False


class _StrictLoader(Transform):
    """Reads every format that :func:`scripts.transforms.formats.identify` knows."""

    def __init__(self, analyze: bool, image_only: bool) -> None:
        self.analyze = analyze
        self.image_only = image_only  # MONAI Label changes it later

    def __call__(self, filename: PathLike, reader: Any = None) -> Any:
        path = Path(filename).expanduser()
        if not path.exists():
            raise ValueError(
                f"{path}: expected an image file or a folder with a DICOM series, but there is none. Check the path."
            )
        if path.is_dir() and not os.listdir(path):
            raise ValueError(f"{path}: expected a DICOM series, got an empty folder. Check the path.")
        try:
            volume = self._read(path)
        except HeaderError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise ValueError(
                f"{path}: expected a complete NIfTI, MGH, NRRD or MetaImage file or DICOM series, but it cannot be "
                f"read ({type(error).__name__}: {reason}). It may be truncated or damaged: export it again."
            ) from error
        img = _as_tensor(volume, path)
        return img if self.image_only else (img, dict(img.meta))

    def _read(self, path: Path) -> Volume:
        if path.is_dir():
            return read_dicom(path)
        kind = identify(path)
        if kind is None:  # the voxels of a pair stand for their header
            header = partner(path, HEADER_FILES) if path.name.lower().endswith(VOXEL_FILES) else None
            if header is None or identify(header) not in ("nifti", "analyze"):
                raise HeaderError(
                    f"{path}: expected a complete NIfTI, MGH, NRRD or MetaImage file or DICOM series, got "
                    f"{describe(path)}."
                )
            return self._read(header)
        if kind == "analyze" and not self.analyze:
            raise HeaderError(
                f"{path}: expected a format with an orientation, got Analyze 7.5, which has none. Convert it to NIfTI "
                "and check left and right. Or let inference accept it, by --analyze True."
            )
        return READERS[kind](path)


def _as_tensor(volume: Volume, path: Path) -> MetaTensor:
    """The volume with the metadata as MONAI's loader names them, without further axes of one voxel."""
    values = volume.values
    values = values.reshape(*values.shape[:3], *(n for n in values.shape[3:] if n != 1))
    meta = {
        MetaKeys.AFFINE: volume.affine.copy(),
        MetaKeys.ORIGINAL_AFFINE: volume.affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape[:3]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if values.ndim <= 3 else -1,
        MetaKeys.SPACE: SpaceKeys.RAS,
        ImageMetaKey.FILENAME_OR_OBJ: str(path),
    }
    if volume.protocol:
        meta[PROTOCOL] = volume.protocol
    img = MetaTensor.ensure_torch_and_prune_meta(np.ascontiguousarray(values), meta)
    for text in volume.warnings:
        warn(img, text)
    return img


SMALLEST_SIZE = 8  # voxels along each axis
CLIPPED_SHARE = 1e-4  # of the voxels above the mean that may have the highest value
CLIPPED_COUNT = 10  # voxels at the highest value that may be there by chance
CLIPPED_RATIO = 3  # voxels at the highest value over voxels at the next lower one
SMALLEST_BOX_SHARE = 0.1  # volume of a voxel over that of a box with its edges; affines of registrations have more


class CheckVolume(Transform):
    """Refuse volumes that the networks cannot process. A valid volume passes unchanged.

    A valid volume has three spatial axes of enough voxels and one channel. Its voxels are finite and not all the
    same. Its spacing is finite and positive, and its axes span a volume. A volume that was probably clipped passes with
    a warning in its metadata.

    Args:
        smallest: voxels that each axis must have.

    Raises:
        ValueError: when called with another volume.

    Example:
        >>> CheckVolume()(torch.rand(2, 16, 16, 16))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: volume: expected one channel, got 2 of shape (16, 16, 16). Extract one volume of the series...
    """

    def __init__(self, smallest: int = SMALLEST_SIZE) -> None:
        self.smallest = smallest

    def __call__(self, img: Tensor) -> Tensor:
        """Check a channel-first volume, which should have the shape ``(1, H, W, D)``."""
        fault = next(self._faults(img), None)
        if fault is not None:
            raise ValueError("{}: expected {}, got {}. {}".format(file_name(img), *fault))
        if isinstance(img, MetaTensor) and (remark := _clipping(plain(img))):
            warn(img, remark)
        return img

    def _faults(self, img: Tensor) -> Iterator[tuple[str, str, str]]:
        """Yield expectation, finding and remedy, the more basic faults first."""
        shape = tuple(img.shape)
        if img.ndim != 4:
            yield "a volume of 3 spatial axes", f"{img.ndim - 1} of shape {shape[1:]}", "Use a 3-D acquisition."
        if shape[0] != 1:
            yield "one channel", f"{shape[0]} of shape {shape[1:]}", "Extract one volume of the series, or average it."
        if min(shape[1:]) < self.smallest:
            smallest = (self.smallest,) * 3
            yield f"at least {smallest} voxels", f"{shape[1:]}", "Use a larger field of view, or leave it out."
        values = plain(img)
        if bad := int((~torch.isfinite(values)).sum()):
            yield "finite voxels", f"{bad} that are NaN or infinite", "Replace them, by 0 where nothing was measured."
        if values.min() == values.max():
            yield "an image", f"the constant {float(values.min()):g}", "Check how the file was written."
        elif ((values == values.min()) | (values == values.max())).all():
            yield "an image", f"a mask of {float(values.min()):g} and {float(values.max()):g}", "Leave it out."
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


def _clipping(values: Tensor) -> str | None:
    """A remark if too many bright voxels share the highest value."""
    highest = values.max()
    count = int((values == highest).sum())
    share = count / max(1, int((values > values.float().mean()).sum()))
    if count < CLIPPED_COUNT or share < CLIPPED_SHARE:
        return None
    below = values[values < highest]
    if count <= CLIPPED_RATIO * int((below == below.max()).sum()):
        return None
    return f"{share:.2%} of its bright voxels share the highest value, {float(highest):g}: it was probably clipped."


class CheckVolumed(MapTransform):
    """Dictionary version of :class:`CheckVolume`. It belongs after ``EnsureChannelFirstd``.

    Args:
        keys: the volumes to check.
        smallest: voxels that each axis must have.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> CheckVolumed("image")({"image": torch.rand(1, 16, 16, 16)})["image"].shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(self, keys: KeysCollection, smallest: int = SMALLEST_SIZE, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = CheckVolume(smallest)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key])
        return d
