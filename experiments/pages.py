"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python -m experiments.pages

A page quotes a result between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->``: the text of
``experiments/results/NAME/FILE``. For ``configs/SHIPPED`` it is a table of the trainings of the shipped weights.
"""

from __future__ import annotations

import csv
import json
import re
from statistics import mean

from experiments import RESULTS, ROOT
from experiments.benchmark.stacks import SHIPPED, TRUNK
from experiments.bundle import CONFIGS, read_configs

PAGES = (
    "README.md",
    "bundle/docs/README.md",
    "docs/applications.md",
    "docs/method.md",
    "docs/reliability.md",
    "docs/speed.md",
)
SETTINGS = {
    "scale_factor": "scale factor",
    "architecture::slab_size": "slices of a slab",
    "architecture::num_features": "features",
    "architecture::num_groups": "groups",
    "architecture::num_blocks": "blocks of a group",
    "architecture::skip": "skip by interpolation",
    "patch_size": "patch (LR voxels)",
    "batch_size": "batch",
    "slab_axes": "slab axes",
    "max_iterations": "iterations",
    "learning_rate": "learning rate",
    "discriminator_learning_rate": "of the discriminators",
    "seed": "seed",
}
METADATA = CONFIGS / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def shipped_training() -> str:
    """A table of the settings of each stage of the shipped weights' training."""
    parsers = [read_configs(TRUNK, *stack) for stack in SHIPPED]
    rows = [["", *(f"`{stack[-1]}`" for stack in SHIPPED)], ["---"] * (1 + len(SHIPPED))]
    rows.append(["objective", *(parser["objective_def::_target_"].rpartition(".")[2] for parser in parsers)])
    for parser in parsers:
        parser["discriminator_learning_rate"] = parser["train::d_optimizer"] and parser["discriminator_learning_rate"]
    rows += [[title, *(str(parser[key]) for parser in parsers)] for key, title in SETTINGS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def quote(name: str) -> str:
    """A result as Markdown: a table as it is, a training record as a list, or the settings of the configs."""
    if name == "configs/SHIPPED":
        return shipped_training()
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
    """The bundle's metadata with the shipped weights' figures, mean over the test subjects, as ``eval_metrics``."""
    with open(RESULTS / "real_scans" / "subjects.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    content = json.loads(metadata)
    content["eval_metrics"] = {
        f"{metric}_{method}": round(mean(float(row[metric]) for row in rows if row["method"] == method), 4)
        for metric in ("psnr_deep", "ssim_deep", "psnr", "ssim")
        for method in ("pred", "consistent", "zero_filling", "tricubic")
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    METADATA.write_text(refreshed_metadata(METADATA.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
