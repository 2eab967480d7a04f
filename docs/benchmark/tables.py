"""Tables in the papers' layout, as Markdown, CSV and LaTeX, and what goes beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from benchmark.results import INTERPOLATIONS, USUAL, Results
from benchmark.significance import FEWEST_SUBJECTS, best_two

__all__ = [
    "PAPERS",
    "Line",
    "alarms",
    "as_csv",
    "as_latex",
    "as_markdown",
    "costs",
    "differences",
    "label",
    "order",
    "paper_table",
]

PAPERS = yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
DECIMALS = {"ssim": 4, "psnr": 2}
OWN_MAXIMUM = {"ssim": "ssim_own_maximum", "psnr": "psnr_own_maximum"}  # the papers' normalisation
SEEING_PAIRS = ("initial", "supervised")  # systems that may be above the oracle: they are trained on pairs, too
TITLES = {"ssim": "SSIM", "psnr": "PSNR (dB)"}
NOT_RUN = "not run"
FEWEST_SEEDS = 3  # of a learned system, for a claim about it
Line = dict[str, Any]
COLUMNS = {  # of the table of all rows: metric, method, evaluation, decimals
    "PSNR (dB)": ("psnr", "pred", "evaluation", 2),
    "in the foreground": ("psnr_foreground", "pred", "evaluation", 2),
    "shift and gain corrected": ("psnr_corrected", "pred", "evaluation", 2),
    "data-consistent": ("psnr", "consistent", "evaluation", 2),
    "as inference gives it": ("psnr", "automatic", "evaluation", 2),
    "best validation": ("psnr", "pred", "best_validation", 2),
    "SSIM": ("ssim", "pred", "evaluation", 4),
    "HFEN": ("hfen", "pred", "evaluation", 3),
}
COSTS = ("parameters", "GMAC per slab of 64 x 64", "seconds per volume", "peak memory (GiB)")
TOLERATED = 0.3  # dB between raw and shift/gain-corrected PSNR
COLLAPSED = 0.1  # of the feature norm at the start


def paper_table(
    layout: Mapping[str, Any], results: Results, network: str = "ours", metrics: Mapping[str, str] | None = None
) -> list[Line]:
    """The lines of a paper's table that a matrix has, with our scores by subject and the paper's figures.

    All lines are compared with each other, or in a ``grouped`` table those of one scale factor and assignment: ``best``
    and ``second`` name the metrics in which a line is so by :func:`best_two`. Nothing is called so while a learned
    system of the comparison has fewer than ``FEWEST_SEEDS`` seeds, for subjects say nothing of a training's luck.

    Args:
        layout: of ``papers.yaml``.
        results: of a matrix.
        network: backbone of the learned systems.
        metrics: columns of the scores for "ssim" and "psnr"; by default those of the same names.
    """
    metrics = metrics or {metric: metric for metric in DECIMALS}
    lines, folds = [], []
    for entry in layout["lines"]:
        backbone = "ours" if entry["system"] in INTERPOLATIONS else network
        setting = {key: entry[key] for key in ("system", *USUAL) if key in entry}
        planned = results.planned(**setting, network=backbone)
        if not planned:
            continue
        folds.append(len({row["setting"]["fold"] for row in planned}))
        names = results.names(**setting, network=backbone)
        scale = "x".join(map(str, entry.get("scale_factor", USUAL["scale_factor"])))
        place = (scale, entry.get("assignment", USUAL["assignment"]))
        lines.append(
            {
                "title": entry["title"],
                "names": names,
                "setting": place,
                "group": place if layout.get("grouped") else (),
                "seeds": len({name.rpartition("seed")[2] for name in names}),
                "learned": entry["system"] not in INTERPOLATIONS,
                "scores": {metric: results.by_subject(names, column) for metric, column in metrics.items()},
                "printed": {metric: entry[metric] for metric in DECIMALS if metric in entry},
            }
        )
    lines = _of_all_folds(lines, folds)
    _keep_common_subjects(lines)
    for group in {line["group"] for line in lines}:
        _mark([line for line in lines if line["group"] == group and line["names"]])
    return lines


def _of_all_folds(lines: Sequence[Line], folds: Sequence[int]) -> list[Line]:
    """Without those that the matrix has for some folds alone, whose titles each of the others keeps."""
    kept = [line for line, number in zip(lines, folds, strict=True) if number == max(folds)]
    for line in kept:
        line["in_some_folds"] = [other["title"] for other in lines if other not in kept]
    return kept


def _keep_common_subjects(lines: Sequence[Line]) -> None:
    """Leave out the subjects that only some of the lines have been tested on: folds that are not complete."""
    tested = [set(scores) for line in lines for scores in line["scores"].values() if scores]
    common = set.intersection(*tested) if tested else set()
    for line in lines:
        line["left_out"] = len(set.union(*tested) - common) if common else 0
        if common:
            line["scores"] = {
                metric: {subject: value for subject, value in scores.items() if subject in common}
                for metric, scores in line["scores"].items()
            }


def _mark(lines: Sequence[Line]) -> None:
    """Name the best two of the lines, where that can be said."""
    if any(line["learned"] and line["seeds"] < FEWEST_SEEDS for line in lines):
        return
    for metric in DECIMALS:
        marked = best_two({number: line["scores"][metric] for number, line in enumerate(lines)})
        for word, number in zip(("best", "second"), marked, strict=True):
            if number is not None:
                lines[number].setdefault(word, []).append(metric)


def order(lines: Sequence[Line]) -> str | None:
    """How our order by PSNR differs from the paper's, among the lines that both have; None if it does not."""
    said = []
    for group in dict.fromkeys(line["setting"] for line in lines):
        both = [line for line in lines if line["setting"] == group and line["names"] and "psnr" in line["printed"]]
        ours = sorted(both, key=lambda line: mean(line["scores"]["psnr"].values()), reverse=True)
        theirs = sorted(both, key=lambda line: line["printed"]["psnr"][0], reverse=True)
        if ours != theirs:
            orders = [" > ".join(line["title"] for line in one) for one in (ours, theirs)]
            scores = [mean(line["scores"]["psnr"].values()) for line in (ours[0], ours[-1])]
            printed = [line["printed"]["psnr"][0] for line in (theirs[0], theirs[-1])]
            spans = [f"{first - last:.2f} dB" for first, last in (scores, printed)]
            said.append(
                f"{', '.join(group)}: here {orders[0]}, {spans[0]} from first to last; in the paper {orders[1]}, "
                f"{spans[1]}."
            )
    return " ".join(said) or None


