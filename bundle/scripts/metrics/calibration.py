"""Calibration: from a predicted scale of the error to the half width of an interval that holds a given share of errors.

Split conformal prediction in bins of the predicted scale (Mondrian, arXiv 2107.07511). In each bin the factor between
half width and scale is a quantile of error over scale, on scans that no training has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["LEVEL", "ErrorCalibration", "calibrate"]

LEVEL = 0.9  # share of the errors within the interval
BINS = 20


class ErrorCalibration(NamedTuple):
    """The factor between half width and predicted scale, by the size of the scale.

    Args:
        scale: middle of each bin, increasing.
        factor: there. Between the bins its logarithm is interpolated over that of the scale.
    """

    scale: Sequence[float]
    factor: Sequence[float]

    def half_width(self, scale: Tensor, in_place: bool = False) -> Tensor:
        """The half width of the interval, in the units of ``scale``. It grows with the scale.

        Args:
            scale: predicted, positive, of any shape.
            in_place: whether to change ``scale`` itself, because volumes are large.

        Example:
            >>> ErrorCalibration([0.1, 1.0], [2.0, 4.0]).half_width(torch.tensor([0.1, 1.0, 2.0]))
            tensor([0.2000, 4.0000, 8.0000])
        """
        width = scale if in_place else scale.clone()
        longest = max(range(width.ndim), key=width.size)
        for part in width.split(max(1, 2**22 * width.shape[longest] // width.numel()), longest):  # saves memory
            factor = np.exp(np.interp(part.log().cpu().numpy(), np.log(self.scale), np.log(self.factor)))
            part.mul_(torch.from_numpy(factor).to(part))
        return width

    @classmethod
    def of(cls, record: Mapping[str, Sequence[float]]) -> ErrorCalibration:
        """From the entries of a JSON file."""
        return cls(record["scale"], record["factor"])


def calibrate(scale: Tensor, error: Tensor, level: float = LEVEL, bins: int = BINS) -> ErrorCalibration:
    """Choose the factors so that in each bin of the scale a share ``level`` of the errors is within the interval.

    Args:
        scale: predicted for each voxel, positive.
        error: absolute, of each voxel, in the same units.
        level: share of the errors.
        bins: number of bins, each with equally many voxels.

    Raises:
        ValueError: when there are fewer voxels than ten per bin.

    Example:
        >>> scale = torch.linspace(0.01, 0.1, 1000)
        >>> set(calibrate(scale, scale, bins=4).factor)
        {1.0}
    """
    if len(scale) < 10 * bins:
        raise ValueError(f"expected at least {10 * bins} voxels for {bins} bins, got {len(scale)}. Give more scans.")
    order = scale.argsort()
    parts = zip(scale[order].double().tensor_split(bins), error[order].double().tensor_split(bins), strict=True)
    middles, widths = [], []
    for scales, errors in parts:
        rank = min(len(errors), math.ceil((len(errors) + 1) * level))
        middles.append(float(scales.median()))
        widths.append(middles[-1] * float((errors / scales).kthvalue(rank).values))
    widths = np.maximum.accumulate(widths).tolist()  # a larger scale never has a smaller interval
    return ErrorCalibration(middles, [width / middle for width, middle in zip(widths, middles, strict=True)])
