"""The outcomes of scans: the table in the log has one line per scan, whatever the scans are called."""

from __future__ import annotations

import csv
import logging

import pytest
from scripts.engines.scan_evaluator import Outcome, report_outcomes

NAME = "new\nline\u2028\udcff.nii"


def test_a_name_with_a_line_break_stays_one_line_of_the_table(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report_outcomes([Outcome(NAME, "done", 41.0), Outcome("b.nii", "done", 41.0)], tmp_path)
    lines = caplog.messages[0].splitlines()
    assert [line.split()[2] for line in lines if line.startswith("done")] == [r"new\nline\u2028\udcff.nii", "b.nii"]
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["scan"] == "new\nline\u2028\\udcff.nii"


@pytest.mark.parametrize("remarks", ["new line \udcff.nii: damaged", "damaged"])
def test_a_failure_names_its_scan_once(tmp_path, remarks):
    with pytest.raises(RuntimeError, match="1 of 1 scans failed") as error:
        report_outcomes([Outcome(NAME, "failed", remarks=remarks)], tmp_path)
    reasons = [line for line in str(error.value).split("\n") if line.startswith("- ")]
    assert len(reasons) == 1
    assert reasons[0].count(".nii") == 1
