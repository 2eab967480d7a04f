"""Listing the scans of a path, for inference or evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.config import PathLike

from scripts.data.datalist import unpaired_datalist
from scripts.data.discovery import discover
from scripts.data.layouts import group_folders
from scripts.transforms.naming import ENDINGS, DerivativeLayout

__all__ = ["inference_datalist", "reference_datalist", "require_scans"]

logger = logging.getLogger(__name__)


def inference_datalist(dataset_dir: PathLike | None) -> list[dict[str, str]]:
    """List the scans to super-resolve, and those that are left out.

    Args:
        dataset_dir: a scan, or a folder with scans at any depth, as :func:`scripts.data.discovery.discover` finds them.
            None gives an empty list, so that the bundle can be inspected without data.

    Returns:
        one item per scan, with its path under ``image``. A scan that cannot be processed, or whose result would share
        its name with another, has the reason under ``fault``. A scan that is left out has the reason under
        ``left_out``.

    Raises:
        ValueError: when nothing is found, or everything is left out.

    Example:
        >>> inference_datalist(None)
        []
    """
    if dataset_dir is None:
        return []
    root = Path(dataset_dir).expanduser()
    if not root.exists():
        raise ValueError(f"{root}: dataset_dir must be a scan or a folder of scans, got no such path. Correct it.")
    if root.is_file():
        return [{"image": str(root)}]
    items = []
    for path, *reasons in discover(root):
        named = zip(("fault", "left_out"), reasons, strict=True)
        items.append({"image": str(path), **{key: reason for key, reason in named if reason}})
    scans = [item for item in items if "left_out" not in item]
    left_out = [item for item in items if "left_out" in item]
    if not scans:
        names = "".join(f"\n- {item['image']}: left out, because {item['left_out']}." for item in left_out[:20])
        raise ValueError(
            f"{root}: expected scans ({', '.join(ENDINGS)}) or DICOM series, found none. Correct it.{names}"
        )
    if left_out:
        logger.info("%s: %d scans, %d left out. The summary lists each.", root, len(scans), len(left_out))
    _mark_equal_names([item for item in scans if "fault" not in item], root)
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
    if root.suffix.casefold() == ".json":
        items = unpaired_datalist(root)[section]
    else:
        folders = group_folders(root)
        if folders and section not in folders:
            raise ValueError(
                f"{root}: expected a folder {section}/ with the HR scans to evaluate on, got the groups "
                f"{[folder.name for folder in folders.values()]}. Add it, choose another --section, or give the folder "
                "of the scans as dataset_dir."
            )
        listed = inference_datalist(folders.get(section, root))
        for item in listed:
            if "fault" in item:
                raise ValueError(item["fault"])
            if "left_out" in item:
                logger.info("%s: left out, because %s.", item["image"], item["left_out"])
        items = [item for item in listed if "left_out" not in item]
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
