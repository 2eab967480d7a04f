"""Arguments: a run uses the paths that were typed, whatever the parsers of the command line made of them.

python-fire reads a value as Python where it can. ``100307`` becomes a number, ``2024_05_01`` the number 20240501,
``a,b`` a tuple, and ``sub#01`` the text ``sub``. MONAI's parser turns ``#`` into ``::`` and resolves values that begin
with ``$``, ``@`` or ``%``. The typed words are still in ``sys.argv``, so the first step of a run puts them back.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

__all__ = ["check_axcodes", "check_booleans", "check_scale_factor", "path_of", "typed_options", "use_typed_paths"]

PATHS = ("dataset_dir", "output_dir", "ckpt_path", "init_weights", "resume", "degradation")
FOLDERS = PATHS[:2]
SIGNS = {"$": "a Python expression", "@": "a reference", "%": "a macro"}  # of MONAI's configs
CODES = {code: axis for axis in ("LR", "AP", "SI") for code in axis}
PROGRAM = ("monai", "bundle", "__main__.py")
FLAG = re.compile(r"--|-[a-zA-Z]")
REFERENCE = re.compile(r"[@%](\w+)")


def use_typed_paths(parser: ConfigParser, arguments: Sequence[str] | None = None) -> None:
    """Make every path of a run the one that was typed, with ``~`` expanded.

    Args:
        parser: the parser of the run, which has resolved none of the paths yet.
        arguments: the words of the command, by default those of this process.

    Raises:
        ValueError: when a path is no path, names the working directory, or belongs to MONAI's config language.
    """
    typed = typed_options(sys.argv if arguments is None else arguments)
    for name in (name for name in PATHS if name in parser.config):
        path = path_of(name, parser.config[name], typed.get(name), parser.config)
        if isinstance(path, str) and path[:1] not in SIGNS:
            parser.ref_resolver.resolved_content[name] = path  # what `@name` gives from now on


def path_of(name: str, value: Any, typed: str | None, config: Mapping[str, Any]) -> Any:
    """The path that an option means.

    Args:
        name: of the option.
        value: what the parsers made of it.
        typed: the text on the command line. None where a config file or a Python call gave the value.
        config: the merged config, to whose keys an expression may refer.

    Returns:
        the path as text. ``value`` where it is None, an expression or a component.

    Raises:
        ValueError: see :func:`use_typed_paths`.

    Example:
        >>> path_of("dataset_dir", 20240501, "2024_05_01", {})
        '2024_05_01'
    """
    if typed == "None":
        if os.path.lexists(typed):
            raise ValueError(f"--{name}: expected a path, got None, which means no path. Write ./None for that folder.")
        typed = None  # MONAI then keeps the value of the config
    text = value if typed is None else _unquoted(typed)
    if text is None or (isinstance(text, Mapping) and "_target_" in text):
        return text
    if not isinstance(text, (str, os.PathLike)):
        raise ValueError(f"{name}: expected a path in quotes, got {text!r} ({type(text).__name__}). Put it in quotes.")
    text = os.fspath(text)
    if text[:1] in SIGNS and text:
        if typed is not None and text != "$None":  # as a config writes it
            _check_expression(name, text, config)
        return value
    if typed is None and "::" in text and not os.path.lexists(text):
        raise ValueError(
            f"{name}: expected a path without # and ::, got {text}, because MONAI turns # into ::. "
            f"Give it on the command line with --{name}."
        )
    _check_place(name, text)
    return os.path.expanduser(text)


def typed_options(arguments: Sequence[str]) -> dict[str, str]:
    """The options of a ``python -m monai.bundle run`` as texts, found by the rules of python-fire.

    Args:
        arguments: the program and its words, as in ``sys.argv``.

    Returns:
        the text of each option. It is empty for an option without a value, and there is none for another program.

    Example:
        >>> typed_options(["monai/bundle/__main__.py", "run", "--dataset_dir", "100307", "--output-dir=~/out"])
        {'dataset_dir': '100307', 'output_dir': '~/out'}
    """
    if Path(arguments[0]).parts[-3:] != PROGRAM:
        return {}
    words = list(arguments[1:])
    if "--" in words:  # what follows the last one are fire's own flags
        words = words[: len(words) - 1 - words[::-1].index("--")]
    found = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if FLAG.match(word):
            key, equals, text = word.lstrip("-").partition("=")
            found[key.replace("-", "_")] = text if equals or FLAG.match(after) else after
    return found


def check_booleans(config: Mapping[str, Any], parent: str = "") -> None:
    """Refuse the texts "true" and "false". The command line makes them of ``--option false``, and they count as true.

    Raises:
        ValueError: when a value is such a text.

    Example:
        >>> check_booleans({"overwrite": True, "acquisition": {"hamming": False}})
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            check_booleans(value, f"{parent}{key}::")
        elif isinstance(value, str) and value.casefold() in ("true", "false"):
            raise ValueError(f"{parent}{key} must be True or False, got the text {value!r}. Write it with a capital.")


