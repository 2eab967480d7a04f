"""BIDS: which files of a dataset are raw magnitude anatomy, and which scan of a subject is chosen.

Written by version 1.11 of the specification, https://bids-specification.readthedocs.io.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from monai.config import PathLike

from scripts.transforms.naming import BIDS_NAME, stem_of

__all__ = [
    "ASIDE",
    "CHOICE",
    "Dataset",
    "acquisition",
    "choose",
    "glob_pattern",
    "is_dataset",
    "natural",
    "not_magnitude",
    "parse",
]

ANATOMY = ("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio", "T2star", "FLASH", "PD")
ASIDE = ("derivatives", "sourcedata", "code")  # folders below a dataset that hold no raw scans
NO_ANATOMY = {
    "UNIT1": "a ratio of two MP2RAGE images, whose background is noise",
    **dict.fromkeys(("mask", "defacemask"), "a mask"),
    **dict.fromkeys(("dseg", "probseg"), "a segmentation"),
    **dict.fromkeys(("MP2RAGE", "IRT1", "MEGRE", "MESE", "VFA", "MPM", "MTS", "MTR"), "a part of a series"),
    **dict.fromkeys(("T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap"), "a computed map"),
    **dict.fromkeys(("MTRmap", "MTsat", "T1rho", "MWFmap", "MTVmap", "Chimap", "S0map", "M0map"), "a computed map"),
    **dict.fromkeys(("bold", "cbv", "sbref", "phase", "dwi", "asl", "m0scan", "epi", "pet"), "no anatomical image"),
    **dict.fromkeys(("fieldmap", "magnitude", "magnitude1", "magnitude2"), "a field map"),
    **dict.fromkeys(("phasediff", "phase1", "phase2"), "a field map"),
}
DERIVED = ("space", "res", "den", "label", "desc", "hemi", "seg", "atlas", "scale")  # entities of derivatives alone
INSIDE = re.compile(r"(?:sub|ses)-[a-zA-Z0-9]+|anat")  # folders between the dataset and its anatomy
FOLDER = re.compile(r"(?:^|/)(sub|ses)-([^/]+)")
CHOICE = "first session, then the commonest acquisition of the dataset, then the last run, then the first echo"
APART = ("sub", "ses", "run", "echo", "part")  # entities that do not name an acquisition


def parse(name: str) -> tuple[dict[str, str], str] | None:
    """The entities and the suffix of a BIDS name. None for another name.

    Example:
        >>> parse("sub-01_run-2_T1w.nii.gz")
        ({'sub': '01', 'run': '2'}, 'T1w')
    """
    match = BIDS_NAME.fullmatch(stem_of(name))
    if match is None:
        return None
    return dict(part.split("-", 1) for part in match["entities"].split("_")), match["suffix"]


def not_magnitude(name: str) -> str:
    """Why a BIDS name is not of a magnitude image of anatomy. Empty if it may be one, and for another name.

    Example:
        >>> not_magnitude("sub-01_part-phase_T1w.nii.gz"), not_magnitude("scan.nii.gz")
        ('part-phase is not the magnitude', '')
    """
    entities, suffix = parse(name) or ({}, "")
    part = entities.get("part", "mag")
    if part != "mag":
        return f"part-{part} is not the magnitude"
    return f"it is {NO_ANATOMY[suffix]} ({suffix})" if suffix in NO_ANATOMY else ""


class Dataset:
    """A BIDS dataset, raw or derivative.

    Args:
        root: its folder.
    """

    def __init__(self, root: PathLike) -> None:
        self.root = Path(os.path.abspath(root))
        file = self.root / ".bidsignore"
        self._ignored = _ignoring(file.read_text("utf-8", "replace") if file.is_file() else "")
        self._raw = _is_raw(self.root / "dataset_description.json")

    @classmethod
    def around(cls, folder: PathLike) -> Dataset | None:
        """The dataset whose root a folder is, or inside whose subject it lies. None outside of any dataset."""
        root = Path(os.path.abspath(folder))
        while INSIDE.fullmatch(root.name) and not is_dataset(root):
            root = root.parent
        return cls(root) if is_dataset(root) else None

    def ignores(self, folder: PathLike) -> bool:
        """Whether the .bidsignore excludes a folder below the root."""
        return self._ignored(Path(os.path.abspath(folder)).relative_to(self.root).as_posix() + "/")

    def left_out(self, path: PathLike) -> str:
        """Why a file is not raw magnitude anatomy of this dataset. Empty if it is."""
        file = Path(os.path.abspath(path))
        if self._ignored(file.relative_to(self.root).as_posix()):
            return ".bidsignore excludes it"
        name = parse(file.name)
        if name is None:
            return "its name is not of BIDS, such as sub-01_T1w.nii.gz"
        if reason := not_magnitude(file.name):
            return reason
        if file.parent.name != "anat":
            return "it is not in a folder anat/"
        folders = dict(FOLDER.findall(file.parent.relative_to(self.root).as_posix()))
        other = next((key for key, value in folders.items() if name[0].get(key) != value), None)
        if other:
            return f"its folder is {other}-{folders[other]}, its name is not"
        if self._raw and (derived := [key for key in DERIVED if key in name[0]]):
            return f"the entity {derived[0]} marks a derivative, not a raw scan"
        return "" if name[1] in ANATOMY else f"{name[1]} is no suffix of anatomical images"


def _is_raw(description: Path) -> bool:
    """Whether a dataset_description.json describes raw data: by its type, or because it names no pipeline."""
    try:
        known = json.loads(description.read_text(encoding="utf-8"))
        derived = {"GeneratedBy", "PipelineDescription"} & known.keys()
        return known.get("DatasetType", "derivative" if derived else "raw") == "raw"
    except (OSError, ValueError, AttributeError):
        return False


def is_dataset(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS dataset: it has a description, or subjects with anatomy."""
    if (folder / "dataset_description.json").is_file():
        return True
    patterns = ("sub-*/anat/sub-*_*", "sub-*/ses-*/anat/sub-*_*")
    return any(parse(path.name) for pattern in patterns for path in folder.glob(pattern))


