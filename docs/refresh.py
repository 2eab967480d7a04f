"""Put the committed results into the pages that quote them, so that no number is typed by hand.

Usage: python docs/refresh.py

Between ``<!-- begin NAME/FILE -->`` and ``<!-- end -->`` of a page stands what ``docs/results/NAME/FILE`` says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = ("README.md", "bundle/docs/README.md")
BLOCK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def quote(name: str) -> str:
    """A result as Markdown: a table as it is, a training record as a list."""
    path = RESULTS / name
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text.strip()
    record = json.loads(text)
    lines = [f"- {group}: {', '.join(names) or 'none'}" for group, names in record["subjects"].items()]
    return "\n".join([*lines, f"- {record['iterations']} iterations in {record['hours']} hours on two CPU cores"])


def refreshed(page: str) -> str:
    """The page with its blocks brought up to date."""
    return BLOCK.sub(lambda match: f"{match[1]}{quote(match[2])}\n{match[3]}", page)


if __name__ == "__main__":
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