def check_axcodes(value: Any) -> None:
    """Refuse a frame that does not name one end of each axis of the anatomy. An expression passes, and so does None.

    Raises:
        ValueError: when it is something else, such as AAR.

    Example:
        >>> check_axcodes("ASR")
    """
    if _is_open(value):
        return
    letters = value if isinstance(value, (str, list, tuple)) else ()
    if sorted(str(CODES.get(letter)) for letter in letters) != ["AP", "LR", "SI"]:
        raise ValueError(
            "axcodes must be three letters, one of L and R, one of P and A, and one of I and S, in any order, "
            f"got {value!r}. Set for instance --axcodes ASR."
        )


def check_scale_factor(value: Any) -> None:
    """Refuse a scale factor that is not one whole number along each axis. An expression passes, and so does None.

    Raises:
        ValueError: when it is something else, such as 2.

    Example:
        >>> check_scale_factor([2, 2, 1])
    """
    if _is_open(value):
        return
    listed = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    whole = all(isinstance(factor, int) and not isinstance(factor, bool) and factor >= 1 for factor in listed)
    if not isinstance(value, (list, tuple)) or len(value) != 3 or not whole:
        example = listed if whole and len(listed) == 3 else [2, 2, 2]
        raise ValueError(
            "scale_factor must be three whole numbers of at least 1, one along each axis of axcodes, "
            f'got {value!r}. Set --scale_factor "{example}".'
        )


def _is_open(value: Any) -> bool:
    """Whether MONAI's parser resolves the value later, or there is none."""
    return value is None or (isinstance(value, str) and value[:1] in SIGNS)


def _unquoted(typed: str) -> str:
    """The text without the quotes that python-fire takes off."""
    quoted = len(typed) > 1 and typed[0] == typed[-1] and typed[0] in "\"'"
    return typed[1:-1] if quoted else typed


def _check_expression(name: str, text: str, config: Mapping[str, Any]) -> None:
    """Refuse a typed path that begins with a sign of MONAI's language, unless it refers to a key of the config."""
    references = REFERENCE.findall(text)
    whole = text[0] == "$" or all(part.isidentifier() for part in text[1:].split("::"))
    if os.path.lexists(text) or not whole or not references or not set(references) <= config.keys():
        raise ValueError(
            f"--{name}: expected a path, got {text}, which MONAI reads as {SIGNS[text[0]]} because of its {text[0]}. "
            f"Write ./{text} for a file or folder of this name."
        )


def _check_place(name: str, text: str) -> None:
    if not text:
        raise ValueError(f"--{name}: expected a path, got an empty text. Give the path of the file or folder.")
    if name in FOLDERS and set(Path(text).parts) <= {".", ".."}:
        whole = Path(text).resolve()
        raise ValueError(
            f"--{name}: expected a folder by name, got {text}, which may hold anything. "
            f"If it is meant, write {whole}; else give the folder of the scans or results."
        )
