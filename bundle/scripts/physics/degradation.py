"""Degradation: the transfer and the noise that turn one group of scans into another."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import PathLike
from torch import Tensor

from scripts.physics.filters import acquisition_window
from scripts.utils.atomic import write_text_atomically

__all__ = ["EMPIRICAL", "Degradation", "Transfer", "known_degradation", "read_degradation"]

EMPIRICAL = "empirical"


class Transfer(NamedTuple):
    """The transfer along one axis.

    Args:
        frequencies: from 0 to 1, the Nyquist frequency of the low-resolution group.
        amplitude: at these; 1 at frequency 0.
        std: standard error of the logarithm of ``amplitude``, taken as fully correlated along the axis: of the measured
            curve where that is used, else of the family by its parameter, and 0 where it has none.
        measured: amplitude before a family took its place.
        family: see :data:`FAMILIES`, or ``empirical`` when none fits: then ``amplitude`` is the measured curve.
        parameter: of the family: taper of Tukey, FWHM in low-resolution voxels, acquired fraction; None otherwise.
        misfit: rms of the difference between the best family and the measured curve, in what they may differ by.
    """

    frequencies: tuple[float, ...]
    amplitude: tuple[float, ...]
    std: tuple[float, ...]
    measured: tuple[float, ...]
    family: str
    parameter: float | None
    misfit: float

    def at(self, frequencies: np.ndarray, deviation: float = 0.0) -> np.ndarray:
        """Amplitude at frequencies in [0, 1], ``deviation`` standard errors off."""
        amplitude = np.interp(frequencies, self.frequencies, self.amplitude)
        return amplitude * np.exp(deviation * np.interp(frequencies, self.frequencies, self.std))


class Degradation(NamedTuple):
    """An estimate by :func:`estimate_degradation`.

    Args:
        spacing: median mm per voxel of the low-resolution group, along the axes of the canonical frame.
        transfers: one per axis.
        elliptical: whether k-space is empty beyond the ellipsoid that touches the faces of the band.
        gain: of the low-resolution group on the common intensity scale; people and their fields of view differ as well.
        gain_std: standard error of its logarithm.
        noise_std: of the noise in a low-resolution volume on the common intensity scale, in addition to what the noise
            of the high-resolution group leaves there; before the transfer when ``filtered_noise``.
        noise_spread: standard error of its logarithm.
        filtered_noise: whether the noise has passed the transfer, as a receiver's noise passes a reconstruction filter.
        misfit: rms of the residual in dB.
        subjects: numbers of high- and low-resolution volumes.
    """

    spacing: tuple[float, ...]
    transfers: tuple[Transfer, ...]
    elliptical: bool
    gain: float
    gain_std: float
    noise_std: float
    noise_spread: float
    filtered_noise: bool
    misfit: float
    subjects: tuple[int, int]

    def save(self, path: PathLike) -> None:
        record = {**self._asdict(), "transfers": [transfer._asdict() for transfer in self.transfers]}
        write_text_atomically(path, json.dumps(record, indent=1) + "\n")

    def window(self, matrix_size: Sequence[int], deviations: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
        """The transfer on a centred k-space, float64, ``deviations`` standard errors off along each axis."""
        radii = [np.abs(np.arange(n) - n // 2) / max(n / 2, 1) for n in matrix_size]
        curves = [t.at(r, z) for t, r, z in zip(self.transfers, radii, deviations, strict=True)]
        window = np.einsum("i,j,k->ijk", *curves)
        if self.elliptical:
            window = window * (sum(np.ix_(*(r**2 for r in radii))) <= 1)
        return torch.from_numpy(window)

    def along_any_axis(self) -> Degradation:
        """The same transfer along all axes, their geometric mean, for what cannot tell one axis from another."""
        u = np.asarray(self.transfers[0].frequencies)
        amplitude = np.exp(np.mean([np.log(np.maximum(t.at(u), 1e-3)) for t in self.transfers], axis=0))
        measured = np.mean([np.interp(u, t.frequencies, t.measured) for t in self.transfers], axis=0)
        std = np.mean([np.interp(u, t.frequencies, t.std) for t in self.transfers], axis=0)
        curves = (tuple(values.tolist()) for values in (u, amplitude, std, measured))
        misfit = max(t.misfit for t in self.transfers)
        transfer = Transfer(*curves, family=EMPIRICAL, parameter=None, misfit=misfit)
        return self._replace(transfers=(transfer,) * len(self.transfers))


def read_degradation(path: PathLike) -> Degradation:
    """What :meth:`Degradation.save` wrote."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    transfers = tuple(Transfer(**_with_tuples(one)) for one in record["transfers"])
    return Degradation(**{**_with_tuples(record), "transfers": transfers})


def known_degradation(
    elliptical: bool = False,
    partial_fourier: Sequence[float] | None = None,
    hamming: bool = False,
    exponential: Sequence[float] | None = None,
    fermi: Sequence[Sequence[float] | None] | None = None,
) -> Degradation:
    """The degradation of a known acquisition, such as one that ``KSpaceTruncate`` simulates.

    Of partial Fourier it has what remains in the real part of the image. For the arguments see
    :func:`scripts.physics.filters.acquisition_window`; noise is none, spacing and numbers of subjects are unknown.
    """
    frequencies = np.linspace(0, 1, 65)
    transfers = []
    for axis in range(3):
        own = {
            name: None if values is None else [values[axis]]
            for name, values in (("partial_fourier", partial_fourier), ("exponential", exponential), ("fermi", fermi))
        }
        window = acquisition_window([2 * (len(frequencies) - 1)], hamming=hamming, **own).numpy()
        sides = window[len(frequencies) - 1 :: -1], np.append(window[len(frequencies) - 1 :], window[0])
        curve = tuple(np.mean(sides, axis=0).tolist())
        flat = tuple(np.zeros(len(curve)).tolist())
        transfers.append(Transfer(tuple(frequencies.tolist()), curve, flat, curve, EMPIRICAL, None, 0.0))
    unknown = (math.nan,) * 3
    return Degradation(unknown, tuple(transfers), elliptical, 1.0, 0.0, 0.0, 0.0, True, 0.0, (0, 0))


def _with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
