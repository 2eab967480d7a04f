"""Reading scans once before training, matching their spacing and checking their size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor
from tqdm import tqdm

from scripts.data.crops import Crops, Slabs
from scripts.transforms import KSpaceSpacing

__all__ = ["Scan", "check_size", "common_spacing", "load_scans", "match_spacing"]

logger = logging.getLogger(__name__)


class Scan(NamedTuple):
    """One volume (1, H, W, D) of a group, with its subject and file for messages."""

    subject: str
    file: str
    volume: MetaTensor


def load_scans(
    data: Sequence[Mapping], transform: Callable, groups: Mapping[str, str], progress: bool
) -> dict[str, list[Scan]]:
    """Transform every item once, before the training, and sort the volumes by key.

    Args:
        data: items with files under some of the keys, and optionally the name of the ``subject``.
        transform: makes a volume (1, H, W, D) of each file.
        groups: name of the scans under each key, for the error.
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
                f"data must hold at least one {groups[key]} scan (`{key}`), got none in {len(data)} items. Add one."
            )
    return scans


def common_spacing(scans: Sequence[Scan], tolerance: float) -> np.ndarray:
    """The median spacing (mm) of the target group. A scan with another spacing stays, with a warning."""
    spacings = np.asarray([scan.volume.pixdim.numpy() for scan in scans])
    median = np.median(spacings, axis=0)
    for scan, spacing in zip(scans, spacings, strict=True):
        if np.any(np.abs(spacing / median - 1) > tolerance):
            logger.warning(
                f"{scan.file}: expected the target's median spacing {median.round(3)} mm, got {spacing.round(3)} mm. "
                "Training uses it as it is."
            )
    return median


def match_spacing(scans: Sequence[Scan], spacing: np.ndarray, tolerance: float) -> list[Scan]:
    """Truncate the k-space of source scans to ``spacing`` (mm), and refuse scans that are coarser."""
    match = KSpaceSpacing(spacing.tolist(), tolerance)
    try:
        return [scan._replace(volume=match(scan.volume)) for scan in scans]
    except ValueError as error:
        raise ValueError(
            f"{error} The source needs at most the target's median spacing over the scale factor. If the target's "
            "scans are HR as well, as in a BIDS dataset, add --degrade_target True."
        ) from error


def check_size(file: str, key: str, shape: Sequence[int], cut: Slabs | Crops, low_res: bool) -> None:
    size = cut.size(low_res)
    if any(n < w for n, w in zip(shape, size, strict=True)):
        raise ValueError(
            f"{file}: `{key}` must have at least {size} voxels to cut samples from, got {list(shape)}. Choose a "
            f"smaller {cut.options}, or leave the scan out."
        )
