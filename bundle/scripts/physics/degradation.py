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

from scripts.physics.filters import acquisition_window, separable_window
from scripts.physics.kspace import centred_frequencies
from scripts.utils.atomic import write_text_atomically

__all__ = ["EMPIRICAL", "Degradation", "Transfer", "known_degradation", "read_degradation"]

EMPIRICAL = "empirical"


class Transfer(NamedTuple):
    """The transfer along one axis.

    Args:
        frequencies: from 0 to 1, the Nyquist frequency of the low-resolution group.
        amplitude: the amplitude at these frequencies; 1 at frequency 0.
        std: standard error of the logarithm of ``amplitude``, fully correlated along the axis. For a family it comes
            from the error of its parameter, and is 0 without one. For a measured curve it is the curve's own error.
        measured: the measured amplitude, which a family may have replaced.
        family: a name of :data:`scripts.physics.filters.FILTERS`, or ``empirical`` when no family fits: then
            ``amplitude`` is the measured curve.
        parameter: of the family: taper of Tukey, FWHM in low-resolution voxels, acquired fraction; None otherwise.
        misfit: rms difference between the best family and the measured curve, in units of its tolerance.
        detectable: amplitude at 1 below which a smooth blur beside ``family`` would have shown. A weaker blur may count
            as a difference between subjects. 1 for a family that is fitted to the blur.

    Example:
        >>> transfer = Transfer((0.0, 1.0), (1.0, 0.5), (0.0, 0.1), (1.0, 0.5), "empirical", None, 0.0)
        >>> transfer.at(np.array([0.0, 0.5, 1.0])).tolist()
        [1.0, 0.75, 0.5]
    """

    frequencies: tuple[float, ...]
    amplitude: tuple[float, ...]
    std: tuple[float, ...]
    measured: tuple[float, ...]
    family: str
    parameter: float | None
    misfit: float
    detectable: float = 1.0

    def at(self, frequencies: np.ndarray, deviation: float = 0.0) -> np.ndarray:
        """Amplitude at frequencies in [0, 1], moved by ``deviation`` standard errors."""
        amplitude = np.interp(frequencies, self.frequencies, self.amplitude)
        return amplitude * np.exp(deviation * np.interp(frequencies, self.frequencies, self.std))


class Degradation(NamedTuple):
    """The transfer, gain and noise that turn a high-resolution into a low-resolution group.

    Args:
        spacing: median mm per voxel of the low-resolution group, along the axes of the canonical frame.
        transfers: one per axis.
        elliptical: whether k-space is empty beyond the ellipsoid that touches the faces of the band.
        gain: of the low-resolution group on the common intensity scale. It includes differences between subjects and
            between fields of view.
        gain_std: standard error of its logarithm.
        noise_std: standard deviation of the noise in a low-resolution volume on the common intensity scale. It excludes
            the noise that the high-resolution group already has. It precedes the transfer if ``filtered_noise``.
        noise_spread: standard error of its logarithm.
        filtered_noise: whether the noise passed the transfer, as receiver noise passes a reconstruction filter.
        misfit: rms of the residual in dB.
        subjects: numbers of high- and low-resolution volumes.

    Example:
        >>> known_degradation(hamming=True).window((4, 1, 1)).flatten().numpy().round(2).tolist()
        [0.08, 0.54, 1.0, 0.54]
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
        """Write the degradation as JSON, which :func:`read_degradation` reads."""
        record = {**self._asdict(), "transfers": [transfer._asdict() for transfer in self.transfers]}
        write_text_atomically(path, json.dumps(record, indent=1) + "\n")

    def window(self, matrix_size: Sequence[int], deviations: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
        """The transfer on a centred k-space, float64, moved by ``deviations`` standard errors along each axis."""
        radii = [centred_frequencies(n).abs() for n in matrix_size]
        curves = [t.at(r.numpy(), z) for t, r, z in zip(self.transfers, radii, deviations, strict=True)]
        return separable_window([*map(torch.from_numpy, curves)], radii if self.elliptical else None)

    def along_any_axis(self) -> Degradation:
        """The geometric mean of the transfers along all axes, for networks that do not distinguish the axes."""
        u = np.asarray(self.transfers[0].frequencies)
        amplitude = np.exp(np.mean([np.log(np.maximum(t.at(u), 1e-3)) for t in self.transfers], axis=0))
        measured = np.mean([np.interp(u, t.frequencies, t.measured) for t in self.transfers], axis=0)
        std = np.mean([np.interp(u, t.frequencies, t.std) for t in self.transfers], axis=0)
        curves = (tuple(values.tolist()) for values in (u, amplitude, std, measured))
        misfit = max(t.misfit for t in self.transfers)
        transfer = Transfer(*curves, family=EMPIRICAL, parameter=None, misfit=misfit)
        return self._replace(transfers=(transfer,) * len(self.transfers))


def read_degradation(path: PathLike) -> Degradation:
    """Read a degradation that :meth:`Degradation.save` wrote.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     known_degradation(hamming=True).save(Path(folder, "degradation.json"))
        ...     read_degradation(Path(folder, "degradation.json")).elliptical
        False
    """
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
    """The degradation of a known acquisition, such as one that ``KSpaceTruncate`` simulates, without noise.

    The transfer of partial Fourier is its effect on the real part of the image. The spacing and the numbers of subjects
    are unknown. For the arguments see :func:`scripts.physics.filters.acquisition_window`.

    Example:
        >>> [round(amplitude, 2) for amplitude in known_degradation(hamming=True).transfers[0].amplitude[::32]]
        [1.0, 0.54, 0.08]
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
