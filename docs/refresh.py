"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python docs/refresh.py

Between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->`` of a page stands what ``docs/results/NAME/FILE`` says.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = ("README.md", "bundle/docs/README.md", "docs/applications.md")
METADATA = ROOT / "bundle" / "configs" / "metadata.json"
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def quote(name: str) -> str:
    """A result as Markdown: a table as it is, a training record as a list."""
    path = RESULTS / name
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.strip()
    record = json.loads(text)
    lines = [f"- {group}: {', '.join(names) or 'none'}" for group, names in record["subjects"].items()]
    stages = [f"{stage['iterations']} iterations in {stage['hours']} hours" for stage in record["stages"]]
    return "\n".join([*lines, f"- {', then '.join(stages)}, on two CPU cores"])


def refreshed(page: str) -> str:
    """The page with its blocks brought up to date."""
    return BLOCK.sub(lambda match: f"{match[1]}{quote(match[2])}\n{match[3]}", page)


def refreshed_metadata(metadata: str) -> str:
    """The bundle's metadata with the shipped weights' figures, mean over the test subjects, as ``eval_metrics``."""
    with open(RESULTS / "real_scans" / "subjects.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    content = json.loads(metadata)
    content["eval_metrics"] = {
        f"{metric}_{method}": round(mean(float(row[metric]) for row in rows if row["method"] == method), 4)
        for metric in ("psnr", "ssim")
        for method in ("pred", "consistent", "zero_filling", "tricubic")
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    METADATA.write_text(refreshed_metadata(METADATA.read_text(encoding="utf-8")), encoding="utf-8")
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
