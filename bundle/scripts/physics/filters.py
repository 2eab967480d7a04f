r"""Filters: how a scanner, or its reconstruction, weights the k-space that it acquires.

A filter gives the amplitude at the frequency $u$ along one axis. $u$ is the distance from the centre of k-space in
units of the Nyquist frequency, in [0, 1]. :data:`FILTERS` holds every filter once. The filters take NumPy arrays and
tensors, because the estimator fits in NumPy and the transforms work on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from scripts.physics.kspace import centred_frequencies, open_grid

__all__ = ["FILTERS", "UNFILTERED", "Filter", "acquisition_window", "separable_window"]


Frequencies = TypeVar("Frequencies", np.ndarray, Tensor)


def _library(u: Frequencies) -> Any:
    """NumPy for arrays, PyTorch for tensors. Their functions differ in the last digit, so each caller keeps its own."""
    return torch if isinstance(u, Tensor) else np


def _box(u: Frequencies) -> Frequencies:
    """Plain truncation: everything inside the band is kept."""
    return _library(u).ones_like(u)


def _hamming(u: Frequencies) -> Frequencies:
    r"""The scanner's Hamming filter, $0.54 + 0.46 \cos(\pi u)$: 1 in the centre, 0.08 at the edge."""
    return 0.54 + 0.46 * _library(u).cos(math.pi * u)


def _tukey(u: Frequencies, taper: float) -> Frequencies:
    """1 in the centre, and a cosine from 1 to 0 over the outermost share ``taper`` of the band."""
    return _library(u).where(u < 1 - taper, 1.0, 0.5 + 0.5 * _library(u).cos(math.pi * (u - 1 + taper) / taper))


def _gaussian(u: Frequencies, fwhm: float) -> Frequencies:
    """A Gaussian blur whose full width at half maximum is ``fwhm`` voxels."""
    return _library(u).exp(-((math.pi * u * fwhm) ** 2) / (16 * math.log(2)))


def _partial_fourier(u: Frequencies, fraction: float) -> Frequencies:
    """Partial Fourier: its effect on the real part, when a ``fraction`` of k-space in (0.5, 1] was acquired."""
    return _library(u).where(u <= 2 * fraction - 1, 1.0, 0.5)


def _partial_fourier_hamming(u: Frequencies, fraction: float) -> Frequencies:
    """Partial Fourier, then the Hamming filter."""
    return _partial_fourier(u, fraction) * _hamming(u)


def _exponential(u: Frequencies, decay: float) -> Frequencies:
    """A signal that decays away from the centre of k-space, $e^{-d u}$ with the ``decay`` $d$."""
    return _library(u).exp(-decay * u)


def _fermi(u: Frequencies, radius: float, width: float) -> Frequencies:
    """The Fermi filter, $1 / (1 + e^{(u - r) / w})$ with ``radius`` $r$ and ``width`` $w$.

    It is divided by its value in the centre, so that intensities are preserved.
    """
    amplitude, centre = (torch.sigmoid((radius - torch.as_tensor(v)) / width) for v in (u, 0 * u))
    return amplitude / centre if isinstance(u, Tensor) else (amplitude / centre).numpy()


FILTERS: Mapping[str, Callable[..., Any]] = {
    "box": _box,
    "hamming": _hamming,
    "tukey": _tukey,
    "gaussian": _gaussian,
    "partial_fourier": _partial_fourier,
    "partial_fourier_hamming": _partial_fourier_hamming,
    "exponential": _exponential,
    "fermi": _fermi,
}


class Filter(NamedTuple):
    """A filter along one axis.

    Args:
        family: a name of :data:`FILTERS`; ``box`` means unfiltered.
        parameters: of the family, in the order of its function; most families have one or none.

    Example:
        >>> Filter("tukey", (0.5,)).at(np.array([0.0, 0.5, 0.75, 1.0])).round(2).tolist()
        [1.0, 1.0, 0.5, 0.0]
    """

    family: str
    parameters: tuple[float, ...] = ()

    def at(self, frequencies: Frequencies) -> Frequencies:
        """Amplitude at frequencies in [0, 1]."""
        return FILTERS[self.family](frequencies, *self.parameters)


