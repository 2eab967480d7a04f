"""The groups of a dataset: unpaired source and target, validation and test, split by subject."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from scripts.data.demonstration import generate_cohort
from scripts.data.layouts import EXPECTED, FOLDERS, all_scans, choose_scans, group_folders
from scripts.data.lists import SECTIONS, read_json
from scripts.utils.atomic import write_text_atomically

__all__ = ["paired_items", "read_datalist", "unpaired_datalist"]

logger = logging.getLogger(__name__)

GROUPS = tuple(FOLDERS)
MOST_NAMES = 100  # of scans that the log names
ASSIGNMENTS = ("unpaired", "misaligned", "hr_only")


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
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[dict]]:
    """Sort the scans of a dataset into training, validation and test items.

    Args:
        dataset_dir: one of

            * ``None``: the demonstration cohort, which is generated in ``cohort_dir`` when it is missing.
            * A folder with scans at any depth of ``source/`` or ``HR/``, and of ``target/`` or ``LR/``, and optionally
              of ``validation/`` and ``test/`` (HR).
            * A dataset of HR scans in the layout of HCP, BraTS or BIDS, or with a file or folder per subject. One scan
              of each subject is taken and the subjects are split. The pipeline degrades the target's scans. The log
              names the others and says by which rule the one was chosen.
            * A MONAI datalist (.json), with paths relative to its own folder.

        cohort_dir: folder of the demonstration cohort.
        scale_factor: scale factor of the demonstration cohort's target, along each axis of the canonical frame.
        split: shares of the subjects for source, target, validation and test. Each positive share gets at least one
            subject if there are enough. Numbers of subjects are accepted too, such as (120, 120, 30, 30).
        seed: seed of the split and of the subset.
        suffix: contrast of the scans: the BIDS suffix, "T1w" of HCP, "t1ce" of BraTS.
        output: JSON file for the result. It is a datalist, which ``dataset_dir`` accepts. Its provenance names the
            scans that are left out.
        hr_fraction: share of the source subjects to keep, in (0, 1]. For one seed the subsets are nested.
        assignment: "unpaired": no subject is in both source and target. "misaligned": source and target are the same
            subjects, and nothing says which scans belong together. If a dataset has no such subjects, the source's
            scans also become the target. The pipeline then degrades these and moves the source's. "hr_only": the method
            makes its own pairs of HR scans. The source gets the target's share of a split. A target may be absent.
        groups: names of the subjects of "source", "target", "validation" and "test", instead of a split.

    Returns:
        items by section, each with its ``subject``. An item of "training" has a file under ``reals`` (source) or
        ``image`` (target). An item of "validation" or "test" has the same file under ``image``, which the pipeline
        degrades, and ``label``, the reference.

    Raises:
        ValueError: when there is nothing to read, a key or value is unknown, or a subject is in two groups.

    Example:
        >>> datalist = unpaired_datalist("my_dataset", split=(120, 120, 30, 30))  # doctest: +SKIP
        >>> len(datalist["test"])  # doctest: +SKIP
        30
    """
    if assignment not in ASSIGNMENTS:
        raise ValueError(f"assignment must be one of {ASSIGNMENTS}, got {assignment!r}. Correct --assignment.")
    if not 0 < hr_fraction <= 1:
        raise ValueError(f"hr_fraction must be in (0, 1], got {hr_fraction}. Correct --hr_fraction.")
    if dataset_dir is None:
        dataset_dir = generate_cohort(cohort_dir, scale_factor=scale_factor)
    root = Path(dataset_dir).expanduser().resolve()
    needed = GROUPS[:2]
    if assignment == "hr_only":
        needed, split = GROUPS[:1], (sum(split[:2]), 0, *split[2:])
    datalist, left_out = read_datalist(root, split, seed, suffix, groups, needed)
    if assignment == "misaligned":
        datalist["training"] = _share_subjects(datalist["training"])
    _check_subjects(datalist, root, assignment)
    _log(root, left_out)
    datalist["training"] = _keep_fraction(datalist["training"], hr_fraction, seed)
    if output is not None:
        division = {"split": list(split)} if groups is None else {"groups": groups}
        settings = {"dataset_dir": str(root), **division, "seed": seed, "suffix": suffix}
        settings |= {"hr_fraction": hr_fraction, "assignment": assignment, "left_out": left_out}
        write_text_atomically(output, json.dumps({"provenance": settings, **datalist}, indent=2))
    return datalist


def paired_items(items: Sequence[Mapping]) -> list[dict]:
    """Pair each source scan with the target scan of its subject, or else with itself, which the pipeline degrades.

    Args:
        items: training items with their ``subject`` and a file under ``reals`` (source) or ``image`` (target).

    Returns:
        one item per source scan, with the keys ``image``, ``label`` and ``subject``.

    Example:
        >>> paired_items([{"reals": "high.nii", "subject": "a"}, {"image": "low.nii", "subject": "a"}])
        [{'image': 'low.nii', 'label': 'high.nii', 'subject': 'a'}]
    """
    target = {item["subject"]: item["image"] for item in items if "image" in item}
    return [
        {"image": target.get(item["subject"], item["reals"]), "label": item["reals"], "subject": item["subject"]}
        for item in items
        if "reals" in item
    ]


def read_datalist(
    root: Path,
    split: Sequence[float],
    seed: int,
    suffix: str,
    groups: Mapping[str, Sequence[str]] | None,
    needed: Sequence[str] = GROUPS[:2],
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """The unchecked items of an existing dataset, and the reason of every scan that is left out.

    For the arguments see :func:`unpaired_datalist`. The ``needed`` groups must not be empty.
    """
    if not root.exists():
        raise ValueError(
            f"{root}: dataset_dir must be a folder or a .json datalist, but does not exist. Correct the path."
        )
    if root.is_file():
        return read_json(root), {}
    folders = group_folders(root)
    if set(needed) <= folders.keys():
        choices = all_scans(folders, root)
        left_out = {str(path): reason for choice in choices.values() for path, reason in choice.left_out.items()}
        return _datalist(*(choices[name].scans if name in choices else {} for name in GROUPS)), left_out
    if {"source", "target"} & folders.keys():
        raise ValueError(
            f"{root}: expected the folders of the groups {list(needed)}, got "
            f"{[folder.name for folder in folders.values()]}. Name them {EXPECTED}. For a method that needs no target, "
            "add --assignment hr_only."
        )
    scans, reasons = choose_scans(root, suffix, fewest=len(needed))
    named = _split(sorted(scans), split, seed, needed) if groups is None else _named(groups, scans, root)
    used = {subject for subjects in named for subject in subjects}
    reasons |= {scans[subject][0]: f"{subject} is in no group" for subject in scans.keys() - used}
    left_out = {str(path): reason for path, reason in reasons.items()}
    return _datalist(*({subject: scans[subject] for subject in subjects} for subjects in named)), left_out


def _log(root: Path, left_out: Mapping[str, str]) -> None:
    """Name the scans that are left out, with the reasons."""
    if left_out:
        names = [f"- {path}: {reason}" for path, reason in [*left_out.items()][:MOST_NAMES]]
        more = len(left_out) - len(names)
        names += [f"- and {more} more, which datalist.json lists"] if more else []
        logger.warning("%s: %d scans left out.\n%s", root, len(left_out), "\n".join(names))


def _datalist(
    source: Mapping[str, list[Path]],
    target: Mapping[str, list[Path]],
    validation: Mapping[str, list[Path]],
    test: Mapping[str, list[Path]],
) -> dict[str, list[dict]]:
    """The items of four groups, each of which maps subjects to files."""
    groups = zip(
        (source, target, validation, test), (["reals"], ["image"], ["image", "label"], ["image", "label"]), strict=True
    )
    items = [
        [{**dict.fromkeys(keys, str(file)), "subject": subject} for subject, files in group.items() for file in files]
        for group, keys in groups
    ]
    return {"training": items[0] + items[1], "validation": items[2], "test": items[3]}


def _split(subjects: Sequence[str], split: Sequence[float], seed: int, needed: Sequence[str]) -> list[list[str]]:
    """Draw the four groups. If the split gives numbers, subjects may remain unused."""
    drawn = np.random.default_rng(seed).permutation(subjects)
    bounds = np.cumsum(_allocate(len(subjects), split, len(needed)))
    return [sorted(group.tolist()) for group in np.split(drawn, bounds)[: len(GROUPS)]]


def _named(groups: Mapping[str, Sequence[str]], scans: Mapping[str, list[Path]], root: Path) -> list[list[str]]:
    """The four groups, as named by the user."""
    named = {name: [str(subject) for subject in subjects] for name, subjects in groups.items()}
    unknown = sorted({subject for subjects in named.values() for subject in subjects} - scans.keys())
    if not set(named) <= set(GROUPS) or unknown:
        raise ValueError(
            f"{root}: groups must be of {GROUPS}, with subjects among {sorted(scans)}, got the groups {sorted(named)} "
            f"and the unknown subjects {unknown}. Correct groups."
        )
    return [named.get(name, []) for name in GROUPS]


def _allocate(count: int, split: Sequence[float], needed: int) -> list[int]:
    """Share ``count`` subjects: first one for each positive share, then always one for the largest deficit.

    The first ``needed`` shares must be positive.
    """
    shares = abs(sum(split) - 1) < 1e-6
    numbers = 1 < sum(split) <= count and all(size == int(size) for size in split)
    if len(split) != len(GROUPS) or min(split) < 0 or min(split[:needed]) <= 0 or not (shares or numbers):
        raise ValueError(
            f"split must be shares of {GROUPS} with sum 1, positive for {GROUPS[:needed]}, or numbers of the {count} "
            f"subjects, got {list(split)}. Correct --split."
        )
    if numbers:
        return [int(size) for size in split]
    sizes = [0] * len(split)
    for _ in range(count):
        owed = [(size == 0 and share > 0, share * count - size) for size, share in zip(sizes, split, strict=True)]
        sizes[owed.index(max(owed))] += 1
    return sizes


def _check_subjects(datalist: Mapping[str, Sequence[Mapping]], root: Path, assignment: str) -> None:
    """Refuse empty groups, and subjects in two groups."""
    groups = {key: {item["subject"] for item in datalist["training"] if key in item} for key in ("reals", "image")}
    pairs = any({"image", "label"} <= item.keys() for item in datalist["training"])
    remedy = "`image` with `label` is a pair: list HR scans of others under `reals`." if pairs else "Add one."
    for key, name in zip(groups, GROUPS, strict=False):
        if not groups[key] and (name == "source" or assignment != "hr_only"):
            raise ValueError(f"{root}: the {name} group must hold at least one scan (`{key}`), found none. {remedy}")
    shared = groups["reals"] & groups["image"]
    if shared and assignment == "unpaired":
        raise ValueError(
            f"{root}: source and target must have no subject in common in an unpaired split, got {sorted(shared)} in "
            "both. Remove them from one group, or pass --assignment misaligned."
        )
    training = groups["reals"] | groups["image"]
    for section in SECTIONS[1:]:
        seen = training & {item["subject"] for item in datalist[section]}
        if seen:
            raise ValueError(
                f"{root}: {section} must have no subject of the training, got {sorted(seen)} in both. Remove one."
            )
        training |= {item["subject"] for item in datalist[section]}


def _share_subjects(training: Sequence[dict]) -> list[dict]:
    """Make source and target the same subjects. If no subject is in both, the source's scans become the target too."""
    source = [item for item in training if "reals" in item]
    if {item["subject"] for item in source} & {item["subject"] for item in training if "image" in item}:
        return list(training)
    return source + [{"image": item["reals"], "subject": item["subject"]} for item in source]


def _keep_fraction(training: Sequence[dict], fraction: float, seed: int) -> list[dict]:
    """Keep the scans of a share of the source subjects, and all of the target."""
    subjects = sorted({item["subject"] for item in training if "reals" in item})
    kept = np.random.default_rng(seed).permutation(subjects)[: max(1, round(fraction * len(subjects)))]
    return [item for item in training if "reals" not in item or item["subject"] in kept]
