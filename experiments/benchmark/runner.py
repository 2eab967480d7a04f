"""The runner executes the missing rows of a matrix, one after the other.

The folder of a row shows what is done, so that a killed run goes on from its last checkpoint. A process locks the
folder of the row that it executes. The operating system releases the lock when the process and its commands have ended.
Any number of processes may run the same matrix, also on machines that share the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scripts.data.datalist import unpaired_datalist
from scripts.data.demonstration import generate_cohort

from experiments.benchmark.complete import read_record
from experiments.benchmark.execution import execute
from experiments.benchmark.matrix import ROOT, Matrix, Row, read_matrix
from experiments.benchmark.provenance import data_digest

__all__ = ["check_scans", "output_folder", "overview", "prepare", "run"]

logger = logging.getLogger(__name__)

LOCK = ".lock"


def run(
    matrix: str, dataset_dir: str | None = None, output_dir: str | None = None, rows: int | Sequence[int] | None = None
) -> None:
    """Execute the missing rows.

    Args:
        matrix: YAML file.
        dataset_dir: replaces that of the matrix.
        output_dir: folder of the rows; by default ``outputs/benchmark/<name of the matrix>``.
        rows: numbers of the rows to execute, as ``list`` prints them; all by default.

    Raises:
        SystemExit: at the end, when a row failed. The message names the row and its log.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    plan = read_matrix(matrix, dataset_dir)
    output = output_folder(plan, output_dir)
    numbers = list(range(len(plan.rows))) if rows is None else [rows] if isinstance(rows, int) else list(rows)
    if not set(numbers) <= set(range(len(plan.rows))):
        raise ValueError(f"rows must be from 0 to {len(plan.rows) - 1}, got {numbers}. See: list {matrix}")
    data = prepare(plan, output)
    failed = []
    for number in numbers:
        row = plan.rows[number]
        with _lock(output / "rows" / row.name / LOCK, wait=False) as held:
            if held is None:
                logger.info("[%d] %s: another process executes it.", number, row.name)
            elif (record := read_record(output, row)) is None:
                logger.info("[%d] %s starts; %s", number, row.name, progress(plan.rows, output))
                if not execute(row, output / "rows" / row.name, data[row.fold], held):
                    failed.append(row.name)
            else:
                check_scans(output, row, record, data)
    logger.info("%s", progress(plan.rows, output))
    if failed:
        sys.exit("".join(f"{name} failed: see {output / 'rows' / name / 'log.txt'}\n" for name in failed))


def overview(matrix: str, dataset_dir: str | None = None, output_dir: str | None = None) -> None:
    """Print the rows in the order in which they run, and which are done. For the arguments see :func:`run`."""
    plan = read_matrix(matrix, dataset_dir)
    output = output_folder(plan, output_dir)
    for number, row in enumerate(plan.rows):
        record = read_record(output, row)
        print(f"{number:3d}  {row.name:60s}  {'done' if record else ''}")
    print(progress(plan.rows, output))


def output_folder(matrix: Matrix, output_dir: str | None = None) -> Path:
    """The folder of the rows."""
    return ROOT / "outputs" / "benchmark" / matrix.name if output_dir is None else Path(output_dir).resolve()


def prepare(matrix: Matrix, output: Path) -> dict[str, dict[str, str]]:
    """Make the cohort and the datalists, once for all processes.

    Returns:
        by fold the ``datalist``, a file, and the ``digest`` of its scans. The only fold of a matrix has an empty name.
    """
    data = {}
    with _lock(output / LOCK, wait=True):
        source = matrix.content.get("dataset_dir")
        if source is None and "cohort" not in matrix.content:
            raise ValueError(f"{matrix.path}: expected scans or a cohort, got none. Give --dataset_dir DIR.")
        if source is None:
            source = generate_cohort(output / "cohort", **matrix.content["cohort"])
        for fold, groups in matrix.content.get("folds", {"": None}).items():
            path = output / "datalists" / f"{fold or 'all'}.json"
            options = {**matrix.content.get("datalist", {}), **({} if groups is None else {"groups": groups})}
            unpaired_datalist(ROOT / source, **options, output=path)  # an absolute source stays absolute
            datalist = json.loads(path.read_text(encoding="utf-8"))
            digest = data_digest(datalist, output / "datalists" / "digests" / "files.json")
            data[fold] = {"datalist": str(path), "digest": digest}
    return data


def check_scans(output: Path, row: Row, record: Mapping[str, Any], data: Mapping[str, Mapping[str, str]]) -> None:
    """Check that a complete row is one of the scans and groups of :func:`prepare`."""
    if record["data"] != data[row.fold]["digest"]:
        raise ValueError(
            f"{output / 'rows' / row.name}: expected a row of these scans in these groups, got one of others. Remove "
            "the folder to run the row again, or give another --output_dir."
        )


def progress(rows: Sequence[Row], output: Path) -> str:
    """The number of complete rows, and an estimate of the time for the others."""
    seconds = {row: record["seconds"] for row in rows if (record := read_record(output, row))}
    missing = [row for row in rows if row not in seconds]
    count = f"{len(seconds)} of {len(rows)} rows done"
    if not missing:
        return f"{count}."
    if not seconds:
        return f"{count}; the first rows will show how much time is left."
    minutes = sum(estimate(row, seconds) for row in missing) / 60
    return f"{count}; about {minutes:.0f} minutes left for one process."


def estimate(row: Row, seconds: Mapping[Row, float]) -> float:
    """Seconds that a row will take: the mean over its system, else over its kind (trained or not), else over all."""
    alike = (
        [t for other, t in seconds.items() if other.system == row.system and other.network == row.network],
        [t for other, t in seconds.items() if bool(other.stages()) == bool(row.stages())],
        list(seconds.values()),
    )
    return mean(next(times for times in alike if times))


@contextlib.contextmanager
def _lock(path: Path, wait: bool) -> Iterator[int | None]:
    """Lock a file and yield its descriptor, or None when another process holds the lock and ``wait`` is false.

    Commands inherit the descriptor. A command that outlives its runner thus keeps the row locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield file.fileno()
