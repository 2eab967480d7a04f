r"""Metrics: how good a super-resolved volume is with a reference, and what can be said without one.

Volumes are channel-first, ``(1, H, W, D)``, in the canonical frame where sagittal slices follow one another along the
last axis. Metrics with a reference use the *common scale*: prediction and reference are both divided by a percentile of
the reference's foreground. Those inside a mask take it as the second channel of the reference. A metric is a plain
function of two volumes; :class:`VolumeMetric` makes it one of MONAI's cumulative metrics.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.regression import compute_ssim_and_cs
from monai.transforms.utils_pytorch_numpy_unification import percentile as volume_percentile
from monai.utils import convert_to_tensor
from torch import Tensor

from scripts.physics.kspace import truncate
from scripts.physics.registration import angular_frequencies, register_shift_and_gain

__all__ = [
    "VolumeMetric",
    "common_scale",
    "consistency_psnr",
    "foreground_percentile",
    "hfen",
    "masked_psnr",
    "masked_shift_gain_corrected_psnr",
    "masked_ssim",
    "psnr",
    "psnr_own_maximum",
    "shift_gain_corrected_psnr",
    "ssim",
    "ssim_own_maximum",
]


SPATIAL = (-3, -2, -1)
PERCENTILE = 99.9  # of the foreground: the scale of a volume
WINDOW = 11  # of SSIM, in voxels
SMALLEST_MSE = 1e-12  # float32 rounding; keeps the PSNR of identical volumes finite (120 dB), so that means stay means


class VolumeMetric(CumulativeIterationMetric):
    """A function of two volumes as a MONAI metric: one value per volume, their mean in the end.

    Args:
        function: maps prediction and reference, each ``(1, H, W, D)``, to a scalar tensor.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> Tensor:
        """Values of shape ``(B, 1)``, in float32 on the CPU."""
        values = [self.function(convert_to_tensor(p), convert_to_tensor(t)) for p, t in zip(y_pred, y, strict=True)]
        return torch.stack([value.float().cpu().reshape(1) for value in values])

    def aggregate(self) -> Tensor:
        """Mean over the volumes seen since the last reset."""
        return self.get_buffer().mean()


def _check_same_shape(pred: Tensor, label: Tensor) -> None:
    if pred.shape != label.shape:
        raise ValueError(
            f"prediction and reference must have the same shape, got {tuple(pred.shape)} and {tuple(label.shape)}; "
            "compare them on one high-resolution grid."
        )


def _psnr_of_error(error: Tensor) -> Tensor:
    """PSNR in dB of an error on a scale whose range is 1."""
    return -10 * error.double().square().mean().clamp(min=SMALLEST_MSE).log10()


def foreground_percentile(volume: Tensor, percentile: float = PERCENTILE) -> float:
    """The scale of a volume: a percentile of the voxels that are brighter than its mean; 0 where there are none.

    Args:
        volume: of any shape.
        percentile: in (0, 100].
    """
    foreground = volume[volume > volume.mean()]
    return float(volume_percentile(foreground, percentile)) if foreground.numel() else 0.0


