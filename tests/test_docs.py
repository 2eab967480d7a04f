"""Documentation: the worked example of adding_a_method.md is true, built from the page's own text."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from ignite.engine import Events
from scripts import objectives

PAGE = (REPOSITORY / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))
OBJECTIVE = "bundle/scripts/objectives/degrade_and_restore.py"
OVERLAY = "bundle/configs/methods/degrade_and_restore.yaml"
TEST = "tests/test_degrade_and_restore.py"


@pytest.fixture
def example(tmp_path, monkeypatch) -> Iterator[Path]:
    """The page's files in a folder of their own, where Python and the configs find them."""
    for name, text in FILES.items():
        path = tmp_path / "example" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    root = tmp_path / "example"
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str((root / OBJECTIVE).parent)])
    importlib.invalidate_caches()
    yield root
    sys.modules.pop("scripts.objectives.degrade_and_restore", None)


def test_the_page_has_the_files_of_a_method():
    assert list(FILES) == [OBJECTIVE, OVERLAY, TEST]
    assert not any((REPOSITORY / name).exists() for name in FILES)


def test_the_example_passes_its_own_test(example):
    tests = runpy.run_path(str(example / TEST))
    tests["test_each_term_moves_the_networks_that_the_method_says"]()


@pytest.mark.parametrize("overlays", [(), ("data/misaligned.yaml",)])
def test_the_example_trains(example, train_stack, tmp_path, overlays):
    workflow = train_stack(str(example / OVERLAY), *overlays)
    workflow.initialize()
    assert workflow.check_properties() == []
    terms = {}
    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: terms.update(engine.state.output["terms"]))
    workflow.run()
    assert trainer.state.iteration == 2
    assert set(terms) == {"restoration_l1", "restoration_ssim", "adversarial", "low_res_discriminator_degraded"}
    assert all(torch.isfinite(term) for term in terms.values())
    assert (tmp_path / "model.pt").is_file()


def test_what_the_page_points_to_exists():
    names = re.findall(r"`((?:bundle|configs|docs|tests)/[\w/]+\.(?:py|yaml|md))`", PAGE)
    paths = [REPOSITORY / "bundle" / name if name.startswith("configs") else REPOSITORY / name for name in names]
    assert names
    assert [
        str(path) for path, name in zip(paths, names, strict=True) if name not in FILES and not path.is_file()
    ] == []


def test_the_commands_name_files_that_exist():
    named = set(re.findall(r"'(bundle/configs/[\w/]+\.yaml)'", PAGE)) - set(FILES)
    assert named
    assert all((REPOSITORY / name).is_file() for name in named)