def choose(scans: Iterable[Path], acquisitions: Counter[str]) -> list[Path]:
    """Sort the scans of one subject by :data:`CHOICE`. The first is the one to take.

    Args:
        scans: files with BIDS names.
        acquisitions: how often the dataset has each :func:`acquisition`.

    Example:
        >>> scans = [Path(f"sub-1_{name}_T1w.nii") for name in ("ses-2", "ses-1_run-1", "ses-1_run-2")]
        >>> choose(scans, Counter())[0].name
        'sub-1_ses-1_run-2_T1w.nii'
    """

    def order(path: Path) -> tuple:
        entities = (parse(path.name) or ({}, ""))[0]
        kind = acquisition(path)
        run, echo = (int(re.sub(r"\D", "", entities.get(key, "0")) or 0) for key in ("run", "echo"))
        return natural(entities.get("ses", "")), -acquisitions[kind], natural(kind), -run, echo, natural(path.name)

    return sorted(scans, key=order)


def acquisition(path: Path) -> str:
    """The entities that say how a scan was acquired and reconstructed, such as ``acq-mprage_rec-norm``.

    Example:
        >>> acquisition(Path("sub-01_ses-1_acq-mprage_run-2_T1w.nii"))
        'acq-mprage'
    """
    entities = (parse(path.name) or ({}, ""))[0]
    return "_".join(f"{key}-{value}" for key, value in entities.items() if key not in APART)


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A key that sorts numbers in a text by their value, so that ``ses-2`` comes before ``ses-10``.

    Example:
        >>> sorted(["ses-10", "ses-2"], key=natural)
        ['ses-2', 'ses-10']
    """
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in parts]


def glob_pattern(pattern: str) -> str:
    """The regular expression of a glob pattern. A ``*`` stays within a folder, ``**/`` goes to any depth.

    Example:
        >>> bool(re.fullmatch(glob_pattern("**/*_T1w"), "anat/sub-01_T1w"))
        True
    """
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^]]*\]|.", pattern, re.S)
    brackets = (f"[{'^' if part[1] == '!' else ''}{part[1:-1].lstrip('!')}]" if len(part) > 2 else "" for part in parts)
    return "".join(signs.get(part) or bracket or re.escape(part) for part, bracket in zip(parts, brackets, strict=True))


def _ignoring(text: str) -> Callable[[str], bool]:
    """Whether the patterns of a .bidsignore, which are those of .gitignore, exclude a path."""
    rules = [_rule(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]

    def ignored(relative: str) -> bool:
        verdicts = [excludes for excludes, pattern in rules if pattern.fullmatch(relative)]
        return bool(verdicts) and verdicts[-1]

    return ignored


def _rule(line: str) -> tuple[bool, re.Pattern[str]]:
    body = line.removeprefix("!")
    anywhere = "" if "/" in body.rstrip("/") else "(?:.*/)?"
    below = "/.*" if body.endswith("/") else "(?:/.*)?"
    return not line.startswith("!"), re.compile(anywhere + glob_pattern(body.strip("/")) + below)
