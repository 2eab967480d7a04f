"""Errors: the message that helps, said last."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from monai.utils import MONAIEnvVars

__all__ = ["explain", "explain_last"]


SCRIPTS = Path(__file__).parents[1]
KILLED = "A worker was probably killed for lack of memory: use fewer num_workers, then resume or run again."
# part of a foreign message: what to do about it
REMEDIES = {
    "out of memory": "Set inferer::inferer::roi_size to [64, 64, -1], use a smaller batch_size, or device cpu.",
    "DataLoader worker": KILLED,
    "ConnectionResetError": KILLED,  # as seen by whoever was reading from the worker
    "No space left": "Free some space, then resume or run again: what was finished is kept.",
}


def explain(error: BaseException) -> str:
    """The one message of a chain of exceptions that says what happened and what to do.

    MONAI wraps an error in up to three others ("applying transform ...", "Failed to instantiate ..."). The outermost
    one that the bundle's own code raised is the helpful one; where there is none, the innermost, with a remedy if one
    is known.

    Args:
        error: an exception with its causes.

    Returns:
        text of one or more lines.
    """
    if (own := _own(error)) is not None:
        return str(own)
    *_, innermost = _chain(error)
    text = f"{type(innermost).__name__}: {innermost}".rstrip(": ")
    return " ".join([text, *(remedy for part, remedy in REMEDIES.items() if part in text)])


def explain_last() -> None:
    """Let an uncaught error end with the message that helps, below the traceback that would bury it.

    An error that the bundle raised itself needs no traceback; with ``MONAI_DEBUG=True`` in the environment it has one.
    """
    if sys.excepthook is not _hook:
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _own(error) is None or MONAIEnvVars.debug():
        traceback.print_exception(kind, error, trace)
    if isinstance(error, Exception):
        print(f"\nERROR: {explain(error)}", file=sys.stderr)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _own(error: BaseException) -> BaseException | None:
    """The outermost error of the chain that the bundle raised."""
    return next((one for one in _chain(error) if _raised_here(one)), None)


def _raised_here(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and SCRIPTS in Path(frames[-1].filename).resolve().parents
