"""Errors: the helpful message of a chain, printed last."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from monai.utils import MONAIEnvVars

__all__ = ["explain", "explain_last"]

SCRIPTS = Path(__file__).resolve().parents[1]
KILLED = "A worker was probably killed for lack of memory. Use fewer num_workers, then resume or run again."
# part of a foreign message: its remedy
REMEDIES = {
    "out of memory": "Set inferer::inferer::roi_size to [64, 64, -1], use a smaller batch_size, or device cpu.",
    "DataLoader worker": KILLED,
    "ConnectionResetError": KILLED,  # raised where the dead worker's data is read
    "No space left": "Free some space, then resume or run again. Finished results are kept.",
}


def explain(error: BaseException) -> str:
    """The helpful message of a chain of exceptions.

    MONAI wraps an error in up to three others, such as "applying transform ..." or "Failed to instantiate ...". The
    helpful one is the outermost that the bundle raised. Without such an error it is the innermost, with a remedy if one
    is known.

    Args:
        error: an exception with its causes.

    Returns:
        text of one or more lines.

    Example:
        >>> explain(RuntimeError("the header is damaged"))
        'RuntimeError: the header is damaged'
    """
    if (own := _own(error)) is not None:
        return str(own)
    *_, innermost = _chain(error)
    text = f"{type(innermost).__name__}: {innermost}".rstrip(": ")
    return " ".join([text, *(remedy for part, remedy in REMEDIES.items() if part in text)])


def explain_last() -> None:
    """Print the helpful message of an uncaught error last, below its traceback.

    An error that the bundle raised is printed without traceback, unless the environment has ``MONAI_DEBUG=True``.
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
