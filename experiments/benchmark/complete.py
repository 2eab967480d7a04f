"""Complete rows: the record and the scores in a row's folder, checked before anything is made of them."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from experiments.benchmark.execution import EVALUATION, RECORD
from experiments.benchmark.matrix import Row

__all__ = ["METHODS", "notes", "read_csv", "read_record", "read_scores"]

METHODS = ("pred", "consistent", "automatic", "zero_filling")  # of each evaluation, to keep
FIRST_VERSION = {"contrastive_terms::num_features": "head_features"}  # the others had the last part of their names
IRRELEVANT = {"methods"}  # which methods stand beside changes no score


def read_record(output: Path, row: Row) -> dict[str, Any] | None:
    """The record of a row; None before it is complete.

    Raises:
        ValueError: when the record is no whole JSON file, or when the row was run with other settings.
    """
    path = output / "rows" / row.name / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        recorded = {name: record[name] for name in ("training", "evaluation")}
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: expected the whole record of a row, got a damaged one ({error}). Remove it, and run it again."
        ) from error
    wanted = {"evaluation": row.evaluation, "training": row.training if row.stages() else recorded["training"]}
    for command, options in json.loads(json.dumps(wanted)).items():
        earlier = {FIRST_VERSION.get(name, name.rpartition("::")[2]): name for name in options}
        before = {name if name in options else earlier.get(name, name): v for name, v in recorded[command].items()}
        names = {*options, *before} - IRRELEVANT
        if different := sorted(name for name in names if options.get(name) != before.get(name)):
            raise ValueError(
                f"{path.parent}: expected a row with the matrix's options of its {command}, got another value of "
                f"{', '.join(different)}. Remove the folder to run the row again, or correct the matrix."
            )
    return record


def read_scores(folder: Path) -> list[dict[str, str]]:
    """The scores of a complete row's folder: a mapping per subject and method, with the metrics.

    Raises:
        ValueError: when a file is missing, when a subject lacks a score, or has one that is not finite.
    """
    path = folder / EVALUATION / "subjects.csv"
    needed = (path, folder / EVALUATION / "summary.md", folder / "curves.csv")
    if missing := [str(file) for file in needed if not file.is_file()]:
        raise ValueError(
            f"{folder}: expected all files of a complete row, got no {', '.join(missing)}. Remove {RECORD} in it, and "
            "run the row again."
        )
    scores = [score for score in read_csv(path) if score["method"] in METHODS]
    subjects = int(notes(folder / EVALUATION)["subjects"])
    counts = {method: sum(score["method"] == method for score in scores) for method in ("pred", "zero_filling")}
    wrong = [f"{counts} lines"] if set(counts.values()) != {subjects} else []
    wrong += [
        f"{name} = {value} of {score['subject']}"
        for score in scores
        for name, value in score.items()
        if name not in ("subject", "method") and value != "" and not _is_finite(value)
    ]
    if wrong:
        raise ValueError(
            f"{path}: expected finite scores of {subjects} subjects for each method, got {', '.join(wrong[:3])}. "
            f"Remove {path.parent} and {RECORD} beside it, and run the row again: this only evaluates it."
        )
    return scores


def notes(evaluation: Path) -> dict[str, str]:
    """The lines below the table of an evaluation, such as its network, weights and costs."""
    text = (evaluation / "summary.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^- (.+?): (.+)$", text, re.M))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by the names of its columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _is_finite(value: str | None) -> bool:
    """Whether a cell holds a finite number. A line that was cut has None for its last cells."""
    try:
        return math.isfinite(float(value or "nan"))
    except ValueError:
        return False
