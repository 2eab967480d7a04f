"""Committed results and the pages that quote them."""

from __future__ import annotations

import re

import pytest
from conftest import REPOSITORY

from experiments import RESULTS, pages
from experiments.pictures import LARGEST

GENERATED = ("docs/results.md",)  # by the benchmark's report


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pages.PAGES)
def test_pages_quote_the_committed_results(name):
    assert pages.refreshed(read(name)) == read(name), "run: python -m experiments.pages"


def test_metadata_state_the_committed_figures():
    metadata = pages.METADATA.read_text(encoding="utf-8")
    assert pages.refreshed_metadata(metadata) == metadata, "run: python -m experiments.pages"


@pytest.mark.parametrize("name", [*pages.PAGES, *GENERATED])
def test_pictures_and_files_that_a_page_links_exist(name):
    for path in re.findall(r"\]\(([^)#]+)[^)]*\)", read(name)):
        assert "://" in path or ((REPOSITORY / name).parent / path).exists(), path


def test_committed_results_are_light():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert [path for path in files if path.stat().st_size > LARGEST] == []
    assert {path.suffix for path in files} <= {".csv", ".json", ".md", ".png", ".tex"}


def test_the_results_conclude_on_one_page():
    assert len(read("docs/results.md").splitlines()) <= 300
