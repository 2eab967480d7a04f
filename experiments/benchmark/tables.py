"""Tables in the papers' layout, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.significance import best_two

__all__ = [
    "DIFFERENCES",
    "FEWEST_SEEDS",
    "NOT_RUN",
    "SCALES",
    "TELLING",
    "Line",
    "as_csv",
    "as_latex",
    "as_markdown",
    "markdown",
    "paper_table",
]

PAPERS_FACTOR = [2, 2, 2]  # of the papers' figures, unless a line names another
DECIMALS = {"ssim": 4, "psnr": 2}
SCALES = {  # by suffix of a table's name: the columns of both metrics, and their title; the papers use the third
    "": ({"ssim": "ssim_deep", "psnr": "psnr_deep"}, "in deep tissue"),
    "whole_volume": ({"ssim": "ssim", "psnr": "psnr"}, "in the whole volume"),
    "own_maximum": (
        {"ssim": "ssim_own_maximum", "psnr": "psnr_own_maximum"},
        "in the whole volume, each divided by its own maximum",
    ),
}
TITLES = {"ssim": "SSIM", "psnr": "PSNR (dB)"}
DIFFERENCES = {"ssim": "+.3f", "psnr": "+.2f"}  # the forms of a difference
NOT_RUN = "not run"
FEWEST_SEEDS = 3  # of a learned system, for a claim about it
TELLING = 0.1  # dB; a smaller difference counts as none
Line = dict[str, Any]


def paper_table(
    layout: Mapping[str, Any],
    results: Results,
    network: str = "ours",
    metrics: Mapping[str, str] = SCALES[""][0],
) -> list[Line]:
    """The lines of a paper's table that a matrix has, with our scores by subject and the paper's figures.

    The function compares all lines with each other; in a ``grouped`` table, those of one scale factor and assignment.
    ``best`` and ``second`` name the metrics in which :func:`best_two` ranks a line so. A comparison marks no line while
    a learned system has fewer than ``FEWEST_SEEDS`` seeds, because subjects cannot show the luck of a training.

    Args:
        layout: from ``papers.yaml``. Its lines have the matrix's scale factor, unless it is grouped.
        results: of a matrix.
        network: backbone of the learned systems.
        metrics: columns of the scores for "ssim" and "psnr"; by default those in deep tissue.
    """
    lines = []
    default = {**results.usual, **({"scale_factor": PAPERS_FACTOR} if layout.get("grouped") else {})}
    for entry in layout["lines"]:
        setting = {**default, **{key: entry[key] for key in ("system", *default) if key in entry}}
        setting["network"] = "ours" if entry["system"] in INTERPOLATIONS else network
        planned = results.planned(**setting)
        if planned:
            line = _line(entry, setting, [row for row in planned if "record" in row])
            line["group"] = line["setting"] if layout.get("grouped") else ()
            line["scores"] = {metric: results.by_subject(line["names"], column) for metric, column in metrics.items()}
            lines.append(line)
    _keep_common_subjects(lines)
    for group in {line["group"] for line in lines}:
        _mark([line for line in lines if line["group"] == group and line["names"]])
    return lines


def _line(entry: Mapping[str, Any], setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Line:
    """A line without its scores, from its complete rows."""
    learned = entry["system"] not in INTERPOLATIONS
    as_printed = setting["scale_factor"] == entry.get("scale_factor", PAPERS_FACTOR)
    trained = [row["record"] for row in rows if learned]
    iterations = [f"{number:,}" for record in trained if (number := record["training"].get("max_iterations"))]
    networks = [", ".join(_network(record["costs"])) for record in trained]
    return {
        "title": entry["title"],
        "names": [row["name"] for row in rows],
        "setting": ("x".join(map(str, setting["scale_factor"])), setting["assignment"]),
        "seeds": len({row["setting"]["seed"] for row in rows}),
        "learned": learned,
        "iterations": " or ".join(dict.fromkeys(iterations)) or "-",
        "network": " or ".join(dict.fromkeys(networks)) or "-",
        "printed": {metric: entry[metric] for metric in DECIMALS if metric in entry and as_printed},
    }


def _network(costs: Mapping[str, str]) -> list[str]:
    return [costs[key] + words for key, words in (("network", ""), ("parameters", " parameters")) if key in costs]


def _keep_common_subjects(lines: Sequence[Line]) -> None:
    """Leave out the subjects that some lines have not been tested on."""
    tested = [set(scores) for line in lines for scores in line["scores"].values() if scores]
    common = set.intersection(*tested) if tested else set()
    for line in lines:
        line["left_out"] = len(set().union(*tested) - common)
        line["scores"] = {
            metric: {subject: value for subject, value in scores.items() if subject in common}
            for metric, scores in line["scores"].items()
        }


def _mark(lines: Sequence[Line]) -> None:
    """Mark the best two lines, where seeds and subjects support it."""
    if any(line["learned"] and line["seeds"] < FEWEST_SEEDS for line in lines):
        return
    for metric in DECIMALS:
        marked = best_two({number: line["scores"][metric] for number, line in enumerate(lines)})
        for word, number in zip(("best", "second"), marked, strict=True):
            if number is not None:
                lines[number].setdefault(word, []).append(metric)


def as_markdown(lines: Sequence[Line]) -> str:
    """For pages: best is bold, second best in italics."""
    return markdown(*_cells(lines, {"best": "**{}**", "second": "*{}*"}, " ± "))


def as_latex(lines: Sequence[Line]) -> str:
    """For papers, with the package booktabs: best is bold, second best underlined."""
    header, rows = _cells(lines, {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}, r" $\pm$ ")
    body = [" & ".join(row) + r" \\" for row in [header, *rows]]
    columns = "l" * len(header)
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}"]) + "\n"


def as_csv(lines: Sequence[Line]) -> str:
    """For programs: one line per system, all digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ["ssim", "ssim_sd", "psnr", "psnr_sd"]
    setting = ["method", "scale_factor", "scans", "subjects", "rows", "iterations", "network"]
    writer.writerow([*setting, *columns, *(f"papers_{c}" for c in columns)])
    for line in lines:
        ours = [x for metric in DECIMALS for x in _mean_and_deviation(list(line["scores"][metric].values()))]
        theirs = [x for metric in DECIMALS for x in line["printed"].get(metric, ["", ""])]
        subjects = len(line["scores"]["psnr"])
        setting = [line["title"], *line["setting"], subjects, " ".join(line["names"])]
        setting += [line["iterations"], line["network"]]
        writer.writerow([*setting, *ours, *theirs])
    return file.getvalue()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, ["---"] * len(header), *rows])


