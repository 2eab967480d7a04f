"""Compare the modes of data consistency on scans of the assumed acquisition and on other scans.

Usage: python -m experiments.studies.compare_consistency NAME SCAN ...
       python -m experiments.studies.compare_consistency NAME --generated NUMBER

NAME names the table in experiments/results/consistency, such as validation. The scans are high-resolution and new to
the shipped weights, or generated subjects. Each is degraded in every way of ``CASES`` and super-resolved once. PSNR is
measured in deep tissue.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scripts.data.demonstration import generate_cohort
from scripts.metrics import masked_psnr
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import DataConsistencyd
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.naming import stem_of
from scripts.transforms.saving import describe_weights
from torch import Tensor

from experiments import RESULTS
from experiments.bundle import BUNDLE, degraded, read_configs, trained_network

FOLDER = RESULTS / "consistency"
WEIGHTS = BUNDLE / "models" / "model.pt"
MODES = ("off", "hard", "soft", "auto")
DIM = (1, 2, 3)
SOFTER = 0.75  # share of the matrix that an interpolated scan was acquired with
ACQUISITIONS: Mapping[str, Mapping[str, Any]] = {  # options of evaluate.yaml
    "plain truncation": {},
    "noise, signal 50": {"snr": 50},
    "noise, signal 20": {"snr": 20},
    "elliptical": {"elliptical": True},
    "partial Fourier 7/8": {"partial_fourier": [0.875, 1, 1]},
    "Hamming": {"hamming": True},
    "Hamming, noise, signal 20": {"hamming": True, "snr": 20},
    "Hamming, partial Fourier 7/8, noise, signal 20": {"hamming": True, "partial_fourier": [0.875, 1, 1], "snr": 20},
}
RESAMPLED: Mapping[str, Callable[[Tensor], Tensor]] = {  # changes to the plain truncation
    "zero-filled from 3/4": lambda x: zero_fill(_smaller(x), x.shape[1:], DIM),
    "interpolated from 3/4": lambda x: F.interpolate(_smaller(x)[None], size=x.shape[1:], mode="trilinear")[0],
}
SPOILT: Mapping[str, Callable[[Tensor], Tensor]] = {  # changes to the prediction of the plain truncation
    "prediction 5 % too bright": lambda x: 1.05 * x,
    "prediction half a voxel off": lambda x: x.roll(1, dims=1),  # half a voxel of the scan
}
CASES = (*ACQUISITIONS, *RESAMPLED, *SPOILT)


def _smaller(x: Tensor) -> Tensor:
    return truncate(x, [int(SOFTER * n) for n in x.shape[1:]], DIM)


def rows(scan: Path, name: str) -> Iterator[dict[str, Any]]:
    """For each case the PSNR of every mode, and the report of ``auto``."""
    network = trained_network(device="cpu")
    options = {"device": "cpu", "inferer::inferer::progress": False}
    inferer = read_configs("inference.yaml", **options).get_parsed_content("inferer")

    def predict(image: MetaTensor) -> Tensor:
        with torch.no_grad():
            return inferer(image[None], network)[0].as_tensor()

    def row(case: str, item: Mapping[str, Tensor], pred: Tensor) -> dict[str, Any]:
        return {"scan": name, "case": case, **_compared(pred, item)}

    plain: list[Any] = []
    for case, acquisition in ACQUISITIONS.items():
        item = degraded(scan, **acquisition)
        found = [item, predict(item["image"])]
        plain = plain or found
        yield row(case, *found)
    item, pred = plain
    for case, change in RESAMPLED.items():
        acquired = change(item["acquired"].as_tensor())
        image = acquisition_of(item["image"]).interpolate(acquired)
        changed = {**item, "acquired": acquired, "image": MetaTensor(image, meta=dict(item["image"].meta))}
        yield row(case, changed, predict(changed["image"]))
    for case, change in SPOILT.items():
        yield row(case, item, change(pred))


def _compared(pred: Tensor, item: Mapping[str, Tensor]) -> dict[str, str]:
    values = {}
    for mode in MODES:
        image = MetaTensor(item["image"].as_tensor(), meta=dict(item["image"].meta))
        out = DataConsistencyd(mode=mode)({**item, "image": image, "pred": pred})["pred"]
        values[mode] = f"{float(masked_psnr(out, item['label'])):.4f}"
    return {**values, "reported": image.meta["data_consistency"]}


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Mean over the scans for each case: PSNR without data consistency, and the gain of each mode."""
    lines = [
        "| acquisition | off (dB) | hard | soft | auto | auto, least of all |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in CASES:
        same = [row for row in results if row["case"] == case]
        gains = {mode: [float(row[mode]) - float(row["off"]) for row in same] for mode in MODES}
        off = sum(float(row["off"]) for row in same) / len(same)
        cells = [f"{sum(gains[mode]) / len(same):+.2f}" for mode in MODES[1:]]
        lines.append(f"| {case} | {off:.2f} | {' | '.join(cells)} | {min(gains['auto']):+.3f} |")
    scans = dict.fromkeys(row["scan"] for row in results)
    notes = ["- PSNR in deep tissue", f"- scans: {', '.join(scans)}", f"- weights: {describe_weights(WEIGHTS)}"]
    return "\n".join([*lines, "", *notes]) + "\n"


def main(name: str, scans: Sequence[Path]) -> None:
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for scan in scans:
        for row in rows(scan, stem_of(scan.name)):
            print(row, flush=True)
            results.append(row)
    with open(FOLDER / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(results[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(results)
    (FOLDER / f"{name}.md").write_text(summary(results), encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name")
    arguments.add_argument("scans", nargs="*", type=Path)
    arguments.add_argument("--generated", type=int, default=0, metavar="NUMBER", help="generate so many subjects")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made: list[Path] = []
        if given.generated:
            cohort = generate_cohort(folder, 1, 1, 1, given.generated, seed=1, progress=False)
            made = sorted((cohort / "test").glob("*.nii.gz"))
        main(given.name, [*given.scans, *made])
