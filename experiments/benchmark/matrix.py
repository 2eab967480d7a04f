"""The matrix: which systems run on which scans, in which order, by which commands of the bundle."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from scripts.utils.composition import KINDS

from experiments import ROOT
from experiments.benchmark.stacks import (
    BACKBONES,
    ESTIMATING,
    EVALUATION,
    EVALUATIONS,
    MISALIGNED,
    OWN_NETWORK,
    OWN_PAIRS,
    SLAB_NETWORK,
    SLABS,
    TRAININGS,
    TRUNK,
    TUNINGS,
    UNPAIRED,
)
from experiments.bundle import FIXED_FACTOR, read_configs

__all__ = ["CONFIGS", "OURS", "PAPERS", "ROOT", "Matrix", "Row", "Stage", "read_matrix"]

CONFIGS = "bundle/configs"
EVERY = "every"
OURS = "ours"  # the backbone of train.yaml
ASSIGNMENTS = ("unpaired", "misaligned")
DIMENSIONS = ("system", "scale_factor", "assignment", "hr_fraction", "network", "fold", "seed")
OPTIONS = {"training", "evaluation"}  # options of the commands, for all rows or for the rows of a block
PAPERS = yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
KEYS = {"title", "plan", "limits", "dataset_dir", "cohort", "datalist", "folds", "rows", "tables", "decisions"}


@dataclass(frozen=True)
class Row:
    """One system, trained and evaluated once.

    Args:
        system: a name of ``stacks.py``.
        scale_factor: along the axes of the canonical frame.
        assignment: of the training scans, "unpaired" or "misaligned".
        hr_fraction: share of the source subjects, in (0, 1].
        network: "ours" or another backbone of ``stacks.py``.
        fold: name of the split of subjects; empty for a matrix of one split.
        seed: of the networks, the order of the data and the subset of subjects.
        training: options of the training commands.
        evaluation: options of the evaluating command.
    """

    system: str
    scale_factor: tuple[int, ...] = (2, 2, 2)
    assignment: str = "unpaired"
    hr_fraction: float = 1.0
    network: str = OURS
    fold: str = ""
    seed: int = 0
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    evaluation: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Name of the folder: the system and every unusual setting."""
        parts = [self.system]
        parts += ["x".join(map(str, self.scale_factor))] if self.scale_factor != (2, 2, 2) else []
        parts += [self.assignment] if self.assignment != "unpaired" else []
        parts += [f"hr{100 * self.hr_fraction:g}"] if self.hr_fraction != 1 else []
        parts += [self.network] if self.network != OURS else []
        return "_".join([*parts, *filter(None, [self.fold]), f"seed{self.seed}"])

    @property
    def setting(self) -> dict[str, Any]:
        """The dimensions of the row, as JSON holds them."""
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name in DIMENSIONS}))

    @property
    def needs_estimate(self) -> bool:
        """Whether its evaluation takes the estimated degradation between its unpaired groups."""
        return self.system in ESTIMATING

    def stages(self) -> list[Stage]:
        """The trainings of the system in their order; none for a system without training."""
        stacks = TRAININGS.get(self.system, ())
        others = self._backbone(SLABS)
        others += [MISALIGNED] if self.assignment == "misaligned" and self.system not in OWN_PAIRS else []
        return [
            Stage(number, _stack(TRUNK, *others, *stack), share)
            for number, (stack, share) in enumerate(zip(stacks, _shares(stacks), strict=True), start=1)
        ]

    def evaluating(self) -> list[str]:
        """The config files of its evaluation."""
        return _stack(EVALUATION, *EVALUATIONS.get(self.system, ()), *self._backbone(FIXED_FACTOR))

    def _backbone(self, base: str) -> list[str]:
        return [] if self.network == OURS else [base, *BACKBONES[self.network]]


