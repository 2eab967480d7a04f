"""One head at 1 mm from the start of the program to its page, as a user runs it: seconds and peak memory.

Usage: python -m experiments.speed.head [EDGE [CONDITION ...]]

The head is synthetic, EDGE x 1.2 EDGE x 1.2 EDGE voxels, by default 160 x 192 x 192. All options are those of
inference.yaml: error bars and a page are on. Conditions are those of experiments.speed.inference.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.speed.common import conditions, in_child, machine, memory, neighbour, on_cores, save, table
from experiments.speed.workflows import super_resolve, write_scan

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "defaults: error bars and page": {"report": True},
    "without error bars and page": {"error_bars": False},
}


def measure(scan: Path, output: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What :func:`super_resolve` measures, by settings and condition."""
    runs: dict[str, dict[str, Any]] = {}
    for title, overrides in SETTINGS.items():
        for condition, (cores, core) in conditions(names).items():
            with on_cores(cores), neighbour(core):
                runs[f"{title}, {condition.replace('_', ' ')}"] = run = in_child(
                    super_resolve, scan, output, dict(overrides)
                )
            print(title, condition, run, flush=True)
    return runs


def main(edge: int = 160, *names: str) -> None:
    size = [edge, edge * 6 // 5, edge * 6 // 5]
    output = 4 * 8 * size[0] * size[1] * size[2] / 2**30
    record: dict[str, Any] = {"machine": machine(), "size": size, "output (GiB)": output}
    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "head.nii.gz"
        in_child(write_scan, scan, size, 1.0)  # in a child, because a process inherits the peak memory of its parent
        record["runs"] = measure(scan, Path(folder) / "output", names or ("quiet", "busy"))
    rows = []
    for title, run in record["runs"].items():
        above = (run["peak memory"] - run["memory before"]) / output
        share = f"{100 * run['network'] / run['seconds']:.0f} %"
        rows.append([title, f"{run['wall seconds']:.0f}", share, memory(run), f"{above:.1f}"])
    header = ["one head at 1 mm", "seconds", "in the network", "peak memory (GiB)", "above the start, in outputs"]
    by = " x ".join(map(str, size))
    note = f"- {by} voxels to {' x '.join(str(2 * n) for n in size)}; one float32 output is {output:.2f} GiB"
    save("head", record, f"{table(header, rows)}\n{note}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
