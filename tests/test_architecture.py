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

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "bundle"
SCRIPTS = BUNDLE / "scripts"

# module or package of scripts/ -> what it may import of scripts/. Nothing imports networks: configs bring them together
MAY_IMPORT = {
    "kspace": set(),
    "interpolation": set(),
    "losses": set(),
    "precision": set(),
    "cropping": set(),
    "atomic": set(),
    "errors": set(),
    "gathering": set(),
    "weights": set(),
    "checkpoints": {"atomic", "weights"},
    "registration": set(),
    "metrics": {"kspace", "registration"},
    "monitors": {"kspace", "registration"},
    "degradation": {"atomic", "kspace"},
    "acquisition": {"degradation"},
    "consistency": {"kspace"},
    "transforms": {"acquisition", "atomic", "consistency", "degradation", "kspace", "interpolation", "metrics"},
    "demonstration": {"kspace", "transforms"},
    "layouts": set(),
    "datalist": {"atomic", "demonstration", "layouts"},
    "scans": {"transforms"},
    "slab_dataset": {"cropping", "scans"},
    "data": {"cropping", "datalist", "scans", "slab_dataset", "transforms"},
    "estimation": {"atomic", "degradation", "inspection", "scans"},
    "spectra": set(),
    "tracking": set(),
    "inspection": {"atomic", "datalist", "errors", "spectra", "transforms"},
    "networks": {"consistency", "degradation", "kspace", "interpolation"},
    "objectives": {"cropping", "kspace", "losses"},
    "engines": {"objectives.base", "precision"},
    "handlers": {"atomic", "gathering", "kspace", "losses", "metrics", "registration"},
    "distributed": {"data", "folders", "handlers", "slab_dataset"},
    "inferers": {"cropping", "kspace", "losses", "precision"},
    "files": {"datalist"},
    "saving": {"atomic", "files"},
    "folders": {"atomic", "errors", "saving"},
    "pictures": {"metrics"},
    "costs": set(),
    "tables": {"costs", "metrics"},
}


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
    assert {name.split(".")[0] for name in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_it_may(name):
    own = name.split(".")[0]
    others = {other for other in imports(MODULES[name]) if other.split(".")[0] != own}
    allowed = MAY_IMPORT[own]
    assert {other for other in others if other not in allowed and other.split(".")[0] not in allowed} == set()


def test_the_import_direction_has_no_circle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [m for m in MAY_IMPORT if m not in order and {i.split(".")[0] for i in MAY_IMPORT[m]} <= set(order)]
        assert free
        order += free


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith("objectives.") and name != "objectives.base"]
)
def test_an_objective_imports_no_sibling(name):
    siblings = {other for other in imports(MODULES[name]) if other.startswith("objectives")}
    assert siblings <= {"objectives.base"}


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_are_imported_where_they_are_needed(name):
    """DICOM alone needs ITK, and the demonstration cohort alone nilearn."""
    top_level = [
        node
        for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    packages = {
        alias.name if isinstance(node, ast.Import) else node.module for node in top_level for alias in node.names
    }
    assert {package.split(".")[0] for package in packages if package} & {"itk", "nilearn"} == set()


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
