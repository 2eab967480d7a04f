"""A whole scan from reading to writing: the plain way, ours, and ours without each of its steps.

Usage: python -m experiments.speed.inference [EDGE [REPEATS [CONDITION ...]]]

The scan is a synthetic head along right, anterior and superior. It has the size of a degraded HCP scan, or EDGE / 160
of it. Every run is a process of its own, which measures its own peak memory. Each way runs on all cores of a quiet
machine, on all cores beside a training on the last one, and on one core; or under each CONDITION: quiet, busy,
one_core. The plain way runs once, because its windows are repeats.
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
    conditions,
    in_child,
    machine,
    matmul_rates,
    memory,
    neighbour,
    on_cores,
    save,
    spread,
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
PLAIN = {**FLOAT32, **CHANNELS_FIRST, **AT_ONCE, **CUBES, "skip_air": False, "stock": ("convolutions", "gzip")}
WAYS: Ways = {  # the first is the plain way, the second the reference
    f"float32, channels first, {WINDOWS}, gzip by nibabel: plain": PLAIN,
    "ours, in float32, air as well: reference": {**FLOAT32, "skip_air": False},
    "ours, with gzip by nibabel": {"stock": ("gzip",)},
    "ours, the volume at once, air as well": {**AT_ONCE, "skip_air": False},
    "ours": {},
}
SINGLE = {**FLOAT32, **CHANNELS_FIRST, "network_def::slabs_per_pass": 1}  # the papers' network, one slab at once
FLOAT16: Ways = {"ours, in float16": {"amp_dtype": "float16"}} if ON_GPU else {}  # processors compute it slowly


def agreement(output: Path, reference: Path) -> float:
    """PSNR (dB) of one result with respect to another, whose maximum is the data range; at most 150 dB."""
    values, expected = (nib.load(next(folder.rglob("*.nii.gz"))).get_fdata() for folder in (output, reference))
    return float(-10 * np.log10(max(1e-15, np.mean(((values - expected) / expected.max()) ** 2))))


def measure(folder: Path, ways: Ways, edge: int, repeats: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure every way under every condition that ``names`` holds, the ways in turn."""
    scan = write_scan(folder / "scan.nii.gz", [n * edge // HCP[-1] for n in HCP])
    outputs = {title: folder / str(i) for i, title in enumerate(ways)}
    runs: dict[str, dict[str, Any]] = {title: {"wall seconds": {}} for title in ways}
    for condition, (cores, core) in conditions(names).items():
        walls: dict[str, list[float]] = {title: [] for title in ways}
        for repeat in range(repeats):
            for title, overrides in list(ways.items())[min(repeat, 1) :]:  # the plain way first, and once
                options = dict(overrides)
                stock = options.pop("stock", ())
                with on_cores(cores), neighbour(core):
                    run = in_child(super_resolve, scan, outputs[title], options, (), stock)
                walls[title].append(run["wall seconds"])
                print(condition, title, run, flush=True)
                if "seconds" not in runs[title]:
                    runs[title] |= {name: value for name, value in run.items() if name != "wall seconds"}
        for title, values in walls.items():
            runs[title]["wall seconds"][condition] = spread(values)
    reference = list(ways)[1]
    for title, run in runs.items():
        if title != reference:
            run["agreement with the reference (dB)"] = agreement(outputs[title], outputs[reference])
    return runs


def rates(record: Mapping[str, Any]) -> None:
    """Compare every way with the plain one and with the fastest matrix product."""
    plain = next(iter(record["ways"].values()))["wall seconds"]
    limit = max(record["matrix product (GFLOP/s)"].values())
    for way in record["ways"].values():
        way["GFLOP/s"] = round(way["gflop"] / way["network"])
        way["share of the matrix rate"] = way["GFLOP/s"] / limit
        walls = way["wall seconds"]
        way["times as fast as plain"] = {name: plain[name]["median"] / wall["median"] for name, wall in walls.items()}
        if {"busy", "quiet"} <= walls.keys():
            way["busy over quiet"] = walls["busy"]["median"] / walls["quiet"]["median"]


def plain_over_ours(ways: Mapping[str, Mapping[str, Any]]) -> float:
    """How much faster than plain ours would be, if it multiplied at the matrix rate and did nothing else."""
    plain, *_, ours = ways.values()
    return plain["gflop"] / ours["gflop"] / plain["share of the matrix rate"]


def _timed(way: Mapping[str, Any], condition: str) -> list[str]:
    wall = way["wall seconds"][condition]
    between = f" ({wall['least']:.1f} to {wall['most']:.1f})" if wall["repeats"] > 1 else ""
    return [f"{wall['median']:.1f}{between}", f"{way['times as fast as plain'][condition]:.2f}"]


def tables(record: Mapping[str, Any]) -> str:
    """Markdown: a table of wall time, and one of work and memory."""
    ways = record["ways"]
    names = list(next(iter(ways.values()))["wall seconds"])
    header = ["way", *(cell for name in names for cell in (f"{name.replace('_', ' ')} (s)", "times as fast"))]
    rows = [[title, *(cell for name in names for cell in _timed(way, name))] for title, way in ways.items()]
    if {"busy", "quiet"} <= set(names):
        header.append("busy / quiet")
        rows = [[*row, f"{way['busy over quiet']:.2f}"] for row, way in zip(rows, ways.values(), strict=True)]
    text = table(header, rows)
    rows = []
    for title, way in ways.items():
        near = way.get("agreement with the reference (dB)")
        share = 100 * way["share of the matrix rate"]
        cells = [f"{way['seconds']:.1f}", f"{way['network']:.1f}", f"{way['gflop'] / 1e3:.2f}", f"{way['GFLOP/s']}"]
        rows.append([title, *cells, f"{share:.0f} %", memory(way), "" if near is None else f"{near:.1f}"])
    header = ["way", "processor seconds", "in the network", "TFLOP", "GFLOP/s of a core", "of the matrix rate"]
    size = " x ".join(map(str, record["size"]))
    ceiling = plain_over_ours(ways)
    notes = (
        f"- wall time, median (range), of a scan of {size} voxels; busy: beside a training on the last core\n"
        f"- at the full matrix rate of float32, our arithmetic would be {ceiling:.1f} times as fast as plain"
    )
    return f"{text}\n{table([*header, 'peak memory (GiB)', 'agreement with the reference (dB)'], rows)}\n{notes}"


def main(edge: int = HCP[-1], repeats: int = 3, *names: str) -> None:
    size = [n * edge // HCP[-1] for n in HCP]
    record: dict[str, Any] = {"machine": machine(), "matrix product (GFLOP/s)": matmul_rates(), "size": size}
    with tempfile.TemporaryDirectory() as folder:
        record["ways"] = measure(Path(folder), {**WAYS, **FLOAT16}, edge, repeats, names)
    rates(record)
    save("_".join(("inference", *names)), record, tables(record))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
