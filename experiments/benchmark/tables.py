"""Tables in the papers' layout, as Markdown, CSV and LaTeX; tables of all rows; alarms."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.significance import best_two

__all__ = [
    "FEWEST_SEEDS",
    "NOT_RUN",
    "PAPERS",
    "SCALES",
    "TELLING",
    "Line",
    "alarms",
    "as_csv",
    "as_latex",
    "as_markdown",
    "costs",
    "kind_words",
    "label",
    "markdown",
    "paper_table",
    "sources",
]

PAPERS = yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
PAPERS_FACTOR = [2, 2, 2]  # of the papers' figures, where a line says nothing else
DECIMALS = {"ssim": 4, "psnr": 2}
SCALES = {  # by the end of a table's name: the columns of both metrics, and their title; the third is the papers' own
    "": ({"ssim": "ssim_deep", "psnr": "psnr_deep"}, "in deep tissue"),
    "whole_volume": ({"ssim": "ssim", "psnr": "psnr"}, "in the whole volume"),
    "own_maximum": (
        {"ssim": "ssim_own_maximum", "psnr": "psnr_own_maximum"},
        "in the whole volume, each divided by its own maximum",
    ),
}
TITLES = {"ssim": "SSIM", "psnr": "PSNR (dB)"}
NOT_RUN = "not run"
FEWEST_SEEDS = 3  # of a learned system, for a claim about it
TELLING = 0.1  # dB: a smaller difference counts as none
Line = dict[str, Any]
COLUMNS = {  # of the table of all rows: metric, method, decimals
    "PSNR in deep tissue (dB)": ("psnr_deep", "pred", 2),
    "SSIM in deep tissue": ("ssim_deep", "pred", 4),
    "shift and gain corrected (dB)": ("psnr_corrected_deep", "pred", 2),
    "data-consistent (dB)": ("psnr_deep", "consistent", 2),
    "as inference gives it (dB)": ("psnr_deep", "automatic", 2),
    "PSNR (dB)": ("psnr", "pred", 2),
    "SSIM": ("ssim", "pred", 4),
    "HFEN": ("hfen", "pred", 3),
}
MADE_PAIR = "low_res_discriminator_degraded"  # a term: images of the learned degradation beside real ones
MADE_PAIR_TITLE = "discriminator's loss on made LR images at the end (0.25: blind)"
COSTS = ("parameters", "GMAC per slab of 64 x 64", "seconds per volume", "peak memory (GiB)")
TOLERATED = 0.3  # dB between raw and shift/gain-corrected PSNR
COLLAPSED = 0.1  # of the feature norm at the start


def paper_table(
    layout: Mapping[str, Any],
    results: Results,
    network: str = "ours",
    metrics: Mapping[str, str] = SCALES[""][0],
) -> list[Line]:
    """The lines of a paper's table that a matrix has, with our scores by subject and the paper's figures.

    All lines are compared with each other; in a ``grouped`` table those of one scale factor and assignment. ``best``
    and ``second`` name the metrics in which a line is so by :func:`best_two`. No line is marked while a learned system
    of the comparison has fewer than ``FEWEST_SEEDS`` seeds: subjects cannot show the luck of a training.

    Args:
        layout: of ``papers.yaml``; unless it is grouped, its lines are of the matrix's scale factor.
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
    """A line without its scores; ``rows`` are its complete ones."""
    learned = entry["system"] not in INTERPOLATIONS
    as_printed = setting["scale_factor"] == entry.get("scale_factor", PAPERS_FACTOR)
    trained = [row["record"] for row in rows if learned]
    iterations = [f"{record['training']['max_iterations']:,}" for record in trained if record.get("training")]
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
    """Leave out the subjects that only some of the lines have been tested on."""
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
    """Name the best two of the lines, where seeds and subjects allow it."""
    if any(line["learned"] and line["seeds"] < FEWEST_SEEDS for line in lines):
        return
    for metric in DECIMALS:
        marked = best_two({number: line["scores"][metric] for number, line in enumerate(lines)})
        for word, number in zip(("best", "second"), marked, strict=True):
            if number is not None:
                lines[number].setdefault(word, []).append(metric)


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
    """A table."""
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
    """Over subjects; the sample's deviation, which a single subject does not have."""
    return mean(values) if values else "", stdev(values) if len(values) > 1 else ""


def _text(average: float | str, deviation: float | str, decimals: int, sign: str) -> str:
    if average == "":
        return "-"
    return f"{average:.{decimals}f}" + (f"{sign}{deviation:.{decimals}f}" if deviation != "" else "")


