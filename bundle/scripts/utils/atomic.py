"""Atomic writing: after an interruption a file is either complete or unchanged."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["usable_folder", "writable_folder", "write_atomically", "write_text_atomically"]

HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
LONGEST_NAME = 255 - len(f".unfinished_{HOST}_4194304_")  # bytes of a file's name, less what the hidden name adds
PYTORCH_WRITER = "inline_container.cc"  # PyTorch's writer reports a full disk as a RuntimeError that names this file


def write_atomically(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Write a hidden file in the same folder, then rename it to ``path``.

    The hidden name holds the host and the process's number, so that two processes do not mix their bytes, not even in
    two containers. Hidden files of this host's processes that no longer run are removed.

    Args:
        path: the file to write. Its folder is made where it is missing.
        write: fills the file whose path it gets. That path has the same ending.

    Raises:
        OSError: when the file cannot be written, as on a full disk. ``path`` is then unchanged.

    Example:
        >>> import tempfile
        >>> write_atomically(Path(tempfile.mkdtemp()) / "note.txt", lambda path: path.write_text("complete"))
    """
    path = Path(path)
    hidden = _short(path.name)
    unfinished = path.with_name(f".unfinished_{HOST}_{os.getpid()}_{hidden}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.with_name(hidden))
        write(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and PYTORCH_WRITER not in str(error):
            raise  # such as the death of a loader worker, which can interrupt here
        raise OSError(
            f"{path}: expected to write this file, but could not ({_reason(error, path.parent)}). The previous file is "
            "unchanged. Check the space and the permissions of the folder, and run again."
        ) from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def usable_folder(path: str | os.PathLike) -> Path:
    """The folder of coming results, which need not exist yet.

    Raises:
        OSError: when there cannot be a folder, because a file has its name or that of a folder above.

    Example:
        >>> usable_folder("results/of_today").name
        'of_today'
    """
    path = Path(path)
    if not _existing(path).is_dir():
        raise OSError(
            f"{path}: expected a folder for the results, but {_existing(path)} is a file. Set another --output_dir."
        )
    return path


def writable_folder(path: str | os.PathLike) -> Path:
    """The folder of coming results, if a file can be written there or in the folder in which it will be made.

    Raises:
        OSError: when there cannot be a folder, or it cannot be written to.

    Example:
        >>> writable_folder(tempfile.mkdtemp()).is_dir()
        True
    """
    path = usable_folder(path)
    try:
        tempfile.TemporaryFile(dir=_existing(path)).close()
    except OSError as error:
        raise OSError(
            f"{path}: expected a folder that can be written to, but could not write ({_reason(error, path)}). Check "
            "its permissions, or set another --output_dir."
        ) from error
    return path


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def write_text_atomically(path: str | os.PathLike, text: str) -> None:
    """:func:`write_atomically` of a text in UTF-8. Bytes of a file's name that are no UTF-8 become escapes."""
    write_atomically(path, lambda unfinished: unfinished.write_text(text, "utf-8", errors="backslashreplace"))


def _short(name: str) -> str:
    """The name, or a hash of it with the same ending where the hidden name would be too long for the file system."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    return hashlib.sha256(encoded).hexdigest()[:32] + "".join(Path(name).suffixes[-2:])[-16:]


def _reason(error: Exception, folder: Path) -> str:
    """The first line of the error, and the free space if the folder exists."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{line}; {shutil.disk_usage(folder).free / 2**20:.1f} MiB free" if folder.is_dir() else line


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".unfinished_{HOST}_*_{glob.escape(path.name)}"):
        process = leftover.name.split("_")[2]
        if process.isdigit() and not _is_running(int(process)):
            leftover.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, but belongs to another user
        return True
    return True
