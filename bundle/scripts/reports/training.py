"""The page of a training: curves by term, the learned degradation, and pictures of a validation scan over time."""

from __future__ import annotations

import base64
import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.config import PathLike
from torch.utils.tensorboard import SummaryWriter

from scripts.reports.figures import BLUE, ORANGE, as_uri, axis_name
from scripts.reports.pages import INDEX, REPORT, never_fatal, write_page
from scripts.utils.distributed import rank

__all__ = ["TrainingPage", "curves"]

SHARE = 0.01  # of the time that pages may take
POINTS = 300  # of a curve, at most
COLUMNS = 4  # of panels
BASELINES = ("psnr_zero_filling", "psnr_interpolation")  # drawn in the panel of "psnr"
# TensorBoard's pictures: title, and how many to show at most
KINDS = {"input_0_HW_0": ("input", 1), "output_HW_0": ("result", 6), "input_1_HW_0": ("HR reference", 1)}
Curve = tuple[np.ndarray, np.ndarray]


class TrainingPage:
    """Write the page of a training after epochs, in at most a hundredth of the time, and at its end.

    It shows what TensorBoard's files hold, also those of the runs that were continued. An error of the page is logged.

    Args:
        output_dir: of the training. The page is its file ``report/index.html``.
        summary_writer: writes TensorBoard's files.
        axcodes: axes of ``degradation_mtf.csv``, see :class:`scripts.handlers.monitors.DegradationMonitorHandler`.
    """

    def __init__(self, output_dir: PathLike, summary_writer: SummaryWriter, axcodes: str = "ASR") -> None:
        self.output_dir = Path(output_dir)
        self.writer = summary_writer
        self.axcodes = axcodes
        self.due = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self, last=True)

    def __call__(self, engine: Engine, last: bool = False) -> None:
        started = time.monotonic()
        if rank() > 0 or (started < self.due and not last):
            return
        with never_fatal(str(self.output_dir)):
            self._write(set(engine.state.output["terms"]), engine.state.iteration)
        self.due = time.monotonic() + (time.monotonic() - started) / SHARE

    def _write(self, terms: set[str], iteration: int) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second to import

        self.writer.flush()
        events = EventAccumulator(self.writer.log_dir, size_guidance={"scalars": 0, "images": 0}).Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        drawn = {tag: _thinned([one.step for one in of], [one.value for one in of]) for tag, of in scalars.items()}
        validation = {tag: curve for tag, curve in drawn.items() if tag not in terms and tag != "loss"}
        transfers = self.output_dir / "degradation_mtf.csv"
        figures = {
            "Terms by iteration, without their weights": curves({t: drawn[t] for t in drawn if t in terms}),
            "Validation by epoch": curves(validation),
            "Learned degradation: amplitude that it keeps": transfers.is_file() and _transfers(transfers, self.axcodes),
        }
        write_page(
            self.output_dir / REPORT / INDEX,
            "training.html",
            warnings=_warnings(validation),
            numbers={"iterations": iteration, **{t: f"{y[-1]:.4g}" for t, (_, y) in validation.items() if "psnr" in t}},
            figures={title: as_uri(figure) for title, figure in figures.items() if figure},
            pictures={
                title: _pictures(events.Images(tag), most)
                for tag, (title, most) in KINDS.items()
                if tag in events.Tags()["images"]
            },
        )


def curves(values: Mapping[str, Curve]) -> Figure | None:
    """Draw each curve in a panel of its own; None without any.

    Args:
        values: places and values by title.

    Example:
        >>> len(curves({"psnr": (np.arange(3), np.arange(3)), "psnr_zero_filling": (np.arange(3), np.ones(3))}).axes)
        1
    """
    titles = [title for title in values if title not in BASELINES]
    if not titles:
        return None
    rows = math.ceil(len(titles) / COLUMNS)
    figure = Figure(figsize=(13, 2.2 * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)  # inches, between the rows
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for panel, title in zip(panels, titles, strict=False):
        panel.plot(*values[title], color=BLUE, linewidth=1.2, marker="." if len(values[title][0]) < 30 else None)
        for baseline in set(BASELINES) & set(values) if title == "psnr" else ():
            label = baseline.removeprefix("psnr_").replace("_", "-")
            panel.plot(*values[baseline], color=ORANGE, linestyle="--", linewidth=1, label=label)
            panel.legend(fontsize=7)
        panel.set_title(title.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.25)
    for panel in figure.axes[len(titles) :]:
        panel.remove()
    return figure


def _thinned(steps: Sequence[int], values: Sequence[float]) -> Curve:
    """The means of as many blocks of a curve as fit into a small figure."""
    blocks = min(POINTS, len(steps))
    return tuple(
        np.array([part.mean() for part in np.array_split(np.array(one, float), blocks)]) for one in (steps, values)
    )


def _transfers(path: Path, axcodes: str) -> Figure:
    """The transfer of the degradation network along each axis, beside the true one."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(13, 3), layout="constrained")
    for axis, (panel, code) in enumerate(zip(figure.subplots(1, 3, sharey=True), axcodes, strict=True)):
        own = [row for row in rows if int(row["axis"]) == axis]
        for name, colour, line in (("learned", BLUE, "-"), ("true", ORANGE, "--")):
            points = [[float(row[key]) for row in own] for key in ("frequency", name)]
            panel.plot(*points, color=colour, linestyle=line, label=name)
        panel.set_title(axis_name(code), fontsize=10)
        panel.set_xlabel("cycles per LR voxel")
        panel.set_ylim(0, 1.05 * max(1.0, *(float(row[name]) for row in own for name in ("learned", "true"))))
        panel.grid(alpha=0.25)
    figure.axes[0].legend()
    return figure


def _pictures(events: Sequence[Any], most: int) -> dict[int, str]:
    """Pictures spread over the training, by epoch."""
    chosen = sorted({round(place) for place in np.linspace(0, len(events) - 1, most)})
    encoded = {events[i].step: base64.b64encode(events[i].encoded_image_string).decode("ascii") for i in chosen}
    return {step: f"data:image/png;base64,{content}" for step, content in encoded.items()}


def _warnings(validation: Mapping[str, Curve]) -> list[str]:
    if "psnr_gain" not in validation:
        return ["No validation compared results with HR scans. Nothing here shows whether the results are better."]
    last = {tag: gains[-1] for tag, (_, gains) in validation.items() if tag.startswith("psnr_gain")}
    warnings = [
        f"{tag} is {gain:+.2f} dB: the result is no better than its interpolation. Do not use these weights for it."
        for tag, gain in last.items()
        if not gain > 0  # also where it is no number
    ]
    epochs, gains = validation["psnr_gain"]
    if gains.max() > gains[-1] + 0.05:
        best = f"epoch {epochs[gains.argmax()]:.0f} ({gains.max():+.2f} dB)"
        warnings.append(f"The last epoch ({gains[-1]:+.2f} dB) is worse than {best}, which best_model.pt holds.")
    return warnings
