"""Interruption: Ctrl-C leaves a summary in which every scan has an outcome."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts.engines.interruption import run_scans
from scripts.engines.scan_evaluator import Outcome


def evaluator(finished: int, error: BaseException | None) -> SimpleNamespace:
    """Three scans, of which some are finished when the run ends."""
    scans = ["a.nii", "M\udcfcller.nii", "c.nii"]
    state = SimpleNamespace(outcomes=[])

    def run() -> None:
        state.outcomes += [Outcome(scan, "done", 41.0) for scan in scans[:finished]]
        if error is not None:
            raise error

    loader = SimpleNamespace(dataset=SimpleNamespace(data=[{"image": scan} for scan in scans], derivatives=None))
    return SimpleNamespace(state=state, run=run, data_loader=loader, pages=None)


@pytest.mark.parametrize("finished", [0, 2, 3])
def test_after_ctrl_c_the_summary_has_every_scan(tmp_path, finished):
    with pytest.raises(KeyboardInterrupt):
        run_scans(evaluator(finished, KeyboardInterrupt()), tmp_path)
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["scan"] for row in rows] == ["a.nii", "M\\udcfcller.nii", "c.nii"]
    assert [row["result"] for row in rows] == ["done"] * finished + ["failed"] * (3 - finished)
    assert all(row["remarks"].startswith("interrupted") for row in rows[finished:])


def test_after_ctrl_c_a_scan_that_is_left_out_stays_so(tmp_path):
    unfinished = evaluator(0, KeyboardInterrupt())
    unfinished.data_loader.dataset.data[1:] = [{"image": "b", "left_out": "hidden"}, {"image": "c", "fault": "lost"}]
    with pytest.raises(KeyboardInterrupt):
        run_scans(unfinished, tmp_path)
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["result"] for row in rows] == ["failed", "left out", "failed"]
    assert rows[2]["remarks"] == "lost"


def test_the_first_process_lists_the_scans_of_all(tmp_path):
    interrupted = evaluator(1, KeyboardInterrupt())
    records = {"other.nii": {"ConsistencyPSNR": 40.5}}
    interrupted.data_loader.dataset.derivatives = SimpleNamespace(finished=records.get)
    scans = [{"image": name} for name in ("a.nii", "other.nii", "late.nii")]
    with pytest.raises(KeyboardInterrupt):
        run_scans(interrupted, tmp_path, scans)
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text(encoding="utf-8").splitlines()))
    found = [(row["scan"], row["result"], row["consistency_psnr"]) for row in rows]
    assert found == [("a.nii", "done", "41.0"), ("other.nii", "kept", "40.5"), ("late.nii", "failed", "")]


def test_a_second_ctrl_c_does_not_prevent_the_summary(tmp_path):
    interrupted = evaluator(1, None)

    def run() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    interrupted.run = run
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_scans(interrupted, tmp_path)
    assert (tmp_path / "summary.csv").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_without_scans_does_nothing(tmp_path):
    run_scans(None, tmp_path, [{"image": "a.nii"}])
    assert list(tmp_path.iterdir()) == []


def test_another_error_and_a_whole_run_pass(tmp_path):
    with pytest.raises(ValueError, match="other"):
        run_scans(evaluator(1, ValueError("other")), tmp_path)
    run_scans(evaluator(3, None), tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
