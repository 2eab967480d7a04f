"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python -m experiments.pages

A page quotes a result between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->``: the text of
``experiments/results/NAME/FILE``. ``subjects.csv`` becomes a sentence with the gain over zero-filling, and
``training.json`` a list.
``configs/SHIPPED`` is a table of the trainings of the shipped weights.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import mean, stdev

from experiments import RESULTS, ROOT
from experiments.benchmark.stacks import SHIPPED, TRUNK
from experiments.bundle import CONFIGS, read_configs

PAGES = (
    "README.md",
    "bundle/docs/README.md",
    "docs/acquisitions.md",
    "docs/applications.md",
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
DATA = {"unseen": "ds000011", "unseen_in_plane": "ds002748"}  # behind an evaluation
SHIPPED_SCORES = RESULTS / "real_scans" / "subjects.csv"
METADATA = CONFIGS / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def shipped_training() -> str:
    """A table of the settings of each stage of the shipped weights' training."""
    parsers = [read_configs(TRUNK, *stack) for stack in SHIPPED]
    rows = [["", *(f"`{stack[-1]}`" for stack in SHIPPED)], ["---"] * (1 + len(SHIPPED))]
    rows.append(["objective", *(parser["objective_def::_target_"].rpartition(".")[2] for parser in parsers)])
    rows += [[title, *(str(parser[key]) for parser in parsers)] for key, title in SETTINGS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read_scores(path: Path, metric: str) -> dict[str, dict[str, float]]:
    """A metric of an evaluation by method and subject."""
    scores: dict[str, dict[str, float]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores.setdefault(row["method"], {})[row["subject"]] = float(row[metric])
    return scores


def gain(path: Path) -> str:
    """What the network gains over zero-filling in deep tissue, mean and standard deviation, in a sentence.

    Args:
        path: ``subjects.csv`` of an evaluation of the shipped weights, beside its ``summary.md``.
    """
    scores = read_scores(path, "psnr_deep")
    base = scores["zero_filling"]
    factor = re.search(r"scale factor: \[(.*?)\]", path.with_name("summary.md").read_text(encoding="utf-8"))[1]
    words = []
    for method in ("automatic", "pred"):  # with data consistency as in inference, and the network alone
        gains = [scores[method][subject] - base[subject] for subject in base]
        words.append(f"{mean(gains):+.2f} ± {stdev(gains):.2f} dB")
        words.append(f"{sum(gain > 0 for gain in gains)} of {len(gains)}")
    return (
        f"{factor.replace(', ', 'x')} on {DATA[path.parent.name]} (n = {len(base)}): {words[0]} with data consistency "
        f"({words[1]} subjects above zero-filling), {words[2]} without ({words[3]})."
    )


def quote(name: str) -> str:
    """A result as Markdown."""
    if name == "configs/SHIPPED":
        return shipped_training()
    path = RESULTS / name
    if path.suffix == ".csv":
        return gain(path)
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
    content = json.loads(metadata)
    content["eval_metrics"] = {
        f"{metric}_{method}": round(mean(read_scores(SHIPPED_SCORES, metric)[method].values()), 4)
        for metric in ("psnr_deep", "ssim_deep", "psnr", "ssim")
        for method in ("pred", "consistent", "zero_filling", "tricubic")
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    METADATA.write_text(refreshed_metadata(METADATA.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
