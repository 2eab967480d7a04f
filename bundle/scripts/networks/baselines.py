"""Baselines without learning, in the form of networks, so that one evaluation serves all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import PathLike
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor, nn

from scripts.physics.consistency import wiener_inverse
from scripts.physics.degradation import Degradation, read_degradation
from scripts.physics.interpolation import interpolate_axis
from scripts.physics.kspace import zero_fill


class Tricubic(nn.Module):
    r"""Separable cubic convolution (Keys, IEEE TASSP 29, 1981, $a = -\frac12$), borders clamped. Scriptable.

    Args:
        scale_factor: integer factors along the spatial axes.
        centred: place LR voxels in the centre of their block of $s$ HR voxels, as MATLAB's ``imresize3`` does. k-space
            truncation places them at its beginning, so that this result is $(s - 1) / 2$ HR voxels off. The papers'
            tricubic rows probably are, too.

    Example:
        >>> Tricubic((2, 2, 1))(torch.rand(1, 1, 4, 4, 3)).shape
        torch.Size([1, 1, 8, 8, 3])
    """

    def __init__(self, scale_factor: Sequence[int] = (2, 2, 2), centred: bool = False) -> None:
        super().__init__()
        self.scale_factor = [int(s) for s in scale_factor]
        self.centred = centred

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to HR volume ``(B, 1, s_h * H, s_w * W, s_d * D)``."""
        for axis, factor in enumerate(self.scale_factor):
            x = interpolate_axis(x, factor, axis + 2, self.centred)
        return x


class ZeroFilling(nn.Module):
    """The scanner's own interpolation, see :mod:`scripts.physics.kspace`. It takes whole volumes, never tiles.

    Args:
        scale_factor: integer factors along the spatial axes.

    Example:
        >>> ZeroFilling((2, 2, 1))(torch.rand(1, 1, 4, 4, 3)).shape
        torch.Size([1, 1, 8, 8, 3])
    """

    def __init__(self, scale_factor: Sequence[int] = (2, 2, 2)) -> None:
        super().__init__()
        self.scale_factor = [int(s) for s in scale_factor]

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to HR volume ``(B, 1, s_h * H, s_w * W, s_d * D)``."""
        size = [n * factor for n, factor in zip(x.shape[2:], self.scale_factor, strict=True)]
        values = zero_fill(convert_to_tensor(x, track_meta=False), size, (2, 3, 4))
        return convert_to_dst_type(values, x)[0]  # with the metadata, which evaluation needs


class LinearInverse(nn.Module):
    """The Wiener inverse of a degradation, then zero-filling: the best that a linear filter can do, without learning.

    Args:
        scale_factor: integer factors along the spatial axes.
        degradation: an estimate, its file, or a known degradation, see
            :func:`scripts.physics.degradation.known_degradation`.
        snr: mean signal of the foreground over the standard deviation of the noise, if known. None for the noise of
            ``degradation``.

    Raises:
        ValueError: when ``degradation`` is None.

    Example:
        >>> from scripts.physics.degradation import known_degradation
        >>> LinearInverse((2, 2, 1), known_degradation(hamming=True))(torch.rand(1, 1, 8, 8, 3)).shape
        torch.Size([1, 1, 16, 16, 3])
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        degradation: Degradation | PathLike | None = None,
        snr: float | None = None,
    ) -> None:
        super().__init__()
        if degradation is None:
            raise ValueError(
                "degradation must be an estimate or its file, got None. Run `estimating` and pass its degradation.json."
            )
        self.zero_filling = ZeroFilling(scale_factor)
        self.degradation = degradation if isinstance(degradation, Degradation) else read_degradation(degradation)
        self.snr = snr

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to HR volume ``(B, 1, s_h * H, s_w * W, s_d * D)``."""
        volumes = convert_to_tensor(x, track_meta=False)[:, 0]
        restored = torch.stack([self._inverse(volume) for volume in volumes])[:, None]
        return self.zero_filling(convert_to_dst_type(restored, x)[0])

    def _inverse(self, image: Tensor) -> Tensor:
        window = self.degradation.window(image.shape).to(image)
        noise_std = self.degradation.noise_std
        if self.snr is not None:
            noise_std = float(image[image > image.mean()].mean()) / self.snr
        passed = window.square() if self.degradation.filtered_noise else torch.ones_like(window)
        return wiener_inverse(image, window, noise_std**2 * image.numel() * passed)