def _cells(lines: Sequence[Line], marks: Mapping[str, str], sign: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table for readers."""
    grouped, printed = any(line["group"] for line in lines), any(line["printed"] for line in lines)
    header = ["method", *(["scale factor", "scans"] if grouped else []), "subjects", "seeds"]
    header += ["iterations", "network", *TITLES.values()]
    header += [f"{title}, paper" for title in TITLES.values() if printed]
    rows = []
    for line in lines:
        row = [line["title"], *line["group"]]
        row += [
            str(len(line["scores"]["psnr"]) or "-"),
            str(line["seeds"] if line["learned"] and line["names"] else "-"),
            line["iterations"],
            line["network"],
        ]
        for metric, decimals in DECIMALS.items():
            values = list(line["scores"][metric].values())
            text = _text(*_mean_and_deviation(values), decimals, sign) if values else NOT_RUN
            for word, mark in marks.items():
                text = mark.format(text) if metric in line.get(word, []) else text
            row.append(text)
        if printed:
            row += [_text(*line["printed"].get(m, ["", ""]), d, sign) for m, d in DECIMALS.items()]
        rows.append(row)
    return header, rows


def _mean_and_deviation(values: Sequence[float]) -> tuple[float | str, float | str]:
    """Mean and sample standard deviation over subjects. One subject has no deviation."""
    return mean(values) if values else "", stdev(values) if len(values) > 1 else ""


def _text(average: float | str, deviation: float | str, decimals: int, sign: str) -> str:
    if average == "":
        return "-"
    return f"{average:.{decimals}f}" + (f"{sign}{deviation:.{decimals}f}" if deviation != "" else "")
