"""Acquisitions: what a training draws for a sample. Lengths count in voxels of the output grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scripts.physics.encoding import PROFILES, Encoding, FrequencyEncoding, SliceSelection
from scripts.physics.filters import Filter
from scripts.physics.separable import SeparableAcquisition, receive, vary_slice_gain

__all__ = ["Acquisition", "AcquisitionRange", "named_encodings", "scan_of"]


@dataclass(frozen=True)
class AcquisitionRange:
    """What acquisitions a training draws.

    A share of the draws is of the common kind: factor 2, or contiguous Gaussian slices of 2, 3, 4 or 5 voxels. All
    others come from the ranges. Both kinds share noise and disturbances.

    Args:
        kinds: weights of the kinds of acquisition. ``isotropic``: one factor along all axes. ``in_plane``: one factor
            along two axes. ``slices``: slices along one axis.
        common: share of the common draws.
        isotropic: factors of ``isotropic``, acquired spacing over output voxel.
        in_plane: factors of ``in_plane``.
        slice_spacing: distance between slices.
        thickness: slice thickness over slice spacing.
        coarser: share of ``slices`` whose in-plane axes are coarser than the output grid, too.
        filtered: share with a filter or partial Fourier.
        noisy: share with noise that the acquisition adds. All other scans have the noise of the HR scan alone.
        snr: mean signal of the foreground over the standard deviation of the noise.
        uneven: share of ``slices`` with a gain from slice to slice.
        gain: standard deviation of that gain, at most.
        moved: share of ``slices`` whose odd slices are shifted.
        shift: the shift, at most.

    Raises:
        ValueError: when a kind is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> AcquisitionRange(kinds={"isotropic": 1.0}, common=1.0, noisy=0.0, filtered=0.0).draw(rng).encodings[0]
        FrequencyEncoding(spacing=2.0, filter=None)
    """

    kinds: Mapping[str, float] = field(default_factory=lambda: {"isotropic": 0.35, "in_plane": 0.2, "slices": 0.45})
    common: float = 0.4
    isotropic: Sequence[float] = (1.3, 2.5)
    in_plane: Sequence[float] = (1.3, 2.5)
    slice_spacing: Sequence[float] = (1.5, 6.0)
    thickness: Sequence[float] = (0.6, 1.2)
    coarser: float = 0.3
    filtered: float = 0.2
    noisy: float = 0.5
    snr: Sequence[float] = (12.0, 100.0)
    uneven: float = 0.2
    gain: float = 0.04
    moved: float = 0.15
    shift: float = 0.5

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= {"isotropic", "in_plane", "slices"}:
            raise ValueError(f"kinds must be among isotropic, in_plane and slices, got {list(self.kinds)}.")

    @property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """What is drawn, by the quantities of :data:`scripts.transforms.familiarity.RANGES`. None has no end."""
        factors = [self.isotropic[1] if "isotropic" in self.kinds else 1.0]
        factors += [self.in_plane[1]] if {"in_plane", "slices"} & set(self.kinds) else []
        ranges: dict[str, tuple[float | None, float | None]] = {"factor": (None, float(max(factors)))}
        ranges["slice_spacing"] = (None, max(5.0, self.slice_spacing[1]) if "slices" in self.kinds else 1.0)
        return {**ranges, "thickness": tuple(self.thickness), "snr": (self.snr[0] if self.noisy else None, None)}

    def draw(
        self, rng: np.random.Generator, breadth: float = 1.0, fine_axes: Sequence[int] | None = None
    ) -> Acquisition:
        """Draw an acquisition.

        Args:
            rng: source of randomness.
            breadth: in [0, 1], for a training that begins with the common, undisturbed acquisitions and widens.
            fine_axes: the only two axes whose resolution may be lowered, for a scan that is coarse along the third.
        """
        weights = np.array(list(self.kinds.values()))
        kind = list(self.kinds)[rng.choice(len(weights), p=weights / weights.sum())]
        order = rng.permutation(3)
        if fine_axes is not None:
            kind, order = "in_plane", np.array([3 - sum(fine_axes), *fine_axes])
        common = rng.random() < 1 - breadth * (1 - self.common)
        through = int(order[0]) if kind == "slices" else None
        spacings = self._spacings(kind, common, rng)
        encodings: list[Encoding] = [FrequencyEncoding(1.0)] * 3
        for axis, spacing in zip(order, spacings, strict=True):
            encodings[axis] = FrequencyEncoding(spacing)
        if through is not None:
            encodings[through] = self._slices(spacings[0], common, breadth, rng)
        if rng.random() < breadth * self.filtered:
            encodings = _with_filter(encodings, rng)
        noise = 1 / np.exp(rng.uniform(*np.log(self.snr))) if rng.random() < breadth * self.noisy else 0.0
        uneven = through is not None and rng.random() < breadth * self.uneven
        gain = rng.uniform(0, self.gain) if uneven else 0.0
        return Acquisition(tuple(encodings), float(noise), float(gain), int(rng.integers(2**31)))

    def _spacings(self, kind: str, common: bool, rng: np.random.Generator) -> list[float]:
        """Along the first axis, then the others."""
        if kind == "isotropic":
            return [2.0 if common else rng.uniform(*self.isotropic)] * 3
        factor = 2.0 if common else float(rng.uniform(*self.in_plane))
        if kind == "in_plane":
            return [1.0, factor, factor]
        if common:
            return [float(rng.integers(2, 6)), 1.0, 1.0]
        spacing = float(np.exp(rng.uniform(*np.log(self.slice_spacing))))
        factor = float(rng.uniform(1.0, min(self.in_plane[1], spacing))) if rng.random() < self.coarser else 1.0
        return [spacing, factor, factor if rng.random() < 0.5 else 1.0]

    def _slices(self, spacing: float, common: bool, breadth: float, rng: np.random.Generator) -> SliceSelection:
        moved = rng.random() < breadth * self.moved
        shift = float(rng.uniform(-self.shift, self.shift)) if moved else 0.0
        if common:
            return SliceSelection(spacing, spacing, odd_shift=shift)
        profile = str(rng.choice(list(PROFILES)))
        return SliceSelection(spacing, max(1.0, spacing * rng.uniform(*self.thickness)), profile, shift)


class Acquisition(NamedTuple):
    """One acquisition with its disturbances, which are functions of ``seed``.

    Args:
        encodings: of the three axes.
        noise: standard deviation of the noise over the mean of the foreground.
        gain: standard deviation of the gain from slice to slice.
        seed: of noise and gain.
    """

    encodings: tuple[Encoding, ...]
    noise: float = 0.0
    gain: float = 0.0
    seed: int = 0

    def disturb(self, y: Tensor) -> Tensor:
        """Add the gain of the slices, then noise, of which the magnitude is kept.

        The filters of the acquisition colour the noise, because a scanner applies them after the noise arose.

        Args:
            y: the scan, three axes.
        """
        generator = torch.Generator().manual_seed(self.seed)
        through = [axis for axis, one in enumerate(self.encodings) if isinstance(one, SliceSelection)]
        if self.gain:
            y = vary_slice_gain(y, through[0], self.gain, generator)
        if not self.noise:
            return y
        std = self.noise * float(y[y >= y.mean()].mean())
        filters = [getattr(one, "filter", None) for one in self.encodings]
        if not any(filters):
            return receive(y, std, generator=generator)
        noise = receive(torch.zeros(2, *y.shape), std, magnitude=False, generator=generator)
        filtering = SeparableAcquisition([FrequencyEncoding(1.0, one) for one in filters], y.shape, 1.0, y.shape)
        noise = filtering.acquire(noise)
        return torch.hypot(y + noise[0], noise[1])


def scan_of(encodings: Sequence[Encoding], shape: Sequence[int]) -> SeparableAcquisition:
    """The acquisition of a whole field of view. Sample 0 of the scan lies on voxel 0 of the output grid.

    The spacing of a frequency-limited axis becomes the nearest one that divides the field of view.

    Example:
        >>> scan_of([FrequencyEncoding(2.0), FrequencyEncoding(1.0), SliceSelection(4.0, 4.0)], (9, 5, 9)).scan_shape
        (4, 5, 3)
    """
    exact: list[Encoding] = []
    sizes: list[int] = []
    for encoding, size in zip(encodings, shape, strict=True):
        if isinstance(encoding, SliceSelection):
            sizes.append(int((size - 1) / encoding.spacing) + 1)
            exact.append(encoding)
        else:
            sizes.append(max(1, round(size / encoding.spacing)))
            exact.append(encoding._replace(spacing=size / sizes[-1]))
    return SeparableAcquisition(tuple(exact), tuple(shape), 1.0, tuple(sizes))


def named_encodings(axes: Sequence[float | Sequence]) -> tuple[Encoding, ...]:
    """The encodings that a config lists: a number for a factor, ``[spacing, thickness]`` for slices.

    Example:
        >>> named_encodings([1, 1, [5, 4]])[2]
        SliceSelection(spacing=5.0, thickness=4.0, profile='gaussian', odd_shift=0.0)
    """
    return tuple(
        SliceSelection(float(axis[0]), float(axis[1]), *axis[2:])
        if isinstance(axis, Sequence)
        else FrequencyEncoding(float(axis))
        for axis in axes
    )


def _with_filter(encodings: Sequence[Encoding], rng: np.random.Generator) -> list[Encoding]:
    """One filter along every frequency-limited axis, or partial Fourier along one of them."""
    family = str(rng.choice(["hamming", "tukey", "fermi", "partial_fourier"]))
    parameters: dict[str, tuple[float, ...]] = {
        "tukey": (rng.uniform(0.1, 0.6),),
        "fermi": (rng.uniform(0.7, 1.0), rng.uniform(0.03, 0.1)),
        "partial_fourier": (rng.uniform(0.625, 0.875),),
    }
    where = [axis for axis, one in enumerate(encodings) if isinstance(one, FrequencyEncoding)]
    if family == "partial_fourier":
        where = [int(rng.choice(where))]
    chosen = Filter(family, parameters.get(family, ()))
    return [one._replace(filter=chosen) if axis in where else one for axis, one in enumerate(encodings)]
