"""Names for the scans of an evaluation: of their rows, pictures and pages."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from monai.config import PathLike
from monai.utils import ImageMetaKey

from scripts.transforms.naming import stem_of

__all__ = ["ScanNames", "distinct_names"]

Pair: TypeAlias = tuple[str, str]  # the files of an evaluated scan: its HR scan and its image
RESERVED = "index"  # the page that lists the scans has this name


class ScanNames:
    """The names of the scans of an evaluation, see :func:`distinct_names`.

    Args:
        scans: all of them. Their ``label`` and ``image`` are files.

    Example:
        >>> from monai.data import MetaTensor
        >>> files = [f"in/{number}/T1w.nii.gz" for number in (1, 2)]
        >>> scan = MetaTensor([0.0], meta={"filename_or_obj": files[1]})
        >>> ScanNames([{"label": file, "image": file} for file in files])({"label": scan, "image": scan})
        '2/T1w'
    """

    def __init__(self, scans: Sequence[Mapping[str, Any]]) -> None:
        self.names = distinct_names([_pair(item["label"], item["image"]) for item in scans])

    def __call__(self, item: Mapping[str, Any]) -> str:
        """The name of a scan that was read.

        Args:
            item: holds ``label`` and ``image`` with their files in their metadata.
        """
        return self.names[_pair(*(item[key].meta[ImageMetaKey.FILENAME_OR_OBJ] for key in ("label", "image")))]


def distinct_names(scans: Sequence[Pair]) -> dict[Pair, str]:
    """Name each scan, every one differently, also for file systems that ignore case.

    The name is the first of these that no other scan has: the HR scan's own name, with its folders, with its ending as
    well, or with the name of the image. What is left is numbered.

    Args:
        scans: the files of each: its HR scan and its image.

    Example:
        >>> names = distinct_names([(file, file) for file in ("a/1/T1w.nii.gz", "a/2/T1w.nii.gz", "a/2/T2w.nii.gz")])
        >>> list(names.values())
        ['1/T1w', '2/T1w', 'T2w']
    """
    scans = list(dict.fromkeys(scans))
    files = [Path(os.path.abspath(label)) for label, _ in scans]
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    inner, stems = [file.relative_to(root) for file in files], [stem_of(file.name) for file in files]
    levels = [
        stems,
        [path.with_name(stem).as_posix() for path, stem in zip(inner, stems, strict=True)],
        [path.as_posix() for path in inner],
        [f"{stem}_{stem_of(Path(image).name)}" for stem, (_, image) in zip(stems, scans, strict=True)],
    ]
    names: dict[Pair, str] = {}
    taken = {RESERVED}
    for level in levels:
        uses = Counter(map(str.casefold, level))
        for scan, name in zip(scans, level, strict=True):
            if scan not in names and uses[name.casefold()] == 1 and name.casefold() not in taken:
                names[scan] = name
                taken.add(name.casefold())
    for scan, stem in zip(scans, stems, strict=True):
        if scan not in names:
            numbered = (f"{stem}_{number}" for number in itertools.count(1))
            names[scan] = next(name for name in numbered if name.casefold() not in taken)
            taken.add(names[scan].casefold())
    return {scan: names[scan] for scan in scans}


def _pair(label: PathLike, image: PathLike) -> Pair:
    """The key of an evaluated scan."""
    return os.path.abspath(Path(label).expanduser()), os.path.abspath(Path(image).expanduser())
