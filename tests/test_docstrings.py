"""Docstrings: every example in them runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest
from conftest import BUNDLE

SCRIPTS = BUNDLE / "scripts"
MODULES = sorted(
    ".".join(path.relative_to(BUNDLE).with_suffix("").parts).removesuffix(".__init__") for path in SCRIPTS.rglob("*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
