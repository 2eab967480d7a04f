"""Tables in the papers' layout, as Markdown, CSV and LaTeX, and what goes beside them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.significance import FEWEST_SUBJECTS, best_two

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
    "differences",
    "label",
    "order",
    "paper_table",
]

PAPERS = yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
PAPERS_FACTOR = [2, 2, 2]  # of the papers' figures, where a line says nothing else
DECIMALS = {"ssim": 4, "psnr": 2}
SCALES = {  # by the end of a table's name: the columns for both metrics, and in words; the third is the papers' own
    "": ({"ssim": "ssim_deep", "psnr": "psnr_deep"}, "in deep tissue"),
    "_whole_volume": ({"ssim": "ssim", "psnr": "psnr"}, "in the whole volume"),
    "_own_maximum": (
        {"ssim": "ssim_own_maximum", "psnr": "psnr_own_maximum"},
        "in the whole volume, each divided by its own maximum",
    ),
}
TITLES = {"ssim": "SSIM", "psnr": "PSNR (dB)"}
NOT_RUN = "not run"
FEWEST_SEEDS = 3  # of a learned system, for a claim about it
TELLING = 0.1  # dB: no smaller difference is worth a word
Line = dict[str, Any]
COLUMNS = {  # of the table of all rows: metric, method, evaluation, decimals
    "PSNR in deep tissue (dB)": ("psnr_deep", "pred", "evaluation", 2),
    "SSIM in deep tissue": ("ssim_deep", "pred", "evaluation", 4),
    "shift and gain corrected (dB)": ("psnr_corrected_deep", "pred", "evaluation", 2),
    "data-consistent (dB)": ("psnr_deep", "consistent", "evaluation", 2),
    "as inference gives it (dB)": ("psnr_deep", "automatic", "evaluation", 2),
    "best validation (dB)": ("psnr_deep", "pred", "best_validation", 2),
    "PSNR (dB)": ("psnr", "pred", "evaluation", 2),
    "SSIM": ("ssim", "pred", "evaluation", 4),
    "HFEN": ("hfen", "pred", "evaluation", 3),
}
MADE_PAIR = "low_res_discriminator_degraded"  # its loss on the learned degradation's images beside real ones
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

    All lines are compared with each other, or in a ``grouped`` table those of one scale factor and assignment: ``best``
    and ``second`` name the metrics in which a line is so by :func:`best_two`. Nothing is called so while a learned
    system of the comparison has fewer than ``FEWEST_SEEDS`` seeds, for subjects say nothing of a training's luck.

    Args:
        layout: of ``papers.yaml``; unless it is grouped, its lines are of the matrix's scale factor.
        results: of a matrix.
        network: backbone of the learned systems.
        metrics: columns of the scores for "ssim" and "psnr"; by default those in deep tissue.
    """
    lines, folds = [], []
    default = {**results.usual, **({"scale_factor": PAPERS_FACTOR} if layout.get("grouped") else {})}
    for entry in layout["lines"]:
        setting = {**default, **{key: entry[key] for key in ("system", *default) if key in entry}}
        setting["network"] = "ours" if entry["system"] in INTERPOLATIONS else network
        planned = results.planned(**setting)
        if not planned:
            continue
        folds.append(len({row["setting"]["fold"] for row in planned}))
        lines.append({**_line(entry, setting, [row for row in planned if "record" in row]), "group": ()})
        if layout.get("grouped"):
            lines[-1]["group"] = lines[-1]["setting"]
        names = lines[-1]["names"]
        lines[-1]["scores"] = {metric: results.by_subject(names, column) for metric, column in metrics.items()}
    lines = _of_all_folds(lines, folds)
    _keep_common_subjects(lines)
    for group in {line["group"] for line in lines}:
        _mark([line for line in lines if line["group"] == group and line["names"]])
    return lines


