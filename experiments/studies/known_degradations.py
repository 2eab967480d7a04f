"""Estimate a known degradation of real scans from the spectra of other subjects.

Usage: python -m experiments.studies.known_degradations BIDS [SUFFIX], for the scans of a contrast, by default T1w

Each scan in turn is degraded and becomes the target group. The next two scans are the source group. The scan after
those is in neither group. The estimate degrades it, and PSNR (dB) compares the result with its true degradation without
noise. Its plain truncation is compared in the same way.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.data import MetaTensor
from monai.transforms import Compose, DivisiblePad, EnsureChannelFirst, LoadImage, Orientation
from scripts.data.layouts import one_scan_per_subject
from scripts.metrics import psnr
from scripts.physics.degradation import Degradation
from scripts.physics.estimation import estimate_degradation
from scripts.transforms import KSpaceSpacing, KSpaceTruncate, RandDegraded, ScaleIntensityRobust

from experiments import RESULTS

FOLDER = RESULTS / "known_degradations"
MM = 1.0
ACQUISITIONS: Mapping[str, Mapping] = {
    "truncation alone": {},
    "Hamming filter": {"hamming": True},
    "elliptical": {"elliptical": True},
    "Hamming filter, 7/8 partial Fourier, noise": {
        "hamming": True,
        "partial_fourier": [0.875, 1, 1],
        "noise_std": 0.025,  # bright tissue is 1
    },
}
COLUMNS = ("target", "source", "test", "acquisition", "families", "elliptical", "noise_std", "truncation", "estimate")


def estimated(target: MetaTensor, source: Sequence[MetaTensor], acquisition: Mapping) -> Degradation:
    """The estimated degradation from the source scans to the degraded target; all are (1, H, W, D) on one scale."""
    low_res = ScaleIntensityRobust()(KSpaceTruncate(2, **acquisition)(target))
    groups = [[volume[0].as_tensor() for volume in group] for group in ([low_res], source)]
    return estimate_degradation(
        *groups, *[[volume.pixdim.tolist() for volume in group] for group in ([low_res], source)]
    )


def agreement(found: Degradation, test: MetaTensor, acquisition: Mapping) -> dict[str, float]:
    """PSNR (dB) of an unseen scan's truncation and estimated degradation with respect to its true degradation."""
    true = KSpaceTruncate(2, **{**acquisition, "noise_std": 0.0})(test)
    made = RandDegraded("image", found._replace(noise_std=0.0), (2, 2, 2), strength=0)({"image": test})["image"]
    return {
        name: float(psnr(volume.as_tensor(), true.as_tensor()))
        for name, volume in (("truncation", KSpaceTruncate(2)(test)), ("estimate", made))
    }


def main(dataset: Path, suffix: str = "T1w") -> None:
    prepare = [LoadImage(image_only=True), EnsureChannelFirst(), Orientation("ASR", labels=None)]
    prepare += [KSpaceSpacing([MM] * 3, 0.1), DivisiblePad(4), ScaleIntensityRobust(scale_factor=2)]
    scans = {name: Compose(prepare)(path) for name, path in sorted(one_scan_per_subject(dataset, suffix).items())}
    names, rows = list(scans), []
    for index in range(len(names)):
        target, *source, test = (names[(index + step) % len(names)] for step in range(4))
        for title, acquisition in ACQUISITIONS.items():
            found = estimated(scans[target], [scans[name] for name in source], acquisition)
            row = {"target": target, "source": " ".join(source), "test": test, "acquisition": title}
            row |= {"families": " ".join(t.family for t in found.transfers), "elliptical": found.elliptical}
            row |= {"noise_std": round(found.noise_std, 4)}
            row |= {name: round(value, 2) for name, value in agreement(found, scans[test], acquisition).items()}
            rows.append(row)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{suffix}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (FOLDER / f"{suffix}.md").write_text(table(rows), encoding="utf-8")


def table(rows: Sequence[Mapping]) -> str:
    """A line for each acquisition: the count of each found family, and the range of PSNR over the scans."""
    header = ("true degradation of the target", "families found along the axes", "truncation (dB)", "estimate (dB)")
    lines = [f"| {' | '.join(header)} |", "| --- | --- | --- | --- |"]
    for title in ACQUISITIONS:
        own = [row for row in rows if row["acquisition"] == title]
        found = [family for row in own for family in row["families"].split()]
        counts = ", ".join(f"{family} {found.count(family)}" for family in sorted(set(found), key=found.count)[::-1])
        corners = sum(row["elliptical"] for row in own)
        counts += f"; empty corners {corners} of {len(own)}" if corners else ""
        spread = [
            f"{min(values):.1f} to {max(values):.1f}"
            for values in ([row[name] for row in own] for name in ("truncation", "estimate"))
        ]
        lines.append(f"| {title} | {counts} | {' | '.join(spread)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
