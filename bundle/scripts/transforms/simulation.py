"""Simulation: a low-resolution scan made of a high-resolution one, on a grid that both share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, DivisiblePadd
from monai.utils import ensure_tuple

from scripts.transforms.acquisition import KSpaceTruncated

__all__ = ["divisor", "simulated_acquisition"]


def divisor(scale_factor: Sequence[int]) -> list[int]:
    """The HR sizes that keep LR voxel l on HR voxel s l, with even LR sizes, are multiples of these.

    Example:
        >>> divisor([2, 2, 1])
        [4, 4, 1]
    """
    return [2 * s if s > 1 else 1 for s in scale_factor]


def simulated_acquisition(
    scale_factor: Sequence[int],
    acquisition: Mapping[str, Any],
    keys: KeysCollection = "image",
    references: KeysCollection = "label",
) -> Compose:
    """Transforms that pad a scan and its references to a common grid and then acquire less of the scan's k-space.

    Args:
        scale_factor: along the axes of the canonical frame.
        acquisition: options of :class:`scripts.transforms.KSpaceTruncate`, such as ``hamming`` or ``snr``.
        keys: the scans to degrade.
        references: what stays at high resolution.

    Raises:
        TypeError: when ``acquisition`` has an option that the transform has not.
    """
    return Compose(
        [
            DivisiblePadd((*ensure_tuple(keys), *ensure_tuple(references)), divisor(scale_factor), allow_missing_keys=True),
            KSpaceTruncated(keys, scale_factor, **acquisition, allow_missing_keys=True),
        ]
    )
