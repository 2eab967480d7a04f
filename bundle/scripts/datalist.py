"""Which scan belongs to which group: unpaired source and target, validation, test, split by subject."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scripts.demonstration import generate_cohort

__all__ = ["unpaired_datalist"]

logger = logging.getLogger(__name__)

SECTIONS = ("training", "validation", "test")
FOLDERS = ("source", "target", "validation", "test")
FILE_KEYS = ("image", "reals", "label")
ASSIGNMENTS = ("unpaired", "misaligned")


def unpaired_datalist(
    dataset_dir: str | os.PathLike | None = None,
    cohort_dir: str | os.PathLike = "demonstration",
    scale_factor: Sequence[int] = (2, 2, 2),
    split: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    seed: int = 0,
    suffix: str = "T1w",
    output: str | os.PathLike | None = None,
    hr_fraction: float = 1.0,
    assignment: str = "unpaired",
) -> dict[str, list[dict]]:
    """Sort the scans of a dataset into training, validation and test items.

    Args:
        dataset_dir: one of

            * ``None``: the demonstration cohort, generated in ``cohort_dir`` where it is not there yet;
            * a folder with ``source/`` (high resolution) and ``target/`` (low resolution), and optionally
              ``validation/`` and ``test/`` (high resolution), each holding NIfTI files at any depth;
            * a BIDS dataset of high-resolution scans, of which the first of each subject is taken and the subjects are
              split; the target's scans remain to be degraded by the pipeline;
            * a MONAI datalist (.json), its relative paths counted from its own folder.

        cohort_dir: where the demonstration cohort lives.
        scale_factor: of the demonstration cohort's target scans, along each axis of the canonical frame.
        split: shares of a BIDS dataset's subjects for source, target, validation and test. Every positive share gets at
            least one subject while there are any.
        seed: of the split and of the subset.
        suffix: BIDS suffix of the scans.
        output: JSON file to record the result in, itself a datalist that can be given as ``dataset_dir``.
        hr_fraction: share of the source's subjects to keep, in (0, 1]. For one seed the subsets are nested.
        assignment: "unpaired": no subject has scans in both source and target. "misaligned": each of them has, but
            nothing tells which belong together; of a BIDS dataset, both groups are the subjects of both shares.

    Returns:
        items of the sections "training" (each with a file under ``reals``, the source, or ``image``, the target),
        "validation" and "test" (the same file under ``image``, to be degraded by the pipeline, and ``label``, the
        reference), all with their ``subject``.

    Raises:
        ValueError: when there is nothing to read, a key or value is unknown, or a subject stands where it must not.
    """
    if assignment not in ASSIGNMENTS:
        raise ValueError(f"assignment must be one of {ASSIGNMENTS}, got {assignment!r}.")
    if not 0 < hr_fraction <= 1:
        raise ValueError(f"hr_fraction must be in (0, 1], got {hr_fraction}.")
    if dataset_dir is None:
        dataset_dir = generate_cohort(cohort_dir, scale_factor=scale_factor)
    root = Path(dataset_dir).resolve()
    datalist = _read(root, split, seed, suffix, assignment)
    _check_subjects(datalist, root, assignment)
    datalist["training"] = _keep_fraction(datalist["training"], hr_fraction, seed)
    if output is not None:
        settings = {"dataset_dir": str(root.resolve()), "split": list(split), "seed": seed, "suffix": suffix}
        _write(
            Path(output), {"provenance": {**settings, "hr_fraction": hr_fraction, "assignment": assignment}, **datalist}
        )
    return datalist


def _read(root: Path, split: Sequence[float], seed: int, suffix: str, assignment: str) -> dict[str, list[dict]]:
    if not root.exists():
        raise ValueError(
            f"{root}: dataset_dir must be a folder or a .json datalist, but does not exist. Check the path."
        )
    if root.is_file():
        return _read_json(root)
    if (root / "source").is_dir() and (root / "target").is_dir():
        return _datalist(*(_scans(root / name) for name in FOLDERS))
    if (root / "dataset_description.json").is_file() or any(root.glob("sub-*/")):
        return _read_bids(root, split, seed, suffix, assignment)
    raise ValueError(
        f"{root}: dataset_dir must hold the folders source/ and target/, or sub-*/ folders (BIDS), got "
        f"{sorted(path.name for path in root.iterdir())[:10]}. Arrange the scans so, or list them in a .json datalist."
    )


def _datalist(
    source: Mapping[str, list[Path]],
    target: Mapping[str, list[Path]],
    validation: Mapping[str, list[Path]],
    test: Mapping[str, list[Path]],
) -> dict[str, list[dict]]:
    """The items of four groups, each a mapping of a subject to its files."""
    groups = zip(
        (source, target, validation, test), (["reals"], ["image"], ["image", "label"], ["image", "label"]), strict=True
    )
    items = [
        [{**dict.fromkeys(keys, str(file)), "subject": subject} for subject, files in group.items() for file in files]
        for group, keys in groups
    ]
    return {"training": items[0] + items[1], "validation": items[2], "test": items[3]}


def _subject(path: Path) -> str:
    """The BIDS subject in a path, or else the file's name without its extension."""
    labels = [part for part in path.parts if part.startswith("sub-")]
    return labels[-1].split("_")[0].split(".")[0] if labels else path.name.split(".")[0]


