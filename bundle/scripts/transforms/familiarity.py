"""Familiarity: how similar a scan is to the scans that the network was trained for."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from torch import Tensor

from scripts.metrics.spectral import mean_log_spectrum
from scripts.physics.encoding import SliceSelection
from scripts.physics.separable import SeparableAcquisition
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.utils import file_name, plain, spacing, warn
from scripts.utils.atomic import write_text_atomically

__all__ = ["WarnUnfamiliard", "describe_acquisition", "describe_volume", "save_group_statistics", "signal_to_noise"]

logger = logging.getLogger(__name__)


QUANTILES = tuple(i / 20 for i in range(1, 20))
FREQUENCIES = 16  # steps of cycles per voxel in (0, 0.5]
UNFAMILIAR = "unfamiliar"  # key of the metadata of a scan with remarks
NORMAL_MEDIAN = 0.6745  # median of the magnitude of normal noise of standard deviation 1
SECOND_DIFFERENCE = 6.0  # by which a second difference multiplies the variance of white noise
NEGATIVE = 0.01, 0.1, 4.0  # share of the voxels, how far below zero, and how many deviations of the noise
SHIFTED = (
    "It has negative intensities, which no magnitude image has: they were shifted or standardised. Give the scan as it "
    "was reconstructed."
)


def _log_ratio(a: Any, b: Any) -> float:
    with np.errstate(invalid="ignore"):  # a contrast can be negative; it then resembles no other
        return float(np.abs(np.log(np.asarray(a) / np.asarray(b))).max())


def _rms(a: Any, b: Any) -> float:
    return float(np.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2)))


# quantity: (difference, largest familiar difference, remark). Real scans of one family of protocols stay below these
# limits, see docs/reliability.md
LIKENESS: dict[str, tuple[Callable[[Any, Any], float], float, str]] = {
    "spacing": (_log_ratio, math.log(1.3), "Its spacing is {scan} mm; the network was trained for {training} mm."),
    "spectrum": (
        _rms,
        3.0,
        "Its power spectrum differs by at least {least:.1f} dB from those of the training scans: it is sharper, "
        "blurred or noisier, or was interpolated.",
    ),
    "intensity": (_rms, 0.4, "Its intensities have another distribution than those of any training scan."),
    "contrast": (_log_ratio, math.log(3), "Its contrast within tissue is {scan}; in training it was {training}."),
}
# quantity of a scan of any acquisition: (factor beyond the range of the training that is still familiar, remark)
RANGES: dict[str, tuple[float, str]] = {
    "output_spacing": (1.15, "Its output voxels are {scan} mm; in training they were {training} mm. Give --spacing."),
    "factor": (1.1, "An axis is {scan} times as coarse as the output; in training it was {training} times."),
    "slice_spacing": (1.1, "Its slices are {scan} output voxels apart; in training they were {training}."),
    "thickness": (1.1, "Its slices are {scan} times as thick as their spacing; in training it was {training} times."),
    "snr": (1.5, "Its signal is only {scan} times its noise; in training it was {training} times."),
}


def describe_volume(volume: Tensor, mm: Sequence[float] | None = None) -> dict[str, Any]:
    """Describe a scan by a few quantities, in which scans of different kinds differ.

    Args:
        volume: ``(1, H, W, D)`` on the common intensity scale.
        mm: its spacing along each axis; None leaves out spacing and spectrum, which the acquisition determines.

    Returns:
        ``spacing`` in mm; ``spectrum``, the power along each axis in dB relative to its mean; ``intensity``, quantiles
        of the voxels above the mean; ``contrast``, their interquartile range over their median.

    Example:
        >>> sorted(describe_volume(torch.rand(1, 32, 32, 32), mm=(1.0, 1.0, 1.2)))
        ['contrast', 'intensity', 'spacing', 'spectrum']
    """
    values = volume[volume > volume.mean()].float()
    intensity = torch.quantile(values[:: max(1, len(values) // 10**6)], torch.tensor(QUANTILES)).tolist()
    quartiles = [intensity[QUANTILES.index(share)] for share in (0.25, 0.5, 0.75)]
    described = {"intensity": intensity, "contrast": (quartiles[2] - quartiles[0]) / quartiles[1]}
    if mm is None:
        return described
    spectra = [mean_log_spectrum([volume], axis, FREQUENCIES) for axis in (1, 2, 3)]
    grid = {"spacing": [float(h) for h in mm], "spectrum": [(levels - levels.mean()).tolist() for levels in spectra]}
    return {**grid, **described}


def signal_to_noise(volume: Tensor) -> float:
    """The mean of the foreground over the standard deviation of the noise, or less where a scan has much fine detail.

    The median of the second differences, which measure the noise, ignores edges.

    Args:
        volume: ``(1, H, W, D)``, in any units.

    Example:
        >>> noise = torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> round(signal_to_noise(100 + noise), -1)
        100.0
    """
    foreground = volume[0] >= volume.mean()
    return float(volume[0][foreground].mean()) / max(_noise(volume[0], foreground), 1e-12)


def _noise(volume: Tensor, within: Tensor) -> float:
    """The standard deviation of white noise in ``(H, W, D)``, from the second differences along all three axes."""
    differences = volume
    for axis in range(3):
        differences = differences.diff(n=2, dim=axis)
    inside = differences[within[1:-1, 1:-1, 1:-1]].abs()
    if not len(inside):
        return 0.0
    return float(inside[:: max(1, len(inside) // 10**6)].median()) / NORMAL_MEDIAN / SECOND_DIFFERENCE**1.5


def is_shifted(volume: Tensor) -> bool:
    """Whether a scan with bright tissue at about 1 is no magnitude image, as after subtracting a constant.

    Example:
        >>> ramp = torch.linspace(0, 1, 8**3).reshape(1, 8, 8, 8)
        >>> is_shifted(ramp), is_shifted(ramp - 0.5)
        (False, True)
    """
    share, depth, deviations = NEGATIVE
    noise = _noise(volume[0], volume[0].abs() >= volume.abs().mean())
    return float((volume < -max(depth, deviations * noise)).float().mean()) > share


def describe_acquisition(acquisition: SeparableAcquisition, scan: Tensor) -> dict[str, list[float]]:
    """Describe how a scan was acquired, seen from its output grid, by the quantities of :data:`RANGES`.

    Args:
        acquisition: of the scan.
        scan: as it was acquired, ``(1, H, W, D)``, in any units.

    Returns:
        for each quantity a value per axis that has it.

    Example:
        >>> from scripts.physics.encoding import FrequencyEncoding
        >>> axes = FrequencyEncoding(1.0), FrequencyEncoding(1.5), SliceSelection(5.0, 4.0)
        >>> acquisition = SeparableAcquisition(axes, (12, 12, 20), 1.0, (12, 8, 4))
        >>> described = describe_acquisition(acquisition, torch.rand(1, 12, 8, 4))
        >>> described["factor"], described["slice_spacing"], described["thickness"]
        ([1.0, 1.5], [5.0], [0.8])
    """
    voxels = [float(mm) for mm in ensure_tuple_rep(acquisition.voxel, 3)]
    ratios = [one.spacing / mm for one, mm in zip(acquisition.encodings, voxels, strict=True)]
    slices = [isinstance(one, SliceSelection) for one in acquisition.encodings]
    return {
        "output_spacing": voxels,
        "factor": [ratio for ratio, sliced in zip(ratios, slices, strict=True) if not sliced],
        "slice_spacing": [ratio for ratio, sliced in zip(ratios, slices, strict=True) if sliced],
        "thickness": [one.thickness / one.spacing for one in acquisition.encodings if isinstance(one, SliceSelection)],
        "snr": [signal_to_noise(scan)] if min(scan.shape[1:]) > 2 else [],
    }


def save_group_statistics(
    volumes: Sequence[Tensor],
    path: PathLike,
    spacings: Sequence[Sequence[float]] | None = None,
    ranges: Mapping[str, Sequence[float | None]] | None = None,
) -> None:
    """Write the descriptions of the training scans, which :class:`WarnUnfamiliard` compares with new scans.

    Args:
        volumes: ``(H, W, D)`` in the canonical frame, as the network sees them.
        path: JSON file to write.
        spacings: mm along each axis, for each volume; None where the training draws the acquisition.
        ranges: lowest and highest value of the quantities of :data:`RANGES`, for such a training. None has no end.
    """
    grids = [None] * len(volumes) if spacings is None else spacings
    described = [describe_volume(volume[None], mm) for volume, mm in zip(volumes, grids, strict=True)]
    content = {"volumes": described} if ranges is None else {"volumes": described, "ranges": ranges}
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 4))
    write_text_atomically(path, json.dumps(rounded) + "\n")


class WarnUnfamiliard(MapTransform):
    """Warn when a scan is unlike the scans that the network was trained for. The scan passes unchanged.

    Each quantity is compared with that of the most similar training scan, or with the range of the training. The
    evaluator logs the warnings, and the record of the result keeps them. They report a spacing, sharpness, noise, range
    of intensities or acquisition that is new to the network. They do not distinguish contrasts: T1w scans of two
    scanners differ more in these numbers than a T1w scan and a T2w scan.

    It belongs after the intensity scaling and before the high-resolution grid is declared.

    Args:
        keys: the low-resolution scans, or what the interpolation made of them.
        acquired_key: the acquired volume of an interpolated image.
        statistics: file of :func:`save_group_statistics`. Without it nothing is compared, and this is logged.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> WarnUnfamiliard("image", statistics=None)({"image": torch.rand(1, 16, 16, 16)})["image"].shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(
        self,
        keys: KeysCollection,
        statistics: PathLike | None,
        acquired_key: Hashable = "acquired",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.acquired_key = acquired_key
        self.group: list[Mapping[str, Any]] = []
        self.ranges: Mapping[str, Sequence[float | None]] = {}
        if statistics is not None and Path(statistics).is_file():
            content = json.loads(Path(statistics).read_text(encoding="utf-8"))
            self.group, self.ranges = content["volumes"], content.get("ranges", {})
        elif statistics is not None:
            logger.info("%s: the file is absent, so scans are not compared with the training scans.", statistics)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            acquisition = acquisition_of(d[key])
            scan = d[key] if acquisition is None else d[self.acquired_key]
            if is_shifted(plain(scan)):  # all other quantities are about magnitudes
                remarks, acquisition = [SHIFTED], None
            else:
                remarks = self._of_group(plain(scan), spacing(scan)) if self.group else []
            if acquisition is not None:
                remarks += self._of_ranges(describe_acquisition(acquisition, plain(scan)))
            for text in remarks:
                logger.info("%s: %s", file_name(d[key]), text)  # at once: the network may take minutes
                warn(d[key], text)
                d[key].meta[UNFAMILIAR] = "yes"
        return d

    def _of_group(self, volume: Tensor, mm: np.ndarray) -> list[str]:
        """Remarks on quantities that no training scan has."""
        remarks = []
        described = describe_volume(volume, mm if "spacing" in self.group[0] else None)
        for name, (difference, limit, text) in LIKENESS.items():
            if name not in described:
                continue
            differences = [difference(described[name], other[name]) for other in self.group]
            least = int(np.argmin(differences))
            if not differences[least] <= limit:
                values = {"scan": _short(described[name]), "training": _short(self.group[least][name])}
                remarks.append(text.format(least=differences[least], **values))
        return remarks

    def _of_ranges(self, described: Mapping[str, Sequence[float]]) -> list[str]:
        """Remarks on quantities of the acquisition that the training did not draw."""
        remarks = []
        for name, (low, high) in self.ranges.items():
            tolerance, text = RANGES[name]
            least, most = (low or 0.0) / tolerance, math.inf if high is None else high * tolerance
            beyond = [value for value in described[name] if not least <= value <= most]
            if beyond:
                worst = max(beyond, key=lambda value: abs(math.log(value / (low or high))) if value > 0 else math.inf)
                remarks.append(text.format(scan=_short(worst), training=_between(low, high)))
        return remarks


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:.3g}"
    return f"at least {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"


def _short(value: Any) -> str:
    return " x ".join(f"{number:.3g}" for number in np.ravel(value))
