r"""Encoding: how a scanner acquires a volume along one axis, as a matrix.

Along an axis of $N$ voxels, the acquisition of $M$ samples is $y = A x$ with a small matrix $A$ of shape ``(M, N)``.
Two kinds of axes exist:

* **Frequency-limited**: phase and read encoding, and the slab encoding of 3-D scans. The scan keeps the central $M$
  harmonics of the field of view $N h$, and samples them at its own spacing. The field of view need not be a whole
  multiple of that spacing. Where it is, $A$ equals :func:`scripts.physics.kspace.truncate`.
* **Slice-selective**: through the planes of 2-D slices. Row $j$ of $A$ is the slice profile around $z_j = z_0 + j s$,
  integrated over each voxel. Aliasing stays in, as in a scanner.

Positions count in voxels of the output grid. Position 0 is the centre of its first voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from scripts.physics.filters import Filter
from scripts.physics.interpolation import keys_matrix

__all__ = [
    "PROFILES",
    "Encoding",
    "FrequencyEncoding",
    "SliceSelection",
    "covered",
    "encoding_matrix",
    "interpolation_matrix",
    "slice_centres",
]


TRANSITION = 0.2  # share of the thickness over which a trapezoidal profile rises from 0 to 1
REACH = 3.0  # thicknesses from its centre beyond which a profile is 0; the Gaussian has 1e-11 of its peak there
FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations
STEPS = 60  # of Newton's method, at most; a slice inside the grid needs about five


class FrequencyEncoding(NamedTuple):
    """A frequency-limited axis.

    Args:
        spacing: of the acquired voxels in mm.
        filter: that the reconstruction applies to k-space; None for none.
    """

    spacing: float
    filter: Filter | None = None


class SliceSelection(NamedTuple):
    """A slice-selective axis.

    Args:
        spacing: between the centres of neighbouring slices in mm, which is thickness and gap.
        thickness: of a slice in mm, the full width at half maximum of its profile. It may exceed the spacing. A slice
            thinner than an output voxel counts as one voxel thick.
        profile: a name of :data:`PROFILES`.
        odd_shift: mm by which the slices 1, 3, 5, ... lie further along the axis. A subject who moves between the two
            parts of an interleaved scan shifts them. The interpolation does not know it.
    """

    spacing: float
    thickness: float
    profile: str = "gaussian"
    odd_shift: float = 0.0


Encoding = FrequencyEncoding | SliceSelection


def _gaussian(z: Tensor, thickness: float) -> Tensor:
    # the integral over a voxel widens the profile by the voxel's own variance of 1/12, so that the profile starts
    # narrower by as much
    deviation = math.sqrt((thickness / FWHM) ** 2 - 1 / 12)
    return torch.special.ndtr(z / deviation)


def _box(z: Tensor, thickness: float) -> Tensor:
    return (z / thickness + 0.5).clamp(0, 1)


def _trapezoid(z: Tensor, thickness: float) -> Tensor:
    start, end = (0.5 * (1 + sign * TRANSITION) * thickness for sign in (-1, 1))
    z = z.clamp(-end, end)
    corner = (z.abs() - start).clamp(min=0).square() / (2 * (end - start))
    return 0.5 + (z - z.sign() * corner) / thickness


PROFILES: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian": _gaussian,
    "box": _box,
    "trapezoid": _trapezoid,
}
"""The share of a slice below the distance z from its centre; distance and thickness are in voxels."""


def encoding_matrix(encoding: Encoding, size: int, voxel: float, scan_size: int, start: float) -> Tensor:
    """The matrix $A$ of an axis, whose rows sum to 1.

    The first moment of the row of a slice is its centre, exactly, and no weight is negative. Beyond its ends the volume
    counts as its end voxel repeated, so a constant stays constant. A slice that reaches beyond an end therefore keeps
    its profile, and its first moment lies further inside.

    Args:
        encoding: of the axis.
        size: voxels of the output grid, $N$.
        voxel: spacing of the output grid in mm.
        scan_size: samples of the scan, $M$.
        start: position of sample 0 of the scan on the output grid, in output voxels.

    Returns:
        float64 tensor, ``(scan_size, size)``.

    Raises:
        ValueError: when a length is not positive, or the profile is unknown.

    Example:
        >>> encoding_matrix(SliceSelection(2.0, 2.0, "box"), size=4, voxel=1.0, scan_size=2, start=0.5).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    _check(encoding, voxel)
    if isinstance(encoding, FrequencyEncoding):
        places = start + torch.arange(scan_size, dtype=torch.float64) * encoding.spacing / voxel
        return _dirichlet(places, size, min(size, scan_size), encoding.spacing < voxel, encoding.filter)
    thickness = max(encoding.thickness / voxel, 1.0)
    centres = slice_centres(encoding, voxel, scan_size, start)[:, None]
    edges = torch.arange(size + 1, dtype=torch.float64) - 0.5 - centres
    below = PROFILES[encoding.profile](edges.clamp(-REACH * thickness, REACH * thickness), thickness)
    below[:, 0], below[:, -1] = 0.0, 1.0  # what lies beyond an end counts for the end voxel
    inside = (centres >= thickness / 2 - 0.5) & (centres <= size - 0.5 - thickness / 2)
    return _with_first_moment(below.diff(dim=1), centres, inside)


