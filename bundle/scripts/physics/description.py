"""Description: an acquisition as a short vector, which tells a network what it restores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.physics.encoding import Encoding, SliceSelection

__all__ = ["PER_AXIS", "acquisition_vector", "kind_of"]


PER_AXIS = 3  # numbers per axis
FINE = 1.15  # acquired spacing over output voxel, below which an axis has nothing to restore
SIZE = 0.5  # of the numbers: larger ones delay the start of a training


def acquisition_vector(encodings: Sequence[Encoding], voxel: float | Sequence[float]) -> Tensor:
    r"""Describe the acquisition of a volume by three small, centred numbers per axis.

    With acquired spacing $d$, output voxel $h$ and slice thickness $t$ they are $\log_2(d / h) - 1$, then $\pm 1$ for
    slices or frequencies, then $t / d - 1$, which is 0 on frequency-limited axes. All are halved.

    Args:
        encodings: of the axes.
        voxel: spacing of the output grid in mm, one number or one per axis.

    Returns:
        float32 tensor of three numbers per axis, in the order of the axes.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> acquisition_vector([FrequencyEncoding(2.0), SliceSelection(4.0, 4.0)], voxel=1.0).tolist()
        [0.0, -0.5, 0.0, 0.5, 0.5, 0.0]
    """
    voxels = [voxel] * len(encodings) if isinstance(voxel, (int, float)) else voxel
    numbers: list[float] = []
    for encoding, size in zip(encodings, voxels, strict=True):
        selective = isinstance(encoding, SliceSelection)
        thickness = encoding.thickness / encoding.spacing - 1 if selective else 0.0
        numbers += [math.log2(encoding.spacing / size) - 1, 1.0 if selective else -1.0, thickness]
    return SIZE * torch.tensor(numbers)


def kind_of(encodings: Sequence[Encoding], voxel: float | Sequence[float]) -> str:
    """The kind of an acquisition.

    Args:
        encodings: of the axes.
        voxel: spacing of the output grid in mm, one number or one per axis.

    Returns:
        ``slices``; or ``in_plane`` where some axes, not all, are as fine as the output; or ``isotropic``.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> kind_of([FrequencyEncoding(2.0), FrequencyEncoding(2.0), FrequencyEncoding(1.0)], 1.0)
        'in_plane'
    """
    if any(isinstance(one, SliceSelection) for one in encodings):
        return "slices"
    voxels = [voxel] * len(encodings) if isinstance(voxel, (int, float)) else voxel
    fine = [one.spacing < FINE * size for one, size in zip(encodings, voxels, strict=True)]
    return "in_plane" if any(fine) and not all(fine) else "isotropic"
