"""Results: what the rows measured, small enough to commit, and read again for tables and figures."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmark.matrix import Matrix
from benchmark.runner import read_record

__all__ = ["Results", "collect", "read_results"]

METHODS = ("pred", "consistent", "zero_filling")  # of each evaluation, what is kept
CURVES = re.compile(r"psnr_gain|ssim|degradation_.*|intensity_drift|position_drift|reference_free_score")
USUAL = {"scale_factor": [2, 2, 2], "assignment": "unpaired", "hr_fraction": 1.0, "network": "ours"}


@dataclass(frozen=True)
class Results:
    """What is known of a matrix.

    Args:
        rows: for each row of the matrix, in its order, ``name``, ``setting`` and, where it is done, its record.
        scores: one mapping per row, evaluation, subject and method, with the metrics.
        curves: one mapping per row, stage, tag and step.
    """

    rows: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, str]]
    curves: Sequence[Mapping[str, str]]

    @property
    def done(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if "record" in row]

    def names(self, **setting: Any) -> list[str]:
        """The complete rows of a setting, all seeds and folds; what is not said is as usual (2x2x2, unpaired, ...)."""
        return [row["name"] for row in self.planned(**setting) if "record" in row]

    def planned(self, **setting: Any) -> list[Mapping[str, Any]]:
        """The rows of a setting, complete or not."""
        wanted = {**USUAL, **setting}
        return [row for row in self.rows if all(row["setting"][key] == value for key, value in wanted.items())]

    def by_subject(
        self, names: Iterable[str], metric: str, method: str = "pred", evaluation: str = "evaluation"
    ) -> dict[str, float]:
        """A metric by subject: its mean over the rows, that is over seeds."""
        names, values = set(names), {}
        for score in self.scores:
            if score["row"] in names and (score["method"], score["evaluation"]) == (method, evaluation):
                values.setdefault(score["subject"], []).append(float(score[metric]))
        return {subject: mean(several) for subject, several in sorted(values.items())}


def collect(matrix: Matrix, output: Path, results_dir: Path) -> None:
    """Gather what the rows' folders hold as ``rows.json``, ``subjects.csv`` and ``curves.csv``."""
    rows, scores, curves = [], [], []
    for row in matrix.rows:
        record = read_record(output, row)
        rows.append({"name": row.name, "setting": row.setting})
        if record is None:
            continue
        folder = output / "rows" / row.name
        summary = (folder / "evaluation" / "summary.md").read_text(encoding="utf-8")
        costs = dict(re.findall(r"^- (.+?): (.+)$", summary, re.M))
        rows[-1]["record"] = {**{key: value for key, value in record.items() if key != "row"}, "costs": costs}
        for path in sorted(folder.rglob("subjects.csv")):
            evaluation = path.parent.relative_to(folder).as_posix()
            found = [score for score in _read_csv(path) if score["method"] in METHODS]
            scores += [{"row": row.name, "evaluation": evaluation, **score} for score in found]
        kept = [point for point in _read_csv(folder / "curves.csv") if CURVES.fullmatch(point["tag"])]
        curves += [{"row": row.name, **point} for point in kept]
    results_dir.mkdir(parents=True, exist_ok=True)
    (results_dir / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for name, lines in (("subjects.csv", scores), ("curves.csv", curves)):
        _write_csv(results_dir / name, lines)


def read_results(results_dir: Path) -> Results:
    """What :func:`collect` wrote."""
    rows = json.loads((results_dir / "rows.json").read_text(encoding="utf-8"))
    return Results(rows, _read_csv(results_dir / "subjects.csv"), _read_csv(results_dir / "curves.csv"))


def _read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