def as_markdown(lines: Sequence[Line]) -> str:
    """For pages; **best** and *second best* are marked where a test supports it."""
    return markdown(*_cells(lines, {"best": "**{}**", "second": "*{}*"}, " ± "))


def as_latex(lines: Sequence[Line]) -> str:
    r"""For papers, with the package booktabs; best is bold, second best underlined."""
    header, rows = _cells(lines, {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}, r" $\pm$ ")
    body = [" & ".join(row) + r" \\" for row in [header, *rows]]
    columns = "l" * len(header)
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}"]) + "\n"


def as_csv(lines: Sequence[Line]) -> str:
    """For programs: one line per system, all numbers in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = ["ssim", "ssim_sd", "psnr", "psnr_sd"]
    writer.writerow(
        ["method", "scale_factor", "scans", "subjects", "rows", *columns, *(f"papers_{c}" for c in columns)]
    )
    for line in lines:
        ours = [x for metric in DECIMALS for x in _mean_and_deviation(list(line["scores"][metric].values()))]
        theirs = [x for metric in DECIMALS for x in line["printed"].get(metric, ["", ""])]
        subjects = len(line["scores"]["psnr"])
        setting = [line["title"], *line["setting"], subjects, " ".join(line["names"])]
        writer.writerow([*setting, *ours, *theirs])
    return file.getvalue()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, ["---"] * len(header), *rows])


def _cells(lines: Sequence[Line], marks: Mapping[str, str], sign: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table for readers."""
    grouped = any(line["group"] for line in lines)
    header = ["method", *(["scale factor", "scans"] if grouped else []), "subjects", "seeds", *TITLES.values()]
    header += [f"{title}, paper" for title in TITLES.values()]
    rows = []
    for line in lines:
        row = [line["title"], *line["group"]]
        row += [
            str(len(line["scores"]["psnr"]) or "-"),
            str(line["seeds"] if line["learned"] and line["names"] else "-"),
        ]
        for metric, decimals in DECIMALS.items():
            values = list(line["scores"][metric].values())
            text = _text(*_mean_and_deviation(values), decimals, sign) if values else NOT_RUN
            for word, mark in marks.items():
                text = mark.format(text) if metric in line.get(word, []) else text
            row.append(text)
        rows.append([*row, *(_text(*line["printed"].get(m, ["", ""]), d, sign) for m, d in DECIMALS.items())])
    return header, rows