def interpolation_matrix(encoding: Encoding, size: int, voxel: float, scan_size: int, start: float) -> Tensor:
    """The matrix that interpolates a scan to the output grid along an axis; its rows sum to 1.

    A frequency-limited axis is zero-filled. Slices are interpolated by Keys' cubic at their true positions. Beyond its
    ends the scan counts as its end sample repeated.

    Args:
        encoding: see :func:`encoding_matrix`.
        size: see :func:`encoding_matrix`.
        voxel: see :func:`encoding_matrix`.
        scan_size: see :func:`encoding_matrix`.
        start: see :func:`encoding_matrix`.

    Returns:
        float64 tensor, ``(size, scan_size)``.

    Raises:
        ValueError: see :func:`encoding_matrix`.

    Example:
        >>> interpolation_matrix(SliceSelection(2.0, 2.0), size=3, voxel=1.0, scan_size=4, start=-2.0)[1].tolist()
        [-0.0625, 0.5625, 0.5625, -0.0625]
    """
    _check(encoding, voxel)
    places = (torch.arange(size, dtype=torch.float64) - start) * voxel / encoding.spacing
    if isinstance(encoding, SliceSelection):
        return keys_matrix(places, scan_size)
    # k-space is periodic, so the last sample has the first one as its neighbour, but no position lies further out
    places = torch.where(places <= -1, 0.0, torch.where(places >= scan_size, scan_size - 1.0, places))
    kept = min(scan_size, max(1, round(scan_size * encoding.spacing / voxel)))
    return _dirichlet(places, scan_size, kept, encoding.spacing > voxel)


def slice_centres(encoding: SliceSelection, voxel: float, scan_size: int, start: float) -> Tensor:
    """Positions of the slices on the output grid, in output voxels.

    Args:
        encoding: see :func:`encoding_matrix`.
        voxel: see :func:`encoding_matrix`.
        scan_size: see :func:`encoding_matrix`.
        start: see :func:`encoding_matrix`.

    Example:
        >>> slice_centres(SliceSelection(4.0, 3.0, odd_shift=0.5), voxel=1.0, scan_size=4, start=2.0).tolist()
        [2.0, 6.5, 10.0, 14.5]
    """
    index = torch.arange(scan_size, dtype=torch.float64)
    return start + (index * encoding.spacing + index % 2 * encoding.odd_shift) / voxel


def covered(encoding: Encoding, size: int, voxel: float) -> tuple[int, int]:
    """How many samples of an axis fit into a volume, and where they begin.

    A frequency-limited scan begins at the first voxel. The first slice lies on the first voxel that leaves room for
    half a slice and half a spacing before it. The last slice leaves the same room after it.

    Args:
        encoding: see :func:`encoding_matrix`.
        size: see :func:`encoding_matrix`.
        voxel: see :func:`encoding_matrix`.

    Returns:
        number of samples, at least 1, and position of sample 0 in voxels of the volume.

    Raises:
        ValueError: see :func:`encoding_matrix`.

    Example:
        >>> covered(FrequencyEncoding(1.5), size=64, voxel=1.0), covered(SliceSelection(5.0, 4.0), 64, 1.0)
        ((42, 0), (12, 2))
    """
    _check(encoding, voxel)
    spacing = encoding.spacing / voxel
    if isinstance(encoding, FrequencyEncoding):
        return max(1, math.floor(size / spacing + 1e-6)), 0  # the tolerance keeps 33 / 1.1 at 30
    room = max(encoding.spacing, encoding.thickness) / voxel / 2 - 0.5
    start = max(0, math.ceil(room - 1e-6))
    return max(1, math.floor((size - 1 - room - start) / spacing + 1e-6) + 1), start


def _check(encoding: Encoding, voxel: float) -> None:
    lengths = [voxel, encoding.spacing, *([encoding.thickness] if isinstance(encoding, SliceSelection) else [])]
    if not all(0 < length < math.inf for length in lengths):
        raise ValueError(f"expected voxel, spacing and thickness above 0 mm, got {voxel} mm and {encoding}.")
    if isinstance(encoding, SliceSelection) and encoding.profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {encoding.profile!r}.")


def _dirichlet(places: Tensor, size: int, kept: int, doubled: bool, window: Filter | None = None) -> Tensor:
    """The central ``kept`` harmonics of ``size`` periodic samples at any places, ``(places, size)``.

    An even number of harmonics has an unpaired one. Truncation takes it once, zero-filling twice (``doubled``), see
    :mod:`scripts.physics.kspace`.
    """
    harmonics = torch.arange(kept // 2 + 1, dtype=torch.float64)
    weights = torch.full_like(harmonics, 2.0)
    weights[0] = 1.0
    if kept % 2 == 0 and not doubled:
        weights[-1] = 1.0
    if window is not None:
        weights = weights * window.at(harmonics / (kept / 2))
    samples = torch.arange(size, dtype=torch.float64)
    there, here = (2 * torch.pi * (harmonics * where[:, None] / size % 1) for where in (places, samples))
    return ((weights * there.cos()) @ here.cos().T + (weights * there.sin()) @ here.sin().T) / size


def _with_first_moment(rows: Tensor, centres: Tensor, where: Tensor) -> Tensor:
    """Tilt the chosen rows exponentially until their first moments are the centres, so that no weight is negative."""
    distance = torch.arange(rows.shape[1], dtype=torch.float64) - centres
    tilt, tilted = torch.zeros_like(centres), rows
    for _ in range(STEPS):
        error = (tilted * distance).sum(1, keepdim=True) * where
        if error.abs().max() < 1e-12:
            break
        variance = (tilted * distance.square()).sum(1, keepdim=True) - error.square()
        tilt = tilt - (error / variance.clamp(min=1e-12)).clamp(-1, 1)
        tilted = rows * (tilt * distance).clamp(max=500).exp()
        tilted = tilted / tilted.sum(1, keepdim=True)
    return tilted
