"""Compare the disagreement of the slab orientations with the true error, in experiments/results/disagreement/summary.md.

Usage: python -m experiments.studies.calibrate_disagreement SCAN ...

The scans are high-resolution ones that the shipped weights were not trained on; the evaluation degrades them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from experiments import RESULTS, ROOT

CONFIGS = ROOT / "bundle" / "configs"
SUMMARY = RESULTS / "disagreement" / "summary.md"
ORIENTATIONS = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
TENTHS = 10


def measured(parser: ConfigParser, scan: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Disagreement and absolute error of each voxel of the head, in units of the reference's maximum."""
    item = parser.get_parsed_content("preprocessing")({"image": scan, "label": scan})
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(ROOT / "bundle" / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        both = parser.get_parsed_content("inferer")(item["image"][None].as_tensor(), network)[0]
    pred, disagreement = both * item["image"].meta["intensity_scale"]
    label = item["label"][0].as_tensor()
    head = label > label.mean()
    return (disagreement / label.max())[head], ((pred - label).abs() / label.max())[head]


def rows(disagreement: torch.Tensor, error: torch.Tensor) -> list[str]:
    """For each tenth of the voxels, sorted by disagreement: its root mean square, and that of the error."""
    order = disagreement.argsort()
    parts = zip(disagreement[order].tensor_split(TENTHS), error[order].tensor_split(TENTHS), strict=True)
    rms = [(d.square().mean().sqrt(), e.square().mean().sqrt()) for d, e in parts]
    return [f"| {tenth} | {100 * d:.2f} | {100 * e:.2f} | {e / d:.1f} |" for tenth, (d, e) in enumerate(rms, start=1)]


def main(scans: list[str]) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("inference.yaml", "evaluate.yaml")])
    parser.update(
        {"bundle_root": str(ROOT / "bundle"), "device": "cpu", "orientations": ORIENTATIONS, "disagreement": True}
    )
    values = [torch.cat(parts) for parts in zip(*(measured(parser, scan) for scan in scans), strict=True)]
    ranks = torch.stack([value.argsort().argsort().double() for value in values])
    correlation = float(torch.corrcoef(ranks)[0, 1])
    lines = [
        "| tenth of the voxels | disagreement (%) | error (%) | error over disagreement |",
        "| --- | --- | --- | --- |",
        *rows(*values),
        "",
        f"- scans: {', '.join(Path(scan).name for scan in scans)}",
        f"- rank correlation of disagreement and absolute error, voxel by voxel: {correlation:.2f}",
    ]
    SUMMARY.parent.mkdir(parents=True, exist_ok=True)
    SUMMARY.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
