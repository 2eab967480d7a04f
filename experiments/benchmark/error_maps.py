"""Error maps: each row evaluates the median test subject again and draws it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from scripts.transforms.naming import stem_of

from experiments.benchmark.execution import LOG, command, evaluation_options
from experiments.benchmark.matrix import read_matrix
from experiments.benchmark.page import report_folder
from experiments.benchmark.results import INTERPOLATIONS, Results, read_results
from experiments.benchmark.runner import output_folder
from experiments.pictures import save_small

__all__ = ["draw", "median_subject"]


def draw(matrix: str, dataset_dir: str | None = None, output_dir: str | None = None) -> None:
    """Draw a small picture for each complete row of the first seed and fold. Run ``report`` before and after.

    Args:
        matrix: YAML file.
        dataset_dir: replaces that of the matrix.
        output_dir: folder of the rows.
    """
    plan = read_matrix(matrix, dataset_dir)
    output = output_folder(plan, output_dir)
    results = read_results(report_folder(plan, output))
    subject, names = median_subject(results), {row["name"] for row in results.first}
    for row in (row for row in plan.rows if row.name in names):
        datalist = json.loads((output / "datalists" / f"{row.fold or 'all'}.json").read_text(encoding="utf-8"))
        (scan,) = (item["label"] for item in datalist["test"] if stem_of(Path(item["label"]).name) == subject)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "evaluation"
            options = evaluation_options(row, output / "rows" / row.name, scan, made) | {"pictures": True}
            if not command("evaluating", row.evaluating(), options, Path(folder)):
                raise RuntimeError(f"{row.name}: {(Path(folder) / LOG).read_text(encoding='utf-8')}")
            (picture,) = made.glob("*_comparison.png")
            save_small(picture, report_folder(plan, output) / "figures" / f"errors_{row.name}.png")


def median_subject(results: Results) -> str:
    """The test subject with the median gain over zero-filling, averaged over the first rows with a network."""
    names = [row["name"] for row in results.first if row["setting"]["system"] not in INTERPOLATIONS]
    gains = results.gains(names)
    if not gains:
        raise ValueError(
            "expected a complete row with a network and its report, got none. Run the matrix and report it."
        )
    return sorted(gains, key=gains.__getitem__)[len(gains) // 2]
