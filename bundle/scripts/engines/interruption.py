"""Interruption: Ctrl-C during an inference leaves an outcome for every scan, and the exit status 130."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from monai.config import PathLike
from monai.utils import CommonKeys

from scripts.data.datasets import FAULT, LEFT_OUT
from scripts.engines.scan_evaluator import Outcome, ScanEvaluator, report_outcomes

__all__ = ["run_scans"]

REMARK = "interrupted before this scan was finished. Run the same command again."


def run_scans(evaluator: ScanEvaluator, output_dir: PathLike) -> None:
    """Run an evaluator. After Ctrl-C, finish the scan that is being written, and write the summary.

    Args:
        evaluator: holds the scans.
        output_dir: folder of the results and of the summary.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the summary is written.
    """
    try:
        evaluator.run()
    except KeyboardInterrupt as interrupt:
        outcomes = evaluator.state.outcomes
        outcomes += [_unfinished(item) for item in evaluator.data_loader.dataset.data[len(outcomes) :]]
        with suppress(RuntimeError):  # it names the scans without a result
            report_outcomes(outcomes, output_dir)
        raise interrupt


def _unfinished(item: Mapping[str, str]) -> Outcome:
    scan = str(item[CommonKeys.IMAGE])
    if LEFT_OUT in item:
        return Outcome(scan, "left out", remarks=item[LEFT_OUT])
    return Outcome(scan, "failed", remarks=item.get(FAULT, REMARK))
