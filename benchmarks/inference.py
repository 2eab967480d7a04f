"""A whole brain from reading to writing by the papers' network: the plain way, ours, and what lies between.

Usage: python -m benchmarks.inference [REPEATS [SIZE SIZE SIZE]]

The scan is synthetic, with planes of the size of a degraded HCP scan's and, to compare the ways, a few of its
sagittal slices, each of which costs the same; the whole scan passes besides, in a process of its own, for the memory.
Axes are right, anterior, superior. The network is untrained.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.common import PAPERS, in_child, machine, matmul_rates, save, spread, table
from benchmarks.workflows import super_resolve, write_scan

HCP, FEW = (128, 160, 160), (8, 160, 160)
PLAIN: dict[str, Any] = {
    **PAPERS,
    "amp_dtype": "$None",
    "network": "$@network_def.to(@device)",
    "network_def#slabs_per_pass": 1,
}
TILES = {"inferer#inferer#roi_size": [64, 64, -1]}
OURS = "bfloat16, channels_last, 8 slabs of 64 x 64 at once: ours"
THIRD = f"{OURS}, a slab every three slices"
REFERENCE = "float32, NCHW, one slab at once: plain"
VARIANTS: dict[str, dict[str, Any]] = {
    f"{REFERENCE}, windows of 64 x 64, overlap 0.25": {**PLAIN, **TILES},
    REFERENCE: PLAIN,
    "float32, channels_last": {**PAPERS, "amp_dtype": "$None"},
    "bfloat16, NCHW": {**PAPERS, "network": PLAIN["network"]},
    OURS: PAPERS,
    f"{OURS}, windows of 64 x 64, overlap 0.25": {**PAPERS, **TILES},
    THIRD: {**PAPERS, "network_def#slab_step": 3},
}


def agreement(output: Path, reference: Path) -> float:
    """PSNR in dB of one result with respect to another, data range the maximum of the latter."""
    values, expected = (nib.load(next(folder.rglob("*.nii.gz"))).get_fdata() for folder in (output, reference))
    return float(-10 * np.log10(np.mean(((values - expected) / expected.max()) ** 2)))


def measure(folder: Path, size: tuple[int, ...], repeats: int) -> dict[str, dict[str, Any]]:
    """Every variant in turn, ``repeats`` times."""
    scan = write_scan(folder / "scan.nii.gz", size)
    runs: dict[str, list[dict[str, float]]] = {title: [] for title in VARIANTS}
    outputs = {title: folder / str(i) for i, title in enumerate(VARIANTS)}
    for _ in range(repeats):
        for title, overrides in VARIANTS.items():
            runs[title].append(super_resolve(scan, outputs[title], overrides))
            print(title, runs[title][-1], flush=True)
    return {
        title: {
            "seconds": spread([run["seconds"] for run in measured]),
            "network seconds": spread([run["network"] for run in measured]),
            "gflop": measured[0]["gflop"],
            "agreement with float32 (dB)": agreement(outputs[title], outputs[REFERENCE]),
        }
        for title, measured in runs.items()
    }


def main(repeats: int = 2, *size: int) -> None:
    record = {"machine": machine(), "matrix product (GFLOP/s)": matmul_rates(), "size": list(size or FEW)}
    with tempfile.TemporaryDirectory() as folder:
        record["variants"] = measure(Path(folder), size or FEW, repeats)
        whole = write_scan(Path(folder) / "whole.nii.gz", HCP)
        record["whole scan"] = in_child(super_resolve, whole, Path(folder) / "whole", VARIANTS[THIRD])
    limit = record["matrix product (GFLOP/s)"]["bfloat16"]
    plain = record["variants"][REFERENCE]["seconds"]["median"]
    rows = []
    for title, row in record["variants"].items():
        row["GFLOP/s"] = round(row["gflop"] / row["network seconds"]["median"])
        row["share of the bfloat16 matrix rate"] = round(row["GFLOP/s"] / limit, 3)
        row["times as fast as plain"] = round(plain / row["seconds"]["median"], 2)
        near = row["agreement with float32 (dB)"]
        rows.append(
            [
                title,
                f"{row['seconds']['median']:.1f} ({row['seconds']['least']:.1f} to {row['seconds']['most']:.1f})",
                f"{row['times as fast as plain']:.2f}",
                row["GFLOP/s"],
                f"{100 * row['share of the bfloat16 matrix rate']:.0f} %",
                "" if near > 150 else f"{near:.1f}",
            ]
        )
    header = ["way", "seconds", "times as fast as plain", "network GFLOP/s", "of the bfloat16 matrix rate"]
    text = table([*header, "agreement with plain float32 (dB)"], rows)
    whole = record["whole scan"]
    cells = [" x ".join(map(str, HCP)), f"{whole['seconds']:.1f}", f"{whole['peak memory']:.2f}"]
    text += "\n" + table(["the whole scan, ours, a slab every three slices", "seconds", "peak memory (GiB)"], [cells])
    save("inference", record, text)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
