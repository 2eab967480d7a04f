"""Errors: the helpful message of a chain, printed last or in one line."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from monai.utils import MONAIEnvVars

__all__ = ["explain", "explain_last", "full_message", "one_line"]

SCRIPTS = Path(__file__).resolve().parents[1]
KILLED = "A worker was probably killed for lack of memory. Use fewer num_workers, then resume or run again."
# part of a foreign message: its remedy
REMEDIES = {
    "out of memory": "Set inferer::inferer::roi_size to [64, 64, -1], use a smaller batch_size, or device cpu.",
    "DataLoader worker": KILLED,
    "ConnectionResetError": KILLED,  # raised where the dead worker's data is read
    "No space left": "Free some space, then resume or run again. Finished results are kept.",
    "File name too long": "Give the scan a shorter name. A name has at most 255 bytes, and the result's adds 8.",
}
LONGEST = 300  # characters of a remark
INTERRUPTED = 130  # exit status after Ctrl-C
EMBEDDED = "Traceback (most recent call last):"  # MONAI and PyTorch put whole tracebacks into messages
LAST_ERROR = re.compile(r"^(?:\w+\.)*(\w+): (.+)", re.M | re.S)


def explain(error: BaseException) -> str:
    """The helpful message of a chain of exceptions, as a remark of one line.

    MONAI wraps an error in up to three others, such as "applying transform ..." or "Failed to instantiate ...". The
    helpful one is the outermost that the bundle raised. Without such an error it is the innermost, with a remedy if one
    is known.

    Args:
        error: an exception with its causes.

    Returns:
        one line of at most 300 characters, without a traceback.

    Example:
        >>> explain(RuntimeError("the header is damaged"))
        'RuntimeError: the header is damaged'
    """
    return one_line(full_message(error))


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text in one line. A longer text loses its middle, because its end holds the remedy.

    Example:
        >>> one_line("The scan is\\n blurred.", longest=15)
        'The scan … red.'
    """
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    end = (longest - 3) // 3
    return f"{line[: longest - 3 - end].rstrip()} … {line[-end:].lstrip()}"


def explain_last() -> None:
    """Print the helpful message of an uncaught error last, below its traceback.

    An error that the bundle raised is printed without traceback, unless the environment has ``MONAI_DEBUG=True``. After
    Ctrl-C the exit status is 130. Names that are no valid UTF-8 are printed with escapes.
    """
    sys.excepthook = _hook
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    interrupted = isinstance(error, KeyboardInterrupt)
    if MONAIEnvVars.debug() or not (interrupted or _own(error)):
        traceback.print_exception(kind, error, trace)
    if isinstance(error, Exception):
        print(f"\nERROR: {full_message(error)}", file=sys.stderr)
    if interrupted:
        print("\nInterrupted. Finished results are kept: run again, or resume a training.", file=sys.stderr)
        raise SystemExit(INTERRUPTED)


def full_message(error: BaseException) -> str:
    """The message of :func:`explain` in full, of one or more lines."""
    if (own := _own(error)) is not None:
        return str(own)
    *_, innermost = _chain(error)
    text = f"{type(innermost).__name__}: {innermost}".rstrip(": ")
    if EMBEDDED in text:
        text = _last_error(text)
    return " ".join([text, *(remedy for part, remedy in REMEDIES.items() if part in text)])


def _last_error(text: str) -> str:
    """The error that a traceback in a message ends with. The bundle's own loses its type."""
    found = LAST_ERROR.search(text.rpartition(EMBEDDED)[2])
    if found is None:
        return text.partition(EMBEDDED)[0]
    kind, message = found.groups()
    return message.strip() if ": expected " in message else f"{kind}: {message.strip()}"


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