def _mean_and_deviation(values: Sequence[float]) -> tuple[float | str, float | str]:
    """Over subjects; the sample's deviation, which a single subject does not have."""
    return mean(values) if values else "", stdev(values) if len(values) > 1 else ""


def _text(average: float | str, deviation: float | str, decimals: int, sign: str) -> str:
    if average == "":
        return "-"
    return f"{average:.{decimals}f}" + (f"{sign}{deviation:.{decimals}f}" if deviation != "" else "")


def differences(results: Results, metric: str) -> str:
    """Each system's metric above zero-filling's on each test subject: what few subjects can show without a test."""
    subjects = sorted({score["subject"] for score in results.scores if score["evaluation"] == "evaluation"})
    form = f"+.{DECIMALS[metric]}f"
    lines = []
    for rows in results.kinds().values():
        names = [row["name"] for row in rows]
        gains = results.gains(names, metric)
        cells = [f"{gains[subject]:{form}}" if subject in gains else "-" for subject in subjects]
        if len(subjects) > 1:
            cells.append(f"{mean(gains.values()):{form}}" if len(gains) == len(subjects) else "-")
        lines.append([label(results, rows), *cells])
    header = ["system", *(subject.removesuffix(".nii.gz") for subject in subjects)]
    return markdown([*header, "mean"] if len(subjects) > 1 else header, lines)


def sources(results: Results) -> str | None:
    """PSNR above zero-filling by system and fold, where all folds test the same scans but learn from different ones.

    Each is the mean over seeds and, in brackets, their range; the last column is the mean of all folds but the first,
    minus that. None where folds test different scans.
    """
    folds = list(dict.fromkeys(row["setting"]["fold"] for row in results.rows))
    tested = {tuple(results.by_subject([row["name"]], "psnr")) for row in results.done}
    if len(folds) < 2 or len(tested) != 1:
        return None
    lines = []
    for rows in results.kinds().values():
        gains = {fold: [] for fold in folds}
        for row in rows:
            gains[row["setting"]["fold"]].append(mean(results.gains([row["name"]]).values()))
        cells = [f"{mean(of):+.2f} ({min(of):+.2f} to {max(of):+.2f})" if of else "-" for of in gains.values()]
        first, *others = gains.values()
        complete = all(len(of) == len(first) > 0 for of in others)
        change = f"{mean(map(mean, others)) - mean(first):+.2f}" if complete else "-"
        lines.append([label(results, rows), *cells, change])
    return markdown(["system", *(fold.replace("_", " ") for fold in folds), "change"], lines)


