"""Committed results and the pages that quote them."""

from __future__ import annotations

import re
import runpy

import pytest
from conftest import REPOSITORY

ROOT = REPOSITORY
REFRESH = runpy.run_path(str(ROOT / "experiments" / "pages.py"))


@pytest.mark.parametrize("name", REFRESH["PAGES"])
def test_pages_quote_the_committed_results(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert REFRESH["refreshed"](page) == page, "run: python -m experiments.pages"


def test_metadata_state_the_committed_figures():
    metadata = REFRESH["METADATA"].read_text(encoding="utf-8")
    assert REFRESH["refreshed_metadata"](metadata) == metadata, "run: python -m experiments.pages"


@pytest.mark.parametrize("name", REFRESH["PAGES"])
def test_pictures_of_a_page_exist(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert ((ROOT / name).parent / path).is_file(), path
