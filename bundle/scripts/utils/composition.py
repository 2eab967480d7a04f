"""Composition: the config files of a run stand in the right order, and the run uses every option as it was typed.

Each file of ``configs/`` appends its own name to ``composition``. An overlay names in ``requires`` what must stand
before it; a trunk requires nothing. The first step of a run checks both before any scan is read, because a file in the
wrong place would change the experiment silently.
"""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from scripts.utils.arguments import check_axcodes, check_booleans, check_scale_factor, use_typed_paths

__all__ = ["check_composition", "check_options", "check_order", "option_names"]

TRUNKS = {"train", "inference", "evaluate"}
KINDS = ("methods", "baselines", "networks", "data", "recipes", "launch")  # folders of configs/, in their order
OWN_KEYS = {"composition", "requires", "imports", "initialize", "excludes", "run", "finalize"}
TRACKING = {"tracking_uri", "experiment_name", "run_name", "save_execute_config", "configs", "is_not_rank0"}  # MONAI's
REFERENCE = re.compile(r"[@%](\w+(?:(?:::|#)\w+)*)")
ENDINGS = (".yaml", ".json")  # a released bundle has both


def check_composition(composition: Sequence[str], config_dir: str) -> None:
    """Check the config files and the options of the run that this is a step of, and make its paths the typed ones.

    Args:
        composition: the names of the files below ``config_dir``, in the order in which the user gave them.
        config_dir: the folder ``configs`` of the bundle.

    Raises:
        ValueError: when a file stands in the wrong place, lacks what it requires or belongs to another trunk. The
            message holds the right line.
        ValueError: when nothing uses an option. The message names the nearest one.
        ValueError: when a path, a truth value or the scale factor is none, see :mod:`scripts.utils.arguments`.
    """
    content = {name: _read(Path(config_dir), name) for name in composition}
    parser = _running_parser()
    config = {key: value for key, value in parser.config.items() if key != "_meta_"}
    requires, excludes = ({name: one.get(key, []) for name, one in content.items()} for key in ("requires", "excludes"))
    check_order(composition, requires, excludes, next(iter(config)))
    known = list(dict.fromkeys(name for one in content.values() for name in option_names(one)))
    if composition[0] == "train" and "tracking_uri" in config and "launch/mlflow" not in composition:
        right = _in_order([*composition, "launch/mlflow"], requires)
        raise ValueError(f"tracking must have launch/mlflow, got {_words(composition)}. {_line(right)}")
    try:
        check_options(config, known)
    except ValueError:
        for trunk in sorted(TRUNKS - {composition[0]}):  # a second trunk replaces the composition of the first
            if set(_read(Path(config_dir), trunk)) - set(known) <= set(config):
                raise ValueError(
                    f"a run must have one trunk, got {trunk} and {composition[0]}. {_line(composition)}"
                ) from None
        raise
    check_booleans(config)
    check_axcodes(config.get("axcodes"))
    check_scale_factor(config.get("scale_factor", [1, 1, 1]))
    use_typed_paths(parser)


def check_order(
    composition: Sequence[str],
    requires: Mapping[str, Sequence[str | Sequence[str]]],
    excludes: Mapping[str, Sequence[str]] | None = None,
    first_key: str = "imports",
) -> None:
    """Check the order of the files of a run.

    Args:
        composition: see :func:`check_composition`.
        requires: for each file the ones that must stand before it. A list among them means any one of its names.
        excludes: for each file the ones that must not stand beside it.
        first_key: the first key of the merged config. It is ``imports`` when MONAI read a trunk first.

    Raises:
        ValueError: see there.

    Example:
        >>> check_order(["train", "methods/spectral"], {"methods/spectral": ["train"]})
    """
    right = _in_order(composition, requires)
    if first_key != "imports":
        raise ValueError(
            f"the trunk must be the first file, got another file before {composition[0]}. The right line: "
            f"--config_file \"['bundle/configs/{composition[0]}.yaml',...]\", with the others for the dots."
        )
    trunks = [name for name in composition if not requires.get(name)]
    if trunks != list(composition[:1]):
        raise ValueError(
            "the first file, and it alone, must be a trunk (train, inference or evaluate), got "
            f"{_words(composition)}. {_line(right)}"
        )
    for place, name in enumerate(composition):
        for needed in requires.get(name, ()):
            options = [needed] if isinstance(needed, str) else list(needed)
            if not set(options) & set(composition):
                raise ValueError(
                    f"{name} must stand behind {' or '.join(options)}, got {_words(composition)}. "
                    f"{_line(_with(options[0], composition, requires))}"
                )
            if not set(options) & set(composition[:place]):
                raise ValueError(f"{name} must stand behind {' or '.join(options)}. {_line(right)}")
    for first, second in itertools.combinations(composition, 2):
        barred = second in (excludes or {}).get(first, ()) or first in (excludes or {}).get(second, ())
        if barred or (_kind(first) == _kind(second) and not _leads_to(first, second, requires)):
            raise ValueError(
                f"{first} and {second} exclude each other, got {_words(composition)}. Leave one of them out."
            )
    if list(composition) != right:
        raise ValueError(f"the files must stand in the order trunk, {', '.join(KINDS)}. {_line(right)}")


