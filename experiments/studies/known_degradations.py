"""Estimate a known degradation of real scans from the spectra of other subjects.

Usage: python -m experiments.studies.known_degradations BIDS [SUFFIX], for the scans of a contrast, by default T1w
       python -m experiments.studies.known_degradations DS002748 DS000011, for groups of one scanner and of two

Each scan in turn is degraded and becomes the target group. The next two scans are the source group. The scan after
those is in neither group. The estimate degrades it, and PSNR (dB) compares the result with its true degradation without
noise. Its plain truncation is compared in the same way. Groups of scanners have four subjects each instead.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose, DivisiblePad, EnsureChannelFirst, LoadImage, Orientation
from scripts.data.layouts import one_scan_per_subject
from scripts.metrics import psnr
from scripts.physics.degradation import Degradation
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.estimation import estimate_degradation
from scripts.physics.filters import Filter
from scripts.physics.separable import SeparableAcquisition
from scripts.reports.estimation import remarks_on
from scripts.transforms import KSpaceSpacing, KSpaceTruncate, RandDegraded, ScaleIntensityRobust

from experiments import RESULTS

FOLDER = RESULTS / "known_degradations"
MM = 1.0
HANN = Filter("tukey", (1.0,))


def hann(mm: float) -> FrequencyEncoding:
    return FrequencyEncoding(mm, HANN)


def averaged(mm: float) -> SliceSelection:
    """The mean over an LR voxel, whose aliasing stays in."""
    return SliceSelection(mm, mm, "box")


ACQUISITIONS: Mapping[str, Mapping] = {  # options of KSpaceTruncate, or the encodings of three axes
    "truncation alone": {},
    "Hamming filter": {"hamming": True},
    "elliptical": {"elliptical": True},
    "Hamming filter, 7/8 partial Fourier, noise": {
        "hamming": True,
        "partial_fourier": [0.875, 1, 1],
        "noise_std": 0.025,  # bright tissue is 1
    },
    # the families of the estimator contain none of these but the Hann filter, which is Tukey's with taper 1
    "Hann filter": {"encodings": (hann, hann, hann)},
    "exponential decay, 0.9": {"exponential": [0.9] * 3},
    "Fermi filter, 0.9 and 0.05": {"fermi": [[0.9, 0.05]] * 3},
    "voxel averaging along one axis": {"encodings": (averaged, FrequencyEncoding, FrequencyEncoding)},
    "voxel averaging along three axes": {"encodings": (averaged, averaged, averaged)},
}
GROUPS = {  # subjects by data set: HR source, LR target, and one to test
    "ds002748": {"source": ("01", "02", "03", "04"), "target": ("21", "22", "23", "24"), "test": ("46",)},
    "ds000011": {"source": ("01", "02", "03", "04"), "target": ("01", "02", "03", "04"), "test": ("08",)},
}
FACTORS = {"ds002748": (2, 2, 1), "ds000011": (2, 2, 2)}  # along the axes ARS
OTHERS = (("ds002748", "ds002748"), ("ds000011", "ds002748"), ("ds002748", "ds000011"))  # source and target group
COLUMNS = ("target", "source", "test", "acquisition", "families", "elliptical", "noise_std", "detectable", "remarks")


def acquired(volume: MetaTensor, acquisition: Mapping[str, Any], factors: Sequence[int] = (2, 2, 2)) -> MetaTensor:
    """The LR scan of an HR volume ``(1, H, W, D)``, whose voxel 0 lies on that of the volume."""
    if "encodings" not in acquisition:
        return KSpaceTruncate(factors, **acquisition)(volume)
    grid = KSpaceTruncate(factors)(volume)
    axes = [make(mm) for make, mm in zip(acquisition["encodings"], grid.pixdim.tolist(), strict=True)]
    scan = SeparableAcquisition(axes, volume.shape[1:], volume.pixdim.tolist(), grid.shape[1:])
    return MetaTensor(scan.acquire(volume.as_tensor()), affine=grid.affine)


def estimated(
    targets: Sequence[MetaTensor],
    source: Sequence[MetaTensor],
    acquisition: Mapping,
    factors: Sequence[int] = (2, 2, 2),
) -> Degradation:
    """The estimated degradation from the source scans to the degraded targets; all are (1, H, W, D) on one scale."""
    low_res = [ScaleIntensityRobust()(acquired(target, acquisition, factors)) for target in targets]
    groups = [[volume[0].as_tensor() for volume in group] for group in (low_res, source)]
    return estimate_degradation(*groups, *[[volume.pixdim.tolist() for volume in group] for group in (low_res, source)])


def agreement(
    found: Degradation, test: MetaTensor, acquisition: Mapping, factors: Sequence[int] = (2, 2, 2)
) -> dict[str, float]:
    """PSNR (dB) of an unseen scan's truncation and estimated degradation with respect to its true degradation."""
    options = {name: value for name, value in acquisition.items() if name != "noise_std"}
    true = acquired(test, options, factors)
    made = RandDegraded("image", found._replace(noise_std=0.0), factors, strength=0)({"image": test})["image"]
    return {
        name: round(float(psnr(volume.as_tensor(), true.as_tensor())), 2)
        for name, volume in (("truncation", KSpaceTruncate(factors)(test)), ("estimate", made))
    }


