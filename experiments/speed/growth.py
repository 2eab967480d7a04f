"""The growth of time and peak memory with the volume, overlap, orientations and the number of volumes.

Usage: python -m experiments.speed.growth [LARGEST]

The program runs inference.yaml on synthetic scans with the shipped weights. Data consistency is on, because it takes
most of the memory. LARGEST is the edge of the largest low-resolution cube in voxels (default 256). Each run is a
process of its own. Without a cube of 512 voxels, the table extrapolates its last line from the largest cube.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.speed.common import in_child, machine, memory, save, table
from experiments.speed.workflows import super_resolve, write_scan

EDGES = (64, 128, 256, 512)
EXTRAPOLATED = 512
TURNED = {"orientations": [[0, 1, 2], [1, 2, 0], [2, 0, 1]]}
CONSISTENT = {"data_consistency": "soft"}  # auto would switch it off, because a synthetic scan is no head
UNLIMITED = {"largest": (2 * EDGES[-1]) ** 3}  # voxels of the output grid
TILED = {"inferer::inferer::roi_size": [32, 32, 32]}


def settings() -> dict[str, tuple[int, int, dict[str, Any]]]:
    """Edge, number of volumes and overrides by title."""
    overlaps = {
        f"64^3, windows of 32^3, overlap {overlap}": (64, 1, {**TILED, "inferer::inferer::overlap": overlap})
        for overlap in (0, 0.5)
    }
    volumes = {f"64^3, {n} volumes": (64, n, {}) for n in (2, 4)}
    return {**overlaps, "64^3, three orientations": (64, 1, TURNED), **volumes}


def extrapolated(run: dict[str, Any], edge: int) -> dict[str, Any]:
    """The cost of a larger cube, if all costs above the memory before the run grow with its voxels."""
    times = edge**3 / run["voxels"]
    grown = {name: times * run[name] for name in ("seconds", "wall seconds", "network", "voxels", "output (GiB)")}
    above = times * (run["peak memory"] - run["memory before"])
    memories = {"memory before": run["memory before"], "peak memory": run["memory before"] + above}
    return {**grown, **memories, "peak GPU memory": run["peak GPU memory"] and times * run["peak GPU memory"]}


def tables(record: Mapping[str, Any]) -> str:
    """Markdown, with a last line for the cube that was not measured."""
    runs = dict(record["runs"])
    if f"{EXTRAPOLATED}^3" not in runs:
        largest = max(n for n in EDGES if f"{n}^3" in runs)
        runs[f"{EXTRAPOLATED}^3, extrapolated, not measured"] = extrapolated(runs[f"{largest}^3"], EXTRAPOLATED)
    rows = [
        [
            title,
            f"{run['wall seconds']:.1f}",
            f"{run['network'] / run['seconds']:.0%}".replace("%", " %"),
            f"{1e6 * run['wall seconds'] / run['voxels']:.2f}",
            memory(run),
            f"{run['peak memory'] - run['memory before']:.2f}",
            f"{run['output (GiB)']:.3f}",
        ]
        for title, run in runs.items()
    ]
    header = ["low-resolution volume", "seconds", "in the network", "microseconds per voxel", "peak memory (GiB)"]
    return table([*header, "above the start (GiB)", "outputs in float32 (GiB)"], rows)


def main(largest: int = 256) -> None:
    record: dict[str, Any] = {"machine": machine(), "runs": {}}
    sizes = {f"{n}^3": (n, 1, {}) for n in EDGES if n <= largest}
    for title, (edge, count, overrides) in {**sizes, **settings()}.items():
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(count):
                scan = Path(folder) / "scans" / f"scan{seed}.nii.gz"
                # in a child, because the measured process inherits the peak memory of this one
                in_child(partial(write_scan, scan, (edge,) * 3, seed=seed))
            run = in_child(
                super_resolve, Path(folder) / "scans", Path(folder) / "output", {**CONSISTENT, **UNLIMITED, **overrides}
            )
        run["output (GiB)"] = round(count * (2 * edge) ** 3 * 4 / 2**30, 3)
        run["voxels"] = count * edge**3
        record["runs"][title] = run
        print(title, run, flush=True)
    save("growth", record, tables(record))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
