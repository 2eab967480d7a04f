"""Contrast: another relation of tissue to intensity, and a bias field, for whole volumes and for their parts alike.

MONAI's ``RandHistogramShift`` is monotone and depends on the extremes of its input. Its ``RandBiasField`` makes whole
fields. A part of a volume must change as the volume does, and inverted contrasts must occur, so both are here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Contrast", "draw_contrast"]


DEGREE = 4  # of the polynomial of the intensities
BIAS_DEGREE = 3  # of the logarithm of the bias field
WHOLE = (slice(None),) * 3


class Contrast(NamedTuple):
    """A change of contrast: a polynomial of the intensity, times a smooth bias field.

    Args:
        values: control values of the polynomial in Bernstein's form, the first for intensity 0 and the last for 1.
            Rising values make it monotone. Intensities beyond [0, 1] count as 0 or 1. None leaves the intensities.
        bias: coefficients of the logarithm of the field in Legendre polynomials, ``(4, 4, 4)``; None for no field.

    Example:
        >>> inverted = Contrast((0.0, 0.5, 1.0, 0.5, 0.2))
        >>> inverted.apply(torch.tensor([0.0, 0.5, 1.0]).expand(1, 1, 3))[0, 0].double().numpy().round(2).tolist()
        [0.0, 0.64, 0.2]
    """

    values: tuple[float, ...] | None = None
    bias: Tensor | None = None

    def apply(self, volume: Tensor, window: Sequence[slice] = WHOLE) -> Tensor:
        """Change a part of a volume.

        Args:
            volume: the whole volume ``(H, W, D)``, bright tissue at about 1, air at about 0.
            window: the part along each axis.
        """
        part = volume[tuple(window)]
        if self.values is not None:
            part = _polynomial(part.clamp(0, 1), self.values)
        if self.bias is not None:
            lines = [_legendre(size)[at].to(volume) for size, at in zip(volume.shape, window, strict=True)]
            part = part * torch.einsum("abc,ha,wb,dc->hwd", self.bias.to(volume), *lines).exp_()
        return part


def draw_contrast(
    rng: np.random.Generator, changed: float = 0.6, biased: float = 0.5, strength: float = 0.15
) -> Contrast:
    """Draw a contrast: half of the changed ones are monotone, the others bend back, as inverted contrasts do.

    Args:
        rng: source of randomness.
        changed: share of contrasts whose intensities change.
        biased: share of contrasts with a bias field.
        strength: standard deviation of each coefficient of the logarithm of the field.

    Example:
        >>> draw_contrast(np.random.default_rng(0), changed=0.0, biased=0.0)
        Contrast(values=None, bias=None)
    """
    values = bias = None
    if rng.random() < changed:
        # the steps bound the slope by 2, because a steeper polynomial would amplify the noise of the scan further
        steps = rng.uniform(0.05, 0.5, DEGREE)
        steps[1:] *= 1 if rng.random() < 0.5 else rng.choice([-1, 1], DEGREE - 1)
        values = (0.0, *np.abs(np.cumsum(steps)).tolist())  # a magnitude is not negative
    if rng.random() < biased:
        order = sum(np.ogrid[: BIAS_DEGREE + 1, : BIAS_DEGREE + 1, : BIAS_DEGREE + 1])
        coefficients = strength * rng.standard_normal(order.shape) * ((order > 0) & (order <= BIAS_DEGREE))
        bias = torch.as_tensor(coefficients, dtype=torch.float32)
    return Contrast(values, bias)


def _polynomial(x: Tensor, values: Sequence[float]) -> Tensor:
    """Bernstein's form at ``x``, by Horner's rule on the powers of x."""
    n = len(values) - 1
    powers = [
        math.comb(n, k) * sum((-1) ** (k - i) * math.comb(k, i) * values[i] for i in range(k + 1)) for k in range(n + 1)
    ]
    y = torch.full_like(x, powers[-1])
    for power in powers[-2::-1]:
        y.mul_(x).add_(power)
    return y


def _legendre(size: int) -> Tensor:
    """Legendre polynomials along an axis, ``(size, 4)``."""
    return torch.as_tensor(np.polynomial.legendre.legvander(np.linspace(-1, 1, size), BIAS_DEGREE), dtype=torch.float32)
