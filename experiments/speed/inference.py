"""A whole scan from reading to writing: the plain way, ours, and the ways between.

Usage: python -m experiments.speed.inference [shipped | papers]

The scan is synthetic and has the size of a degraded HCP scan, along right, anterior and superior. The papers' network
is untrained. Every run is a process of its own, which measures its own peak memory.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from experiments.speed.common import (
    ON_GPU,
    PAPERS_INFER,
    SHIPPED,
    in_child,
    machine,
    matmul_rates,
    memory,
    save,
    table,
)
from experiments.speed.workflows import super_resolve, write_scan

HCP = (128, 160, 160)
CHANNELS_FIRST = {"network": "$@network_def.to(@device)"}
FLOAT32 = {"amp_dtype": "$None"}
AT_ONCE = {"network_def::voxels_per_pass": 2**30}
CUBES, TILES = ({"inferer::inferer::roi_size": [64, 64, depth]} for depth in (64, -1))
WINDOWS = "windows of 64^3, overlap 0.25"
Ways = Mapping[str, Mapping[str, Any]]
VOLUMETRIC: Ways = {  # the first is the plain way, the second the reference
    f"float32, channels first, {WINDOWS}: plain": {**FLOAT32, **CHANNELS_FIRST, **AT_ONCE, **CUBES},
    "float32, channels_last, whole volume in parts that fit the cache: reference": FLOAT32,
    f"float32, channels_last, {WINDOWS}": {**FLOAT32, **AT_ONCE, **CUBES},
    f"bfloat16, channels_last, {WINDOWS}": {**AT_ONCE, **CUBES},
    "bfloat16, channels_last, whole volume at once": AT_ONCE,
    "bfloat16, channels_last, whole volume in parts that fit the cache: ours": {},
}
SINGLE = {**FLOAT32, **CHANNELS_FIRST, "network_def::slabs_per_pass": 1}
SLABS: Ways = {
    "float32, channels first, one slab at once, tiles of 64 x 64, overlap 0.25: plain": {**SINGLE, **TILES},
    "float32, channels first, one slab at once, whole planes: reference": SINGLE,
    "bfloat16, channels_last, several slabs at once, tiles of 64 x 64, overlap 0.25": TILES,
    "bfloat16, channels_last, several slabs at once, whole planes: ours": {},
    "ours, a slab every three slices": {"network_def::slab_step": 3},
}
FLOAT16: Ways = {"ours, in float16": {"amp_dtype": "float16"}} if ON_GPU else {}  # processors compute it slowly
CASES = {"shipped": (SHIPPED, {**VOLUMETRIC, **FLOAT16}), "papers": (PAPERS_INFER, {**SLABS, **FLOAT16})}


def agreement(output: Path, reference: Path) -> float:
    """PSNR (dB) of one result with respect to another, whose maximum is the data range."""
    values, expected = (nib.load(next(folder.rglob("*.nii.gz"))).get_fdata() for folder in (output, reference))
    return float(-10 * np.log10(np.mean(((values - expected) / expected.max()) ** 2)))


def measure(folder: Path, ways: Ways, overlays: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure every way once."""
    scan = write_scan(folder / "scan.nii.gz", HCP)
    outputs = {title: folder / str(i) for i, title in enumerate(ways)}
    runs = {}
    for title, overrides in ways.items():
        runs[title] = in_child(super_resolve, scan, outputs[title], overrides, overlays)
        print(title, runs[title], flush=True)
    reference = list(ways)[1]
    for title, run in runs.items():
        if title != reference:
            run["agreement with the reference (dB)"] = agreement(outputs[title], outputs[reference])
    return runs


def rates(record: Mapping[str, Any]) -> None:
    """Compare every way with the plain one and with the matrix products."""
    plain = next(iter(record["ways"].values()))["seconds"]
    for way in record["ways"].values():
        way["GFLOP/s"] = round(way["gflop"] / way["network"])
        way["share of the bfloat16 matrix rate"] = way["GFLOP/s"] / record["matrix product (GFLOP/s)"]["bfloat16"]
        way["times as fast as plain"] = plain / way["seconds"]


def tables(record: Mapping[str, Any]) -> str:
    """Markdown."""
    rows = []
    for title, way in record["ways"].items():
        near = way.get("agreement with the reference (dB)")
        cells = [f"{way['seconds']:.1f}", f"{way['times as fast as plain']:.2f}", f"{way['network']:.1f}"]
        cells += [f"{way['gflop'] / 1e3:.2f}", f"{way['GFLOP/s']}"]
        cells += [f"{100 * way['share of the bfloat16 matrix rate']:.0f} %", memory(way)]
        rows.append([title, *cells, "" if near is None else f"{near:.1f}"])
    header = ["way", "seconds", "times as fast as plain", "of them in the network", "TFLOP", "network GFLOP/s"]
    header += ["of the bfloat16 matrix rate", "peak memory (GiB)", "agreement with the reference (dB)"]
    return table(header, rows)


def main(case: str = "shipped") -> None:
    overlays, ways = CASES[case]
    record: dict[str, Any] = {"machine": machine(), "matrix product (GFLOP/s)": matmul_rates(), "size": list(HCP)}
    with tempfile.TemporaryDirectory() as folder:
        record["ways"] = measure(Path(folder), ways, overlays)
    rates(record)
    save(f"inference_{case}", record, tables(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
