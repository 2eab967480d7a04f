"""Layouts: where published and other datasets keep the scans of their subjects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from scripts.data.bids import CHOICE, Dataset, acquisition, choose, glob_pattern, natural, parse
from scripts.data.discovery import Found, discover
from scripts.transforms.naming import stem_of

__all__ = ["FOLDERS", "Choice", "all_scans", "choose_scans", "group_folders", "one_scan_per_subject", "subject_of"]

FOLDERS = {  # name of a group: names of its folder, in any case, with or without hyphens and underscores
    "source": ("source", "hr", "highres", "highresolution"),
    "target": ("target", "lr", "lowres", "lowresolution"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
GROUP_WORDS = {word: group for group, words in FOLDERS.items() for word in words}
GROUP_WORDS |= {"high": "source", "low": "target", "train": "training", "training": "training"}
EXPECTED = "source/ or HR/ for the high-resolution scans, target/ or LR/ for the low-resolution ones"
FEW = 4  # folders with several scans each: rather groups than subjects


class Layout(NamedTuple):
    """The folders and files of a dataset.

    Args:
        name: name of the dataset.
        folder: pattern of a subject's folder. It identifies the layout.
        scans: patterns of a subject's scan in that folder, without ending, the preferred one first.
    """

    name: str
    folder: str
    scans: tuple[str, ...]


LAYOUTS = (
    Layout(
        "HCP",
        "[0-9]" * 6,
        ("unprocessed/3T/{suffix}_*/*_3T_{suffix}_*", "T1w/{suffix}_acpc_dc_restore*", "T1w/{suffix}_acpc_dc"),
    ),
    Layout("BraTS", "BraTS*", ("*[_-]{suffix}",)),
)
PLAIN = Layout("folders", "*", ("**/*{suffix}", "**/*"))
BIDS = Layout("BIDS", "sub-*", ("**/anat/*_{suffix}",))


class Choice(NamedTuple):
    """The scans of a dataset that training uses, and the others.

    Args:
        scans: files or folders of DICOM series, by subject.
        left_out: reason of every other scan.
    """

    scans: dict[str, list[Path]]
    left_out: dict[Path, str]


def subject_of(path: PurePath) -> str:
    """The subject of a scan: the BIDS entity of its name or of a folder, or else its whole name without ending.

    Args:
        path: relative to the dataset, because no folder above it names a subject.

    Example:
        >>> [subject_of(PurePath(name)) for name in ("sub-07/anat/T1w.nii.gz", "IXI.001.T1.nii.gz")]
        ['sub-07', 'IXI.001.T1']
    """
    stem = stem_of(path.name)
    labels = [part for part in (*path.parts[:-1], stem) if re.match(r"sub-[^_]+", part)]
    return labels[-1].split("_")[0] if labels else stem


def group_folders(root: Path) -> dict[str, Path]:
    """The folders of the groups in a training folder, by group.

    Raises:
        ValueError: when two folders name one group.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("HR", "Low-Res", "notes"):
        ...     (root / name).mkdir()
        >>> {group: folder.name for group, folder in group_folders(root).items()}
        {'source': 'HR', 'target': 'Low-Res'}
    """
    found: dict[str, list[Path]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        plain = re.sub(r"[-_ ]", "", folder.name.casefold())
        for group in (group for group, names in FOLDERS.items() if plain in names):
            found.setdefault(group, []).append(folder)
    for group, folders in found.items():
        if len(folders) > 1:
            raise ValueError(
                f"{root}: expected one folder of the {group} group, got {[path.name for path in folders]}. Rename one."
            )
    return {group: found[group][0] for group in FOLDERS if group in found}


def all_scans(folders: Mapping[str, Path], root: Path) -> dict[str, Choice]:
    """Every scan of the groups' folders, by group and subject.

    Without a BIDS name each file is a subject of its own. Where a name occurs in several folders of a group, the
    folder belongs to the subject's name: ``p1/T1.nii.gz`` and ``p2/T1.nii.gz`` are two subjects.

    Args:
        folders: of the groups.
        root: the folder that holds them. What else it holds is left out, under the name of the first group.
    """
    found = {group: discover(folder) for group, folder in folders.items()}
    relative = {group: [one.path.relative_to(folders[group]) for one in _usable(found[group])] for group in folders}
    name = _namer(relative)
    choices = {}
    for group, folder in folders.items():
        scans: dict[str, list[Path]] = {}
        for path in relative[group]:
            scans.setdefault(name(path) or folder.name, []).append(folder / path)
        choices[group] = Choice(scans, _reasons(found[group]))
    first = choices[next(iter(folders))].left_out
    for one in discover(root, skip=set(folders.values())):
        first[one.path] = _reasons([one]).get(one.path, "it is in no folder of a group")
    return choices


def _namer(groups: Mapping[str, Iterable[Path]]) -> Callable[[Path], str]:
    """The function that names the subject of a path. Names that repeat within a group include the folder."""
    repeated: set[str] = set()
    where: set[Path] = set()
    for paths in groups.values():
        folders: dict[str, set[Path]] = {}
        for path in paths:
            folders.setdefault(subject_of(path), set()).add(path.parent)
        for subject, parents in folders.items():
            if len(parents) > 1 and not subject.startswith("sub-"):
                repeated.add(subject)
                where |= parents
    per_folder = len(repeated) < len(where)  # T1 and T2 in many folders: a folder per subject

    def name(path: Path) -> str:
        subject, parts = subject_of(path), path.parent.parts
        if subject.startswith("sub-") or not parts:
            return subject
        if per_folder and (subject in repeated or path.parent in where):
            return "_".join(parts)
        return "_".join([*parts, subject]) if subject in repeated else subject

    return name


def one_scan_per_subject(root: Path, suffix: str) -> dict[str, Path]:
    """One scan of each subject of a dataset, see :func:`choose_scans`."""
    return {subject: scans[0] for subject, scans in choose_scans(root, suffix).scans.items()}


def choose_scans(root: Path, suffix: str, fewest: int = 2) -> Choice:
    """Choose one scan of each subject of a dataset.

    Of a BIDS dataset, where a subject has several, :data:`scripts.data.bids.CHOICE` says which. Of another dataset it
    is the first that fits the layout.

    Args:
        root: folder of a dataset in the layout of HCP, BraTS or BIDS, or with a file or folder per subject.
        suffix: the contrast to take, as in the dataset's file names: "T1w" (BIDS, HCP) or "t1ce" (BraTS). It may be a
            pattern, such as "T[12]w".
        fewest: number of subjects, at least.

    Raises:
        ValueError: when there are fewer subjects, or the folders are rather groups than subjects.
    """
    found = discover(root)
    paths = [one.path for one in _usable(found)]
    layout, subjects = _sorted_by_subject(root, paths, suffix)
    scans = {subject: ranked for subject, ranked in subjects.items() if ranked}
    if len(scans) < fewest:
        patterns = " or ".join(f"{layout.folder}/{pattern}".format(suffix=suffix) for pattern in layout.scans)
        count = f"{fewest} subject" + "s" * (fewest > 1)
        raise ValueError(
            f"{root}: dataset_dir must hold the folders source/ and target/ (or HR/ and LR/), or at least {count} with "
            f"a scan {patterns}, got {sorted(scans)}. Choose another suffix, or the folder that holds the subjects, or "
            "list the scans in a .json datalist."
        )
    rule = CHOICE if layout is BIDS else "the first that fits the layout"
    others = {
        other: f"{chosen.name} of the same subject was chosen: {rule}"
        for chosen, *more in scans.values()
        for other in more
    }
    taken = {ranked[0] for ranked in scans.values()}
    reason = f"its name does not fit the {layout.name} layout with the suffix {suffix!r}"
    unused = {path: others.get(path, reason) for path in paths if path not in taken}
    return Choice({subject: ranked[:1] for subject, ranked in scans.items()}, _reasons(found) | unused)


def _sorted_by_subject(root: Path, paths: list[Path], suffix: str) -> tuple[Layout, dict[str, list[Path]]]:
    """The layout of a dataset, and the scans of each subject that fit the suffix, the preferred one first."""
    for layout in LAYOUTS:  # published layouts may lie one level down
        for pattern in (layout.folder, f"*/{layout.folder}"):
            folders = sorted(path for path in root.glob(pattern) if path.is_dir())
            if folders:
                return layout, {folder.name: list(_matches(folder, paths, layout, suffix)) for folder in folders}
    datasets = {path: Dataset.around(path.parent) for path in paths}
    if paths and all(datasets.values()):
        return BIDS, _bids_subjects(root, {path: dataset.root for path, dataset in datasets.items()}, suffix)
    entries = sorted(
        {root.joinpath(*path.relative_to(root).parts[:1]) for path in paths}, key=lambda path: natural(path.name)
    )
    _refuse_groups(root, entries, paths)
    return PLAIN, {
        subject_of(PurePath(entry.name)): [entry] if entry in paths else list(_matches(entry, paths, PLAIN, suffix))
        for entry in entries
    }


def _bids_subjects(root: Path, datasets: Mapping[Path, Path], suffix: str) -> dict[str, list[Path]]:
    """The scans of each subject. A subject of one of several datasets carries the dataset's name."""
    fitting = [path for path in datasets if fnmatchcase((parse(path.name) or ({}, ""))[1], suffix)]
    acquisitions = Counter(map(acquisition, fitting))
    several = len(set(datasets.values())) > 1
    subjects: dict[str, list[Path]] = {}
    for path in fitting:
        subject = subject_of(PurePath(path.name))
        subjects.setdefault(f"{datasets[path].name}_{subject}" if several else subject, []).append(path)
    return {subject: choose(scans, acquisitions) for subject, scans in subjects.items()}


