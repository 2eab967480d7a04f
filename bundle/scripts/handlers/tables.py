"""Tables of every metric, method and subject: CSV for programs, Markdown for readers."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.handlers import IgniteMetricHandler, from_engine
from monai.utils import CommonKeys, convert_to_tensor, string_list_all_gather
from torch import Tensor, nn

from scripts.handlers.costs import InferenceCosts
from scripts.metrics import (
    VolumeMetric,
    consistency_psnr,
    hfen,
    masked_psnr,
    masked_shift_gain_corrected_psnr,
    masked_ssim,
    psnr,
    psnr_own_maximum,
    shift_gain_corrected_psnr,
    ssim,
    ssim_own_maximum,
)
from scripts.physics.output import acquisition_in
from scripts.utils.atomic import usable_folder, writable_folder

__all__ = ["ComparisonTableHandler", "comparison_metrics"]

logger = logging.getLogger(__name__)


# column: (function, key of the volume to compare with, title, decimals)
METRICS = {
    "psnr_deep": (masked_psnr, "deep_label", "PSNR in deep tissue (dB)", 2),
    "ssim_deep": (masked_ssim, "deep_label", "SSIM in deep tissue", 4),
    "psnr": (psnr, "label", "PSNR (dB)", 2),
    "ssim": (ssim, "label", "SSIM", 4),
    "psnr_corrected_deep": (
        masked_shift_gain_corrected_psnr,
        "deep_label",
        "PSNR in deep tissue, shift and gain corrected (dB)",
        2,
    ),
    "psnr_corrected": (shift_gain_corrected_psnr, "label", "PSNR, shift and gain corrected (dB)", 2),
    "hfen": (hfen, "label", "HFEN", 3),
    "psnr_consistency": (consistency_psnr, "image", "consistency with the acquisition (dB)", 1),
    "psnr_lesion": (masked_psnr, "lesion_label", "PSNR in the lesion (dB)", 2),
    "psnr_own_maximum": (psnr_own_maximum, "label", "PSNR, each divided by its own maximum (dB)", 2),
    "ssim_own_maximum": (ssim_own_maximum, "label", "SSIM, each divided by its own maximum", 4),
}


def comparison_metrics(methods: Sequence[str]) -> dict[str, IgniteMetricHandler]:
    """Every metric for every method, as an evaluator's ``key_val_metric``. The first one is the key metric.

    Args:
        methods: keys of volumes in the evaluator's output.

    Returns:
        handlers by ``<method>_<metric>``.

    Example:
        >>> next(iter(comparison_metrics(["pred", "tricubic"])))
        'pred_psnr_deep'
    """
    return {
        f"{method}_{name}": IgniteMetricHandler(
            VolumeMetric(function),
            output_transform=_as_acquired(method) if other == CommonKeys.IMAGE else from_engine([method, other]),
        )
        for method in methods
        for name, (function, other, _, _) in METRICS.items()
    }


def _as_acquired(method: str) -> Callable[[Sequence[Mapping[str, Any]]], tuple[list[Tensor], list[Tensor]]]:
    """Select a method's volumes and the scans. A volume on the grid of an interpolated scan is acquired again."""

    def select(output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        pairs = []
        for item in output:
            pred, image = (convert_to_tensor(item[key]) for key in (method, CommonKeys.IMAGE))
            acquisition = acquisition_in(getattr(item[CommonKeys.IMAGE], "meta", {}))
            pairs.append((pred, image) if acquisition is None else (acquisition.acquire(pred), item["acquired_scan"]))
        return tuple(map(list, zip(*pairs, strict=True)))

    return select


class ComparisonTableHandler:
    """Write ``subjects.csv`` and ``summary.md`` at the end of an evaluation, and log the summary.

    With several processes the first one writes one table of all subjects, in the order of the ranks.

    Args:
        output_dir: folder to write to.
        methods: titles of the methods by their key. The metrics are those of :func:`comparison_metrics`.
        names: gives the name of an evaluated scan, see :class:`scripts.data.names.ScanNames`.
        notes: lines of the summary about the evaluated data and network, by title.
        network: the network whose costs are measured and noted. None leaves the costs out.
    """

    def __init__(
        self,
        output_dir: PathLike,
        methods: Mapping[str, str],
        names: Callable[[Mapping[str, Any]], str],
        notes: Mapping[str, object] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.output_dir = usable_folder(output_dir)
        self.methods = dict(methods)
        self.names = names
        self.notes = dict(notes or {})
        self.costs = None if network is None else InferenceCosts(network)
        self.subjects: list[str] = []

    def attach(self, engine: Engine) -> None:
        if self.costs is not None:
            self.costs.attach(engine)
        engine.add_event_handler(Events.STARTED, lambda _: writable_folder(self.output_dir))
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.subjects.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._remember_subjects)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _remember_subjects(self, engine: Engine) -> None:
        self.subjects += [self.names(item) for item in engine.state.output]

    def __call__(self, engine: Engine) -> None:
        details = {name: values.flatten() for name, values in engine.state.metric_details.items()}
        subjects = string_list_all_gather(self.subjects)  # the metrics' values have the same order
        if idist.get_rank() > 0:
            return
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with open(self.output_dir / "subjects.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self._rows(subjects, details))
        costs = {} if self.costs is None else self.costs.summary(engine)
        summary = self._summary(details, {"subjects": len(subjects), **self.notes, **costs})
        (self.output_dir / "summary.md").write_text(summary, encoding="utf-8")
        logger.info("Results in %s\n\n%s", self.output_dir, summary.replace("±", "+/-"))  # some terminals are ASCII

    def _rows(self, subjects: Sequence[str], details: Mapping[str, torch.Tensor]) -> list[list[object]]:
        """One row per subject and method, under a header."""
        rows = [
            [subject, method, *(_number(details[f"{method}_{name}"][i]) for name in METRICS)]
            for i, subject in enumerate(subjects)
            for method in self.methods
        ]
        return [["subject", "method", *METRICS], *rows]

    def _summary(self, details: Mapping[str, torch.Tensor], notes: Mapping[str, object]) -> str:
        """Mean ± standard deviation over the subjects, one row per method."""
        measured = [name for name in METRICS if not details[f"{next(iter(self.methods))}_{name}"].isnan().all()]
        rows = [["method", *(METRICS[name][2] for name in measured)], ["---"] * (len(measured) + 1)]
        for method, title in self.methods.items():
            cells = [_mean_and_deviation(details[f"{method}_{name}"], METRICS[name][3]) for name in measured]
            rows.append([title.replace("|", r"\|"), *cells])
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return table + "\n\n" + "\n".join(f"- {title}: {value}" for title, value in notes.items()) + "\n"


def _mean_and_deviation(values: torch.Tensor, decimals: int) -> str:
    """The mean and sample standard deviation over the subjects that have the metric. One subject has no deviation."""
    values = values[~values.isnan()]
    mean = f"{values.mean():.{decimals}f}"
    return mean if len(values) < 2 else f"{mean} ± {values.std():.{decimals}f}"


def _number(value: torch.Tensor) -> str:
    """A cell of the CSV file, empty where a subject has no such value."""
    return "" if value.isnan() else f"{value:.6g}"
