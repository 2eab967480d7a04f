"""A folder of scans: reading, super-resolution and writing at the same time, or one after the other.

Usage: python -m experiments.speed.folder [SCANS]

The program runs inference.yaml on synthetic scans with the shipped weights and all cores. Seconds are wall time. The
machine should do nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.speed.common import in_child, machine, memory, save, table
from experiments.speed.inference import AT_ONCE, CHANNELS_FIRST, CUBES, FLOAT32, WINDOWS
from experiments.speed.workflows import super_resolve, write_scan

SIZE = (96, 96, 96)
ONE_BY_ONE = {"evaluator::overlap": False, "dataloader": {"_target_": "DataLoader", "dataset": "@dataset"}}
WAYS: Mapping[str, Mapping[str, Any]] = {
    f"float32, channels first, {WINDOWS}, one after the other: plain": {
        **FLOAT32,
        **CHANNELS_FIRST,
        **AT_ONCE,
        **CUBES,
        **ONE_BY_ONE,
    },
    "ours, one after the other": ONE_BY_ONE,
    "ours": {},
}


def main(scans: int = 6) -> None:
    record: dict[str, Any] = {"machine": machine(), "size": list(SIZE), "scans": scans, "ways": {}}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(scans):
            write_scan(Path(folder) / "scans" / f"scan{seed}.nii.gz", SIZE, seed=seed)
        for i, (title, overrides) in enumerate(WAYS.items()):
            record["ways"][title] = in_child(super_resolve, Path(folder) / "scans", Path(folder) / str(i), overrides)
    plain = next(iter(record["ways"].values()))["wall seconds"]
    rows = [
        [title, f"{way['wall seconds']:.1f}", f"{plain / way['wall seconds']:.2f}", memory(way)]
        for title, way in record["ways"].items()
    ]
    header = [f"{scans} scans of {' x '.join(map(str, SIZE))}", "wall seconds", "times as fast", "peak memory (GiB)"]
    save("folder", record, table(header, rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
