"""Figures of a matrix, as small PNG files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.benchmark.all_rows import label
from experiments.benchmark.results import Results

__all__ = ["FIGURES", "draw_figures"]

DISCRIMINATOR = re.compile(r"(.+)_discriminator(.*)")  # a tag: real images, and the made images beside them
GRADIENT = re.compile(r"gradient_(.+)")  # a tag with the name of a term
BLIND = 0.25  # least-squares loss of a discriminator that cannot tell a pair apart
AXES = ("first axis", "second axis", "slab axis")
FLOOR = -6  # dB; a broken row would squeeze the others
RESOLUTION = 90  # dots per inch
ENTRY = 3.0  # inches for an entry of a legend


def draw_figures(results: Results, folder: Path) -> list[str]:
    """Draw the figures that the results allow as ``<name>.png``, and return their names."""
    drawn = []
    for name, (draw, _) in FIGURES.items():
        figure = draw(results)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png", dpi=RESOLUTION, metadata={"Software": None})
            drawn.append(name)
    return drawn


def _page(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.grid(alpha=0.3)
    return figure, axes


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them."""
    entries: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, words in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(words, handle)
    columns = max(1, int(figure.get_figwidth() / ENTRY))
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, fontsize=7, handlelength=4)


def _style(number: int) -> dict[str, object]:
    """Ten colours, then the same colours with another line."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def gains(results: Results) -> Figure | None:
    """PSNR in deep tissue above zero-filling of each system and subject, a colour per seed."""
    kinds = [rows for rows in results.kinds().values() if rows[0]["setting"]["system"] != "zero_filling"]
    if not kinds:
        return None
    figure, ((panel,),) = _page(1, 1, 9.0, 1.4 + 0.32 * len(kinds))
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
    """Validation of the averaged network during training, for the first seed and fold."""
    rows = [row for row in results.first if results.points(row["name"], "psnr_gain")]
    if not rows:
        return None
    figure, ((panel,),) = _page(1, 1, 7.0, 4.4)
    for number, row in enumerate(rows):
        steps, values = zip(*results.points(row["name"], "psnr_gain"), strict=True)
        panel.plot(_iterations(row, steps), values, marker=".", label=label(results, [row]), **_style(number))
    panel.set_xlabel("iteration")
    panel.set_ylabel("validation gain, whole volume (dB)")
    panel.set_ylim(bottom=max(FLOOR, panel.get_ylim()[0]))
    _legend(figure)
    return figure


def _iterations(row: Mapping[str, Any], epochs: Sequence[int]) -> list[int]:
    """Iterations of the validations, which count epochs."""
    return [epoch * row["record"]["training"].get("iterations_per_epoch", 1) for epoch in epochs]


def degradation(results: Results) -> Figure | None:
    """The learned modulation transfer beside the true one: during training, and as a curve at its end."""
    rows = [row for row in results.first if results.transfer(row["name"], 0)]
    if not rows:
        return None
    figure, axes = _page(2, len(AXES), 12.0, 7.0)
    for axis, (above, below) in enumerate(axes.T):
        for number, row in enumerate(rows):
            points = results.points(row["name"], f"degradation_mtf_{axis}")
            steps, values = zip(*points, strict=True) if points else ((), ())
            above.plot(_iterations(row, steps), values, marker=".", label=label(results, [row]), **_style(number))
            frequencies, learned, true = zip(*results.transfer(row["name"], axis), strict=True)
            below.plot(frequencies, learned, **_style(number))
        there = results.at_half_nyquist(rows[-1]["name"], axis)[1]
        above.axhline(there, color="black", linestyle="--", linewidth=1.5, label="true degradation")
        below.plot(frequencies, true, "k--", linewidth=1.5)
        above.set_title(AXES[axis])
        above.set_xlabel("iteration")
        below.set_xlabel("cycles per LR voxel")
    axes[0, 0].set_ylabel("MTF at half Nyquist")
    axes[1, 0].set_ylabel("MTF at the end of training")
    furthest = max(abs(limit - 1) for panel in axes.flat for limit in panel.get_ylim())
    for panel in axes.flat:  # one scale for all panels, so that a small deviation looks small
        panel.set_ylim(1 - max(0.1, furthest), 1 + max(0.1, furthest))
    _legend(figure)
    return figure


def discriminators(results: Results) -> Figure | None:
    """The discriminators' loss on each pair of real and made images during training, for the first seed and fold."""
    pairs: dict[str, dict[str, str]] = {}
    for tag in results.tags():
        if found := DISCRIMINATOR.fullmatch(tag):
            pairs.setdefault(found[1].replace("_", " "), {})[tag] = found[2].replace("_", " ")
    every = [tag for tags in pairs.values() for tag in tags]
    rows = [row for row in results.first if any(results.points(row["name"], tag) for tag in every)]
    if not rows:
        return None
    figure, axes = _page(1, len(pairs), 5.0 * len(pairs), 4.4)
    for panel, (images, tags) in zip(axes.flat, pairs.items(), strict=True):
        for number, row in enumerate(rows):
            for (tag, made), line in zip(tags.items(), ("-", "--", ":", "-."), strict=False):
                if points := results.points(row["name"], tag):
                    words = f"{label(results, [row])},{made}".rstrip(",")
                    style = {"linestyle": line, "color": f"C{number % 10}", "label": words}
                    panel.plot(*zip(*points, strict=True), **style)
        panel.axhline(BLIND, color="black", linewidth=0.8)
        panel.set_ylabel(f"loss of the discriminator, {images}")
        panel.set_xlabel("iteration")
    _legend(figure)
    return figure


def gradients(results: Results) -> Figure | None:
    """The weighted gradient of each term at the degradation network during training, for the first seed and fold."""
    terms = {tag: found[1].replace("_", " ") for tag in results.tags() if (found := GRADIENT.fullmatch(tag))}
    rows = [row for row in results.first if any(results.points(row["name"], tag) for tag in terms)]
    if not rows:
        return None
    figure, axes = _page(1, len(rows), 1.0 + 3.2 * len(rows), 4.8)
    for panel, row in zip(axes.flat, rows, strict=True):
        for number, (tag, term) in enumerate(terms.items()):
            if points := [(step, norm) for step, norm in results.points(row["name"], tag) if norm > 0]:
                panel.plot(*zip(*points, strict=True), marker=".", label=term, **_style(number))
        panel.set_yscale("log")
        panel.set_title(label(results, [row]), fontsize=8)
        panel.set_xlabel("iteration")
    axes[0, 0].set_ylabel("norm of the weighted gradient")
    _legend(figure)
    return figure


FIGURES: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "gains": (gains, "PSNR in deep tissue above zero-filling. A dot is a subject and seed; a bar is their mean."),
    "training_curves": (
        training_curves,
        "PSNR above zero-filling on the validation subjects, whole volume, from before the first iteration on (first "
        "seed and fold). A curve that leaves the frame goes on below it.",
    ),
    "degradation": (
        degradation,
        "Modulation transfer (MTF) of the learned degradation on the validation subjects (first seed and fold). Above: "
        "at half the Nyquist frequency, during training. Below: the whole curve at the end. Dashed: the true "
        "degradation.",
    ),
    "discriminators": (
        discriminators,
        "The discriminators' loss on each pair of real and made images, as means over blocks of iterations (first seed "
        "and fold). Black: a discriminator that cannot tell the pair apart; by the hinge loss that would be 1.",
    ),
    "gradients": (
        gradients,
        "The norm of the weighted gradient of each generator term at the degradation network (first seed and fold), "
        "where it is not zero.",
    ),
}
