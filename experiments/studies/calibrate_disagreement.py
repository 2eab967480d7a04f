"""Compare the disagreement of the slab orientations with the true error.

Usage: python -m experiments.studies.calibrate_disagreement SCAN ...

Each scan is high-resolution and new to the shipped weights. K-space truncation degrades it. The table stands in
experiments/results/disagreement.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from scripts.metrics import foreground_percentile
from scripts.transforms.saving import describe_weights

from experiments import RESULTS
from experiments.bundle import degraded, read_configs, trained_network

SUMMARY = RESULTS / "disagreement" / "summary.md"
ORIENTATIONS = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
TENTHS = 10


def measured(parser: ConfigParser, scan: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Disagreement and absolute error of each voxel of deep tissue, as shares of the common scale."""
    item = degraded(Path(scan))
    with torch.no_grad():
        both = parser.get_parsed_content("inferer")(item["image"][None], trained_network(device="cpu"))[0].as_tensor()
    pred, disagreement = both / foreground_percentile(item["label"][0])
    label = item["label"][0] / foreground_percentile(item["label"][0])
    deep = item["label"][1] > 0.5
    return disagreement[deep], (pred - label).abs()[deep]


def rows(disagreement: torch.Tensor, error: torch.Tensor) -> list[str]:
    """Root mean square of disagreement and error in each tenth of the voxels, sorted by disagreement."""
    order = disagreement.argsort()
    parts = zip(disagreement[order].tensor_split(TENTHS), error[order].tensor_split(TENTHS), strict=True)
    rms = [(d.square().mean().sqrt(), e.square().mean().sqrt()) for d, e in parts]
    return [f"| {tenth} | {100 * d:.2f} | {100 * e:.2f} | {e / d:.1f} |" for tenth, (d, e) in enumerate(rms, start=1)]


def main(scans: Sequence[str]) -> None:
    options = {"device": "cpu", "orientations": ORIENTATIONS, "disagreement": True}
    parser = read_configs("inference.yaml", **options)
    values = [torch.cat(parts) for parts in zip(*(measured(parser, scan) for scan in scans), strict=True)]
    ranks = torch.stack([value.argsort().argsort().double() for value in values])
    correlation = float(torch.corrcoef(ranks)[0, 1])
    lines = [
        "| tenth of the voxels | disagreement (%) | error (%) | error over disagreement |",
        "| --- | --- | --- | --- |",
        *rows(*values),
        "",
        f"- scans: {', '.join(Path(scan).name for scan in scans)}",
        f"- weights: {describe_weights(parser.get_parsed_content('ckpt_path'))}",
        f"- rank correlation of disagreement and absolute error, voxel by voxel: {correlation:.2f}",
    ]
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    SUMMARY.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
