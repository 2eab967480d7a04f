"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python docs/refresh.py

Between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->`` of a page stands what ``docs/results/NAME/FILE`` says, or, for
``configs/SHIPPED``, how the configs train the shipped weights. The model card gets the test subject's picture as well.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import mean

from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (
    "README.md",
    "bundle/docs/README.md",
    "docs/applications.md",
    "docs/method.md",
    "docs/reliability.md",
    "docs/speed.md",
)
CONFIGS = ROOT / "bundle" / "configs"
STAGES = (  # the second went on from the first, the others from the second
    "shipped_weights.yaml",
    "shipped_weights_continued.yaml",
    "shipped_weights_grown.yaml",
    "shipped_weights_all_scans.yaml",
)
SETTINGS = {
    "scale_factor": "scale factor",
    "slab_size": "slices of a slab",
    "num_features": "features",
    "num_groups": "groups",
    "num_blocks": "blocks of a group",
    "skip": "skip by interpolation",
    "patch_size": "patch (LR voxels)",
    "batch_size": "batch",
    "slab_axes": "slab axes",
    "max_iterations": "iterations",
    "learning_rate": "learning rate",
    "discriminator_learning_rate": "of the discriminators",
    "seed": "seed",
}
PICTURE = ROOT / "bundle" / "docs" / "comparison.png"
METADATA = ROOT / "bundle" / "configs" / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def shipped_training() -> str:
    """A table of the settings with which each stage of the shipped weights is trained, as its config says it is run."""
    stacks = []
    for stage in STAGES:
        (command,) = re.findall(r"^# Run: .*", (CONFIGS / stage).read_text(encoding="utf-8"), re.M)
        parser = ConfigParser()
        parser.read_config([CONFIGS / file for file in re.findall(r"bundle/configs/([\w/]+\.yaml)", command)])
        stacks.append(parser)
    objectives = [parser["objective_def::_target_"].rpartition(".")[2] for parser in stacks]
    rows = [["", *(f"`{stage}`" for stage in STAGES)], ["---"] * (1 + len(STAGES)), ["objective", *objectives]]
    for parser in stacks:
        parser["discriminator_learning_rate"] = parser["d_optimizer"] and parser["discriminator_learning_rate"]
    rows += [[title, *(str(parser[key]) for parser in stacks)] for key, title in SETTINGS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shipped_picture() -> bytes:
    """The picture of the test subject."""
    (path,) = (RESULTS / "real_scans").glob("*_comparison.png")
    return path.read_bytes()


def quote(name: str) -> str:
    """A result as Markdown: a table as it is, a training record as a list; or what the configs say."""
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
    PICTURE.write_bytes(shipped_picture())
    METADATA.write_text(refreshed_metadata(METADATA.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
