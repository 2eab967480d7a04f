"""Figures, each as PDF for papers and PNG for pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.tables import label

__all__ = ["draw_figures"]

METRICS = {"ssim_deep": "SSIM in deep tissue", "psnr_deep": "PSNR in deep tissue (dB)"}
DISCRIMINATOR = re.compile(r"(.+)_discriminator(.*)")  # a tag: of which images, and whose of them are made
BLIND = 0.25  # least-squares loss per pair of a discriminator that cannot tell
AXES = ("anterior", "superior", "through slabs")  # of the canonical frame
MISMATCHES = "mismatches/"
SIZE, RESOLUTION = (9.0, 3.6), 110  # inches, dots per inch
UNDATED = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}  # equal results give equal files


def draw_figures(results: Results, folder: Path) -> dict[str, str]:
    """Draw what the results allow.

    Returns:
        captions by the name of the figure, whose files are ``<name>.pdf`` and ``<name>.png``.
    """
    captions = {}
    for name, (draw, caption) in FIGURES.items():
        figure = draw(results)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for suffix, metadata in UNDATED.items():
                figure.savefig(folder / f"{name}{suffix}", dpi=RESOLUTION, metadata=metadata)
            captions[name] = caption
    return captions


def _page(titles: Sequence[str], width: float = SIZE[0]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, SIZE[1]), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
    return figure, axes


def fractions(results: Results) -> Figure | None:
    """Metric versus share of the source subjects, as the contrastive paper's figure 3."""
    systems = ("initial", "without_contrastive", "contrastive")
    shown = {system: _fractions_of(results, system, network) for system in systems for network in results.networks}
    shown = {system: points for system, points in shown.items() if len(points) > 1}
    if not shown:
        return None
    figure, axes = _page(list(METRICS.values()))
    for panel, metric in zip(axes, METRICS, strict=True):
        for system, points in shown.items():
            scores = [list(results.by_subject(names, metric).values()) for names in points.values()]
            spread = [stdev(values) if len(values) > 1 else 0 for values in scores]
            shares = [100 * share for share in points]
            panel.errorbar(
                shares, [mean(s) for s in scores], spread, marker="o", capsize=3, label=system.replace("_", " ")
            )
        panel.set_xlabel("source subjects (%)")
    axes[0].legend()
    return figure


def _fractions_of(results: Results, system: str, network: str) -> dict[float, list[str]]:
    """The rows of a system by share, of the seeds that every share has."""
    found: dict[float, dict[int, list[str]]] = {}
    for kind, rows in results.kinds().items():
        usual = results.is_usual(kind._replace(hr_fraction=1.0))
        if usual and (kind.system, kind.network) == (system, network):
            for row in rows:
                found.setdefault(kind.hr_fraction, {}).setdefault(row["setting"]["seed"], []).append(row["name"])
    seeds = set.intersection(*(set(rows) for rows in found.values())) if found else set()
    return {share: [name for seed in seeds for name in found[share][seed]] for share in sorted(found) if seeds}


