"""Filters: what a scanner, or its reconstruction, does to the k-space that it acquires."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["acquisition_window", "exponential_window", "fermi_window", "hamming_window"]


def _radius(size: int, device: torch.device | None) -> Tensor:
    """Signed distance from the k-space centre in units of the half width, in [-1, 1)."""
    return (torch.arange(size, dtype=torch.float64, device=device) - size // 2) / max(size / 2, 1)


def hamming_window(size: int, device: torch.device | None = None) -> Tensor:
    r"""The scanner's Hamming filter, $0.54 + 0.46 \cos(\pi k / k_{max})$: 1 in the centre, 0.08 at the edge."""
    return 0.54 + 0.46 * torch.cos(torch.pi * _radius(size, device))


def exponential_window(size: int, decay: float, device: torch.device | None = None) -> Tensor:
    r"""A signal that decays away from the centre of k-space, $e^{-d |k| / k_{max}}$ with the ``decay`` $d$."""
    return torch.exp(-decay * _radius(size, device).abs())


def fermi_window(size: int, radius: float, width: float, device: torch.device | None = None) -> Tensor:
    r"""The Fermi filter, $1 / (1 + e^{(|k| / k_{max} - r) / w})$ with ``radius`` $r$ and ``width`` $w$.

    It is divided by its value in the centre, so that intensities are preserved.
    """
    fall = torch.sigmoid((radius - _radius(size, device).abs()) / width)
    return fall / fall[size // 2]


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
        partial_fourier: per axis, the acquired fraction of k-space in (0.5, 1]; the other part, at negative
            frequencies, is 0.
        hamming: apodise each axis by :func:`hamming_window`.
        exponential: per axis, the decay of :func:`exponential_window`, not negative; 0 for none.
        fermi: per axis, radius and width of :func:`fermi_window`, both positive; None for none.
        device: where to make the window.

    Returns:
        float64 tensor of shape ``matrix_size``.

    Raises:
        ValueError: when an option has another length than ``matrix_size``, or a value out of its range.
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
    window = torch.ones(tuple(matrix_size), dtype=torch.float64, device=device)
    squared_radius = torch.zeros_like(window)
    for axis, size in enumerate(matrix_size):
        shape = [size if other == axis else 1 for other in range(len(matrix_size))]
        line = (torch.arange(size, device=device) >= size - round(size * fractions[axis])).double()
        if hamming and size > 1:
            line = line * hamming_window(size, device)
        if decays[axis]:
            line = line * exponential_window(size, decays[axis], device)
        if falls[axis] is not None:
            line = line * fermi_window(size, *falls[axis], device=device)
        window = window * line.reshape(shape)
        squared_radius = squared_radius + _radius(size, device).reshape(shape) ** 2
    return window * (squared_radius <= 1) if elliptical else window


def _per_axis(name: str, values: Sequence | None, default: float | None, matrix_size: Sequence[int]) -> list:
    if values is None:
        return [default] * len(matrix_size)
    if isinstance(values, str) or len(values) != len(matrix_size):
        raise ValueError(f"{name} must have one value per axis ({len(matrix_size)}), got {values}.")
    return list(values)


# Families: amplitude at frequencies u in [0, 1], and the parameters to try


def _box(u: np.ndarray, _: float) -> np.ndarray:
    return np.ones_like(u)


def _hamming(u: np.ndarray, _: float) -> np.ndarray:
    return 0.54 + 0.46 * np.cos(np.pi * u)


def _tukey(u: np.ndarray, taper: float) -> np.ndarray:
    return np.where(u < 1 - taper, 1.0, 0.5 + 0.5 * np.cos(np.pi * (u - 1 + taper) / taper))


def _gaussian(u: np.ndarray, fwhm: float) -> np.ndarray:
    """Of a blur whose full width at half maximum is ``fwhm`` low-resolution voxels."""
    return np.exp(-((np.pi * u * fwhm) ** 2) / (16 * math.log(2)))


def _partial_fourier(u: np.ndarray, fraction: float) -> np.ndarray:
    """The real part of an image, of whose k-space a ``fraction`` along the axis was acquired."""
    return np.where(u <= 2 * fraction - 1, 1.0, 0.5)


def _partial_fourier_hamming(u: np.ndarray, fraction: float) -> np.ndarray:
    return _partial_fourier(u, fraction) * _hamming(u, math.nan)


FAMILIES: Mapping[str, tuple[Callable[[np.ndarray, float], np.ndarray], np.ndarray]] = {
    "box": (_box, np.array([math.nan])),
    "hamming": (_hamming, np.array([math.nan])),
    "tukey": (_tukey, np.arange(0.1, 1.001, 0.05)),
    "gaussian": (_gaussian, np.arange(0.3, 2.501, 0.05)),
    "partial_fourier": (_partial_fourier, np.arange(9, 16) / 16),
    "partial_fourier_hamming": (_partial_fourier_hamming, np.arange(9, 16) / 16),
}
