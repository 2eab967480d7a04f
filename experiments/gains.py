"""What the shipped weights gain above the best linear method, of the committed scores."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from experiments import RESULTS

__all__ = ["METRICS", "REFERENCES", "REMOVED", "Gains", "gains_table", "read_gains"]

SCORES = RESULTS / "acquisitions" / "test.csv"  # of the shipped weights on test subjects
REMOVED = SCORES.with_name("removed.csv")  # of the weights for one factor that they replaced, at commit 179ae65
METRICS = {"psnr": ("PSNR (dB)", ".2f"), "psnr_deep": ("in deep tissue (dB)", ".2f"), "ssim": ("SSIM", ".4f")}
REFERENCES = {
    "zero_filling": "zero-filling",
    "tricubic": "tricubic",
    "windowed_sinc": "windowed sinc",
    "linear_inverse": "linear inverse",
}


class Gains(NamedTuple):
    """What the network alone gains over the best linear method on the scans of an acquisition.

    Args:
        scans: title of their set.
        acquisition: title.
        reference: the linear method with the highest mean PSNR.
        values: gain of each scan, by metric.
    """

    scans: str
    acquisition: str
    reference: str
    values: dict[str, list[float]]


def read_gains(path: Path = SCORES) -> Iterator[Gains]:
    """The gains in each acquisition, in the order of the file of ``experiments.studies.acquisitions``."""
    cases: dict[tuple[str, str], dict[str, dict[str, dict[str, str]]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            case = cases.setdefault((row["set"], row["acquisition"]), {})
            case.setdefault(row["scan"], {})[row["method"]] = row
    for case, scans in cases.items():
        found = list(scans.values())
        known = [name for name in REFERENCES if name in found[0]]
        best = max(known, key=lambda name: mean(float(methods[name]["psnr"]) for methods in found))
        pairs = [(methods["pred"], methods[best]) for methods in found]
        yield Gains(*case, best, {key: [float(sr[key]) - float(base[key]) for sr, base in pairs] for key in METRICS})


def gains_table(path: Path = SCORES) -> str:
    """The gains in each acquisition: mean, standard deviation, and how many scans gain."""
    rows = [["scans", "acquisition", "above", "n", *(title for title, _ in METRICS.values())]]
    rows.append(["---"] * len(rows[0]))
    for one in read_gains(path):
        cells = []
        for key, (_, form) in METRICS.items():
            values = one.values[key]
            spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
            cells.append(f"{mean(values):+{form}}{spread} ({sum(value > 0 for value in values)} of {len(values)})")
        rows.append([one.scans, one.acquisition, REFERENCES[one.reference], str(len(values)), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
