"""Compare the modes of data consistency on scans acquired as it assumes, and otherwise, in experiments/results/consistency.

Usage: python -m experiments.studies.compare_consistency NAME SCAN ...
       python -m experiments.studies.compare_consistency NAME --generated NUMBER

NAME is that of the table, such as validation. The scans are high-resolution ones that the shipped weights were not
trained on, or generated subjects; each is degraded in every way of ``CASES``, super-resolved once, and the prediction
is compared with the scan under every mode. Writes NAME.csv and NAME.md.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from experiments import RESULTS, ROOT

CONFIGS = ROOT / "bundle" / "configs"
WEIGHTS = ROOT / "bundle" / "models" / "model.pt"
RESULTS = RESULTS / "consistency"

from scripts.data.demonstration import generate_cohort
from scripts.metrics import psnr
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import DataConsistencyd

MODES = ("off", "hard", "soft", "auto")
DIM = (1, 2, 3)
SOFTER = 0.75  # of the matrix, of a scan that was interpolated to its own
# name: options of evaluate.yaml, and what is done to the scan or the prediction afterwards
CASES: dict[str, dict[str, Any]] = {
    "plain truncation": {},
    "noise, signal 50": {"snr": 50},
    "noise, signal 20": {"snr": 20},
    "elliptical": {"elliptical": True},
    "partial Fourier 7/8": {"partial_fourier": [0.875, 1, 1]},
    "Hamming": {"hamming": True},
    "Hamming, noise, signal 20": {"hamming": True, "snr": 20},
    "Hamming, partial Fourier 7/8, noise, signal 20": {
        "hamming": True,
        "partial_fourier": [0.875, 1, 1],
        "snr": 20,
    },
    "zero-filled from 3/4": {"scan": "zero_filled"},
    "interpolated from 3/4": {"scan": "interpolated"},
    "prediction 5 % too bright": {"prediction": "brighter"},
    "prediction half a voxel off": {"prediction": "shifted"},
}
AFTERWARDS = {
    "zero_filled": lambda x: zero_fill(_smaller(x), x.shape[1:], DIM),
    "interpolated": lambda x: F.interpolate(_smaller(x)[None], size=x.shape[1:], mode="trilinear")[0],
    "brighter": lambda x: 1.05 * x,
    "shifted": lambda x: x.roll(1, dims=1),  # a voxel of the prediction is half a voxel of the scan
}


def _smaller(x: torch.Tensor) -> torch.Tensor:
    return truncate(x, [int(SOFTER * n) for n in x.shape[1:]], DIM)


def rows(scan: Path, subject: str) -> Iterator[dict[str, Any]]:
    """For each case the PSNR of every mode, and what ``auto`` said."""
    for case, options in CASES.items():
        options = dict(options)
        changes = {key: AFTERWARDS[options.pop(key)] for key in ("scan", "prediction") if key in options}
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in ("inference.yaml", "evaluate.yaml")])
        parser.update(
            {"bundle_root": str(ROOT / "bundle"), "device": "cpu", "inferer#inferer#progress": False, **options}
        )
        item = parser.get_parsed_content("preprocessing")({"image": str(scan), "label": str(scan)})
        scale, label = item["image"].meta["intensity_scale"], item["label"].as_tensor()
        image = changes.get("scan", lambda x: x)(item["image"].as_tensor())
        pred = changes.get("prediction", lambda x: x)(_predicted(parser, image))
        yield {
            "subject": subject,
            "case": case,
            **_compared(pred, MetaTensor(image, meta=item["image"].meta), label, scale),
        }


def _predicted(parser: ConfigParser, image: torch.Tensor) -> torch.Tensor:
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    with torch.no_grad():
        return parser.get_parsed_content("inferer")(image[None], network)[0]


def _compared(pred: torch.Tensor, image: MetaTensor, label: torch.Tensor, scale: float) -> dict[str, str]:
    values = {}
    for mode in MODES:
        out = DataConsistencyd(mode=mode)({"image": image, "pred": pred})["pred"]
        values[mode] = f"{float(psnr(scale * out, label)):.4f}"
    return {**values, "said": image.meta["data_consistency"]}


def summary(results: Sequence[dict[str, Any]]) -> str:
    """Per case the mean over the subjects: PSNR without, and what each mode adds; the least gain of ``auto``."""
    subjects = list(dict.fromkeys(row["subject"] for row in results))
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
    weights = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:8]
    notes = [f"- subjects: {', '.join(subjects)}", f"- weights: model.pt, SHA256 {weights}"]
    return "\n".join([*lines, "", *notes]) + "\n"


def main(name: str, scans: Sequence[Path]) -> None:
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for scan in scans:
        for row in rows(scan, scan.name.partition("_")[0]):
            print(row, flush=True)
            results.append(row)
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(results[0]))
        writer.writeheader()
        writer.writerows(results)
    (RESULTS / f"{name}.md").write_text(summary(results), encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name")
    arguments.add_argument("scans", nargs="*", type=Path)
    arguments.add_argument("--generated", type=int, default=0, metavar="NUMBER", help="of subjects to generate")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.generated:
            cohort = generate_cohort(folder, 1, 1, 1, given.generated, seed=1, progress=False)
        made = sorted((cohort / "test").glob("*.nii.gz")) if given.generated else []
        main(given.name, [*given.scans, *made])