UNFILTERED = Filter("box")


def separable_window(lines: Sequence[Tensor], radii: Sequence[Tensor] | None = None) -> Tensor:
    """Weight of each point of a centred k-space, the product of one line per axis.

    Args:
        lines: the amplitude along each axis.
        radii: distance from the centre along each axis, as a share of the band. If given, the corners beyond the
            ellipsoid that touches the faces of the band are 0.

    Example:
        >>> separable_window([torch.tensor([0.5, 1.0]), torch.tensor([1.0, 3.0])]).tolist()
        [[0.5, 1.5], [1.0, 3.0]]
    """
    window = math.prod(open_grid(lines))
    return window if radii is None else window * (sum(r.square() for r in open_grid(radii)) <= 1)


def acquisition_window(
    matrix_size: Sequence[int],
    elliptical: bool = False,
    partial_fourier: Sequence[float] | None = None,
    hamming: bool = False,
    exponential: Sequence[float] | None = None,
    fermi: Sequence[Sequence[float] | None] | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """How much of each point of a centred k-space a realistic protocol keeps, from 0 to 1.

    Args:
        matrix_size: the sizes of the acquired matrix along each axis.
        elliptical: leave out the corners beyond the ellipsoid that touches the faces, as elliptical sampling does.
        partial_fourier: per axis, the acquired fraction of k-space in (0.5, 1]. The missing part lies at negative
            frequencies.
        hamming: apply the Hamming filter along each axis with more than one voxel.
        exponential: per axis, the decay of the exponential filter, not negative; 0 for none.
        fermi: per axis, radius and width of the Fermi filter, both positive; None for none.
        device: where to make the window.

    Returns:
        float64 tensor of shape ``matrix_size``.

    Raises:
        ValueError: when an option has another length than ``matrix_size``, or a value out of its range.

    Example:
        >>> acquisition_window([4], hamming=True).numpy().round(2).tolist()
        [0.08, 0.54, 1.0, 0.54]
    """
    fractions = _per_axis("partial_fourier", partial_fourier, 1.0, matrix_size)
    decays = _per_axis("exponential", exponential, 0.0, matrix_size)
    falls = _per_axis("fermi", fermi, None, matrix_size)
    if any(not 0.5 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"partial_fourier must be in (0.5, 1] per axis, got {fractions}.")
    if any(not 0 <= decay < math.inf for decay in decays):
        raise ValueError(f"exponential must be a finite decay of at least 0 per axis, got {decays}.")
    if any(fall is not None and not (len(fall) == 2 and min(fall) > 0) for fall in falls):
        raise ValueError(f"fermi must be a positive radius and width, or None, per axis, got {falls}.")
    lines, radii = [], [centred_frequencies(size, device).abs() for size in matrix_size]
    for size, radius, fraction, decay, fall in zip(matrix_size, radii, fractions, decays, falls, strict=True):
        line = (torch.arange(size, device=device) >= size - round(size * fraction)).double()
        if hamming and size > 1:
            line = line * Filter("hamming").at(radius)
        if decay:
            line = line * Filter("exponential", (decay,)).at(radius)
        if fall is not None:
            line = line * Filter("fermi", tuple(fall)).at(radius)
        lines.append(line)
    return separable_window(lines, radii if elliptical else None)


def _per_axis(name: str, values: Sequence | None, default: float | None, matrix_size: Sequence[int]) -> list:
    if values is None:
        return [default] * len(matrix_size)
    if isinstance(values, str) or len(values) != len(matrix_size):
        raise ValueError(f"{name} must have one value per axis ({len(matrix_size)}), got {values}.")
    return list(values)
