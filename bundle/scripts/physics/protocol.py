"""Protocol: which acquisition a scan has, as several sources say it, see also :mod:`scripts.physics.output`.

The sources count in this order: the user's option, the DICOM header, the sidecar, the scan's spectrum, its spacings.
The field of an earlier source hides that of a later one. Lengths are in mm, axes are those of the scan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scripts.physics.encoding import PROFILES, Encoding, FrequencyEncoding, SliceSelection
from scripts.physics.filters import Filter

__all__ = [
    "UNKNOWN",
    "Assumption",
    "Evidence",
    "assume_acquisition",
    "check_thickness",
    "encoding_from_text",
    "encoding_to_text",
]


UNKNOWN = ("unknown", "auto")  # texts that leave an axis to recognition
OPTION, SPACINGS = "option", "spacings"  # the first and the last source
SLICE_RATIO = 1.9  # an axis whose spacing is this many times both others has slices
THICKEST = 2.0  # thickness of 2-D slices over their spacing
INTERPOLATED = 1.05  # acquired over stored spacing from which the stored matrix counts as interpolated
SAME = 0.02  # relative difference between two spacings that count as the same
SYNTAX = "`frequency 1.0`, `slices 5.0`, `slices 5.0/4.0 box` (spacing/thickness in mm, profile) or `unknown`"
TEXT = re.compile(r"(frequency|slices)\s+([\d.eE+-]+)(?:\s*/\s*([\d.eE+-]+))?((?:\s+\S+)*)")


def encoding_from_text(text: str) -> Encoding | None:
    """The encoding of an axis that a text means.

    Args:
        text: ``frequency 1.0``, optionally with a filter and its parameters; ``slices 5.0/4.0 gaussian``, which is
            spacing, thickness and profile. ``slices 5.0`` has slices as thick as their spacing.

    Returns:
        the encoding; None for ``unknown`` and ``auto``, which leave the axis to recognition.

    Raises:
        ValueError: when the text has another form, or a length is not positive.

    Example:
        >>> encoding_from_text("slices 5.0/4.0 box")
        SliceSelection(spacing=5.0, thickness=4.0, profile='box', odd_shift=0.0)
    """
    words = str(text).strip().lower()
    if words in UNKNOWN:
        return None
    match = TEXT.fullmatch(words)
    fault = ValueError(f"an acquisition must be {SYNTAX} along each axis, got {text!r}.")
    if match is None:
        raise fault
    kind, spacing, thickness, rest = match[1], match[2], match[3], match[4].split()
    try:
        lengths = [float(spacing), float(thickness or spacing)]
        parameters = tuple(float(word) for word in rest[1:])
        window = Filter(rest[0], parameters) if rest and kind == "frequency" else None
        if window is not None:
            window.at(np.zeros(1))
    except (KeyError, TypeError, ValueError) as error:
        raise fault from error
    if not all(0 < length < math.inf for length in lengths) or (kind == "frequency" and thickness):
        raise fault
    if kind == "frequency":
        return FrequencyEncoding(lengths[0], window)
    if len(rest) > 1 or not set(rest) <= set(PROFILES):
        raise fault
    return SliceSelection(*lengths, *rest)


def encoding_to_text(encoding: Encoding) -> str:
    """The text of an encoding, which :func:`encoding_from_text` reads without loss.

    Example:
        >>> encoding_to_text(SliceSelection(5.0, 4.0)), encoding_to_text(FrequencyEncoding(0.9))
        ('slices 5.0/4.0 gaussian', 'frequency 0.9')
    """
    if isinstance(encoding, SliceSelection):
        return f"slices {float(encoding.spacing)!r}/{float(encoding.thickness)!r} {encoding.profile}"
    window = encoding.filter
    words = [] if window is None else [window.family, *(repr(float(one)) for one in window.parameters)]
    return " ".join(["frequency", repr(float(encoding.spacing)), *words])


class Evidence(NamedTuple):
    """What one source says about a scan. A field is None where the source is silent.

    Args:
        source: its name, for the user.
        kind: "2D" or "3D".
        through: the axis across the slices or partitions.
        thickness: of the slices or partitions in mm.
        acquired: acquired spacing along each axis in mm.
        localiser: whether the source calls the scan a localiser.
    """

    source: str
    kind: str | None = None
    through: int | None = None
    thickness: float | None = None
    acquired: Sequence[float | None] = (None, None, None)
    localiser: bool = False


class Assumption(NamedTuple):
    """How a scan was acquired, as far as anyone can say.

    Args:
        encodings: of the three axes.
        sources: what each axis follows from; several are joined by "and".
    """

    encodings: tuple[Encoding, ...]
    sources: tuple[str, ...]


def assume_acquisition(
    stored: Sequence[float],
    option: Sequence[Encoding | None] = (None, None, None),
    evidence: Sequence[Evidence] = (),
    names: Sequence[str] = ("1", "2", "3"),
) -> Assumption:
    """Decide how a scan was acquired.

    Without any other source, an axis has slices as thick as their spacing when its spacing is at least 1.9 times both
    others. All other axes are frequency-limited.

    Args:
        stored: spacing of the voxels in mm.
        option: what the user says about each axis; None leaves it to the other sources.
        evidence: of the other sources, the weightier first.
        names: of the axes, for messages.

    Raises:
        ValueError: when a source calls the scan a localiser, slices are thicker than twice their spacing, or the
            option does not fit the stored spacing.

    Example:
        >>> assume_acquisition((0.9, 0.9, 5.0)).encodings[2]
        SliceSelection(spacing=5.0, thickness=5.0, profile='gaussian', odd_shift=0.0)
        >>> header = Evidence("header", kind="2D", through=2, thickness=4.0)
        >>> assume_acquisition((0.9, 0.9, 5.0), evidence=[header]).sources
        ('spacings', 'spacings', 'header')
    """
    if calls := [one.source for one in evidence if one.localiser]:
        raise ValueError(f"expected a volume of the head, got a localiser ({calls[0]}). Leave it out.")
    found = [_acquired(axis, stored[axis], option[axis], evidence, names[axis]) for axis in range(3)]
    through, why = _slice_axis(stored, [spacing for spacing, _ in found], option, evidence)
    encodings: list[Encoding] = []
    sources: list[str] = []
    for axis, given in enumerate(option):
        spacing, source = found[axis]
        if given is not None:
            encoding: Encoding = given._replace(spacing=float(stored[axis])) if _has_slices(given) else given
            source = OPTION
        elif axis == through:
            thickness, source = _thickness(axis, stored[axis], why, evidence)
            encoding = SliceSelection(float(stored[axis]), thickness)
        else:
            encoding = FrequencyEncoding(spacing)
        encodings.append(encoding)
        sources.append(source)
    check_thickness(encodings, sources)
    return Assumption(tuple(encodings), tuple(sources))


def _has_slices(encoding: Encoding | None) -> bool:
    return isinstance(encoding, SliceSelection)


def _acquired(
    axis: int, stored: float, option: Encoding | None, evidence: Sequence[Evidence], name: str
) -> tuple[float, str]:
    """The acquired spacing of an axis in mm, never below the stored one, and its source."""
    if option is not None:
        if option.spacing < stored * (1 - SAME) or (_has_slices(option) and option.spacing > stored * (1 + SAME)):
            expected = "the spacing of the slices" if _has_slices(option) else "at least the spacing of the voxels"
            raise ValueError(
                f"acquisition must have {expected}, {stored:.4g} mm along the {name} axis, got "
                f"`{encoding_to_text(option)}`. Correct it, or write `unknown`."
            )
        return max(option.spacing, stored), OPTION
    for one in evidence:
        partition = one.thickness if one.kind == "3D" and axis == one.through else None
        if partition is not None and partition > THICKEST * stored * (1 + SAME):
            partition = None  # no scanner interpolates its partitions that much
        said = one.acquired[axis] or partition
        if said is not None:
            return (float(said), one.source) if said >= INTERPOLATED * stored else (float(stored), one.source)
    return float(stored), SPACINGS


def _slice_axis(
    stored: Sequence[float], acquired: Sequence[float], option: Sequence[Encoding | None], evidence: Sequence[Evidence]
) -> tuple[int | None, str]:
    """The axis across 2-D slices, None if there is none, and the source of the answer."""
    if any(_has_slices(one) for one in option):
        return None, OPTION
    kind, source = next(((one.kind, one.source) for one in evidence if one.kind is not None), (None, SPACINGS))
    if kind == "3D":
        return None, source
    named = next((one.through for one in evidence if one.through is not None), None)
    if kind == "2D" and named is not None:
        return named, source
    coarse = [
        a
        for a in range(3)
        if acquired[a] < INTERPOLATED * stored[a]  # 2-D slices are not zero-filled
        and all(acquired[a] >= SLICE_RATIO * acquired[b] for b in range(3) if b != a)
    ]
    if kind == "2D" and not coarse:
        return None, SPACINGS
    return (coarse[0] if coarse else None), source


def _thickness(axis: int, stored: float, why: str, evidence: Sequence[Evidence]) -> tuple[float, str]:
    """The thickness of the slices in mm, as thick as their spacing where no source knows it; and the sources."""
    for one in evidence:
        if one.thickness is not None and one.thickness > 0 and one.through in (None, axis):
            return float(one.thickness), one.source if why in (one.source, SPACINGS) else f"{why} and {one.source}"
    return float(stored), why


def check_thickness(encodings: Sequence[Encoding], sources: Sequence[str]) -> None:
    """Check that slices don't overlap too much.

    Args:
        encodings: of the axes.
        sources: who says so.

    Raises:
        ValueError: when slices are thicker than twice their spacing.

    Example:
        >>> check_thickness([SliceSelection(2.0, 4.0)], ["option"])
    """
    for one, source in zip(encodings, sources, strict=True):
        if isinstance(one, SliceSelection) and one.thickness > THICKEST * one.spacing * (1 + SAME):
            raise ValueError(
                f"expected 2-D slices of at most {THICKEST:g} times their spacing, got slices of {one.thickness:g} mm "
                f"every {one.spacing:g} mm ({source}): they overlap too much, or were interpolated. Use the acquired "
                "slices, or correct the thickness by --acquisition."
            )
