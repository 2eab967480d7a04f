"""Listing: which scans a path holds, to super-resolve or to evaluate on."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.config import PathLike

from scripts.data.datalist import unpaired_datalist
from scripts.transforms.saving import ENDINGS, DerivativeLayout

__all__ = ["inference_datalist", "reference_datalist", "require_scans"]

logger = logging.getLogger(__name__)


def inference_datalist(dataset_dir: PathLike | None) -> list[dict[str, str]]:
    """The scans to super-resolve.

    Args:
        dataset_dir: a scan; a folder with scans (NIfTI, NRRD, MetaImage) at any depth; or a folder with DICOM series,
            one per folder. Of a BIDS dataset the ``anat`` folders count. Earlier results (``desc-...sr``) are left out.
            What is left out is logged. ``None`` gives an empty list, so that the bundle can be inspected without data.

    Returns:
        one item per scan, its path under ``image``; under ``fault`` why it cannot be told from another, where that is
        so: its result would have the same name, or its folder holds several series.

    Raises:
        ValueError: when nothing is found.
    """
    if dataset_dir is None:
        return []
    root = Path(dataset_dir).expanduser()
    if not root.exists():
        raise ValueError(f"{root}: dataset_dir must be a scan or a folder of scans, got no such path. Check the path.")
    scans = [root] if root.is_file() else _scan_files(root)
    items = [{"image": str(scan)} for scan in scans] if scans else _dicom_items(root)
    if not items:
        raise ValueError(f"{root}: expected scans ({', '.join(ENDINGS)}) or DICOM series, found none. Check the path.")
    _mark_equal_names(items, root)
    return items


def reference_datalist(
    dataset_dir: PathLike | None, training_datalist: PathLike, section: str = "test"
) -> list[dict[str, str]]:
    """The high-resolution scans to evaluate on.

    Args:
        dataset_dir: a datalist (.json) with that section; a folder that holds a folder of that name; or scans as
            :func:`inference_datalist` finds them, which then all count.
        training_datalist: the datalist that training left behind, read when ``dataset_dir`` is ``None``. The list is
            empty when there is none, so that the bundle can be inspected without data.
        section: "test" or "validation".

    Returns:
        one item per scan, its path under ``image``, to be degraded, and ``label``. A datalist may pair other files, and
        give the mask of a lesion under ``lesion``.

    Raises:
        ValueError: when a given ``dataset_dir`` holds nothing to evaluate on.
    """
    if dataset_dir is None and not Path(training_datalist).is_file():
        return []
    root = Path(training_datalist if dataset_dir is None else dataset_dir).expanduser()
    if root.suffix == ".json":
        items = unpaired_datalist(root)[section]
    else:
        items = inference_datalist(root / section if (root / section).is_dir() else root)
        for item in items:
            if "fault" in item:
                raise ValueError(item["fault"])
    if not items:
        raise ValueError(f"{root}: expected scans in the section {section!r}, found none. Give another --section.")
    return [
        {"image": item["image"], "label": item.get("label", item["image"])}
        | ({"lesion": item["lesion"]} if "lesion" in item else {})
        for item in items
    ]


def require_scans(data: Sequence[Mapping], dataset_dir: PathLike | None) -> None:
    """Refuse to run on nothing.

    Raises:
        ValueError: when there is no item.
    """
    if not data:
        raise ValueError(
            f"dataset_dir must be a scan or a folder of scans, got {dataset_dir}. Give it by --dataset_dir."
        )


def _mark_equal_names(items: Sequence[dict[str, str]], root: Path) -> None:
    """Mark the scans whose results would have one name, also where a file system takes A for a."""
    layout = DerivativeLayout("", root)
    results: dict[str, list[dict[str, str]]] = {}
    for item in items:
        results.setdefault(str(layout.filename(item["image"])).casefold(), []).append(item)
    for same in (group for group in results.values() if len(group) > 1):
        names = [Path(item["image"]).name for item in same]
        for item in same:
            others = [name for name in names if name != Path(item["image"]).name]
            item["fault"] = (
                f"{item['image']}: expected another name than {', '.join(others)} beside it, for the results would be "
                "one. Rename it."
            )


def _scan_files(root: Path) -> list[Path]:
    """Files of volumes at any depth, neither hidden nor our own results."""
    found = [path for path in sorted(root.rglob("*")) if path.name.endswith(ENDINGS) and path.is_file()]
    files = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    files = [path for path in files if not re.search(r"_desc-[a-zA-Z0-9]*sr[_.]", path.name)]
    scans = [path for path in files if path.parent.name == "anat"] or files
    if len(scans) < len(found):
        logger.info("%s: %d files left out: hidden, earlier results, or not in anat/.", root, len(found) - len(scans))
    if scans and next(root.rglob("*.dcm"), None):
        logger.warning("%s: DICOM files are left out, since there are other scans. Give their folder alone.", root)
    return scans


def _dicom_items(root: Path) -> list[dict[str, str]]:
    """Folders that hold a DICOM series; one that holds several is marked."""
    import itk

    items = []
    for folder in sorted({root, *(path.parent for path in root.rglob("*") if path.is_file())}):
        names = itk.GDCMSeriesFileNames.New(Directory=str(folder), UseSeriesDetails=True)
        count = len(names.GetSeriesUIDs())
        items += [{"image": str(folder)}] if count else []
        if count > 1:
            items[-1]["fault"] = f"{folder}: expected one DICOM series per folder, got {count}. Sort them into folders."
    return items
