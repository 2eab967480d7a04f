"""Inference on folders of scans: each scan has its own outcome, and a summary lists them."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from monai.config import PathLike
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, apply_transform
from monai.utils import CommonKeys

from scripts.data.datasets import FAULT, LEFT_OUT, SCAN
from scripts.transforms.saving import RECORD
from scripts.utils.atomic import write_text_atomically
from scripts.utils.distributed import rank, world_size
from scripts.utils.errors import explain, one_line

if TYPE_CHECKING:  # a run without pages imports no plotting
    from scripts.reports.dataset import ScanPages

__all__ = ["Outcome", "ScanEvaluator", "recorded", "report_all_outcomes", "report_outcomes"]

logger = logging.getLogger(__name__)

SUMMARY = "summary.csv"
RESULTS = ("done", "kept", "failed", "left out")


class Outcome(NamedTuple):
    """The outcome of one scan.

    Args:
        scan: its path.
        result: one of :data:`RESULTS`. "kept" is a result of an earlier run.
        consistency_psnr: agreement of the prediction with the scan in dB, or empty.
        remarks: reason of a failure or of leaving the scan out, or warnings.
        assumed: how the scan was acquired, and the output grid, as far as the run found out.
    """

    scan: str
    result: str
    consistency_psnr: float | str = ""
    remarks: str = ""
    assumed: str = ""


class ScanEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for batches of one scan from a :class:`~scripts.data.datasets.ScanDataset`.

    A scan with an error does not stop the others. After a run ``state.outcomes`` holds one :class:`Outcome` per scan,
    in the order of the scans. While the network processes a scan, the previous one is postprocessed and written. At
    most one scan waits, so that memory does not grow with the number of scans.

    Args:
        overlap: False postprocesses each scan before the next is read.
        pages: called with each scan when its result is saved; None writes no pages.
        options: arguments of the base class.

    Raises:
        RuntimeError: by ``run``, if a scan of the dataset has no outcome.
    """

    def __init__(self, *args: Any, overlap: bool = True, pages: ScanPages | None = None, **options: Any) -> None:
        self.overlap = overlap
        self.pages = pages
        self._postprocess: Sequence[Callable] = ()
        self._unfinished: Future[Outcome] | None = None
        super().__init__(*args, **options)

    def _register_postprocessing(self, posttrans: Callable) -> None:
        """Keep the transforms for :meth:`_postprocessed` instead of attaching them to the iteration."""
        self._postprocess = Compose(posttrans).flatten().transforms

    def run(self, global_epoch: int = 1) -> None:
        self.state.outcomes = []
        with ThreadPoolExecutor(max_workers=1) as self._writer:
            try:
                super().run(global_epoch)
            finally:  # also after Ctrl-C
                self._finish()
        self._check_complete()

    def _check_complete(self) -> None:
        """Check that no scan is missing, because MONAI's ``ThreadDataLoader`` swallows exceptions."""
        expected = [str(item[CommonKeys.IMAGE]) for item in self.data_loader.dataset.data]
        got = [outcome.scan for outcome in self.state.outcomes]
        if got != expected:
            raise RuntimeError(
                f"expected an outcome for each of {len(expected)} scans in their order, got {got}: reading stopped. To "
                "see why, give --dataloader \"{'_target_': 'DataLoader', 'dataset': '@dataset', 'batch_size': 1}\"."
            )

    def _iteration(self, engine: ScanEvaluator, batchdata: Mapping[str, Any]) -> Any:
        (scan,) = batchdata[SCAN]
        if FAULT in batchdata:
            self._finish(Outcome(scan, "failed", remarks=batchdata[FAULT][0]))
        elif LEFT_OUT in batchdata:
            self._finish(Outcome(scan, "left out", remarks=batchdata[LEFT_OUT][0]))
        elif RECORD in batchdata:
            self._finish(recorded(scan, "kept", json.loads(batchdata[RECORD][0])))
        else:
            self._predict(scan, batchdata)
        engine.state.output = {}
        return engine.state.output

    def _predict(self, scan: str, batchdata: Mapping[str, Any]) -> None:
        try:
            super()._iteration(self, batchdata)
        except Exception as error:
            self._finish(_failed(scan, error))
            return
        self._finish()
        (batch,), (output,) = self.state.batch, self.state.output
        self._unfinished = self._writer.submit(self._postprocessed, scan, batch, output)
        if not self.overlap:
            self._finish()

    @torch.no_grad()  # each thread has its own setting
    def _postprocessed(self, scan: str, batch: dict[str, Any], output: dict[str, Any]) -> Outcome:
        item = {**batch, **output}
        for given in (batch, output):  # frees large volumes that others still refer to
            given.clear()
        try:
            for transform in self._postprocess:
                item = apply_transform(transform, item)
        except Exception as error:
            return _failed(scan, error)
        if self.pages is not None:
            self.pages(item)
        return recorded(scan, "done", item[CommonKeys.PRED].meta[RECORD])

    def _finish(self, *outcomes: Outcome) -> None:
        """Wait for the scan that is being postprocessed, and record its outcome and those of the scans after it."""
        pending, self._unfinished = self._unfinished, None
        for outcome in (*([pending.result()] if pending else []), *outcomes):
            if outcome.remarks:
                level = logging.INFO if outcome.result == "left out" else logging.WARNING
                logger.log(level, _remark(outcome))
            self.state.outcomes.append(outcome)


