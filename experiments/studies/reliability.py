"""Try to break the software and count the outcomes in experiments/results/reliability/summary.md.

Usage: python -m experiments.studies.reliability [pytest's arguments]

A wrong outcome fails its test. The program then writes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from experiments import RESULTS, ROOT

SUMMARY = RESULTS / "reliability" / "summary.md"
TESTS = (
    "utils/test_atomic.py",
    "utils/test_errors.py",
    "handlers/test_checkpoints.py",
    "handlers/test_weights.py",
    "transforms/test_familiarity.py",
    "transforms/test_geometry.py",
    "transforms/test_intensities.py",
    "workflows/test_faults.py",
)
OUTCOMES = ("right", "recovered", "warned", "harmless", "refused")


def run_tests(tally: Path, arguments: list[str]) -> int:
    """Run every test of reliability, also the slow ones, with many more random cases than `make test`."""
    files = [str(ROOT / "tests" / name) for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=thorough", *files, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "RELIABILITY_TALLY": str(tally)}, check=False
    ).returncode


def summary(lines: list[str]) -> str:
    """A table of cases by outcome, and their totals."""
    cases = [json.loads(line) for line in lines]
    counts = Counter((case["area"], case["case"], case["outcome"]) for case in cases)
    rows = [["area", "what was tried", *OUTCOMES, "wrong"], ["---"] * (len(OUTCOMES) + 3)]
    for area, case in sorted({(area, case) for area, case, _ in counts}):
        rows.append([area, case, *(str(counts[area, case, outcome] or "") for outcome in OUTCOMES), "0"])
    totals = Counter(case["outcome"] for case in cases)
    rows.append(["**all**", "", *(str(totals[outcome]) for outcome in OUTCOMES), "0"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tally"
        path.touch()
        if status := run_tests(path, sys.argv[1:]):
            sys.exit(status)
        SUMMARY.parent.mkdir(parents=True, exist_ok=True)
        left_out = "\n- left out: the tests that take minutes\n" if "not slow" in sys.argv else ""
        SUMMARY.write_text(summary(path.read_text(encoding="utf-8").splitlines()) + left_out, encoding="utf-8")