def sources(results: Results) -> str | None:
    """PSNR above zero-filling by system and fold, where all folds test the same scans but learn from different ones.

    A cell is the mean over seeds, with their range in brackets. The last column is the mean of all folds but the first,
    minus the first. None where folds test different scans, or where only one has been run.
    """
    folds = list(dict.fromkeys(row["setting"]["fold"] for row in results.done))
    if len(folds) < 2 or not results.has_one_test:
        return None
    gains: dict[Any, dict[str, list[float]]] = {}
    words: dict[Any, str] = {}
    for kind, rows in results.kinds().items():
        of_folds = gains.setdefault(kind._replace(fold=""), {fold: [] for fold in folds})
        of_folds[kind.fold] = [mean(results.gains([row["name"]]).values()) for row in rows]
        words.setdefault(kind._replace(fold=""), _label(results, rows))
    lines = []
    for kind, by_fold in gains.items():
        cells = [f"{mean(of):+.2f} ({min(of):+.2f} to {max(of):+.2f})" if of else "-" for of in by_fold.values()]
        first, *others = by_fold.values()
        complete = all(len(of) == len(first) > 0 for of in others)
        change = f"{mean(map(mean, others)) - mean(first):+.2f}" if complete else "-"
        lines.append([words[kind], *cells, change])
    return markdown(["system", *(fold.replace("_", " ") for fold in folds), "change"], lines)


def label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one kind in words, with backbone and fold where the matrix has several."""
    fold = rows[0]["setting"]["fold"]
    elsewhere = results.has_one_test and fold != results.rows[0]["setting"]["fold"]
    return _label(results, rows) + (f", {fold.replace('_', ' ')}" if elsewhere else "")


def _label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    setting = rows[0]["setting"]
    several = len(results.networks) > 1 and setting["system"] not in INTERPOLATIONS
    return kind_words(results, rows) + (f", {setting['network'].replace('_', ' ')}" if several else "")


def kind_words(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in words: the system and whatever is not as usual, without fold and seed."""
    setting, usual = rows[0]["setting"], results.usual
    parts = [setting["system"].replace("_", " ")]
    parts += ["x".join(map(str, setting["scale_factor"]))] if setting["scale_factor"] != usual["scale_factor"] else []
    parts += [setting["assignment"]] if setting["assignment"] != usual["assignment"] else []
    parts += [f"{100 * setting['hr_fraction']:g} % of the source"] if setting["hr_fraction"] != 1 else []
    return ", ".join(parts)


def costs(results: Results) -> str:
    """The metrics that were measured and the costs, row by row."""
    names = [row["name"] for row in results.done]
    columns = {title: column for title, column in COLUMNS.items() if results.by_subject(names, *column[:-1])}
    losses = {name: ends[1] for name in names if (ends := results.ends(name, MADE_PAIR))}
    lines = []
    for row in results.done:
        name, record = row["name"], row["record"]
        cells = [_average(results.by_subject([name], *column), decimals) for *column, decimals in columns.values()]
        cells += [f"{losses[name]:.3f}" if name in losses else "-"] if losses else []
        lines.append(
            [name, *cells, *(record["costs"].get(cost, "-") for cost in COSTS), f"{record['seconds'] / 60:.1f}"]
        )
    header = ["row", *columns, *([MADE_PAIR_TITLE] if losses else []), *COSTS, "minutes for the row"]
    return markdown(header, lines)


def _average(values: Mapping[str, float], decimals: int) -> str:
    return f"{mean(values.values()):.{decimals}f}" if values else "-"


def alarms(results: Results) -> list[str]:
    """Reasons to doubt a number."""
    averages = {
        row["name"]: mean(scores.values())
        for row in results.done
        if (scores := results.by_subject([row["name"]], "psnr_deep"))
    }
    found = []
    for name, average in averages.items():
        gap = mean(results.by_subject([name], "psnr_corrected_deep").values()) - average
        if gap > TOLERATED:
            found.append(
                f"{name}: PSNR rises by {gap:.2f} dB when shift and gain are corrected; it measures these too."
            )
    for row in results.done:
        norms = results.ends(row["name"], "feature_norm")
        if norms and norms[1] < COLLAPSED * norms[0]:
            found.append(f"{row['name']}: the norm of the features fell from {norms[0]:.3g} to {norms[1]:.3g}.")
    return found + _above_their_oracle(results, averages)


def _above_their_oracle(results: Results, averages: Mapping[str, float]) -> list[str]:
    """Rows of ``spectral`` above the oracle, which is the same but for the true degradation and should bound them."""
    rows = {
        system: {
            tuple(str(value) for key, value in row["setting"].items() if key != "system"): row["name"]
            for row in results.done
            if row["setting"]["system"] == system and row["name"] in averages
        }
        for system in ("supervised_oracle", "spectral")
    }
    found = []
    for setting, oracle in rows["supervised_oracle"].items():
        name = rows["spectral"].get(setting)
        if name and averages[name] > averages[oracle]:
            found.append(
                f"{name} is {averages[name] - averages[oracle]:.2f} dB above {oracle}, which is the same with the true "
                "degradation instead of the estimated one. Do scans leak, or is the difference within that of seeds?"
            )
    return found
