"""Interruption: Ctrl-C during an inference leaves an outcome for every scan, and the exit status 130."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from monai.config import PathLike
from monai.utils import CommonKeys

from scripts.data.datasets import FAULT, LEFT_OUT
from scripts.engines.scan_evaluator import Outcome, ScanEvaluator, recorded, report_outcomes
from scripts.transforms.saving import Derivatives
from scripts.utils.atomic import writable_folder
from scripts.utils.distributed import rank

__all__ = ["run_scans"]

REMARK = "interrupted before this scan was finished. Run the same command again."


def run_scans(
    evaluator: ScanEvaluator | None, output_dir: PathLike, scans: Sequence[Mapping[str, str]] | None = None
) -> None:
    """Run an evaluator. After Ctrl-C, finish the scan that is being written, and write the summary.

    Of several processes the first one writes the summary. It finds the results of the others in the output folder.

    Args:
        evaluator: holds the scans of this process. None for a process without scans.
        output_dir: folder of the results and of the summary.
        scans: items of all processes. By default those of the evaluator.

    Raises:
        OSError: when there cannot be such a folder, or it cannot be written to.
        KeyboardInterrupt: after Ctrl-C, when the summary is written.
    """
    if evaluator is None:
        return
    writable_folder(output_dir)
    with _one_interrupt():
        try:
            evaluator.run()
        except KeyboardInterrupt:
            if rank() == 0:
                dataset = evaluator.data_loader.dataset
                finished = {outcome.scan: outcome for outcome in evaluator.state.outcomes}
                items = dataset.data if scans is None else scans
                outcomes = [
                    finished.get(str(item[CommonKeys.IMAGE])) or _unfinished(item, dataset.derivatives)
                    for item in items
                ]
                with suppress(RuntimeError):  # it names the scans without a result
                    report_outcomes(outcomes, output_dir, evaluator.pages)
            raise


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Raise the first Ctrl-C alone, because torchrun sends a second one while the summary is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unfinished(item: Mapping[str, str], derivatives: Derivatives | None) -> Outcome:
    scan = str(item[CommonKeys.IMAGE])
    if LEFT_OUT in item:
        return Outcome(scan, "left out", remarks=item[LEFT_OUT])
    if FAULT not in item and derivatives is not None:
        with suppress(Exception):  # a scan that cannot be read has no result
            if record := derivatives.finished(scan):
                return recorded(scan, "kept", record)
    return Outcome(scan, "failed", remarks=item.get(FAULT, REMARK))
