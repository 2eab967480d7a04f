"""Figures, each as PDF for papers and PNG for pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.results import Results

__all__ = ["draw_figures"]

METRICS = {"ssim": "SSIM", "psnr": "PSNR (dB)"}
AXES = {"degradation_mtf_0": "anterior", "degradation_mtf_1": "superior", "degradation_mtf_2": "through slabs"}
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
    shown = {system: _fractions_of(results, system) for system in ("contrastive", "without_contrastive")}
    shown = {system: points for system, points in shown.items() if len(points) > 1}
    if not shown:
        return None
    figure, axes = _page(list(METRICS.values()))
    for panel, metric in zip(axes, METRICS, strict=True):
        for system, points in shown.items():
            scores = [list(results.by_subject(names, metric).values()) for names in points.values()]
            spread = [stdev(values) if len(values) > 1 else 0 for values in scores]
            shares = [100 * share for share in points]
            panel.errorbar(shares, [mean(s) for s in scores], spread, marker="o", capsize=3, label=_words(system))
        panel.set_xlabel("source subjects (%)")
    axes[0].legend()
    return figure


def _fractions_of(results: Results, system: str) -> dict[float, list[str]]:
    shares = sorted({row["setting"]["hr_fraction"] for row in results.done if row["setting"]["system"] == system})
    found = {share: results.names(system=system, hr_fraction=share) for share in shares}
    return {share: names for share, names in found.items() if names}


def gains(results: Results) -> Figure | None:
    """PSNR above zero-filling of each row on each subject."""
    rows = [row["name"] for row in results.done if row["setting"]["system"] != "zero_filling"]
    if not rows:
        return None
    figure, (panel,) = _page([""])
    figure.set_figheight(1.2 + 0.3 * len(rows))
    for place, name in enumerate(rows):
        ours, base = (results.by_subject([name], "psnr", method) for method in ("pred", "zero_filling"))
        values = [ours[subject] - base[subject] for subject in ours]
        panel.plot(values, [place] * len(values), "o", alpha=0.5, markersize=4)
        panel.plot([mean(values)], [place], "k|", markersize=14)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(rows)), rows, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("PSNR above zero-filling (dB)")
    return figure


def training_curves(results: Results) -> Figure | None:
    """Validation of the average network through training."""
    return _curves(results, {"psnr_gain": "PSNR above zero-filling (dB)", "ssim": "SSIM"})


def degradation(results: Results) -> Figure | None:
    """The transfer of the learned degradation through training; that of the true one, k-space truncation, is 1."""
    titles = {tag: f"MTF at half Nyquist, {axis}" for tag, axis in AXES.items()}
    figure = _curves(results, titles, width=12.0)
    for panel in [] if figure is None else figure.axes:
        panel.axhline(1, color="black", linewidth=0.8, linestyle="--")
    return figure


def _curves(results: Results, titles: Mapping[str, str], width: float = SIZE[0]) -> Figure | None:
    """A panel per tag, a line per row; validations are counted over all stages."""
    rows = [name for name in dict.fromkeys(point["row"] for point in results.curves)]
    points = {(name, tag): _series(results, name, tag) for name in rows for tag in titles}
    if not any(points.values()):
        return None
    figure, axes = _page(list(titles.values()), width)
    for panel, tag in zip(axes, titles, strict=True):
        for name in rows:
            if points[name, tag]:
                panel.plot(range(len(points[name, tag])), points[name, tag], marker=".", label=name)
        panel.set_xlabel("validation")
        panel.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _series(results: Results, name: str, tag: str) -> list[float]:
    found = [point for point in results.curves if point["row"] == name and point["tag"] == tag]
    return [float(p["value"]) for p in sorted(found, key=lambda p: (int(p["stage"]), int(p["step"])))]


def mismatch(results: Results) -> Figure | None:
    """Metric against acquisitions that training has not seen."""
    others = sorted({s["evaluation"] for s in results.scores if s["evaluation"].startswith("mismatches/")})
    if not others:
        return None
    figure, axes = _page(list(METRICS.values()))
    evaluations = ["evaluation", *others]
    for panel, metric in zip(axes, METRICS, strict=True):
        for row in results.done:
            scores = [results.by_subject([row["name"]], metric, evaluation=e).values() for e in evaluations]
            panel.plot(range(len(evaluations)), [mean(values) for values in scores], marker="o", label=row["name"])
        labels = ["as trained", *(name.removeprefix("mismatches/") for name in others)]
        panel.set_xticks(range(len(evaluations)), labels, rotation=20)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7)
    return figure


def _words(name: str) -> str:
    return name.replace("_", " ")


FIGURES: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "gains": (gains, "PSNR above zero-filling of each row: subjects as dots, their mean as a bar."),
    "hr_fractions": (fractions, "Metric versus the share of source subjects; bars: standard deviation over subjects."),
    "training_curves": (training_curves, "Validation of the average network, from before the first iteration on."),
    "degradation": (
        degradation,
        "Modulation transfer of the learned degradation at half the LR Nyquist frequency; dashed: k-space truncation, "
        "the true one.",
    ),
    "mismatch": (mismatch, "Metric when the test's acquisition is another than the training's."),
}