def _refuse_groups(root: Path, entries: list[Path], paths: list[Path]) -> None:
    """Refuse folders that are rather groups than subjects, because the split would mix them."""
    counts = {entry.name: sum(entry in path.parents for path in paths) for entry in entries}
    folders = {name: count for name, count in counts.items() if count}
    words = {name: set(re.split(r"[^a-z]+", name.casefold())) & GROUP_WORDS.keys() for name in counts}
    groups = {GROUP_WORDS[word] for found in words.values() for word in found}
    few = 1 < len(folders) <= FEW and len(folders) == len(counts)
    if (len(folders) <= FEW and any(words[name] for name in folders)) or (
        {"source", "target"} <= groups or (few and min(folders.values()) > 1)
    ):
        listed = ", ".join(f"{name} ({count} scans)" if count else name for name, count in [*counts.items()][:8])
        raise ValueError(
            f"{root}: expected a folder per subject, or a folder per group, got {listed}. If these are groups, name "
            f"their folders {EXPECTED}. Otherwise list the scans in a .json datalist."
        )


def _matches(folder: Path, paths: list[Path], layout: Layout, suffix: str) -> Iterator[Path]:
    """The scans of a folder that fit a layout, the preferred pattern first, each once."""
    inside = {path: path.relative_to(folder) for path in paths if folder in path.parents}
    seen: set[Path] = set()
    for pattern in layout.scans:
        fits = re.compile(glob_pattern(pattern.format(suffix=suffix))).fullmatch
        for path, relative in inside.items():
            if path not in seen and fits(relative.with_name(stem_of(relative.name)).as_posix()):
                seen.add(path)
                yield path


def _usable(found: Iterable[Found]) -> list[Found]:
    return [one for one in found if not one.fault and not one.left_out]


def _reasons(found: Iterable[Found]) -> dict[Path, str]:
    left_out = {one.path: one.left_out or one.fault.removeprefix(f"{one.path}: ") for one in found}
    return {path: reason for path, reason in left_out.items() if reason}
