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
from torch import Tensor

from scripts.metrics.spectral import mean_log_spectrum
from scripts.transforms.utils import plain, spacing, warn
from scripts.utils.atomic import write_text_atomically

__all__ = ["WarnUnfamiliard", "describe_volume", "save_group_statistics"]

logger = logging.getLogger(__name__)


QUANTILES = tuple(i / 20 for i in range(1, 20))
FREQUENCIES = 16  # steps of cycles per voxel in (0, 0.5]


def _log_ratio(a: Any, b: Any) -> float:
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


def describe_volume(volume: Tensor, mm: Sequence[float]) -> dict[str, Any]:
    """Describe a scan by a few quantities, in which scans of different kinds differ.

    Args:
        volume: ``(1, H, W, D)`` on the common intensity scale.
        mm: its spacing along each axis.

    Returns:
        ``spacing`` in mm; ``spectrum``, the power along each axis in dB relative to its mean; ``intensity``, quantiles
        of the voxels above the mean; ``contrast``, their interquartile range over their median.

    Example:
        >>> sorted(describe_volume(torch.rand(1, 32, 32, 32), mm=(1.0, 1.0, 1.2)))
        ['contrast', 'intensity', 'spacing', 'spectrum']
    """
    values = volume[volume > volume.mean()].float()
    intensity = torch.quantile(values[:: max(1, len(values) // 10**6)], torch.tensor(QUANTILES)).tolist()
    spectra = [mean_log_spectrum([volume], axis, FREQUENCIES) for axis in (1, 2, 3)]
    quartiles = [intensity[QUANTILES.index(share)] for share in (0.25, 0.5, 0.75)]
    return {
        "spacing": [float(h) for h in mm],
        "spectrum": [(levels - levels.mean()).tolist() for levels in spectra],
        "intensity": intensity,
        "contrast": (quartiles[2] - quartiles[0]) / quartiles[1],
    }


def save_group_statistics(volumes: Sequence[Tensor], spacings: Sequence[Sequence[float]], path: PathLike) -> None:
    """Write the descriptions of the training scans, which :class:`WarnUnfamiliard` compares with new scans.

    Args:
        volumes: ``(H, W, D)`` in the canonical frame, as the network sees them.
        spacings: mm along each axis, for each volume.
        path: JSON file to write.
    """
    described = [describe_volume(volume[None], mm) for volume, mm in zip(volumes, spacings, strict=True)]
    rounded = json.loads(json.dumps(described), parse_float=lambda text: round(float(text), 4))
    write_text_atomically(path, json.dumps({"volumes": rounded}) + "\n")


class WarnUnfamiliard(MapTransform):
    """Warn when a scan is unlike the scans that the network was trained for. The scan passes unchanged.

    Each quantity is compared with that of the most similar training scan. The evaluator logs the warnings, and the
    record of the result keeps them. They report a spacing, sharpness, noise or range of intensities that is new to the
    network. They do not distinguish contrasts: T1w scans of two scanners differ more in these numbers than a T1w scan
    and a T2w scan.

    It belongs after the intensity scaling and before the high-resolution grid is declared.

    Args:
        keys: the low-resolution scans.
        statistics: file of :func:`save_group_statistics`. Without it nothing is compared, and this is logged.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> WarnUnfamiliard("image", statistics=None)({"image": torch.rand(1, 16, 16, 16)})["image"].shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(self, keys: KeysCollection, statistics: PathLike | None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.group: list[Mapping[str, Any]] = []
        if statistics is not None and Path(statistics).is_file():
            self.group = json.loads(Path(statistics).read_text(encoding="utf-8"))["volumes"]
        elif statistics is not None:
            logger.info("%s: the file is absent, so scans are not compared with the training scans.", statistics)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            for text in self._remarks(plain(d[key]), spacing(d[key])):
                warn(d[key], text)
        return d

    def _remarks(self, volume: Tensor, mm: np.ndarray) -> list[str]:
        if not self.group:
            return []
        remarks = []
        described = describe_volume(volume, mm)
        for name, (difference, limit, text) in LIKENESS.items():
            differences = [difference(described[name], other[name]) for other in self.group]
            least = int(np.argmin(differences))
            if not differences[least] <= limit:
                values = {"scan": _short(described[name]), "training": _short(self.group[least][name])}
                remarks.append(text.format(least=differences[least], **values))
        return remarks


def _short(value: Any) -> str:
    return " x ".join(f"{number:.3g}" for number in np.ravel(value))