def check_options(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Check that every option of a run is in one of its config files, or that something refers to it.

    Args:
        config: the merged config with the options of the command line.
        known: the keys of its files, in their order; a nested key is ``parent::key``.

    Raises:
        ValueError: when nothing uses a key. The message names the nearest known one.

    Example:
        >>> check_options({"batch_size": 4, "data": {"seed": 0}}, ["batch_size", "data", "data::seed"])
    """
    wholes = {name.replace("#", "::") for text in _texts(config) for name in REFERENCE.findall(text)}
    used = {
        "::".join(parts[:depth])
        for parts in (name.split("::") for name in wholes)
        for depth in range(1, len(parts) + 1)
    }
    for name in _options(config, wholes):
        if name in known or name in used | OWN_KEYS | TRACKING:
            continue
        nearest = _nearest(name, known)
        hint = f"Did you mean --{nearest}?" if nearest else "Remove it, or refer to it."
        raise ValueError(f"every option must be used by the run, got --{name}, which nothing uses. {hint}")


def option_names(content: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    """Every key of a config file without its ``+``; nested ones are ``parent::key``. A component has no such keys."""
    for key, value in content.items():
        name = parent + key.removeprefix("+")
        yield name
        if isinstance(value, Mapping) and "_target_" not in value:
            yield from option_names(value, f"{name}::")


def _nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that ends like a name or begins with it, or else resembles it most."""
    last = name.rpartition("::")[2]
    same = [other for other in known if other.rpartition("::")[2] == last or other.startswith(name)]
    return next(iter(same or difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def _running_parser() -> ConfigParser:
    """The parser of the run. MONAI gives a step none, so this finds the one that evaluates it."""
    frame = sys._getframe()
    while frame is not None:
        parser = frame.f_locals.get("self")
        if isinstance(parser, ConfigParser):
            return parser
        frame = frame.f_back
    raise RuntimeError("check_composition must be a step of a run, such as the first one of `run`.")


def _read(config_dir: Path, name: str) -> dict[str, Any]:
    found = [config_dir / f"{name}{ending}" for ending in ENDINGS if (config_dir / f"{name}{ending}").is_file()]
    if not found:
        raise ValueError(f"{config_dir / name}: expected a config of the bundle, found none. Correct `composition`.")
    return ConfigParser.load_config_file(found[0])


def _kind(name: str) -> str:
    return name.rpartition("/")[0]


def _leads_to(first: str, second: str, requires: Mapping[str, Sequence[str | Sequence[str]]]) -> bool:
    """Whether ``second`` requires ``first``, directly or by others."""
    needed = [name for one in requires.get(second, ()) for name in ([one] if isinstance(one, str) else one)]
    return first in needed or any(_leads_to(first, one, requires) for one in needed)


def _in_order(names: Sequence[str], requires: Mapping[str, Sequence[str | Sequence[str]]]) -> list[str]:
    """The names in the order of their kinds, each behind what it requires."""
    kinds = {"": 0, **{kind: place for place, kind in enumerate(KINDS, start=1)}}
    left, found = sorted(set(names), key=lambda name: (kinds.get(_kind(name), len(kinds)), names.index(name))), []
    while left:
        free = (name for name in left if not any(_leads_to(other, name, requires) for other in left if other != name))
        found.append(next(free, left[0]))
        left.remove(found[-1])
    return found


def _with(needed: str, names: Sequence[str], requires: Mapping[str, Sequence[str | Sequence[str]]]) -> list[str]:
    """The files with a needed one, which replaces the trunk if it is one."""
    others = [name for name in names if needed not in TRUNKS or name not in TRUNKS]
    return _in_order([needed, *others], requires)


def _words(composition: Sequence[str]) -> str:
    return ", ".join(composition)


def _line(names: Sequence[str]) -> str:
    files = ",".join(f"'bundle/configs/{name}.yaml'" for name in names)
    return f'The right line: --config_file "[{files}]"'


def _options(config: Mapping[str, Any], wholes: set[str], parent: str = "") -> Iterator[str]:
    """Every key that a run looks up by name. A callable, or the user of a whole dict, checks the keys in it."""
    for key, value in config.items():
        name = parent + key
        if name == "_meta_":
            continue
        yield name
        if isinstance(value, Mapping) and "_target_" not in value and name not in wholes:
            yield from _options(value, wholes, f"{name}::")


def _texts(value: Any) -> Iterator[str]:
    """Every string of a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from (*_texts(key), *_texts(one))
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
