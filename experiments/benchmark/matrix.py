"""The matrix: which systems run on what, in which order, and by which commands of the bundle."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from experiments import ROOT

__all__ = ["CONTRASTIVE", "INITIAL", "MODEL", "ROOT", "Matrix", "Row", "Stage", "read_matrix"]

CONFIGS = "bundle/configs"
CONTRASTIVE = "contrastive"  # train.yaml itself; every other system is an overlay
INITIAL = "initial"  # the network from which the learned rows of a matrix start, itself a row
TUNINGS = ("fine_tuning", "spectral_tuning")  # which go on from shipped weights; no overlays of methods/
ELSEWHERE = {INITIAL: f"{CONFIGS}/methods/kspace_pairs.yaml", **{name: f"{CONFIGS}/{name}.yaml" for name in TUNINGS}}
MODEL = "model.pt"
ESTIMATE = "@degradation"  # in a network's definition: an estimate, which inference.yaml takes as a file
FEW_METHODS = {"zero_filling": "zero-filling", "pred": "super-resolution"}  # of the evaluations beside the main one
BACKBONES = {"paper_network", "slab_network", "without_skip"}  # overlays that go with any system
EVERY = "every"
OURS = "ours"  # the backbone of train.yaml; another is an overlay too
ASSIGNMENTS = ("unpaired", "misaligned")
DIMENSIONS = ("system", "scale_factor", "assignment", "hr_fraction", "network", "fold", "seed")
KEYS = {
    "title",
    "plan",
    "limits",
    "dataset_dir",
    "cohort",
    "datalist",
    "folds",
    "initial",
    "lesions",
    "rows",
    "best_validation",
    "mismatches",
    "tables",
    "decisions",
}
OPTIONS = {"training", "evaluation"}  # of the commands, for all rows or for those of a block


@dataclass(frozen=True)
class Row:
    """One system, trained and evaluated once.

    Args:
        system: an overlay of ``bundle/configs/methods``, or "contrastive".
        scale_factor: along the axes of the canonical frame.
        assignment: "unpaired" or "misaligned", of the training scans.
        hr_fraction: share of the source subjects.
        network: "ours" or an overlay with another backbone.
        fold: name of the split of subjects; empty where there is one.
        seed: of networks, data order and subset.
        training: options of the training commands.
        evaluation: options of the evaluating commands.
        mismatches: whether to evaluate it on other acquisitions too, where the matrix has some.
        initial: the row whose network its training starts from; None: from a random one.
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
    mismatches: bool = True
    initial: Row | None = None

    @property
    def name(self) -> str:
        """The folder: the system and whatever is not the usual."""
        parts = [self.system]
        parts += ["x".join(map(str, self.scale_factor))] if self.scale_factor != (2, 2, 2) else []
        parts += [self.assignment] if self.assignment != "unpaired" else []
        parts += [f"hr{100 * self.hr_fraction:g}"] if self.hr_fraction != 1 else []
        parts += [self.network] if self.network != OURS else []
        return "_".join([*parts, *filter(None, [self.fold]), f"seed{self.seed}"])

    @property
    def setting(self) -> dict[str, Any]:
        """What makes the row itself, as JSON has it."""
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name in DIMENSIONS}))

    @property
    def overlay(self) -> str | None:
        """The file of the system; the contrastive model has none."""
        if self.system == CONTRASTIVE:
            return None
        return ELSEWHERE.get(self.system, f"{CONFIGS}/methods/{self.system}.yaml")

    def stages(self) -> list[Stage]:
        """The trainings of the system, in their order; none for what is not trained."""
        stacks = [[f"{CONFIGS}/train.yaml"]] if self.overlay is None else _stacks(self.overlay, "training")
        budgets = [_content(stack[-1]).get("max_iterations") for stack in stacks]
        extra = [self._network_overlay] if self._network_overlay else []
        supervised = self.system.startswith("supervised")
        extra += [f"{CONFIGS}/misaligned.yaml"] if self.assignment == "misaligned" and not supervised else []
        return [
            Stage(number, [*stack, *extra], 1.0 if len(stacks) == 1 else budget / sum(budgets))
            for number, (stack, budget) in enumerate(zip(stacks, budgets, strict=True), start=1)
        ]

    def evaluating(self) -> list[str]:
        """The stack of config files that evaluates the system."""
        trunk = [f"{CONFIGS}/inference.yaml", f"{CONFIGS}/evaluate.yaml", *filter(None, [self._network_overlay])]
        if self.overlay is None:
            return trunk
        header = (ROOT / self.overlay).read_text(encoding="utf-8")
        return trunk if self.stages() and "on inference" not in header else [*trunk, self.overlay]

    @property
    def needs_estimate(self) -> bool:
        """Whether its evaluation takes the degradation that is estimated between its unpaired groups."""
        return (
            not self.stages() and _content(self.evaluating()[-1]).get("network_def", {}).get("degradation") == ESTIMATE
        )

    @property
    def trains_the_network(self) -> bool:
        """Whether it trains the network of inference.yaml itself, rather than nothing or one around it."""
        return bool(self.stages()) and (self.overlay is None or self.overlay not in self.evaluating())

    @property
    def _network_overlay(self) -> str | None:
        return None if self.network == OURS else f"{CONFIGS}/methods/{self.network}.yaml"


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
        """The file that its end leaves behind."""
        named = [_content(name).get("final_filename") for name in self.configs]
        return [name for name in named if name][-1]

    def options(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """Of all options those of this stage: its share of the iterations, in whole epochs."""
        options = dict(training)
        if "max_iterations" in options:
            epoch = options["iterations_per_epoch"]
            options["max_iterations"] = max(1, round(self.share * options["max_iterations"] / epoch)) * epoch
        return options


@dataclass(frozen=True)
class Matrix:
    """A file of ``experiments/benchmark/matrices`` or a user's own, as read by :func:`read_matrix`."""

    path: Path
    content: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        return self.path.stem

    def evaluations(self, row: Row) -> dict[str, dict[str, Any]]:
        """Options of a row's evaluations by their folder: of the last iterate, of the best one, of other acquisitions.

        Other acquisitions are evaluated for the lowest seed and the first fold, and there for the usual groups.
        """
        found: dict[str, dict[str, Any]] = {"evaluation": {}}
        few = {"methods": FEW_METHODS}
        if self.content.get("best_validation") and row.stages():
            found["best_validation"] = {"ckpt_path": "best_model.pt", **few}
        first = (self.rows[0].seed, self.rows[0].fold, "unpaired", 1)
        if row.mismatches and (row.seed, row.fold, row.assignment, row.hr_fraction) == first:
            others = self.content.get("mismatches", {})
            found |= {f"mismatches/{name}": {**few, **options} for name, options in others.items()}
        return found


def read_matrix(path: str | Path, dataset_dir: str | Path | None = None) -> Matrix:
    """Read a matrix and put its rows in order: the lowest seed and first fold of everything before any other.

    Args:
        path: YAML file. ``rows`` holds blocks; a list in a block stands for all its values, crossed with those of the
            other lists. Blocks are given from the most to the least informative.
        dataset_dir: replaces that of the file.

    Raises:
        ValueError: when a key, a system or a value is unknown, or two rows are the same.
    """
    path = Path(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_keys(path, content, KEYS | OPTIONS)
    if dataset_dir is not None:
        content = {**content, "dataset_dir": str(dataset_dir)}
    folds = list(content.get("folds", {"": None}))
    blocks = [row for block in content["rows"] for row in _expand(path, {"fold": folds, **block}, content)]
    rows = sorted(
        _with_initial_rows(blocks, content), key=lambda row: (row.seed, folds.index(row.fold))
    )  # stable: else as in the file
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{path}: every row must be there once, got {twice} more than once. Remove the repetition.")
    return Matrix(path, content, rows)


def _with_initial_rows(rows: Sequence[Row], content: Mapping[str, Any]) -> list[Row]:
    """Put before each learned row the one whose network it starts from, where the matrix asks for that.

    That row has its backbone, scale factor, fold, share of the source subjects and seed; the source is the same in both
    assignments.
    """
    if "initial" not in content:
        return list(rows)
    training = {**content.get("training", {}), **content["initial"]}
    found: list[Row] = []
    for row in rows:
        if row.trains_the_network:
            options = {"training": training, "evaluation": content.get("evaluation", {}), "mismatches": True}
            initial = replace(row, system=INITIAL, assignment="unpaired", **options)
            found += [] if initial in found else [initial]
            row = replace(row, initial=initial)
        found.append(row)
    return found


def _expand(path: Path, block: Mapping[str, Any], content: Mapping[str, Any]) -> list[Row]:
    """The rows of a block."""
    _check_keys(path, block, {*DIMENSIONS, *OPTIONS, "mismatches"})
    values = {name: _values(name, block[name]) for name in DIMENSIONS if name in block}
    options: dict[str, Any] = {name: {**content.get(name, {}), **block.get(name, {})} for name in OPTIONS}
    options["mismatches"] = block.get("mismatches", True)
    rows = [
        Row(**dict(zip(values, combination, strict=True)), **options)
        for combination in itertools.product(*values.values())
    ]
    for row in rows:
        _check_row(path, row, content)
    return rows


def _values(name: str, value: Any) -> list[Any]:
    """A list of values, from one or several; a scale factor is itself a list, "every" means all trained systems."""
    if value == EVERY:
        return _trained_systems()
    if name == "scale_factor":
        return [tuple(one) for one in (value if isinstance(value[0], list) else [value])]
    return value if isinstance(value, list) else [value]


def _check_keys(path: Path, content: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(content) - known)
    if unknown:
        raise ValueError(f"{path}: keys must be among {sorted(known)}, got {unknown}. Correct them.")


def _check_row(path: Path, row: Row, content: Mapping[str, Any]) -> None:
    systems = [file.stem for file in sorted((ROOT / CONFIGS / "methods").glob("*.yaml"))]
    systems += [CONTRASTIVE, *TUNINGS]
    if row.system not in systems or row.network not in [OURS, *systems]:
        raise ValueError(f"{path}: systems must be among {systems}, got {row.system}, {row.network}.")
    if row.assignment not in ASSIGNMENTS or not 0 < row.hr_fraction <= 1 or len(row.scale_factor) != 3:
        raise ValueError(
            f"{path}: assignment must be one of {ASSIGNMENTS}, hr_fraction in (0, 1], scale_factor of three numbers, "
            f"got {row.assignment}, {row.hr_fraction} and {row.scale_factor}."
        )
    if row.fold and row.fold not in content.get("folds", {}):
        raise ValueError(f"{path}: folds must be among {sorted(content.get('folds', {}))}, got {row.fold!r}.")


def _trained_systems() -> list[str]:
    """The contrastive model and every overlay that is the last stage of a training."""
    overlays = {path.stem: f"{CONFIGS}/methods/{path.name}" for path in (ROOT / CONFIGS / "methods").glob("*.yaml")}
    last = [
        name
        for name, overlay in overlays.items()
        if (stacks := _stacks(overlay, "training")) and stacks[-1][-1] == overlay
    ]
    return [CONTRASTIVE, *sorted(set(last) - BACKBONES)]


def _stacks(overlay: str, run_id: str) -> list[list[str]]:
    """The lists of config files with which the overlay's header says to run."""
    text = (ROOT / overlay).read_text(encoding="utf-8")
    commands = re.findall(rf"run {run_id} --config_file (\"\[.*?\]\"|\S+)", text)
    return [re.findall(r"[^\"',\[\]]+", command) for command in commands]


def _content(config: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / config).read_text(encoding="utf-8"))