def _scans(folder: Path, pattern: str = "*") -> dict[str, list[Path]]:
    """The NIfTI files of a folder by subject."""
    scans: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob(f"{pattern}.nii*")):
        if path.name.endswith((".nii", ".nii.gz")):
            scans.setdefault(_subject(path.relative_to(folder)), []).append(path)
    return scans


def _read_bids(root: Path, split: Sequence[float], seed: int, suffix: str, assignment: str) -> dict[str, list[dict]]:
    scans = {subject: files[:1] for subject, files in _scans(root, f"sub-*_{suffix}").items()}
    if len(scans) < 2:
        raise ValueError(
            f"{root}: a BIDS dataset must hold at least two subjects with a scan sub-*/**/sub-*_{suffix}.nii.gz, got "
            f"{sorted(scans)}. Choose another suffix, or give source and target as two folders."
        )
    subjects = np.random.default_rng(seed).permutation(sorted(scans))
    bounds = np.cumsum(_allocate(len(subjects), split))[:-1]
    groups = [sorted(group.tolist()) for group in np.split(subjects, bounds)]
    if assignment == "misaligned":
        groups[:2] = [sorted(groups[0] + groups[1])] * 2
    return _datalist(*({subject: scans[subject] for subject in group} for group in groups))


def _allocate(count: int, split: Sequence[float]) -> list[int]:
    """Share ``count`` subjects: one for each positive share while there are any, then to whom most is owed."""
    if len(split) != len(FOLDERS) or min(split) < 0 or min(split[:2]) <= 0 or abs(sum(split) - 1) > 1e-6:
        raise ValueError(
            f"split must be the shares of {FOLDERS}, positive for the first two, of sum 1, got {list(split)}."
        )
    sizes = [0] * len(split)
    for _ in range(count):
        owed = [(size == 0 and share > 0, share * count - size) for size, share in zip(sizes, split, strict=True)]
        sizes[owed.index(max(owed))] += 1
    return sizes


def _read_json(path: Path) -> dict[str, list[dict]]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: a datalist must be a JSON file, but could not be read: {error}.") from error
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    if "training" not in lists or not set(lists) <= set(SECTIONS):
        raise ValueError(f"{path}: a datalist must hold the lists {SECTIONS}, the first at least, got {sorted(lists)}.")
    return {section: [_resolve(item, path) for item in lists.get(section, [])] for section in SECTIONS}


def _resolve(item: Mapping, path: Path) -> dict:
    """Check one item of a datalist, complete its paths and its subject."""
    keys = set(item)
    if not keys & {"image", "reals"} or not keys <= {*FILE_KEYS, "subject"}:
        raise ValueError(
            f"{path}: an item must have a file under `image` (low resolution) or `reals` (unpaired high resolution), "
            f"and may have `label` (paired reference) and `subject`, got the keys {sorted(keys)}."
        )
    files = {key: str(path.parent / item[key]) for key in FILE_KEYS if key in item}
    missing = [file for file in files.values() if not Path(file).exists()]
    if missing:
        raise ValueError(
            f"{missing[0]}: listed in {path}, but does not exist. Relative paths count from the list's folder."
        )
    return {**files, "subject": str(item.get("subject", _subject(Path(next(iter(files.values()))))))}


def _check_subjects(datalist: Mapping[str, Sequence[Mapping]], root: Path, assignment: str) -> None:
    """Refuse empty groups and subjects that stand in two groups."""
    groups = {key: {item["subject"] for item in datalist["training"] if key in item} for key in ("reals", "image")}
    for key, name in zip(groups, FOLDERS, strict=False):
        if not groups[key]:
            raise ValueError(f"{root}: the {name} group must hold at least one NIfTI scan (.nii, .nii.gz), found none.")
    shared = groups["reals"] & groups["image"]
    if shared and assignment == "unpaired":
        raise ValueError(
            f"{root}: source and target must have no subject in common in an unpaired split, got {sorted(shared)} in "
            "both. Remove them from one group, or say assignment: misaligned if that is the experiment."
        )
    training = groups["reals"] | groups["image"]
    for section in SECTIONS[1:]:
        seen = training & {item["subject"] for item in datalist[section]}
        if seen:
            raise ValueError(f"{root}: {section} must have no subject of the training, got {sorted(seen)} in both.")
        training |= {item["subject"] for item in datalist[section]}


def _keep_fraction(training: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """Keep the source scans of a share of the source's subjects, the target as it is."""
    subjects = sorted({item["subject"] for item in training if "reals" in item})
    kept = np.random.default_rng(seed).permutation(subjects)[: max(1, round(fraction * len(subjects)))]
    return [item for item in training if "reals" not in item or item["subject"] in kept]


def _write(path: Path, content: Mapping) -> None:
    """Write JSON so that an interruption leaves no partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(content, indent=2))
    os.replace(partial, path)
