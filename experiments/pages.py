"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python -m experiments.pages

A page quotes a result between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->``: the text of
``experiments/results/NAME/FILE``. ``acquisitions/test.csv`` becomes a table of the gains of the shipped weights, and
``training.json`` a list.
``configs/SHIPPED`` is a table of the trainings of the shipped weights. :data:`BRIEFS` names the other short tables.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from experiments import RESULTS, ROOT, briefs
from experiments.benchmark.stacks import SHIPPED, TRUNK
from experiments.bundle import CONFIGS, read_configs

PAGES = (
    "README.md",
    "bundle/docs/README.md",
    "docs/acquisitions.md",
    "docs/applications.md",
    "docs/error_bars.md",
    "docs/evidence.md",
    "docs/method.md",
    "docs/reliability.md",
    "docs/speed.md",
)
SETTINGS = {
    "architecture::num_features": "features",
    "architecture::num_groups": "groups",
    "architecture::num_blocks": "blocks of a group",
    "crop_size": "crop (output voxels)",
    "batch_size": "batch",
    "max_iterations": "iterations",
    "learning_rate": "learning rate",
    "seed": "seed",
}
SCORES = RESULTS / "acquisitions" / "test.csv"  # of the shipped weights on test subjects
REMOVED = SCORES.with_name("removed.csv")  # of the weights for one factor that they replaced, at commit 179ae65
METRICS = {"psnr": ("PSNR (dB)", ".2f"), "psnr_deep": ("in deep tissue (dB)", ".2f"), "ssim": ("SSIM", ".4f")}
REFERENCES = {
    "zero_filling": "zero-filling",
    "tricubic": "tricubic",
    "windowed_sinc": "windowed sinc",
    "linear_inverse": "linear inverse",
}
METADATA = CONFIGS / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def shipped_training() -> str:
    """A table of the settings of each stage of the shipped weights' training."""
    parsers = [read_configs(TRUNK, *stack) for stack in SHIPPED]
    rows = [["", *(f"`{stack[-1]}`" for stack in SHIPPED)], ["---"] * (1 + len(SHIPPED))]
    rows.append(["objective", *(parser["objective_def::_target_"].rpartition(".")[2] for parser in parsers)])
    rows += [[title, *(str(parser[key]) for parser in parsers)] for key, title in SETTINGS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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


BRIEFS: dict[str, Callable[[], str]] = {
    "configs/SHIPPED": shipped_training,
    "acquisitions/test.csv": gains_table,
    "acquisitions/removed.csv": lambda: briefs.against_removed(read_gains(), read_gains(REMOVED)),
    "evidence/test.csv": briefs.evidence_brief,
    "models/model.json": briefs.training_range,
    "LIMITS": lambda: briefs.limits(read_gains(), REFERENCES),
}


def quote(name: str) -> str:
    """A result as Markdown."""
    if name in BRIEFS:
        return BRIEFS[name]()
    path = RESULTS / name
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.strip()
    record = json.loads(text)
    lines = [f"- {group}: {', '.join(names) or 'none'}" for group, names in record["subjects"].items()]
    stages = [f"{stage['iterations']} iterations in {stage['hours']} hours" for stage in record["stages"]]
    return "\n".join([*lines, f"- {', then '.join(stages)}, on a machine of two CPU cores"])


def refreshed(page: str) -> str:
    """The page with its blocks brought up to date."""
    return BLOCK.sub(lambda match: f"{match[1]}{quote(match[2]).replace('±', '+/-')}\n{match[3]}", page)


def refreshed_metadata(metadata: str) -> str:
    """The bundle's metadata with the shipped weights' mean gains over the test scans as ``eval_metrics``."""
    content = json.loads(metadata)
    content["eval_metrics"] = {
        re.sub(r"\W+", "_", f"{metric} gain {one.scans} {one.acquisition}"): round(mean(one.values[metric]), 4)
        for one in read_gains()
        for metric in ("psnr", "ssim")
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    METADATA.write_text(refreshed_metadata(METADATA.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