def label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one kind in words, with their backbone where the matrix has several."""
    setting = rows[0]["setting"]
    several = len(results.networks) > 1 and setting["system"] not in INTERPOLATIONS
    return kind_words(rows) + (f", {setting['network'].replace('_', ' ')}" if several else "")


def kind_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows that differ in fold and seed alone, in words."""
    setting = rows[0]["setting"]
    parts = [setting["system"].replace("_", " ")]
    parts += ["x".join(map(str, setting["scale_factor"]))] if setting["scale_factor"] != USUAL["scale_factor"] else []
    parts += [setting["assignment"]] if setting["assignment"] != USUAL["assignment"] else []
    parts += [f"{100 * setting['hr_fraction']:g} % of the source"] if setting["hr_fraction"] != 1 else []
    return ", ".join(parts)


def lesions(results: Results) -> str | None:
    """PSNR inside the lesions and its rise over zero-filling there, by system and scan; None where there is no mask."""
    evaluations = sorted({score["evaluation"] for score in results.scores if score.get("psnr_lesion")})
    scans = [
        (evaluation, subject)
        for evaluation in evaluations
        if evaluation != "best_validation"
        for subject in sorted(
            results.by_subject([row["name"] for row in results.done], "psnr_lesion", "pred", evaluation)
        )
    ]
    lines = []
    for rows in results.kinds().values():
        names = [row["name"] for row in rows]
        cells = []
        for evaluation, subject in scans:
            ours, base = (
                results.by_subject(names, "psnr_lesion", method, evaluation).get(subject)
                for method in ("pred", "zero_filling")
            )
            cells.append("-" if ours is None else f"{ours:.2f} ({ours - base:+.2f})")
        lines.append([kind_words(rows), *cells])
    return markdown(["system", *(subject.removesuffix(".nii.gz") for _, subject in scans)], lines) if scans else None


def has_few_subjects(results: Results) -> bool:
    """Whether there are too few for a test."""
    return len({score["subject"] for score in results.scores if score["evaluation"] == "evaluation"}) < FEWEST_SUBJECTS


def costs(results: Results) -> str:
    """Other metrics, those that were measured, and the costs of each row."""
    names = [row["name"] for row in results.done]
    columns = {title: column for title, column in COLUMNS.items() if results.by_subject(names, *column[:-1])}
    lines = []
    for row in results.done:
        name, record = row["name"], row["record"]
        cells = [_average(results.by_subject([name], *column), decimals) for *column, decimals in columns.values()]
        lines.append(
            [name, *cells, *(record["costs"].get(cost, "-") for cost in COSTS), f"{record['seconds'] / 60:.1f}"]
        )
    return markdown(["row", *columns, *COSTS, "minutes for the row"], lines)


def _average(values: Mapping[str, float], decimals: int) -> str:
    return f"{mean(values.values()):.{decimals}f}" if values else "-"


def alarms(results: Results) -> list[str]:
    """What should make one doubt a number before believing it."""
    averages = {row["name"]: mean(results.by_subject([row["name"]], "psnr").values()) for row in results.done}
    found = []
    for name, average in averages.items():
        gap = mean(results.by_subject([name], "psnr_corrected").values()) - average
        if gap > TOLERATED:
            found.append(
                f"{name}: PSNR rises by {gap:.2f} dB when shift and gain are corrected; it measures these too."
            )
    for row in results.done:
        norms = results.ends(row["name"], "feature_norm")
        if norms and norms[1] < COLLAPSED * norms[0]:
            found.append(f"{row['name']}: the norm of the features fell from {norms[0]:.3g} to {norms[1]:.3g}.")
    for oracle in (row for row in results.done if row["setting"]["system"] == "supervised_oracle"):
        above = [
            f"{row['name']} ({averages[row['name']] - averages[oracle['name']]:+.2f} dB)"
            for row in results.done
            if not row["setting"]["system"].startswith(SEEING_PAIRS)
            and all(row["setting"][key] == oracle["setting"][key] for key in ("scale_factor", "fold"))
            and averages[row["name"]] > averages[oracle["name"]]
        ]
        if above:
            names = ", ".join(above)
            found.append(
                f"above {oracle['name']}, which sees perfect pairs: {names}. Is it trained enough, or do scans leak?"
            )
    return found
