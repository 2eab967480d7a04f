"""Architecture: who imports whom, what the configs name, and one version everywhere."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import BUNDLE, REPOSITORY

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

SCRIPTS = BUNDLE / "scripts"

# packages and modules of scripts/, from the ground up: each imports only from the floors below its own
FLOORS = (
    {"utils", "losses"},
    {"physics"},
    {"networks", "metrics"},
    {"transforms", "handlers"},
    {"data"},
    {"objectives", "inferers", "reports"},
    {"engines"},
)
NOT_IMPORTED = "networks"  # configs alone bring them together with the rest
LONGEST = 300  # lines of a module


def module_name(path: Path) -> str:
    """The dotted name below scripts/."""
    return ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for path in sorted(SCRIPTS.rglob("*.py"))
    if path.parent != SCRIPTS or path.stem != "__init__"
}


def imports(path: Path) -> set[str]:
    """The modules below scripts/ that a file imports, absolutely or relatively."""
    found: set[str] = set()
    package = list(path.relative_to(SCRIPTS).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            names = [".".join(["scripts", *above, *(node.module or "").split(".")]).rstrip(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] + (
                [f"scripts.{alias.name}" for alias in node.names] if node.module == "scripts" else []
            )
        found |= {name.removeprefix("scripts.") for name in names if name.startswith("scripts.")}
    return found


def test_every_module_has_its_place():
    assert {name.split(".")[0] for name in MODULES if name} == set.union(*FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_the_floors_below(name):
    own = name.split(".")[0]
    (floor,) = (number for number, rooms in enumerate(FLOORS) if own in rooms)
    below = set().union(*FLOORS[:floor]) - {NOT_IMPORTED}
    assert {other.split(".")[0] for other in imports(MODULES[name])} <= below | {own}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith("objectives.") and name != "objectives.base"]
)
def test_an_objective_imports_no_sibling(name):
    siblings = {other for other in imports(MODULES[name]) if other.startswith("objectives")}
    assert siblings <= {"objectives.base"}


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_where_they_are_needed(name):
    """DICOM, NRRD and MetaImage alone need ITK or pydicom, and the demonstration cohort alone nilearn."""
    top_level = [
        node
        for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    packages = {
        alias.name if isinstance(node, ast.Import) else node.module for node in top_level for alias in node.names
    }
    assert {package.split(".")[0] for package in packages if package} & {"itk", "nilearn", "pydicom"} == set()


# What the configs name


def targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value)


@pytest.mark.parametrize("path", sorted((BUNDLE / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_component_of_the_bundle_that_a_config_names_exists(path):
    for target in targets(yaml.safe_load(path.read_text(encoding="utf-8"))):
        if target.startswith("scripts."):
            module, _, name = target.rpartition(".")
            assert callable(getattr(importlib.import_module(module), name)), target


def test_nothing_is_published_that_does_not_exist():
    for name in MODULES:
        module = importlib.import_module(f"scripts.{name}")
        missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
        assert not missing, f"{name}: {missing}"


# One version


VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def read(*parts: str) -> str:
    path = REPOSITORY.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path.name} is not written yet")
    return path.read_text(encoding="utf-8")


def test_the_bundle_has_the_project_s_version_and_says_what_changed():
    metadata = json.loads(read("bundle", "configs", "metadata.json"))
    assert metadata["version"] == VERSION
    assert VERSION in metadata["changelog"]


def test_the_bundle_has_the_project_s_name():
    name = tomllib.loads(read("pyproject.toml"))["project"]["name"]
    assert json.loads(read("bundle", "configs", "metadata.json"))["name"] == name.replace("-", "_")


def test_the_citation_has_the_project_s_version():
    assert str(yaml.safe_load(read("CITATION.cff"))["version"]) == VERSION


def test_the_changelog_begins_with_the_project_s_version():
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", read("CHANGELOG.md"), re.M)
    assert versions[0] == VERSION
