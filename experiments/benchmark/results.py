"""Results: the measurements of the rows in small files, and what tables and figures read from them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from scripts.transforms.naming import stem_of

from experiments.benchmark.complete import notes, read_csv, read_record, read_scores
from experiments.benchmark.matrix import Matrix

__all__ = ["INTERPOLATIONS", "Results", "collect", "read_results"]

BLOCKS = re.compile(r".*discriminator.*")  # curves of thousands of noisy points, kept as means of blocks
CURVES = re.compile(
    rf"psnr_gain|degradation_gain|intensity_drift|degradation_mtf_.*|gradient_.*|feature_norm|{BLOCKS.pattern}"
)
FEWEST_POINTS = 20  # of a curve kept as means of blocks
HALF_NYQUIST = 0.25  # cycles per LR voxel
TRANSFER = "degradation_mtf.csv"  # from a training that learns a degradation
INTERPOLATIONS = (  # without a backbone
    "zero_filling",
    "tricubic",
    "tricubic_centred",
    "linear_inverse_estimated",
    "linear_inverse_true",
)
USUAL = {"assignment": "unpaired", "hr_fraction": 1.0, "network": "ours"}


class Kind(NamedTuple):
    """The settings that rows share which differ in seed, or in a fold that tests other subjects."""

    system: str
    assignment: str
    hr_fraction: float
    network: str
    scale_factor: tuple[int, ...]
    fold: str


@dataclass(frozen=True)
class Results:
    """The results of a matrix.

    Args:
        rows: ``name`` and ``setting`` of each row in the order of the matrix, and ``record`` of a complete row.
        scores: one mapping per row, subject and method, with the metrics.
        curves: one mapping per row, stage, tag and step.
        transfers: one mapping per row, axis and frequency, with the learned and the true modulation transfer.
    """

    rows: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, str]]
    curves: Sequence[Mapping[str, str]]
    transfers: Sequence[Mapping[str, str]] = ()

    @property
    def done(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if "record" in row]

    @property
    def networks(self) -> list[str]:
        """The backbones of its rows."""
        return sorted(
            {row["setting"]["network"] for row in self.rows if row["setting"]["system"] not in INTERPOLATIONS}
        )

    @property
    def first(self) -> list[Mapping[str, Any]]:
        """The complete rows of the lowest seed and the first fold."""
        seed, fold = (self.rows[0]["setting"][key] for key in ("seed", "fold"))
        return [row for row in self.done if (row["setting"]["seed"], row["setting"]["fold"]) == (seed, fold)]

    @property
    def usual(self) -> dict[str, Any]:
        """The default setting of a table's line: ``USUAL`` at the scale factor of the first row."""
        return {**USUAL, "scale_factor": self.rows[0]["setting"]["scale_factor"]}

    @property
    def has_one_test(self) -> bool:
        """Whether all rows test the same subjects, so that folds only differ in their training scans."""
        found: dict[str, set[str]] = {}
        for score in self.scores:
            found.setdefault(score["row"], set()).add(score["subject"])
        return len({tuple(sorted(subjects)) for subjects in found.values()}) == 1

    def is_usual(self, kind: Kind) -> bool:
        """Whether rows are of the first row's scale factor and fold, unpaired, with all source subjects."""
        usual = self.usual
        setting = (kind.assignment, kind.hr_fraction, list(kind.scale_factor))
        first = kind.fold in ("", self.rows[0]["setting"]["fold"])
        return first and setting == (usual["assignment"], usual["hr_fraction"], usual["scale_factor"])

    def main(self, system: str) -> list[Mapping[str, Any]]:
        """The complete rows of a system in the usual setting, with the first backbone of the matrix."""
        backbones = [row["setting"]["network"] for row in self.rows if row["setting"]["system"] not in INTERPOLATIONS]
        wanted = (USUAL["network"],) if system in INTERPOLATIONS else backbones[:1]
        return [
            row
            for kind, rows in self.kinds().items()
            if kind.system == system and kind.network in wanted and self.is_usual(kind)
            for row in rows
        ]

    def kinds(self) -> dict[Kind, list[Mapping[str, Any]]]:
        """The complete rows of one kind each, in their order."""
        found: dict[Kind, list[Mapping[str, Any]]] = {}
        one_test = self.has_one_test
        for row in self.done:
            setting = row["setting"]
            kind = Kind(*(setting[name] for name in Kind._fields))
            kind = kind._replace(scale_factor=tuple(kind.scale_factor), fold=kind.fold if one_test else "")
            found.setdefault(kind, []).append(row)
        return found

    def names(self, **setting: Any) -> list[str]:
        """The complete rows of a setting, all seeds; see :func:`planned`."""
        return [row["name"] for row in self.planned(**setting) if "record" in row]

    def planned(self, **setting: Any) -> list[Mapping[str, Any]]:
        """The rows of a setting, complete or not. Whatever ``setting`` leaves out has its usual value.

        Where all folds test the same subjects, only the first fold counts.
        """
        fold = {"fold": self.rows[0]["setting"]["fold"]} if self.has_one_test else {}
        wanted = {**self.usual, **fold, **setting}
        return [row for row in self.rows if all(row["setting"][key] == value for key, value in wanted.items())]

    def by_subject(self, names: Iterable[str], metric: str, method: str = "pred") -> dict[str, float]:
        """A metric by subject, as a mean over the rows, such as seeds. Subjects without it are left out."""
        names, values = set(names), {}
        for score in self.scores:
            if score["row"] in names and score["method"] == method and score.get(metric):
                values.setdefault(score["subject"], []).append(float(score[metric]))
        return {subject: mean(several) for subject, several in sorted(values.items())}

    def gains(self, names: Iterable[str], metric: str = "psnr_deep") -> dict[str, float]:
        """A metric minus that of zero-filling by subject, as a mean over the rows."""
        ours, base = (self.by_subject(names, metric, method) for method in ("pred", "zero_filling"))
        return {subject: ours[subject] - base[subject] for subject in ours}

    def points(self, name: str, tag: str) -> list[tuple[int, float]]:
        """Steps and values of a row's curve, in the order of time."""
        found = [point for point in self.curves if (point["row"], point["tag"]) == (name, tag)]
        found = sorted(found, key=lambda point: (int(point["stage"]), int(point["step"])))
        return [(int(point["step"]), float(point["value"])) for point in found]

    def ends(self, name: str, tag: str) -> tuple[float, float] | None:
        """The first and the last value of a row's curve."""
        points = self.points(name, tag)
        return (points[0][1], points[-1][1]) if points else None

    def transfer(self, name: str, axis: int) -> list[tuple[float, float, float]]:
        """Frequency (cycles per LR voxel), learned and true modulation transfer of a row along an axis."""
        points = [point for point in self.transfers if (point["row"], point["axis"]) == (name, str(axis))]
        return [(float(point["frequency"]), float(point["learned"]), float(point["true"])) for point in points]

    def at_half_nyquist(self, name: str, axis: int) -> tuple[float, float]:
        """Learned and true modulation transfer of a row at half the Nyquist frequency, between its neighbours."""
        frequencies, learned, true = zip(*self.transfer(name, axis), strict=True)
        learned_there, true_there = (float(np.interp(HALF_NYQUIST, frequencies, one)) for one in (learned, true))
        return learned_there, true_there

    def tags(self) -> list[str]:
        """The names of all curves."""
        return sorted({point["tag"] for point in self.curves})