def row(found: Degradation, test: MetaTensor, title: str, factors: Sequence[int] = (2, 2, 2)) -> dict[str, Any]:
    """What was found, what the estimate says that it cannot tell, and how well it degrades an unseen scan."""
    return {
        "acquisition": title,
        "families": " ".join(transfer.family for transfer in found.transfers),
        "elliptical": found.elliptical,
        "noise_std": round(found.noise_std, 4),
        "detectable": round(min(transfer.detectable for transfer in found.transfers), 2),
        "remarks": len(remarks_on(found, ("first", "second", "third"))),
        **agreement(found, test, ACQUISITIONS[title], factors),
    }


def read(dataset: Path, suffix: str, *grid: Any, axcodes: str = "ASR") -> dict[str, MetaTensor]:
    """The scans by subject, on the common intensity scale."""
    prepare = [LoadImage(image_only=True), EnsureChannelFirst(), Orientation(axcodes, labels=None)]
    prepare += [*grid, DivisiblePad(4), ScaleIntensityRobust(scale_factor=2)]
    return {name: Compose(prepare)(path) for name, path in sorted(one_scan_per_subject(dataset, suffix).items())}


def single_scans(dataset: Path, suffix: str) -> list[dict[str, Any]]:
    """Each scan in turn against the next two, tested on the one after those."""
    scans, rows = read(dataset, suffix, KSpaceSpacing([MM] * 3, 0.1)), []
    names = list(scans)
    for index in range(len(names)):
        target, *source, test = (names[(index + step) % len(names)] for step in range(4))
        for title, acquisition in ACQUISITIONS.items():
            found = estimated([scans[target]], [scans[name] for name in source], acquisition)
            about = {"target": target, "source": " ".join(source), "test": test}
            rows.append(about | row(found, scans[test], title))
    return rows


def groups_of_scanners(folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Each target group against a source group of its own scanner, or of another one."""
    scans, rows = {name: read(folder, "T1w", axcodes="ARS") for name, folder in folders.items()}, []

    def group(name: str, role: str) -> list[MetaTensor]:
        return [scans[name][f"sub-{subject}"] for subject in GROUPS[name][role]]

    for source, target in OTHERS:
        for title, acquisition in ACQUISITIONS.items():
            found = estimated(group(target, "target"), group(source, "source"), acquisition, FACTORS[target])
            about = {"target": target, "source": source, "test": f"{target} sub-{GROUPS[target]['test'][0]}"}
            rows.append(about | row(found, group(target, "test")[0], title, FACTORS[target]))
    return rows


def table(rows: Sequence[Mapping]) -> str:
    """A line for each acquisition: the count of each found family, and the range of PSNR over the scans."""
    header = ("true degradation of the target", "families found along the axes", "a further blur may hide above")
    header += ("truncation (dB)", "estimate (dB)")
    lines = [f"| {' | '.join(header)} |", "| --- | --- | --- | --- | --- |"]
    for title in ACQUISITIONS:
        own = [row for row in rows if row["acquisition"] == title]
        found = [family for row in own for family in row["families"].split()]
        counts = ", ".join(f"{family} {found.count(family)}" for family in sorted(set(found), key=found.count)[::-1])
        corners = sum(row["elliptical"] for row in own)
        counts += f"; empty corners {corners} of {len(own)}" if corners else ""
        hidden = [row["detectable"] for row in own if row["detectable"] < 1]
        spread = [f"{min(hidden):.2f}" if hidden else "-"]
        for values in ([row[name] for row in own] for name in ("truncation", "estimate")):
            spread.append(f"{min(values):.1f}" + (f" to {max(values):.1f}" if len(values) > 1 else ""))
        lines.append(f"| {title} | {counts} | {' | '.join(spread)} |")
    return "\n".join(lines) + "\n"


def tables_of_scanners(rows: Sequence[Mapping]) -> str:
    """A table for each pair of groups."""
    parts = [(pair, [row for row in rows if (row["source"], row["target"]) == pair]) for pair in OTHERS]
    return "\n".join(f"Source group {pair[0]}, target group {pair[1]}:\n\n{table(part)}" for pair, part in parts)


def main(*arguments: str) -> None:
    folders = {path.name: path for path in map(Path, arguments) if path.name in GROUPS}
    if len(folders) == len(GROUPS):
        name, rows = "scanners", groups_of_scanners(folders)
        text = tables_of_scanners(rows)
    else:
        dataset, name = Path(arguments[0]), "".join(arguments[1:]) or "T1w"
        rows = single_scans(dataset, name)
        text = table(rows)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "truncation", "estimate"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
