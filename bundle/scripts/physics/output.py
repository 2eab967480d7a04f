"""Output: the grid on which a scan of a given acquisition is restored, and what it is written down as."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor

from scripts.physics.encoding import Encoding, FrequencyEncoding, SliceSelection
from scripts.physics.interpolation import keys_matrix, lanczos_matrix
from scripts.physics.protocol import INTERPOLATED, SAME, encoding_from_text, encoding_to_text
from scripts.physics.separable import SeparableAcquisition

__all__ = [
    "ACQUISITION",
    "acquired_matrix",
    "acquisition_from_record",
    "acquisition_in",
    "check_sampling",
    "checked_spacing",
    "fitting_spacing",
    "interpolations_of",
    "is_truncation",
    "output_acquisition",
    "record_of",
]


ANISOTROPY = 1.3  # largest over smallest acquired spacing from which the output has the smallest one
LARGEST_FACTOR = 8  # acquired spacing over output spacing
FEWEST_SLICES = 5
FEWEST_VOXELS = 8  # along a frequency-limited axis
LINEAR_REGULARISATION = 0.3  # along slices, chosen on validation scans
SNAP = 1e-3  # relative change of an output voxel that makes the field of view a whole number of voxels


def acquired_matrix(shape: Sequence[int], stored: Sequence[float], encodings: Sequence[Encoding]) -> list[int]:
    """The acquired matrix of a scan, which is smaller than the stored one where that was interpolated.

    Args:
        shape: of the stored scan.
        stored: spacing of its voxels in mm.
        encodings: of its axes.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> acquired_matrix((256, 256, 20), (0.9, 0.9, 5.0), [FrequencyEncoding(1.2)] * 2 + [SliceSelection(5.0, 4.0)])
        [192, 192, 20]
    """
    return [
        round(size * mm / one.spacing)
        if one.spacing >= INTERPOLATED * mm and not isinstance(one, SliceSelection)
        else size
        for size, mm, one in zip(shape, stored, encodings, strict=True)
    ]


def output_acquisition(
    encodings: Sequence[Encoding], scan_shape: Sequence[int], spacing: Sequence[float] | float | None = None
) -> SeparableAcquisition:
    """The acquisition of a scan, seen from the output grid that suits it.

    A voxel of the output grid lies on the centre of voxel 0 of the scan, and the grid covers the field of view. Voxels
    are cubes: as large as the finest acquired spacing where the spacings differ by 1.3 or more, else half as large. A
    voxel may change by a thousandth, so that a frequency-limited axis is a whole number of voxels.

    Args:
        encodings: of the axes, with the spacing of the scan.
        scan_shape: of the scan.
        spacing: of the output grid in mm, one number or one per axis; None for the rule above.

    Raises:
        ValueError: when a spacing is not positive, the factor is above 8, or the scan has too few slices.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> axes = FrequencyEncoding(0.9), FrequencyEncoding(0.9), SliceSelection(5.0, 4.0)
        >>> grid = output_acquisition(axes, (256, 256, 28))
        >>> grid.shape, grid.start
        ((256, 256, 157), (0, 0, 3))
    """
    acquired = [float(one.spacing) for one in encodings]
    finest, coarsest = min(acquired), max(acquired)
    if spacing is None:
        spacing = finest if coarsest >= ANISOTROPY * finest * (1 - 1e-6) else finest / 2
    wanted = checked_spacing(spacing)
    least = math.ceil(100 * coarsest / LARGEST_FACTOR) / 100
    check_sampling(encodings, scan_shape, wanted, f"Set --spacing {least:g} or more.")
    axes = [_axis(*axis) for axis in zip(encodings, scan_shape, wanted, strict=True)]
    shape, voxel, start = zip(*axes, strict=True)
    return SeparableAcquisition(tuple(encodings), shape, voxel, tuple(scan_shape), start)


def check_sampling(
    encodings: Sequence[Encoding], scan_shape: Sequence[int], voxel: Sequence[float], remedy: str
) -> None:
    """Check that a scan has enough samples to restore it.

    Args:
        encodings: of the axes.
        scan_shape: of the scan.
        voxel: spacing of the output grid in mm along each axis.
        remedy: what to do when the scan is too coarse for the grid.

    Raises:
        ValueError: when the factor is above 8, or there are too few slices or voxels.

    Example:
        >>> check_sampling([SliceSelection(5.0, 4.0)] * 3, (20, 20, 20), (1.0, 1.0, 1.0), "Set --spacing 1 or more.")
    """
    acquired = [float(one.spacing) for one in encodings]
    if max(d / h for d, h in zip(acquired, voxel, strict=True)) > LARGEST_FACTOR * (1 + SAME):
        raise ValueError(
            f"expected a factor of at most {LARGEST_FACTOR} between acquired and output spacing, got "
            f"{_by(acquired)} mm to {_by(voxel)} mm. {remedy}"
        )
    for one, size in zip(encodings, scan_shape, strict=True):
        least, what = (
            (FEWEST_SLICES, "slices") if isinstance(one, SliceSelection) else (FEWEST_VOXELS, "voxels along each axis")
        )
        if size < least:
            raise ValueError(f"expected at least {least} {what}, got {size}. Use a larger field of view.")


def checked_spacing(spacing: Sequence[float] | float | None) -> list[float] | None:
    """The spacing of an output grid in mm along each axis; None for what suits the scan.

    Args:
        spacing: one number or three; None stays None.

    Raises:
        ValueError: when it is something else, or a number is not positive.

    Example:
        >>> checked_spacing(1)
        [1.0, 1.0, 1.0]
    """
    if spacing is None:
        return None
    listed = spacing if isinstance(spacing, Sequence) else [spacing] * 3
    if len(listed) != 3 or not all(type(mm) in (int, float) and 0 < mm < math.inf for mm in listed):
        raise ValueError(
            f"spacing must be a positive number of mm, or three of them, got {spacing!r}. Set for instance --spacing 1 "
            'or --spacing "[1,1,1]".'
        )
    return [float(mm) for mm in listed]


def fitting_spacing(acquisition: SeparableAcquisition, largest: int) -> float:
    """The smallest spacing in mm, in hundredths, whose isotropic output grid has at most so many voxels.

    Args:
        acquisition: of the scan, seen from an output grid that has more voxels.
        largest: number of voxels.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> fitting_spacing(output_acquisition([FrequencyEncoding(0.8)] * 3, (256, 320, 320)), largest=400**3)
        0.6
    """
    volume = math.prod(acquisition.shape) * math.prod(ensure_tuple_rep(acquisition.voxel, 3))
    hundredths = max(1, math.floor(100 * (volume / largest) ** (1 / 3)))
    while math.prod(_grid(acquisition, hundredths / 100)) > largest:
        hundredths += 1
    return hundredths / 100


def _grid(acquisition: SeparableAcquisition, voxel: float) -> tuple[int, ...]:
    axes = zip(acquisition.encodings, acquisition.scan_shape, strict=True)
    return tuple(_axis(encoding, size, voxel)[0] for encoding, size in axes)


def _axis(encoding: Encoding, size: int, voxel: float) -> tuple[int, float, int]:
    """Voxels, their size in mm, and the position of sample 0, of the output grid along an axis."""
    if isinstance(encoding, SliceSelection):
        room = max(encoding.spacing, encoding.thickness) / voxel / 2 - 0.5  # half a slice, before and after
        start = max(0, math.ceil(room - 1e-3))
        return start + math.ceil((size - 1) * encoding.spacing / voxel + max(0, room) - 1e-3) + 1, voxel, start
    whole = size * encoding.spacing
    count = max(1, math.ceil(whole / voxel - 0.05))  # a twentieth of a voxel more is no voxel
    return count, whole / count if abs(whole / count / voxel - 1) < SNAP else voxel, 0


def is_truncation(acquisition: SeparableAcquisition) -> bool:
    """Whether an acquisition is a plain truncation of k-space to a whole share of the output grid.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> [is_truncation(output_acquisition([FrequencyEncoding(2.0)] * 3, (8, 8, 8), mm)) for mm in (1.0, 1.5)]
        [True, False]
    """
    return all(
        isinstance(one, FrequencyEncoding)
        and one.filter is None
        and place == 0
        and size % count == 0
        and math.isclose(size * mm, count * one.spacing, rel_tol=1e-9)
        for one, size, mm, count, place in zip(
            acquisition.encodings,
            acquisition.shape,
            ensure_tuple_rep(acquisition.voxel, 3),
            acquisition.scan_shape,
            ensure_tuple_rep(acquisition.start, 3),
            strict=True,
        )
    )


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def record_of(acquisition: SeparableAcquisition) -> dict[str, Any]:
    """The acquisition as plain texts and numbers, from which :func:`acquisition_from_record` makes it again."""
    return {
        "Axes": [encoding_to_text(one) for one in acquisition.encodings],
        "OutputShape": [int(n) for n in acquisition.shape],
        "OutputVoxel": [float(mm) for mm in acquisition.voxel],
        "ScanShape": [int(n) for n in acquisition.scan_shape],
        "Start": [float(place) for place in acquisition.start],
    }


def acquisition_from_record(record: Mapping[str, Any]) -> SeparableAcquisition:
    """The acquisition of a record, see :func:`record_of`.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> grid = output_acquisition([FrequencyEncoding(2.0)] * 3, (8, 8, 8))
        >>> acquisition_from_record(record_of(grid)) == grid
        True
    """
    return SeparableAcquisition(
        tuple(encoding_from_text(text) for text in record["Axes"]),
        tuple(record["OutputShape"]),
        tuple(record["OutputVoxel"]),
        tuple(record["ScanShape"]),
        tuple(record["Start"]),
    )


ACQUISITION = "acquisition"  # key of a volume's metadata: the record as JSON, which can be collated


def acquisition_in(metadata: Mapping[str, Any]) -> SeparableAcquisition | None:
    """The acquisition that the metadata of an interpolated scan, or of its prediction, hold; None without one.

    Example:
        >>> acquisition_in({}) is None
        True
    """
    return acquisition_from_record(json.loads(metadata[ACQUISITION])) if ACQUISITION in metadata else None


def interpolations_of(acquisition: SeparableAcquisition, y: Tensor) -> dict[str, Tensor]:
    """Interpolations of a scan to its output grid, each of one kind along all axes, at the true positions.

    Args:
        acquisition: of the scan.
        y: the scan, ``(..., *scan_shape)``.

    Returns:
        ``tricubic`` by Keys, ``windowed_sinc`` by Lanczos, ``zero_filling``, and ``linear_inverse``, which also undoes
        part of the slices' blur.
    """
    spacings = [one.spacing for one in acquisition.encodings]
    filled = replace(acquisition, encodings=[FrequencyEncoding(mm) for mm in spacings])
    axes = (acquisition.shape, ensure_tuple_rep(acquisition.voxel, 3), ensure_tuple_rep(acquisition.start, 3), spacings)
    places = [
        (torch.arange(size, dtype=torch.float64) - start) * voxel / mm
        for size, voxel, start, mm in zip(*axes, strict=True)
    ]
    start = acquisition.interpolate(y)
    return {
        "linear_inverse": acquisition.make_consistent(start, y, LINEAR_REGULARISATION),
        "tricubic": _interpolate(y, keys_matrix, places),
        "windowed_sinc": _interpolate(y, lanczos_matrix, places),
        "zero_filling": filled.interpolate(y),
    }


def _interpolate(y: Tensor, kernel: Callable[[Tensor, int], Tensor], places: Sequence[Tensor]) -> Tensor:
    for at in places:
        matrix = kernel(at, y.shape[-3]).to(y)
        y = torch.tensordot(y, matrix, dims=([y.ndim - 3], [1]))  # moves the axis to the end
    return y
