"""Scans: reading them once before training, and matching their spacing and size to what training needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor
from tqdm import tqdm

from scripts.transforms import KSpaceSpacing

__all__ = ["Scan", "check_size", "common_spacing", "load_scans", "match_spacing"]

logger = logging.getLogger(__name__)


class Scan(NamedTuple):
    """One volume of a group, (1, H, W, D), with the names that its messages need."""

    subject: str
    file: str
    volume: MetaTensor


def load_scans(
    data: Sequence[Mapping], transform: Callable, groups: Mapping[str, str], progress: bool
) -> dict[str, list[Scan]]:
    """Transform every item once, before any training, and sort the volumes by key.

    Args:
        data: items with files under some of the keys, and optionally the name of the ``subject``.
        transform: makes a volume (1, H, W, D) of each file.
        groups: what a scan under each key is, for the error when there is none.
        progress: whether to show a progress bar.

    Raises:
        ValueError: when a group is empty.
    """
    scans: dict[str, list[Scan]] = {key: [] for key in groups}
    for item in tqdm(data, desc="Loading scans", disable=not progress):
        volumes = transform(dict(item))
        for key in groups:
            if key in volumes:
                file = str(volumes[key].meta.get("filename_or_obj", item.get(key)))
                scans[key].append(Scan(str(item.get("subject", file)), file, volumes[key]))
    for key in groups:
        if not scans[key]:
            raise ValueError(
                f"data must hold at least one {groups[key]} scan (`{key}`), got none in {len(data)} items."
            )
    return scans


def common_spacing(scans: Sequence[Scan], tolerance: float) -> np.ndarray:
    """The median spacing (mm) of the target group, in which scans of another one stay, but are reported."""
    spacings = np.asarray([scan.volume.pixdim.numpy() for scan in scans])
    median = np.median(spacings, axis=0)
    for scan, spacing in zip(scans, spacings, strict=True):
        if np.any(np.abs(spacing / median - 1) > tolerance):
            logger.warning(
                f"{scan.file}: spacing {spacing.round(3)} mm, but the target's median is {median.round(3)} mm."
            )
    return median


def match_spacing(scans: Sequence[Scan], spacing: np.ndarray, tolerance: float) -> list[Scan]:
    """Bring source scans to ``spacing`` (mm) by truncating their k-space, or refuse those that are coarser."""
    match = KSpaceSpacing(spacing.tolist(), tolerance)
    try:
        return [scan._replace(volume=match(scan.volume)) for scan in scans]
    except ValueError as error:
        raise ValueError(
            f"{error} The source group needs the target's median spacing over the scale factor."
        ) from error


def check_size(file: str, key: str, shape: Sequence[int], size: Sequence[int]) -> None:
    if any(n < w for n, w in zip(shape, size, strict=True)):
        raise ValueError(
            f"{file}: `{key}` must have at least {list(size)} voxels (patch, patch, slab) to cut slabs from, got "
            f"{list(shape)}. Choose a smaller patch_size or slab_size, or leave the scan out."
        )
