"""Simulation: a low-resolution scan from a high-resolution one, on a common grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, DivisiblePadd
from monai.utils import ensure_tuple

from scripts.transforms.acquisition import KSpaceTruncated

__all__ = ["divisor", "simulated_acquisition"]


def divisor(scale_factor: Sequence[int]) -> list[int]:
    """Numbers whose multiples are the valid HR sizes: LR sizes are even, and LR voxel l lies on HR voxel s l.

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
    """Simulate an acquisition: pad a scan and its references to a common grid, then truncate the scan's k-space.

    Args:
        scale_factor: along the axes of the canonical frame.
        acquisition: options of :class:`scripts.transforms.KSpaceTruncate`, such as ``hamming`` or ``snr``.
        keys: the scans to degrade.
        references: the volumes that stay at high resolution.

    Raises:
        TypeError: when :class:`scripts.transforms.KSpaceTruncate` does not have an option of ``acquisition``.

    Example:
        >>> import torch
        >>> pair = {"image": torch.rand(1, 15, 16, 9), "label": torch.rand(1, 15, 16, 9)}
        >>> {key: tuple(volume.shape) for key, volume in simulated_acquisition((2, 2, 1), {"snr": 20})(pair).items()}
        {'image': (1, 8, 8, 9), 'label': (1, 16, 16, 9)}
    """
    padded = (*ensure_tuple(keys), *ensure_tuple(references))
    return Compose(
        [
            DivisiblePadd(padded, divisor(scale_factor), allow_missing_keys=True),
            KSpaceTruncated(keys, scale_factor, **acquisition, allow_missing_keys=True),
        ]
    )
