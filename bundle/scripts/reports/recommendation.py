"""Recommendation: which lines of ``train.yaml`` suit two groups of scans, and what may go wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.physics.spectra import Spectrum, effective_spacing

__all__ = ["Facts", "recommend"]

SAME = 0.1  # relative deviation within which two spacings count as the same, as in training
RESAMPLED = 1.15  # ratio of effective to stated spacing above which a scan is suspected


class Facts(NamedTuple):
    """What one scan is, along the axes of the canonical frame.

    Args:
        subject: whose scan.
        file: its path.
        orientation: axis codes as stored.
        spacing: mm.
        matrix: voxels.
        scale: its intensity scale, see :class:`scripts.transforms.ScaleIntensityRobust`.
        lowest: smallest intensity.
        spectra: one per axis, None where there is nothing to measure.
    """

    subject: str
    file: str
    orientation: str
    spacing: tuple[float, ...]
    matrix: tuple[int, ...]
    scale: float
    lowest: float
    spectra: tuple[Spectrum | None, ...]

    @property
    def effective(self) -> tuple[float | None, ...]:
        """Per axis the spacing in mm that the content supports, or None where the stated spacing is right."""
        finest = zip(self.spectra, self.spacing, strict=True)
        found = [None if s is None or effective_spacing(s) < RESAMPLED * h else effective_spacing(s) for s, h in finest]
        return tuple(found)


def recommend(source: Sequence[Facts], target: Sequence[Facts], axcodes: str) -> tuple[dict[str, Any], list[str]]:
    """The lines of ``train.yaml`` that suit two groups of scans, and remarks for their user.

    Args:
        source: facts of the HR group.
        target: facts of the LR group.
        axcodes: the canonical frame that the facts are in.

    Returns:
        entries of the config, and remarks.

    Example:
        >>> high, low = (Facts("s", "f", "RAS", (mm,) * 3, (160,) * 3, 1.0, 0.0, (None,) * 3) for mm in (1.0, 2.0))
        >>> recommend([high], [low], "ASR")
        ({'scale_factor': [2, 2, 2]}, [])
    """
    high, low = (np.median([one.spacing for one in group], axis=0) for group in (source, target))
    lines: dict[str, Any] = {}
    remarks = _remarks_on_groups({"source": source, "target": target})
    ratio = low / high
    if np.all(np.abs(ratio - 1) <= SAME):
        remarks.append("Both groups have the same spacing. Training will degrade the target's scans (degrade_target).")
        lines |= {"degrade_target": True, "scale_factor": [2, 2, 2]}
        matrix = [[n // 2 for n in one.matrix] for one in target]
    else:
        factor = [1 if r < 1.5 else 2 for r in ratio]
        lines |= _factor_lines(factor, axcodes, remarks)
        remarks += _remarks_on_ratio(high, low, factor)
        order = [axcodes.index(code) for code in lines.get("axcodes", axcodes)]
        matrix = [[one.matrix[axis] for axis in order] for one in target]
    smallest = min(min(sizes[:2]) for sizes in matrix)
    if smallest < 32:
        remarks.append(f"A target scan has {smallest} voxels in plane, but training needs 32. Leave it out.")
    return lines, remarks


def _factor_lines(factor: list[int], axcodes: str, remarks: list[str]) -> dict[str, Any]:
    """The scale factor, and a frame whose last axis keeps its resolution."""
    if factor == [2, 2, 2]:
        return {"scale_factor": factor}
    if sorted(factor) == [1, 2, 2]:
        kept = factor.index(1)
        frame = "".join(code for axis, code in enumerate(axcodes) if axis != kept) + axcodes[kept]
        return {"scale_factor": [2, 2, 1]} | ({} if frame == axcodes else {"axcodes": frame})
    remarks.append(
        f"The target is coarser along {factor.count(2)} of three axes, but the networks double two axes or three. "
        "These networks do not treat thick 2-D slices."
    )
    return {}


def _remarks_on_ratio(high: np.ndarray, low: np.ndarray, factor: Sequence[int]) -> list[str]:
    wanted = low / factor
    text = f"{_mm(wanted)}, the target's spacing over the scale factor"
    if np.any(high > (1 + SAME) * wanted):
        return [
            f"The source ({_mm(high)}) is coarser than {text}. Training refuses it, because detail that was never "
            "acquired cannot be learned. Are the groups swapped?"
        ]
    if np.any(high < (1 - SAME) * wanted):
        return [f"The source ({_mm(high)}) is finer than {text}. Training truncates its k-space to that spacing."]
    return []


def _remarks_on_groups(groups: Mapping[str, Sequence[Facts]]) -> list[str]:
    remarks = []
    for name, group in groups.items():
        median = np.median([one.spacing for one in group], axis=0)
        for one in group:
            if np.any(np.abs(np.asarray(one.spacing) / median - 1) > SAME):
                remarks.append(f"{one.file}: spacing {_mm(one.spacing)}, but the {name}'s median is {_mm(median)}.")
            if any(one.effective):
                remarks.append(f"{one.file}: {_suspicion(one)}")
        negative = sum(one.lowest < 0 for one in group)
        if negative:
            remarks.append(
                f"{negative} of {len(group)} scans of the {name} go below zero, but magnitude images do not. They were "
                "interpolated, filtered or scaled."
            )
    return remarks


def _suspicion(one: Facts) -> str:
    effective = [h if e is None else e for h, e in zip(one.spacing, one.effective, strict=True)]
    return (
        f"the header says {_mm(one.spacing)}, but its spectrum ends at {_mm(effective)}. The scan was resampled or "
        "strongly filtered. A source like this teaches blur; a target like this is coarser than its header. Use the "
        "scan before resampling, or leave it out."
    )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing) + " mm"