@dataclass(frozen=True)
class Stage:
    """One training command.

    Args:
        number: from 1.
        configs: its files.
        share: of the row's iterations.
    """

    number: int
    configs: Sequence[str]
    share: float = 1.0

    @property
    def weights(self) -> str:
        """The file that it writes at its end."""
        return read_configs(*(ROOT / name for name in self.configs))["train::results_file"]

    def options(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """All options, with the share of this stage of the iterations, in whole epochs."""
        options = dict(training)
        if "max_iterations" in options:
            epoch = options["iterations_per_epoch"]
            options["max_iterations"] = max(1, round(self.share * options["max_iterations"] / epoch)) * epoch
        return options


@dataclass(frozen=True)
class Matrix:
    """A matrix of the project or of a user; see :func:`read_matrix`."""

    path: Path
    content: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        return self.path.stem


def read_matrix(path: str | Path, dataset_dir: str | Path | None = None) -> Matrix:
    """Read a matrix and order its rows: the lowest seed and the first fold of every system come first.

    Args:
        path: YAML file. ``rows`` holds blocks, the most informative first. A list in a block stands for all its values,
            in every combination with the other lists.
        dataset_dir: replaces that of the file.

    Raises:
        ValueError: when a key, a system or a value is unknown, or when a row stands there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected the YAML file of a matrix, got none. Correct the path.")
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    _check_keys(path, content, KEYS | OPTIONS)
    _check_content(path, content)
    if dataset_dir is not None:
        content = {**content, "dataset_dir": str(dataset_dir)}
    folds = list(content.get("folds", {"": None}))
    rows = [row for block in content["rows"] for row in _expand(path, block, content)]
    rows.sort(key=lambda row: (row.seed, folds.index(row.fold)))  # a stable sort keeps the order of the file
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{path}: expected every row once, got {twice} more than once. Remove the repetition.")
    return Matrix(path, content, rows)


def _expand(path: Path, block: Mapping[str, Any], content: Mapping[str, Any]) -> list[Row]:
    """The rows of a block."""
    _check_keys(path, block, {*DIMENSIONS, *OPTIONS})
    if "system" not in block:
        raise ValueError(f"{path}: a block of rows must name a system, got {dict(block)}. Add system: NAME.")
    block = {"fold": list(content.get("folds", {"": None})), **block}
    left_out: list[str] = []
    for network in _values("network", block.get("network", OURS), ()):
        left_out += TUNINGS if network == OURS else OWN_NETWORK
        left_out += SLAB_NETWORK if network != "slab_network" else ()
    values = {name: _values(name, block[name], left_out) for name in DIMENSIONS if name in block}
    options: dict[str, Any] = {name: {**(content.get(name) or {}), **(block.get(name) or {})} for name in OPTIONS}
    rows = [
        Row(**dict(zip(values, combination, strict=True)), **options)
        for combination in itertools.product(*values.values())
    ]
    for row in rows:
        _check_row(path, row, content)
    return rows


def _values(name: str, value: Any, left_out: Sequence[str]) -> list[Any]:
    """A list of values. A scale factor is a list itself; "every" means every trained system but those left out."""
    if value == EVERY:
        return [system for system in TRAININGS if system not in left_out]
    if name == "scale_factor":
        several = isinstance(value, list) and value and isinstance(value[0], list)
        return [tuple(one) if isinstance(one, list) else one for one in (value if several else [value])]
    return value if isinstance(value, list) else [value]


def _check_content(path: Path, content: Mapping[str, Any]) -> None:
    """Check what a report will need, before the first row runs."""
    for key, kind, words in (("title", str, "a text"), ("plan", str, "a text"), ("rows", list, "a list of blocks")):
        if not content.get(key) or not isinstance(content[key], kind):
            raise ValueError(f"{path}: {key} must be {words}, got {content.get(key)!r}. Correct it.")
    tables = content.get("tables") or []
    if not isinstance(tables, list) or not set(tables) <= set(PAPERS):
        raise ValueError(f"{path}: tables must be a list of {sorted(PAPERS)}, got {tables}. Correct it.")


def _check_keys(path: Path, content: Mapping[str, Any], known: set[str]) -> None:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected keys with values, got {content!r}. Correct it.")
    unknown = sorted(set(content) - known)
    if unknown:
        raise ValueError(f"{path}: keys must be among {sorted(known)}, got {unknown}. Correct them.")


def _check_row(path: Path, row: Row, content: Mapping[str, Any]) -> None:
    systems, networks = sorted({*TRAININGS, *EVALUATIONS}), [OURS, *BACKBONES]
    if row.system not in systems:
        raise ValueError(f"{path}: systems must be among {systems}, got {row.system}. Correct it.")
    if row.network not in networks:
        raise ValueError(f"{path}: networks must be among {networks}, got {row.network}. Correct it.")
    if row.network != OURS and row.system in OWN_NETWORK:
        raise ValueError(f"{path}: {row.system} has a network of its own, got {row.network}. Leave network out.")
    if row.network != "slab_network" and row.system in SLAB_NETWORK:
        raise ValueError(f"{path}: {row.system} expects network: slab_network, got {row.network}. Set it.")
    if row.assignment == "misaligned" and row.system in UNPAIRED:
        raise ValueError(f"{path}: {row.system} expects unpaired groups, got misaligned ones. Correct assignment.")
    factors = row.scale_factor if isinstance(row.scale_factor, tuple) else ()
    whole = len(factors) == 3 and all(isinstance(factor, int) and factor >= 1 for factor in factors)
    share = isinstance(row.hr_fraction, (int, float)) and 0 < row.hr_fraction <= 1
    if row.assignment not in ASSIGNMENTS or not share or not whole or not isinstance(row.seed, int) or row.seed < 0:
        raise ValueError(
            f"{path}: assignment must be one of {ASSIGNMENTS}, hr_fraction in (0, 1], scale_factor three whole numbers "
            f"and seed a whole number, got {row.assignment}, {row.hr_fraction}, {row.scale_factor} and {row.seed}."
        )
    if row.fold and row.fold not in content.get("folds", {}):
        raise ValueError(f"{path}: folds must be among {sorted(content.get('folds', {}))}, got {row.fold!r}.")


def _shares(stacks: Sequence[Sequence[str]]) -> list[float]:
    """The share of the iterations of each stage, by the ``max_iterations`` of its configs."""
    if len(stacks) == 1:
        return [1.0]
    budgets = [read_configs(TRUNK, *stack)["max_iterations"] for stack in stacks]
    return [budget / sum(budgets) for budget in budgets]


def _stack(trunk: str, *overlays: str) -> list[str]:
    """The files in the order that the bundle requires, each once. A baseline stands behind the base that it needs."""
    base = KINDS.index("baselines") - 0.5
    places = {name: KINDS.index(name.partition("/")[0]) if name != FIXED_FACTOR else base for name in overlays}
    return [f"{CONFIGS}/{name}" for name in (trunk, *sorted(places, key=places.__getitem__))]
