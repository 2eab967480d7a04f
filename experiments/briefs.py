"""Short tables and lists that pages quote, made of committed results and of the record beside the shipped weights."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean

from experiments import RESULTS
from experiments.bundle import BUNDLE
from experiments.gains import METRICS, Gains
from experiments.speed.common import table
from experiments.studies.evidence.measures import MEASURES
from experiments.studies.evidence.restoring import METHODS
from experiments.studies.evidence.table import Line, brief, lines_of

__all__ = ["against_removed", "coverage_by_source", "evidence_brief", "limits", "training_range"]

RECORD = BUNDLE / "models" / "model.json"
EVIDENCE = RESULTS / "evidence" / "test.csv"
BARS = RESULTS / "error_bars" / "test.csv"
QUANTITIES = {  # of the record: what it is, its unit
    "output_spacing": ("voxel of the output grid", " mm"),
    "factor": ("acquired spacing along an axis that is frequency-limited", " output voxels"),
    "slice_spacing": ("spacing of slices", " output voxels"),
    "thickness": ("thickness of slices", " of their spacing"),
    "snr": ("signal over noise", ""),
}
SMALL = 0.1  # dB of PSNR, below which a mean gain is named
NAMED = (("kept", "radius 1.5 mm"), ("beyond", "radius 4 mm"))  # lines of the evidence


def training_range(path: Path = RECORD) -> str:
    """A table of what the training of the shipped weights drew, from the record beside them."""
    ranges = json.loads(path.read_text(encoding="utf-8"))["ranges"]
    return table(
        ["quantity", "lowest", "highest"],
        [
            [title, *("any" if end is None else f"{end:.3g}{unit}" for end in ranges[name])]
            for name, (title, unit) in QUANTITIES.items()
            if name in ranges
        ],
    ).strip()


def evidence_brief(path: Path = EVIDENCE) -> str:
    """In how many lines of the evidence super-resolution is better or worse, as a table."""
    return brief(_rows(path))


def against_removed(shipped: Iterable[Gains], removed: Iterable[Gains]) -> str:
    """A table of the mean gains of the shipped weights beside those of weights that they replaced.

    Args:
        shipped: gains in each acquisition.
        removed: the same of the other weights, in some of these acquisitions.
    """
    ours = {(one.scans, one.acquisition): one for one in shipped}
    header = ["scans", "acquisition", "n"]
    header += [f"{title}, {weights}" for title, _ in METRICS.values() for weights in ("removed", "shipped")]
    lines = []
    for one in removed:
        pair = (one, ours[one.scans, one.acquisition])
        cells = [f"{mean(gains.values[key]):+{form}}" for key, (_, form) in METRICS.items() for gains in pair]
        lines.append([one.scans, one.acquisition, len(one.values["psnr"]), *cells])
    return table(header, lines).strip()


def coverage_by_source(path: Path = BARS) -> str:
    """A table of the coverage of the error bars in each acquisition of each dataset."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in _rows(path):
        found.setdefault((row["acquisition"], row["scan"].partition("/")[0]), []).append(100 * float(row["coverage"]))
    header = ["acquisition", "dataset", "scans", "coverage (%)", "of each scan"]
    lines = [
        [*case, str(len(shares)), f"{mean(shares):.1f}", f"{min(shares):.1f} to {max(shares):.1f}"]
        for case, shares in sorted(found.items(), key=lambda one: mean(one[1]))
    ]
    return table(header, lines).strip()


def limits(gains: Iterable[Gains], titles: Mapping[str, str]) -> str:
    """A list of where the shipped weights gain little, harm, or have bars that cover too little.

    Args:
        gains: in each acquisition.
        titles: of the methods above which a gain counts.
    """
    return "\n".join([*_small_gains(gains, titles), *_harms(lines_of(_rows(EVIDENCE))), _coverage(_rows(BARS))])


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _small_gains(gains: Iterable[Gains], titles: Mapping[str, str]) -> Iterator[str]:
    for one in gains:
        values = one.values["psnr"]
        if mean(values) < SMALL:
            above = sum(value > 0 for value in values)
            yield (
                f"- {one.acquisition}: {mean(values):+.2f} dB PSNR above {titles[one.reference]}, "
                f"{above} of {len(values)} scans gain."
            )


def _harms(lines: Iterable[Line]) -> Iterator[str]:
    found = list(lines)
    for line in found:
        if any(line.measure == MEASURES[name] and line.detail == detail for name, detail in NAMED):
            shown = ", ".join(
                f"{METHODS[method]} {value:.{line.measure.decimals}f}" for method, value in line.means().items()
            )
            yield f"- {line.acquisition}, {line.title}: {shown} (HR {line.measure.ideal:g})."
    harmed = sum(line.harms() for line in found)
    yield f"- It is worse than the better interpolation in {harmed} of {len(found)} lines of the downstream evidence."


def _coverage(rows: Iterable[Mapping[str, str]]) -> str:
    shares = [float(row["coverage"]) for row in rows]
    return f"- Error bars of 90 % cover {100 * min(shares):.0f} % to {100 * max(shares):.0f} % of the voxels of a scan."