def gains(results: Results) -> Figure | None:
    """PSNR in deep tissue above zero-filling of each system on each subject, a colour per seed."""
    kinds = [rows for rows in results.kinds().values() if rows[0]["setting"]["system"] not in INTERPOLATIONS]
    if not kinds:
        return None
    figure, (panel,) = _page([""])
    figure.set_figheight(1.4 + 0.32 * len(kinds))
    seeds = sorted({row["setting"]["seed"] for rows in kinds for row in rows})
    for place, rows in enumerate(kinds):
        everything = []
        for seed in seeds:
            names = [row["name"] for row in rows if row["setting"]["seed"] == seed]
            values = list(results.gains(names).values())
            everything += values
            height = place + 0.18 * (seeds.index(seed) - (len(seeds) - 1) / 2)
            panel.plot(values, [height] * len(values), f"C{seeds.index(seed)}o", alpha=0.5, markersize=4)
        panel.plot([mean(everything or [float("nan")])], [place], "k|", markersize=16)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_ylim(-0.6, len(kinds) - 0.4)
    panel.set_yticks(range(len(kinds)), [label(results, rows) for rows in kinds], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("PSNR in deep tissue above zero-filling (dB)")
    if len(seeds) > 1:
        panel.legend(
            [Line2D([], [], color=f"C{n}", marker="o", linestyle="") for n in range(len(seeds))],
            [f"seed {seed}" for seed in seeds],
            fontsize=8,
        )
    return figure


def training_curves(results: Results) -> Figure | None:
    """Validation of the average network through training, of the first seed and fold."""
    titles = {"psnr_gain": "PSNR above zero-filling (dB)", "ssim": "SSIM"}
    rows = [row for row in results.first if results.ends(row["name"], "psnr_gain")]
    if not rows:
        return None
    figure, axes = _page(list(titles.values()), width=11.0)
    figure.set_figheight(4.6)
    for panel, tag in zip(axes, titles, strict=True):
        for number, row in enumerate(rows):
            values = [value for _, value in _points(results, row["name"], tag)]
            share = [place / max(1, len(values) - 1) for place in range(len(values))]
            panel.plot(share, values, marker=".", label=results.words(row), **_style(number))
        panel.set_xlabel("share of the row's own training")
    _legend(figure, axes[0])
    return figure


def _points(results: Results, name: str, tag: str) -> list[tuple[int, float]]:
    """Step and value of a row's curve, in time."""
    found = [point for point in results.curves if point["row"] == name and point["tag"] == tag]
    found = sorted(found, key=lambda point: (int(point["stage"]), int(point["step"])))
    return [(int(point["step"]), float(point["value"])) for point in found]


def _style(number: int) -> dict[str, object]:
    """Ten colours, then the same with another line."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def _legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)


def degradation(results: Results) -> Figure | None:
    """The modulation transfer that was learned beside the true one, along each axis, of the first seed and fold."""
    rows = [row for row in results.first if any(point["row"] == row["name"] for point in results.transfers)]
    if not rows:
        return None
    figure, axes = _page([f"MTF, {axis}" for axis in AXES], width=12.0)
    figure.set_figheight(4.4)
    for axis, panel in enumerate(axes):
        for number, row in enumerate(rows):
            points = [p for p in results.transfers if (p["row"], p["axis"]) == (row["name"], str(axis))]
            frequencies, learned, true = ([float(p[key]) for p in points] for key in ("frequency", "learned", "true"))
            panel.plot(frequencies, learned, label=results.words(row), **_style(number))
        panel.plot(frequencies, true, "k--", linewidth=1.5, label="true degradation")
        panel.set_xlabel("cycles per LR voxel")
    furthest = max(abs(limit - 1) for panel in axes for limit in panel.get_ylim())
    for panel in axes:  # one scale, whose least deviations are not made to look large
        panel.set_ylim(1 - max(0.1, furthest), 1 + max(0.1, furthest))
    _legend(figure, axes[0])
    return figure


def discriminators(results: Results) -> Figure | None:
    """The discriminators' loss of each pair of real and made images through training, of the first seed and fold."""
    pairs: dict[str, dict[str, str]] = {}
    for tag in sorted({point["tag"] for point in results.curves}):
        if found := DISCRIMINATOR.fullmatch(tag):
            pairs.setdefault(found[1].replace("_", " "), {})[tag] = found[2].replace("_", " ")
    rows = [
        row for row in results.first if any(results.ends(row["name"], tag) for tags in pairs.values() for tag in tags)
    ]
    if not rows:
        return None
    figure, axes = _page([f"loss of the discriminator, {images}" for images in pairs], width=5.5 * len(pairs))
    figure.set_figheight(4.8)
    for panel, tags in zip(axes, pairs.values(), strict=True):
        for number, row in enumerate(rows):
            for (tag, made), line in zip(tags.items(), ("-", "--", ":", "-."), strict=False):
                if points := _points(results, row["name"], tag):
                    style = {"linestyle": line, "color": f"C{number % 10}", "label": f"{results.words(row)},{made}"}
                    panel.plot(*zip(*points, strict=True), **style)
        panel.axhline(BLIND, color="black", linewidth=0.8)
        panel.set_xlabel("iteration")
        panel.legend(fontsize=6)
    return figure


def mismatch(results: Results) -> Figure | None:
    """Metrics where the acquisition is another than in training; PSNR also above zero-filling of the same."""
    others = sorted({s["evaluation"] for s in results.scores if s["evaluation"].startswith(MISMATCHES)})
    if not others:
        return None
    evaluations = ["evaluation", *others]
    known = [row for row in results.first if row["setting"]["system"] != "zero_filling"]
    rows = [row for row in known if results.by_subject([row["name"]], "psnr_deep", evaluation=others[0])]
    if not rows:
        return None
    figure, axes = _page([*METRICS.values(), "the same above zero-filling"], width=12.5)
    figure.set_figheight(4.8)
    places = np.arange(len(evaluations))
    for panel, metric in zip(axes, [*METRICS, None], strict=True):
        for number, row in enumerate(rows):
            values = [_mean_score(results, row, metric, evaluation) for evaluation in evaluations]
            beside = 0.6 * ((number + 0.5) / len(rows) - 0.5)
            panel.plot(places + beside, values, "o", markersize=5, label=results.words(row), color=f"C{number % 10}")
        base = [_mean_score(results, rows[0], metric, e, "zero_filling") for e in evaluations]
        panel.hlines(base, places - 0.4, places + 0.4, colors="black", linewidth=1, label="zero-filling")
        labels = ["as trained", *(name.removeprefix(MISMATCHES) for name in others)]
        labels = [label[0].upper() + label[1:] for label in labels]
        panel.set_xticks(range(len(evaluations)), labels, rotation=25, fontsize=8)
    _legend(figure, axes[0])
    return figure


def _mean_score(results: Results, row: Mapping, metric: str | None, evaluation: str, method: str = "pred") -> float:
    """Over subjects; without a metric that of PSNR above zero-filling."""
    ours, base = (
        results.by_subject([row["name"]], metric or "psnr_deep", one, evaluation) for one in (method, "zero_filling")
    )
    return mean(ours[subject] - (0 if metric else base[subject]) for subject in ours) if ours else float("nan")


FIGURES: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "gains": (
        gains,
        "PSNR in deep tissue above zero-filling of each system with a network: a dot per subject and seed, their mean "
        "as a bar.",
    ),
    "hr_fractions": (
        fractions,
        "Metric versus the share of source subjects, of the seeds that all shares have; bars: deviation over subjects.",
    ),
    "training_curves": (
        training_curves,
        "Validation of the average network in each row's own training, from before its first iteration on (first seed "
        "and fold).",
    ),
    "degradation": (
        degradation,
        "Modulation transfer of the learned degradation at the end of training, measured on the validation subjects; "
        "dashed: that of the true one, measured in the same way (first seed and fold).",
    ),
    "discriminators": (
        discriminators,
        "The discriminators' loss on each pair of real and made images through training, as means over blocks of "
        "iterations; black: a least-squares discriminator that cannot tell them apart (first seed and fold).",
    ),
    "mismatch": (
        mismatch,
        "Metrics when the test's acquisition or contrast is another than the training's, means over subjects; lines: "
        "zero-filling of the same acquisition (first seed and fold).",
    ),
}
