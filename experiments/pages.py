"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python -m experiments.pages

A page quotes a result between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->``: the text of
``experiments/results/NAME/FILE``. ``acquisitions/test.csv`` becomes a table of the gains of the shipped weights, and
``training.json`` a list.
``configs/SHIPPED`` is a table of the trainings of the shipped weights. :data:`BRIEFS` names the other short tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from statistics import mean

from experiments import RESULTS, ROOT, briefs
from experiments.benchmark.stacks import SHIPPED, TRUNK
from experiments.bundle import CONFIGS, read_configs
from experiments.gains import REFERENCES, REMOVED, gains_table, read_gains

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
METADATA = CONFIGS / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def shipped_training() -> str:
    """A table of the settings of each stage of the shipped weights' training."""
    parsers = [read_configs(TRUNK, *stack) for stack in SHIPPED]
    rows = [["", *(f"`{stack[-1]}`" for stack in SHIPPED)], ["---"] * (1 + len(SHIPPED))]
    rows.append(["objective", *(parser["objective_def::_target_"].rpartition(".")[2] for parser in parsers)])
    rows += [[title, *(str(parser[key]) for parser in parsers)] for key, title in SETTINGS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


BRIEFS: dict[str, Callable[[], str]] = {
    "configs/SHIPPED": shipped_training,
    "acquisitions/test.csv": gains_table,
    "acquisitions/removed.csv": lambda: briefs.against_removed(read_gains(), read_gains(REMOVED)),
    "error_bars/test.csv": briefs.coverage_by_source,
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