def _failed(scan: str, error: Exception) -> Outcome:
    logger.debug("%s", scan, exc_info=error)
    return Outcome(scan, "failed", remarks=explain(error))


def recorded(scan: str, result: str, record: Mapping[str, Any]) -> Outcome:
    """The outcome of a scan whose result has a record, see :class:`scripts.transforms.saving.Derivatives`."""
    remarks = one_line(" ".join(record.get("Warnings", [])))
    return Outcome(scan, result, record.get("ConsistencyPSNR", ""), remarks, record.get("Assumed", ""))


def report_outcomes(outcomes: Sequence[Outcome], output_dir: PathLike, pages: ScanPages | None = None) -> None:
    """Write ``summary.csv`` and the index of the pages, log the table, and raise an error if a scan failed.

    Args:
        outcomes: the outcome of each scan.
        output_dir: folder of the results.
        pages: of the scans; None without pages.

    Raises:
        RuntimeError: when a scan failed. The message names each failed scan and its reason.

    Example:
        >>> import tempfile
        >>> report_outcomes([Outcome("scan.nii", "done", 41.2)], tempfile.mkdtemp())
    """
    table = io.StringIO(newline="")
    csv.writer(table).writerows([Outcome._fields, *outcomes])
    logger.info("Results in %s\n\n%s\n", output_dir, "\n".join(_rows(outcomes)))  # also where the disk is full
    write_text_atomically(Path(output_dir) / SUMMARY, table.getvalue())
    if pages is not None:
        pages.write_index(outcomes)
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    if failed:
        reasons = "\n".join(f"- {_remark(outcome)}" for outcome in failed)
        count = sum(outcome.result != "left out" for outcome in outcomes)
        rest = f"the others are in {output_dir}" if len(failed) < count else "none was restored"
        raise RuntimeError(
            f"{len(failed)} of {count} scans failed; {rest}.\n{reasons}\n"
            "Correct or remove them and run the same command again: only what is missing is made."
        )


def _remark(outcome: Outcome) -> str:
    """The remark, with the scan's path if it lacks it."""
    named = one_line(outcome.scan, len(outcome.scan)) in outcome.remarks
    return outcome.remarks if named else f"{_printable(outcome.scan)}: {outcome.remarks}"


def _printable(path: str) -> str:
    """A path in one line. Signs that would break the line are written as in Python."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in path)


def _rows(outcomes: Sequence[Outcome]) -> list[str]:
    """The table in plain characters, with a line of counts."""
    rows = [("result", "consistency (dB)", "scan", "remarks")]
    for outcome in outcomes:
        psnr = outcome.consistency_psnr
        rows.append((outcome.result, psnr if psnr == "" else f"{psnr:.1f}", _printable(outcome.scan), outcome.remarks))
    counts = Counter(outcome.result for outcome in outcomes)
    total = ", ".join(f"{counts[result]} {result}" for result in RESULTS)
    width = max(len(row[2]) for row in rows)
    return [*(f"{a:8} {b:>16}  {c:{width}}  {d}".rstrip() for a, b, c, d in rows), "", total]


def report_all_outcomes(outcomes: Sequence[Outcome], output_dir: PathLike, pages: ScanPages | None = None) -> None:
    """Report the outcomes of all ranks on the first rank, see :func:`report_outcomes`.

    Args:
        outcomes: the outcomes of this rank's scans.
        output_dir: folder of the results.
        pages: see there.
    """
    shares = [list(outcomes)] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(shares, list(outcomes))
    if rank() == 0:
        report_outcomes(sorted(outcome for share in shares for outcome in share), output_dir, pages)
