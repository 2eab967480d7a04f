"""Layouts: where published and other datasets keep the scans of their subjects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["all_scans", "one_scan_per_subject", "subject_of"]


class Layout(NamedTuple):
    """The folders and files of a dataset.

    Args:
        name: name of the dataset.
        folder: pattern of a subject's folder. It identifies the layout.
        scans: patterns of a subject's scan in that folder, the preferred one first.
    """

    name: str
    folder: str
    scans: tuple[str, ...]


LAYOUTS = (
    Layout(
        "HCP",
        "[0-9]" * 6,
        (
            "unprocessed/3T/{suffix}_*/*_3T_{suffix}_*.nii*",
            "T1w/{suffix}_acpc_dc_restore*.nii*",
            "T1w/{suffix}_acpc_dc.nii*",
        ),
    ),
    Layout("BraTS", "BraTS*", ("*[_-]{suffix}.nii*",)),
    Layout("BIDS", "sub-*", ("**/*_{suffix}.nii*",)),
    Layout("folders", "*", ("**/*{suffix}.nii*", "**/*.nii*")),
)


def _is_scan(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".nii", ".nii.gz"))


def subject_of(path: Path) -> str:
    """The BIDS subject in a path, or else the file's or folder's name without its extension.

    Example:
        >>> subject_of(Path("sub-07/anat/sub-07_T1w.nii.gz"))
        'sub-07'
    """
    labels = [part for part in path.parts if part.startswith("sub-")]
    return labels[-1].split("_")[0].split(".")[0] if labels else path.name.split(".")[0]


def all_scans(folder: Path) -> dict[str, list[Path]]:
    """The NIfTI files of a folder at any depth, by subject. Without a BIDS name, each file is its own subject."""
    scans: dict[str, list[Path]] = {}
    for path in sorted(filter(_is_scan, folder.rglob("*"))):
        scans.setdefault(subject_of(path.relative_to(folder)), []).append(path)
    return scans


def one_scan_per_subject(root: Path, suffix: str) -> dict[str, Path]:
    """One scan of each subject of a dataset.

    Args:
        root: folder of a dataset in the layout of HCP, BraTS or BIDS, or with a file or folder per subject.
        suffix: the contrast to take, as in the dataset's file names: "T1w" (BIDS, HCP) or "t1ce" (BraTS).

    Raises:
        ValueError: when there are fewer than two subjects.
    """
    layout, entries = _recognise(root)
    scans: dict[str, Path] = {}
    for entry in entries:
        scan = entry if entry.is_file() else next(_matches(entry, layout, suffix), None)
        if scan is not None:
            scans.setdefault(subject_of(Path(entry.name)), scan)
    if len(scans) < 2:
        patterns = " or ".join(f"{layout.folder}/{pattern}".format(suffix=suffix) for pattern in layout.scans)
        raise ValueError(
            f"{root}: dataset_dir must hold the folders source/ and target/, or at least two subjects with a scan "
            f"{patterns}, got {sorted(scans)}. Choose another suffix, or the folder that holds the subjects, or list "
            "the scans in a .json datalist."
        )
    return scans


def _recognise(root: Path) -> tuple[Layout, list[Path]]:
    """The layout of a dataset, and its subjects' folders or files. Published layouts may lie one level down."""
    for layout in LAYOUTS[:-1]:
        for pattern in (layout.folder, f"*/{layout.folder}"):
            folders = sorted(path for path in root.glob(pattern) if path.is_dir())
            if folders:
                return layout, folders
    return LAYOUTS[-1], sorted(path for path in root.iterdir() if path.is_dir() or _is_scan(path))


def _matches(folder: Path, layout: Layout, suffix: str) -> Iterator[Path]:
    for pattern in layout.scans:
        yield from sorted(filter(_is_scan, folder.glob(pattern.format(suffix=suffix))))