def common_scale(pred: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Divide both volumes by the 99.9th percentile of the reference's foreground; nothing is clipped.

    A single bright vessel does not set this scale, as it sets the maximum.

    Raises:
        ValueError: when the shapes differ or the reference has no positive foreground.
    """
    _check_same_shape(pred, label)
    scale = foreground_percentile(label)
    if not scale > 0:
        raise ValueError(
            f"the reference's foreground must be positive to define a scale, got {scale:g}. Use a volume whose tissue "
            "is brighter than zero."
        )
    return pred / scale, label / scale


def psnr(pred: Tensor, label: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of the whole volume in dB, data range 1 on the common scale."""
    pred, label = common_scale(pred, label)
    return _psnr_of_error(pred - label)


def masked_psnr(pred: Tensor, masked_label: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB inside a mask, on the common scale of the whole volumes.

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        masked_label: the reference and the mask as channels, ``(2, H, W, D)``; without a mask the reference alone.

    Returns:
        the PSNR; NaN where there is no mask, or an empty one.
    """
    label, inside = masked_label[:1], masked_label[1:] > 0.5
    if not inside.any():
        return torch.full((), torch.nan)
    pred, label = common_scale(pred, label)
    return _psnr_of_error((pred - label)[inside])


def ssim(pred: Tensor, label: Tensor, chunk_size: int = 32) -> Tensor:
    """Mean structural similarity of the slices along the last axis, data range 1 on the common scale.

    The 11 x 11 Gaussian window (standard deviation 1.5) of Wang et al., 2004, stays inside the slice, as in their code
    and in scikit-image's interior.

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        label: the reference, of the same shape.
        chunk_size: how many slices to hold at a time.
    """
    return _mean_ssim(*common_scale(pred, label), torch.ones_like(label), chunk_size)


def masked_ssim(pred: Tensor, masked_label: Tensor, chunk_size: int = 32) -> Tensor:
    """Mean of the map of :func:`ssim` over the voxels of a mask; for the arguments see :func:`masked_psnr`.

    Returns:
        the SSIM; NaN where there is no mask, or none inside the window's border.
    """
    label, inside = masked_label[:1], masked_label[1:] > 0.5
    if not inside.any():
        return torch.full((), torch.nan)
    return _mean_ssim(*common_scale(pred, label), inside.to(label), chunk_size)


def _mean_ssim(pred: Tensor, label: Tensor, weight: Tensor, chunk_size: int) -> Tensor:
    """Weighted mean of the SSIM of all places where the window fits into the slice."""
    # slices pass as channels: the depthwise convolution is several times faster than a batch of single channels
    slices = [volume.movedim(-1, 1).contiguous().split(chunk_size, dim=1) for volume in (pred, label, weight)]
    total, count = (torch.zeros((), dtype=torch.float64, device=pred.device) for _ in range(2))
    border = WINDOW // 2
    for chunk, reference, inside in zip(*slices, strict=True):
        values, _ = compute_ssim_and_cs(
            chunk, reference, spatial_dims=2, kernel_size=(WINDOW, WINDOW), kernel_sigma=(1.5, 1.5)
        )
        inside = inside[..., border : inside.shape[-2] - border, border : inside.shape[-1] - border].double()
        total += (values.double() * inside).sum()
        count += inside.sum()
    return total / count


def psnr_own_maximum(pred: Tensor, label: Tensor) -> Tensor:
    """PSNR of volumes that are divided each by its own maximum and clipped to [0, 1], as the authors' code does.

    Not the score of this bundle: one bright voxel of a prediction changes its scale, and a wrong gain goes unseen.
    """
    pred, label = _own_maxima(pred, label)
    return _psnr_of_error(pred - label)


def ssim_own_maximum(pred: Tensor, label: Tensor, chunk_size: int = 32) -> Tensor:
    """SSIM of volumes that are divided each by its own maximum, see :func:`psnr_own_maximum`."""
    return _mean_ssim(*_own_maxima(pred, label), torch.ones_like(label), chunk_size)


def _own_maxima(pred: Tensor, label: Tensor) -> list[Tensor]:
    """Both volumes over their own maxima, in [0, 1]; one without a positive voxel is black."""
    _check_same_shape(pred, label)
    return [(x / x.max()).clamp(0, 1) if x.max() > 0 else torch.zeros_like(x) for x in (pred, label)]


def hfen(pred: Tensor, label: Tensor, sigma: float = 1.5) -> Tensor:
    r"""High-frequency error norm, $\lVert LoG(\hat y - y) \rVert / \lVert LoG(y) \rVert$: 0 is best, a blank has 1.

    The Laplacian of Gaussian is three-dimensional and applied as its transfer function, hence with periodic borders
    (Ravishankar & Bresler, IEEE TMI 2011, use a 15 x 15 kernel of the same standard deviation).

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        label: the reference, of the same shape.
        sigma: standard deviation of the Gaussian in voxels.
    """
    _check_same_shape(pred, label)
    height, width, depth = (f.square() for f in angular_frequencies(label))
    squared = height[:, None, None] + width[:, None] + depth
    response = squared * torch.exp(-0.5 * sigma**2 * squared)
    error, edges = (
        torch.fft.irfftn(torch.fft.rfftn(x, dim=SPATIAL) * response, s=x.shape[-3:]) for x in (pred - label, label)
    )
    return error.norm() / edges.norm()


def consistency_psnr(pred: Tensor, image: Tensor) -> Tensor:
    """PSNR in dB between the truncated prediction and the acquisition, whose maximum is the data range.

    It needs no reference: whatever the prediction adds, its low-resolution part should be what was measured.

    Args:
        pred: the prediction, ``(1, sH, sW, sD)``.
        image: the acquisition, ``(1, H, W, D)``.
    """
    degraded = truncate(pred, image.shape[-3:], SPATIAL)
    return _psnr_of_error((degraded - image) / image.max())


def shift_gain_corrected_psnr(pred: Tensor, label: Tensor) -> Tensor:
    """:func:`psnr` after the best global gain and sub-voxel shift: what remains when registration is forgiven.

    A diagnostic, not a score: unpaired losses cannot see a consistent sub-voxel shift. When it exceeds :func:`psnr` by
    more than 0.3 dB, the plain number measures registration rather than resolution.
    """
    _check_same_shape(pred, label)
    return psnr(register_shift_and_gain(pred, label)[0], label)


def masked_shift_gain_corrected_psnr(pred: Tensor, masked_label: Tensor) -> Tensor:
    """:func:`masked_psnr` after the gain and shift of :func:`shift_gain_corrected_psnr`, which are global ones."""
    label = masked_label[:1]
    _check_same_shape(pred, label)
    return masked_psnr(register_shift_and_gain(pred, label)[0], masked_label)