def _line(entry: Mapping[str, Any], setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Line:
    """What a line says beside its scores; ``rows`` are those of it that are complete."""
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


def _of_all_folds(lines: Sequence[Line], folds: Sequence[int]) -> list[Line]:
    """Without those that the matrix has for some folds alone, whose titles each of the others keeps."""
    kept = [line for line, number in zip(lines, folds, strict=True) if number == max(folds, default=0)]
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
    """Which pairs of lines stand the other way round than in the paper, by PSNR; None if none can be told.

    A pair is told if both differences are at least 0.1 dB and ours is above its own deviation over subjects.
    """
    said = []
    for group in dict.fromkeys(line["setting"] for line in lines):
        both = [line for line in lines if line["setting"] == group and line["printed"] and line["scores"]["psnr"]]
        for ours, theirs in itertools.permutations(both, 2):
            base = theirs["scores"]["psnr"]
            change = [value - base[subject] for subject, value in ours["scores"]["psnr"].items() if subject in base]
            above, spread = _mean_and_deviation(change)
            printed = theirs["printed"]["psnr"][0] - ours["printed"]["psnr"][0]
            if change and above >= max(TELLING, spread or 0) and printed >= TELLING:
                said.append(
                    f"{', '.join(group)}: {ours['title']} is {above:.2f} dB above {theirs['title']}, in the paper "
                    f"{printed:.2f} dB below it."
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
    grouped = any(line["group"] for line in lines)
    header = ["method", *(["scale factor", "scans"] if grouped else []), "subjects", "seeds"]
    header += ["iterations", "network", *TITLES.values()]
    header += [f"{title}, paper" for title in TITLES.values()]
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
    form = f"+.{DECIMALS[metric.partition('_')[0]]}f"
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
    """Rows of one kind in words, with what tells them from the others of the matrix: backbone and fold."""
    fold = rows[0]["setting"]["fold"]
    elsewhere = results.has_one_test and fold != results.rows[0]["setting"]["fold"]
    return _label(results, rows) + (f", {fold.replace('_', ' ')}" if elsewhere else "")


def _label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    setting = rows[0]["setting"]
    several = len(results.networks) > 1 and setting["system"] not in INTERPOLATIONS
    return kind_words(results, rows) + (f", {setting['network'].replace('_', ' ')}" if several else "")


def kind_words(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in words, as far as they are not as usual, without fold and seed."""
    setting, usual = rows[0]["setting"], results.usual
    parts = [setting["system"].replace("_", " ")]
    parts += ["x".join(map(str, setting["scale_factor"]))] if setting["scale_factor"] != usual["scale_factor"] else []
    parts += [setting["assignment"]] if setting["assignment"] != usual["assignment"] else []
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
        lines.append([label(results, rows), *cells])
    return markdown(["system", *(subject.removesuffix(".nii.gz") for _, subject in scans)], lines) if scans else None


def has_few_subjects(results: Results) -> bool:
    """Whether there are too few for a test."""
    return len({score["subject"] for score in results.scores if score["evaluation"] == "evaluation"}) < FEWEST_SUBJECTS


def costs(results: Results) -> str:
    """Other metrics, those that were measured, and the costs of each row."""
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
    """What should make one doubt a number before believing it."""
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
    """The rows that the oracle, which is the same but for the true degradation, should bound and does not."""
    rows = {
        system: {
            tuple(str(value) for key, value in row["setting"].items() if key != "system"): row["name"]
            for row in results.done
            if row["setting"]["system"] == system and row["name"] in averages
        }
        for system in ("supervised_oracle", "spectral")
    }
    told = []
    for setting, oracle in rows["supervised_oracle"].items():
        name = rows["spectral"].get(setting)
        if name and averages[name] > averages[oracle]:
            told.append(
                f"{name} is {averages[name] - averages[oracle]:.2f} dB above {oracle}, which is the same with the true "
                "degradation instead of the estimated one. Do scans leak, or is the difference within what another "
                "seed does?"
            )
    return told