def collect(matrix: Matrix, output: Path, results_dir: Path) -> None:
    """Gather the records, scores and curves of the rows in ``rows.json`` and three CSV tables."""
    rows, scores, curves, transfers = [], [], [], []
    for row in matrix.rows:
        record = read_record(output, row)
        rows.append({"name": row.name, "setting": row.setting})
        if record is None:
            continue
        folder = output / "rows" / row.name
        scores += [{"row": row.name, **score} for score in read_scores(folder)]
        rows[-1]["record"] = {key: value for key, value in record.items() if key != "row"}
        rows[-1]["record"]["costs"] = notes(folder / "evaluation")
        kept = [point for point in read_csv(folder / "curves.csv") if CURVES.fullmatch(point["tag"])]
        curves += [{"row": row.name, **point} for point in _in_blocks(kept)]
        if (folder / TRANSFER).is_file():
            transfers += [{"row": row.name, **point} for point in read_csv(folder / TRANSFER)]
    _check_complete(rows, output, results_dir)
    results_dir.mkdir(parents=True, exist_ok=True)
    (results_dir / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for name, lines in (("subjects.csv", scores), ("curves.csv", curves), ("transfers.csv", transfers)):
        _write_csv(results_dir / name, lines)


def _check_complete(rows: Sequence[Mapping[str, Any]], output: Path, results_dir: Path) -> None:
    """Check that a report gets at least one row, and that it loses none that it has."""
    done = {row["name"] for row in rows if "record" in row}
    if not done:
        raise ValueError(f"{output}: expected a complete row, got none. Run the matrix, or give --output_dir.")
    path = results_dir / "rows.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if lost := sorted({row["name"] for row in earlier if "record" in row} - done):
        raise ValueError(
            f"{output}: expected all rows that {results_dir} reports, got no {', '.join(lost)}. Copy their folders to "
            "it, or remove that report."
        )


def _in_blocks(points: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The points of the curves. Those of ``BLOCKS`` become means of equal blocks, at the last step of each block."""
    found = [point for point in points if not BLOCKS.fullmatch(point["tag"])]
    for key in dict.fromkeys((p["stage"], p["tag"]) for p in points if BLOCKS.fullmatch(p["tag"])):
        curve = sorted((p for p in points if (p["stage"], p["tag"]) == key), key=lambda point: int(point["step"]))
        size = max(1, len(curve) // FEWEST_POINTS)
        for end in range(len(curve), 0, -size):
            block = curve[max(0, end - size) : end]
            found.append({**block[-1], "value": f"{mean(float(point['value']) for point in block):.6g}"})
    return found


def read_results(results_dir: Path) -> Results:
    """Read the files of :func:`collect`. Rows of earlier versions name a subject by its whole file."""
    rows = json.loads((results_dir / "rows.json").read_text(encoding="utf-8"))
    scores, *others = (read_csv(results_dir / f"{name}.csv") for name in ("subjects", "curves", "transfers"))
    return Results(rows, [score | {"subject": stem_of(score["subject"])} for score in scores], *others)


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
