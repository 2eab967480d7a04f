"""Errors: how far off each voxel of a prediction may be, from what the network says and what calibration found."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from scripts.metrics.calibration import LEVEL, ErrorCalibration
from scripts.physics.description import kind_of
from scripts.transforms.familiarity import UNFAMILIAR
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.sources import sha256
from scripts.transforms.utils import file_name, plain

__all__ = ["CALIBRATION", "ERROR_BARS", "CalibrateErrord", "SplitErrord", "describe_calibration", "read_calibration"]

logger = logging.getLogger(__name__)

CALIBRATION = "error_bars"  # key of the file of statistics
ERROR_BARS = "error_bars"  # key of a volume's metadata: what its error bars are, in words
UNCALIBRATED = "not calibrated"


class SplitErrord(MapTransform):
    """Move the second channel of a prediction to ``error``, where an error head made one.

    Args:
        keys: the prediction, ``(1, H, W, D)`` or ``(2, H, W, D)``.
        error_key: where to keep the scale of its error.
        allow_missing_keys: whether the prediction may be absent.

    Example:
        >>> import torch
        >>> {key: len(volume) for key, volume in SplitErrord("pred")({"pred": torch.rand(2, 8, 8, 8)}).items()}
        {'pred': 1, 'error': 1}
    """

    def __init__(self, keys: KeysCollection, error_key: Hashable = "error", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.error_key = error_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if len(d[key]) > 1:
                d[key], d[self.error_key] = d[key][:1], d[key][1:]
        return d


class CalibrateErrord(MapTransform):
    """Turn the predicted scale of the error into the half width of the 90 % interval, in place.

    The calibration belongs to the kind of acquisition. Without one the error is left out, and this is logged. The
    metadata of the image say in words what the error bars are, also that they are not calibrated: for a scan on which
    :class:`.WarnUnfamiliard` remarked, or where an option is another one than in the calibration.

    Args:
        keys: the scale of the error.
        calibration: of :func:`read_calibration`.
        image_key: what the interpolation made of the scan. Its metadata hold the acquisition.
        settings: the options of this run that a calibration depends on, by name.
        allow_missing_keys: whether the error may be absent.

    Example:
        >>> import torch
        >>> CalibrateErrord("error", None)({"error": torch.rand(1, 8, 8, 8), "image": torch.rand(1, 8, 8, 8)}).keys()
        dict_keys(['image'])
    """

    def __init__(
        self,
        keys: KeysCollection,
        calibration: Mapping[str, Any] | None,
        image_key: Hashable = "image",
        settings: Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.kinds = {} if calibration is None else calibration["kinds"]
        self.image_key = image_key
        calibrated_with, given = (calibration or {}).get("Settings", {}), settings or {}
        self.departures = [
            f"{name} is {given[name]}, and was {value} in the calibration"
            for name, value in calibrated_with.items()
            if given.get(name, value) != value
        ]

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[self.image_key]
            acquisition = acquisition_of(image)
            kind = acquisition and kind_of(acquisition.encodings, acquisition.voxel)
            if kind not in self.kinds:
                logger.info("%s: no calibration of error bars for its acquisition, so it has none.", file_name(image))
                del d[key]
                continue
            half_width = ErrorCalibration.of(self.kinds[kind]).half_width(plain(d[key]), in_place=True)
            d[key] = MetaTensor(half_width).copy_meta_from(d[key]) if isinstance(d[key], MetaTensor) else half_width
            reasons = ["the scan is unlike those of the training, see the warnings"] * (UNFAMILIAR in image.meta)
            reasons += self.departures
            image.meta[ERROR_BARS] = (
                f"{UNCALIBRATED}: {'; '.join(reasons)}"
                if reasons
                else f"half width of the {100 * LEVEL:.0f} % interval, calibrated on scans of this kind ({kind})"
            )
        return d


def read_calibration(
    weights: PathLike | None, error_head: PathLike, statistics: PathLike
) -> dict[str, dict[str, Any]] | None:
    """The calibration of the error bars of trained weights. If there is none, the reason is logged.

    Args:
        weights: of the network; None for no error bars.
        error_head: file of its error head.
        statistics: JSON file beside the weights, whose entry ``error_bars`` has the calibration.

    Example:
        >>> read_calibration(None, "model_error_head.pt", "model.json") is None
        True
    """
    if weights is None:
        return None
    files, found = [Path(weights), Path(error_head)], {}
    if Path(statistics).is_file():
        found = json.loads(Path(statistics).read_text(encoding="utf-8")).get(CALIBRATION, {})
    missing = [str(file) for file in files if not file.is_file()]
    if missing or found.get("WeightsSHA256") != sha256(files):
        reason = f"{missing[0]} is missing" if missing else f"{statistics} has no calibration for these weights"
        logger.info("Results have no error bars, because %s.", reason)
        return None
    return found


def describe_calibration(calibration: Mapping[str, Any] | None) -> str | None:
    """The start of a calibration's SHA-256, for the record of a result; None without one.

    Example:
        >>> describe_calibration({})
        '44136fa355b3'
    """
    if calibration is None:
        return None
    return hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()[:12]
