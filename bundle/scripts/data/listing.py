"""Listing the scans of a path, for inference or evaluation."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.config import PathLike

from scripts.data.datalist import unpaired_datalist
from scripts.transforms.naming import ENDINGS, DerivativeLayout

__all__ = ["inference_datalist", "reference_datalist", "require_scans"]

logger = logging.getLogger(__name__)


def inference_datalist(dataset_dir: PathLike | None) -> list[dict[str, str]]:
    """List the scans to super-resolve.

    Args:
        dataset_dir: a scan, a folder with scans (NIfTI, NRRD, MetaImage) at any depth, or a folder with DICOM series,
            one per folder. Of a BIDS dataset only the ``anat`` folders count. Earlier results (``desc-...sr``) and
            hidden files are left out, and their number is logged. None gives an empty list, so that the bundle can be
            inspected without data.

    Returns:
        one item per scan, with its path under ``image``. A scan whose result would share its name with another, or
        whose folder holds several DICOM series, has the reason under ``fault``.

    Raises:
        ValueError: when nothing is found.

    Example:
        >>> inference_datalist(None)
        []
    """
    if dataset_dir is None:
        return []
    root = Path(dataset_dir).expanduser()
    if not root.exists():
        raise ValueError(f"{root}: dataset_dir must be a scan or a folder of scans, got no such path. Correct it.")
    scans = [root] if root.is_file() else _scan_files(root)
    items = [{"image": str(scan)} for scan in scans] if scans else _dicom_items(root)
    if not items:
        raise ValueError(f"{root}: expected scans ({', '.join(ENDINGS)}) or DICOM series, found none. Correct it.")
    _mark_equal_names(items, root)
    return items


def reference_datalist(
    dataset_dir: PathLike | None, training_datalist: PathLike, section: str = "test"
) -> list[dict[str, str]]:
    """List the HR scans to evaluate on.

    Args:
        dataset_dir: a datalist (.json) with the section, a folder that holds a folder of the section's name, or scans
            as :func:`inference_datalist` finds them.
        training_datalist: the datalist that the training wrote. It is read if ``dataset_dir`` is None. If it is missing
            too, the list is empty, so that the bundle can be inspected without data.
        section: "test" or "validation".

    Returns:
        one item per scan, with its path under ``image``, which the pipeline degrades, and under ``label``. A datalist
        may give different files for the two, and the mask of a lesion under ``lesion``.

    Raises:
        ValueError: when ``dataset_dir`` holds no scan to evaluate on.
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
    """Refuse to run without scans.

    Raises:
        ValueError: when there is no item.
    """
    if not data:
        raise ValueError(
            f"dataset_dir must be a scan or a folder of scans, got {dataset_dir}. Give it by --dataset_dir."
        )


def _mark_equal_names(items: Sequence[dict[str, str]], root: Path) -> None:
    """Mark the scans whose results would have the same name, also on file systems that ignore case."""
    layout = DerivativeLayout("", root)
    results: dict[str, list[dict[str, str]]] = {}
    for item in items:
        results.setdefault(str(layout.filename(item["image"])).casefold(), []).append(item)
    for same in (group for group in results.values() if len(group) > 1):
        names = [Path(item["image"]).name for item in same]
        for item in same:
            others = [name for name in names if name != Path(item["image"]).name]
            item["fault"] = (
                f"{item['image']}: expected another name than {', '.join(others)} beside it, because their results "
                "would have the same name. Rename it."
            )


def _scan_files(root: Path) -> list[Path]:
    """The files of volumes at any depth, except hidden files and earlier results."""
    found = [path for path in sorted(root.rglob("*")) if path.name.endswith(ENDINGS) and path.is_file()]
    files = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    files = [path for path in files if not re.search(r"_desc-[a-zA-Z0-9]*sr[_.]", path.name)]
    scans = [path for path in files if path.parent.name == "anat"] or files
    if len(scans) < len(found):
        logger.info("%s: %d files left out: hidden, earlier results, or not in anat/.", root, len(found) - len(scans))
    if scans and next(root.rglob("*.dcm"), None):
        logger.warning("%s: DICOM files are left out, because there are other scans. Give their folder alone.", root)
    return scans


def _dicom_items(root: Path) -> list[dict[str, str]]:
    """The folders that hold a DICOM series. A folder with several has a fault."""
    import itk

    items = []
    for folder in sorted({root, *(path.parent for path in root.rglob("*") if path.is_file())}):
        names = itk.GDCMSeriesFileNames.New(Directory=str(folder), UseSeriesDetails=True)
        count = len(names.GetSeriesUIDs())
        items += [{"image": str(folder)}] if count else []
        if count > 1:
            items[-1]["fault"] = f"{folder}: expected one DICOM series per folder, got {count}. Sort them into folders."
    return items
