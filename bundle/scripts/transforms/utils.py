"""Helpers of the transforms: names, JSON files, spacing, factors per axis, and a grid that keeps its field of view."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import affine_to_spacing
from monai.transforms import TraceableTransform
from monai.utils import ImageMetaKey, convert_to_tensor
from nibabel.orientations import aff2axcodes
from torch import Tensor


def file_name(img: Tensor) -> str:
    """The file of a volume, for messages."""
    return str(img.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "volume")) if isinstance(img, MetaTensor) else "volume"


def spacing(img: Tensor) -> np.ndarray:
    """Voxel spacing in mm of each spatial axis of a channel-first volume; 1 without an affine."""
    axes = img.ndim - 1
    if not isinstance(img, MetaTensor):
        return np.ones(axes)
    return np.asarray(affine_to_spacing(img.affine, axes, suppress_zeros=False))  # 0 mm must not become 1 mm


def axis_names(img: Tensor) -> tuple[str, ...]:
    """The codes of the volume's axes such as R, A, S; their numbers without an affine."""
    if not isinstance(img, MetaTensor):
        return tuple(str(axis) for axis in range(img.ndim - 1))
    return tuple(map(str, aff2axcodes(np.asarray(img.affine))))


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with or without a byte order mark.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it holds no JSON, or something else than an object.
    """
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    return content


def warn(img: MetaTensor, text: str) -> None:
    """Add a line to the warnings in the metadata of a volume. The record of the result will contain it."""
    img.meta["warnings"] = "\n".join([*filter(None, [img.meta.get("warnings")]), text])


def generator_of(img: Tensor, seed: int = 0) -> torch.Generator:
    """Randomness that follows from a volume's own values and a seed, in every epoch, worker and run."""
    return torch.Generator().manual_seed(zlib.crc32(plain(img).cpu().contiguous().numpy(), seed))


def as_float(img: Tensor) -> Tensor:
    """The tensor in float32 or float64, with its metadata."""
    img = convert_to_tensor(img, track_meta=get_track_meta())
    return img if img.dtype == torch.float64 else img.float()


def plain(img: Tensor) -> Tensor:
    """The tensor without metadata, because arithmetic on a ``MetaTensor`` copies its metadata at every step."""
    return img.as_tensor() if isinstance(img, MetaTensor) else img


def spatial_dims(img: Tensor) -> tuple[int, ...]:
    """The spatial axes of a channel-first volume."""
    return tuple(range(1, img.ndim))


def checked_factors(scale_factor: Sequence[float] | float) -> tuple[float, ...] | float:
    """The scale factor, one number or a tuple of one per axis. A factor below 1 is an error."""
    factors = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,)
    if not all(math.isfinite(s) and s >= 1 for s in factors):
        raise ValueError(f"scale_factor must be at least 1 along each axis, got {scale_factor}.")
    return tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor


def factors_of(scale_factor: Sequence[float] | float, img: Tensor) -> tuple[float, ...]:
    """One factor for each spatial axis of ``img``."""
    axes = img.ndim - 1
    factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * axes
    if len(factors) != axes:
        raise ValueError(
            f"{file_name(img)}: scale_factor must have one value for each of the {axes} spatial axes, got {factors}."
        )
    return factors


def truncated_size(scale_factor: Sequence[float] | float, img: Tensor) -> list[int]:
    """Matrix size after truncation. The tolerance keeps 33 / 1.1 at 30."""
    factors = factors_of(scale_factor, img)
    return [max(1, math.floor(size / factor + 1e-6)) for size, factor in zip(img.shape[1:], factors, strict=True)]


def on_same_field_of_view(values: Tensor, img: Tensor, transform_info: dict | None = None) -> Tensor:
    """Give ``values`` the metadata of ``img``, with the spacing that keeps the field of view and voxel 0 in place."""
    zoom = [old / new for old, new in zip(img.shape[1:], values.shape[1:], strict=True)]
    return on_grid(values, img, np.diag([*zoom, 1.0]), transform_info)


def on_grid(values: Tensor, img: Tensor, affine: np.ndarray, transform_info: dict | None = None) -> Tensor:
    """Give ``values`` the metadata of ``img``, where ``affine`` leads from voxels of ``values`` to those of ``img``."""
    meta = TraceableTransform.track_transform_meta(
        img, sp_size=values.shape[1:], affine=affine, transform_info=transform_info
    )
    out = convert_to_tensor(values, track_meta=get_track_meta())
    return out.copy_meta_from(meta) if isinstance(out, MetaTensor) else out
