"""A folder of heads: reading, super-resolution and writing at the same time, or one after the other.

Usage: python -m experiments.speed.folder [HEADS [EDGE [CONDITION ...]]]

The program runs inference.yaml on synthetic heads of EDGE^3 voxels with the shipped weights, under each CONDITION of
experiments.speed.inference, by default quiet and busy. Seconds are wall time. The plain way restores one head in each
condition, and its seconds are multiplied by the number of heads.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.speed.common import conditions, in_child, machine, memory, neighbour, on_cores, save, table
from experiments.speed.inference import PLAIN, WINDOWS
from experiments.speed.workflows import super_resolve, write_scan

ONE_BY_ONE = {"evaluator::overlap": False, "dataloader": {"_target_": "DataLoader", "dataset": "@dataset"}}
PLAINLY = f"float32, channels first, {WINDOWS}, gzip by nibabel, one after the other: plain"
WAYS: Mapping[str, Mapping[str, Any]] = {PLAINLY: PLAIN, "ours, one after the other": ONE_BY_ONE, "ours": {}}


def measure(folder: Path, heads: int, edge: int, *names: str) -> dict[str, dict[str, Any]]:
    """Each way on a folder of heads: ``wall seconds`` by condition, and what one run measured."""
    for seed in range(heads):
        write_scan(folder / "heads" / f"head{seed}.nii.gz", (edge,) * 3, seed=seed)
    runs: dict[str, dict[str, Any]] = {title: {"wall seconds": {}} for title in WAYS}
    for condition, (cores, core) in conditions(names).items():
        for number, (title, overrides) in enumerate(WAYS.items()):
            options = dict(overrides)
            stock = options.pop("stock", ())
            scans, times = (folder / "heads" / "head0.nii.gz", heads) if title == PLAINLY else (folder / "heads", 1)
            with on_cores(cores), neighbour(core):
                run = in_child(super_resolve, scans, folder / str(number), options, (), stock)
            print(condition, title, run, flush=True)
            seconds = times * run.pop("wall seconds")
            runs[title] = {**run, "wall seconds": {**runs[title]["wall seconds"], condition: seconds}}
    return runs


def tables(record: Mapping[str, Any]) -> str:
    """Markdown."""
    ways = record["ways"]
    plain = ways[PLAINLY]["wall seconds"]
    rows = [
        [
            title,
            *(x for name, s in way["wall seconds"].items() for x in (f"{s:.1f}", f"{plain[name] / s:.2f}")),
            memory(way),
        ]
        for title, way in ways.items()
    ]
    columns = [cell for name in plain for cell in (f"{name.replace('_', ' ')} (s)", "times as fast")]
    edge = record["edge"]
    return table([f"{record['heads']} heads of {edge} x {edge} x {edge}", *columns, "peak memory (GiB)"], rows)


def main(heads: int = 20, edge: int = 96, *names: str) -> None:
    record: dict[str, Any] = {"machine": machine(), "edge": edge, "heads": heads}
    with tempfile.TemporaryDirectory() as folder:
        record["ways"] = measure(Path(folder), heads, edge, *(names or ("quiet", "busy")))
    save("folder", record, tables(record) + "\n- plain: one head, times the number of heads")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
