"""Pages: HTML files that open from disk and load nothing, made of the templates beside this module."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from monai.config import PathLike

from scripts.data.names import RESERVED
from scripts.transforms.naming import bundle_metadata
from scripts.utils.atomic import write_text_atomically
from scripts.utils.errors import explain

__all__ = ["INDEX", "REPORT", "Row", "never_fatal", "tables_of", "write_index", "write_page"]

logger = logging.getLogger(__name__)

REPORT, INDEX = "report", f"{RESERVED}.html"  # the folder of all pages, and the page that lists them
HERE = Path(__file__).parent


@cache
def _templates() -> Environment:
    loader = FileSystemLoader([HERE / "templates", HERE / "viewer"])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.policies["json.dumps_kwargs"] = {}  # keys keep their order
    made.globals["niivue"] = Markup((HERE / "viewer" / "niivue.js").read_text(encoding="utf-8"))
    return made


def write_page(path: PathLike, template: str, **values: Any) -> None:
    """Fill a template and write the page.

    Args:
        path: the HTML file.
        template: name of a file of ``templates/``.
        values: of the template.

    Example:
        >>> import tempfile
        >>> page = Path(tempfile.mkdtemp(), "index.html")
        >>> write_page(page, "index.html", title="<scans>", cards=[], tables=[], scores="")
        >>> "&lt;scans&gt;" in page.read_text()
        True
    """
    page = _templates().get_template(template)
    write_text_atomically(path, page.render(about=bundle_metadata(), **values))


@contextmanager
def never_fatal(what: str) -> Iterator[None]:
    """Log an error of a page instead of raising it, because a page must not cost a result.

    Args:
        what: names the page.

    Example:
        >>> with never_fatal("scan.nii"):
        ...     raise ValueError("the page is larger than the disk")
    """
    try:
        yield
    except Exception as error:
        logger.warning("%s: the page could not be written, the result is complete. %s", what, explain(error))
        logger.debug("%s", what, exc_info=error)


class Row(NamedTuple):
    """A scan in an index.

    Args:
        name: of the scan.
        page: its file, which may be missing; None for no page of this result.
        facts: cells by their title.
        warning: what the reader must know first; empty for nothing.
    """

    name: str
    page: Path | None
    facts: Mapping[str, str | None]
    warning: str = ""


def write_index(folder: PathLike, title: str, rows: Sequence[Row], summary: str = "", scores: str = "") -> Path:
    """Write the page that lists those of a data set: failed scans, those with a warning, the others, those left out.

    Args:
        folder: of the index.
        title: its heading.
        rows: the scans.
        summary: tables and lists in Markdown, as this bundle writes them.
        scores: what the cells of the rows are.

    Returns:
        the path of the index.

    Example:
        >>> import tempfile
        >>> write_index(tempfile.mkdtemp(), "Scans", [Row("scan", Path("scan.html"), {"result": "failed"})]).name
        'index.html'
    """
    path = Path(folder) / INDEX
    cards = []
    linked = {row.page for row in rows if row.page is not None and row.page.is_file()}
    for row in sorted(rows, key=lambda row: (not row.warning, (row.page in linked) is bool(row.warning))):
        link = Path(os.path.relpath(row.page, folder)).as_posix() if row.page in linked else None
        still = link and f"{link.removesuffix('.html')}.jpg"
        cards.append({"link": link and quote(link), "still": still and quote(still), **row._asdict()})
    write_page(path, "index.html", title=title, cards=cards, tables=tables_of(summary), scores=scores)
    logger.info("Open %s in a browser to look at the scans.", path)
    return path


def tables_of(markdown: str) -> list[list[list[str]]]:
    """The tables of a text in Markdown, each as its rows; a list becomes a table of two columns.

    Example:
        >>> tables_of("| a | b |\\n| --- | --- |\\n| 1 | 2 |\\n\\n- seed: 0\\n")
        [[['a', 'b'], ['1', '2']], [['seed', '0']]]
    """
    tables: list[list[list[str]]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|") and not set(line) <= set("|- "):
            cells = re.split(r"(?<!\\)\|", line.strip("|"))
            tables[-1].append([cell.strip().replace(r"\|", "|") for cell in cells])
        elif line.startswith("- "):
            tables[-1].append(line[2:].split(": ", 1))
        elif not line.strip():
            tables.append([])
    return [table for table in tables if table]
