"""Atomic writing: a file is complete or it is the one that was there before, whatever interrupts."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["write_atomically", "write_text_atomically"]


PYTORCH_WRITER = "inline_container.cc"  # which reports a full disk as a RuntimeError


def write_atomically(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a hidden sibling, which then takes the name.

    The sibling's name holds the process, so that two processes on one folder do not mix their bytes; those that killed
    processes left behind are removed.

    Args:
        path: the file to write; its folder is made.
        write: fills the file that it is given, whose name has the same ending.

    Raises:
        OSError: when the file cannot be written, as on a full disk; it names ``path`` and the remedy. ``path`` is then
            untouched.
    """
    path = Path(path)
    unfinished = path.with_name(f".unfinished_{os.getpid()}_{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        write(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and PYTORCH_WRITER not in str(error):
            raise  # such as a loader worker's death, which interrupts whatever runs
        raise OSError(
            f"{path}: expected to write this file, but could not ({_reason(error, path.parent)}). What was there "
            "before is untouched: check the space and the permissions of the folder, and run again."
        ) from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """:func:`write_atomically` of a text in UTF-8."""
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def _reason(error: Exception, folder: Path) -> str:
    """The first line of the error, and the free space where the folder exists."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{line}; {shutil.disk_usage(folder).free / 2**20:.1f} MiB free" if folder.is_dir() else line


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".unfinished_*_{glob.escape(path.name)}"):
        process = leftover.name.split("_")[1]
        if process.isdigit() and not _is_running(int(process)):
            leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
