"""Lists: datalists in JSON, and what to do with the lists of other tools."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.data.layouts import subject_of

__all__ = ["SECTIONS", "read_json"]

SECTIONS = ("training", "validation", "test")
FILE_KEYS = ("image", "reals", "label", "lesion")
FORM = (
    'Write {"training": [{"reals": "an HR scan"}, {"image": "an LR scan"}]}, or give a folder with source/ and target/'
)
SEGMENTATION = (
    "a dataset.json for segmentation (Medical Segmentation Decathlon), whose images are not sorted by resolution"
)
FOREIGN = {  # keys of other tools' lists: what such a list is
    "channel_names": "a dataset.json of nnU-Net, which names no scans",
    "numTraining": SEGMENTATION,
    "modality": SEGMENTATION,
    "subjects": "a list of subjects of another tool, such as TorchIO",
}


def read_json(path: Path) -> dict[str, list[dict]]:
    """The items of a datalist, with absolute paths and the subject of each.

    Raises:
        ValueError: when the file is no datalist of this bundle, a scan is missing, or a subject is no plain name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a folder or a JSON datalist, but it cannot be read as JSON ({error}). Correct the file."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a datalist must be an object with the list `training`, got {_kind(content)}. {FORM}")
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    foreign = next((kind for key, kind in FOREIGN.items() if key in content), None)
    if "training" not in lists or not set(lists) <= set(SECTIONS):
        raise ValueError(
            f"{path}: a datalist must hold `training` and may hold {SECTIONS[1:]}, got {sorted(lists)}."
            + (f" This is {foreign}. {FORM}" if foreign else " Correct it.")
        )
    try:
        sections = {section: [_resolve(item, path) for item in lists.get(section, [])] for section in SECTIONS}
    except ValueError as error:
        if foreign is None:
            raise
        raise ValueError(f"{str(error).removesuffix(FORM)} This is {foreign}. {FORM}".replace("  ", " ")) from error
    root = _common_folder([item for items in sections.values() for item in items])
    return {section: [_with_subject(item, root, path) for item in items] for section, items in sections.items()}


def _resolve(item: Any, path: Path) -> dict:
    """Check one item of a datalist, and complete its paths and its subject."""
    if not isinstance(item, Mapping):
        raise ValueError(
            f"{path}: an item must be an object with a file under `image` (LR) or `reals` (unpaired HR), got "
            f"{_kind(item)}. {FORM}"
        )
    keys = set(item)
    if not keys & {"image", "reals"} or not keys <= {*FILE_KEYS, "subject"}:
        raise ValueError(
            f"{path}: an item must have a file under `image` (LR) or `reals` (unpaired HR), and may have `label` "
            f"(paired reference), `lesion` (its mask) and `subject`, got the keys {sorted(keys)}. "
            + ("Folds are not used: remove `fold`." if "fold" in keys else "Correct the item.")
        )
    for key in keys & set(FILE_KEYS):
        if not isinstance(item[key], str):
            raise ValueError(f"{path}: `{key}` must be the path of one file, got {_kind(item[key])}. Give a text.")
    names = {key: _portable(item[key], path.parent) for key in FILE_KEYS if key in item}
    files = {key: str(path.parent / name) for key, name in names.items()}
    missing = [file for file in files.values() if not Path(file).exists()]
    if missing:
        raise ValueError(
            f"{missing[0]}: listed in {path}, but does not exist. Give paths relative to the folder of the list."
        )
    return {**files, **({"subject": item["subject"]} if "subject" in item else {})}


def _first_file(item: Mapping) -> Path:
    return Path(os.path.abspath(next(item[key] for key in FILE_KEYS if key in item)))


def _common_folder(items: Sequence[Mapping]) -> Path:
    """The folder of the dataset: the deepest that holds every scan and, of BIDS, the folders of their subjects."""
    folders = [_first_file(item).parent for item in items]
    above = [re.sub(r"/sub-[^/]+(/ses-[^/]+)?/anat$", "", folder.as_posix()) for folder in folders]
    return Path(os.path.commonpath(above)) if above else Path()


def _with_subject(item: Mapping, root: Path, path: Path) -> dict:
    """The item with its subject, which a folder above the dataset never names."""
    subject = str(item.get("subject", subject_of(_first_file(item).relative_to(root))))
    if subject in ("", ".", "..") or any(sign in subject for sign in "/\\\0"):  # it names files
        raise ValueError(f"{path}: a subject must be a plain name, got {subject!r}. Rename it.")
    return {**item, "subject": subject}


def _portable(name: str, folder: Path) -> str:
    """The path with ``~`` expanded, and with slashes where it was written on Windows."""
    name = os.path.expanduser(name)
    return name if (folder / name).exists() else name.replace("\\", "/")


def _kind(value: Any) -> str:
    """What a JSON value is, for a message."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"{type(value).__name__} {str(value)[:60]}"
