"""Quality: the metrics of a super-resolved volume, see :mod:`scripts.metrics` for shapes and the common scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.regression import compute_ssim_and_cs
from monai.transforms.utils_pytorch_numpy_unification import percentile as volume_percentile
from monai.utils import convert_to_tensor
from torch import Tensor

from scripts.physics.registration import angular_frequencies, register_shift_and_gain

__all__ = [
    "VolumeMetric",
    "common_scale",
    "foreground_percentile",
    "hfen",
    "masked_psnr",
    "masked_shift_gain_corrected_psnr",
    "masked_ssim",
    "psnr",
    "psnr_of_error",
    "psnr_own_maximum",
    "shift_gain_corrected_psnr",
    "ssim",
    "ssim_own_maximum",
]


SPATIAL = (-3, -2, -1)
PERCENTILE = 99.9  # of the foreground; it is the scale of a volume
WINDOW = 11  # of SSIM, in voxels
SLICES_AT_ONCE = 32  # of SSIM, to limit memory
LAPLACIAN_SIGMA = 1.5  # of HFEN: standard deviation of the Gaussian in voxels
SMALLEST_MSE = 1e-12  # about the rounding error of float32; identical volumes get a finite PSNR of 120 dB


class VolumeMetric(CumulativeIterationMetric):
    """A function of two volumes as a MONAI metric, with one value per volume and their mean as the aggregate.

    Args:
        function: maps prediction and reference, each ``(1, H, W, D)``, to a scalar tensor.

    Example:
        >>> volume = torch.rand(1, 16, 16, 16)
        >>> VolumeMetric(psnr)([volume], [volume]).tolist()
        [[120.0]]
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


def psnr_of_error(error: Tensor) -> Tensor:
    """PSNR in dB of an error on a scale whose range is 1."""
    return -10 * error.double().square().mean().clamp(min=SMALLEST_MSE).log10()


def foreground_percentile(volume: Tensor, percentile: float = PERCENTILE) -> float:
    """The scale of a volume: a percentile of the voxels that are brighter than its mean; 0 if there are none.

    Args:
        volume: of any shape.
        percentile: in (0, 100].

    Example:
        >>> foreground_percentile(torch.tensor([0.0, 0.0, 2.0, 2.0]))
        2.0
    """
    foreground = volume[volume > volume.mean()]
    return float(volume_percentile(foreground, percentile)) if foreground.numel() else 0.0


def common_scale(pred: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Divide both volumes by the 99.9th percentile of the reference's foreground, without clipping.

    A single bright vessel sets the maximum of a volume, but not this percentile.

    Raises:
        ValueError: when the shapes differ or the reference has no positive foreground.

    Example:
        >>> pred, label = common_scale(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        >>> pred.tolist(), label.tolist()
        ([0.5, 1.5], [0.0, 1.0])
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
    """Peak signal-to-noise ratio of the whole volume in dB, data range 1 on the common scale.

    Example:
        >>> label = (torch.arange(4096.0) % 2).reshape(1, 16, 16, 16)
        >>> round(float(psnr(label + 0.01, label)), 2)
        40.0
    """
    pred, label = common_scale(pred, label)
    return psnr_of_error(pred - label)


def masked_psnr(pred: Tensor, masked_label: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB inside a mask, on the common scale of the whole volumes.

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        masked_label: the reference and the mask as channels, ``(2, H, W, D)``; without a mask the reference alone.

    Returns:
        the PSNR; NaN without a mask, or with an empty one.

    Example:
        >>> label, mask = (torch.arange(4096.0) % 2).reshape(1, 16, 16, 16), torch.ones(1, 16, 16, 16)
        >>> round(float(masked_psnr(label + 0.01, torch.cat([label, mask]))), 2)
        40.0
    """
    label, inside = masked_label[:1], masked_label[1:] > 0.5
    if not inside.any():
        return torch.full((), torch.nan)
    pred, label = common_scale(pred, label)
    return psnr_of_error((pred - label)[inside])


def ssim(pred: Tensor, label: Tensor) -> Tensor:
    """Mean structural similarity of the slices along the last axis, data range 1 on the common scale.

    The window is the 11 x 11 Gaussian with standard deviation 1.5 of Wang et al., 2004. It stays inside the slice, as
    in their code. In the interior the values equal those of scikit-image.

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        label: the reference, of the same shape.

    Example:
        >>> volume = torch.rand(1, 16, 16, 16)
        >>> round(float(ssim(volume, volume)), 4)
        1.0
    """
    return _mean_ssim(*common_scale(pred, label), torch.ones_like(label))


def masked_ssim(pred: Tensor, masked_label: Tensor) -> Tensor:
    """Mean of the map of :func:`ssim` over the voxels of a mask; for the arguments see :func:`masked_psnr`.

    Returns:
        the SSIM; NaN without a mask, or when it is empty inside the window's border.

    Example:
        >>> volume, mask = torch.rand(1, 16, 16, 16), torch.ones(1, 16, 16, 16)
        >>> round(float(masked_ssim(volume, torch.cat([volume, mask]))), 4)
        1.0
    """
    label, inside = masked_label[:1], masked_label[1:] > 0.5
    if not inside.any():
        return torch.full((), torch.nan)
    return _mean_ssim(*common_scale(pred, label), inside.to(label))


def _mean_ssim(pred: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the SSIM at all places where the window fits into the slice."""
    # slices pass as channels, because a depthwise convolution is several times faster than a batch of single channels
    slices = [volume.movedim(-1, 1).contiguous().split(SLICES_AT_ONCE, dim=1) for volume in (pred, label, weight)]
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
    """PSNR in dB after dividing each volume by its own maximum and clipping to [0, 1], as the papers' authors do.

    This bundle does not score with it. One bright voxel of a prediction changes its scale, and a wrong gain is
    invisible.

    Example:
        >>> volume = torch.rand(1, 16, 16, 16)
        >>> round(float(psnr_own_maximum(2 * volume, volume)))
        120
    """
    pred, label = _own_maxima(pred, label)
    return psnr_of_error(pred - label)


def ssim_own_maximum(pred: Tensor, label: Tensor) -> Tensor:
    """SSIM after dividing each volume by its own maximum, see :func:`psnr_own_maximum`.

    Example:
        >>> volume = torch.rand(1, 16, 16, 16)
        >>> round(float(ssim_own_maximum(2 * volume, volume)), 4)
        1.0
    """
    return _mean_ssim(*_own_maxima(pred, label), torch.ones_like(label))


def _own_maxima(pred: Tensor, label: Tensor) -> list[Tensor]:
    """Both volumes divided by their own maxima and clipped to [0, 1]. Without a positive voxel a volume becomes 0."""
    _check_same_shape(pred, label)
    return [(x / x.max()).clamp(0, 1) if x.max() > 0 else torch.zeros_like(x) for x in (pred, label)]


def hfen(pred: Tensor, label: Tensor) -> Tensor:
    r"""High-frequency error norm, $\lVert LoG(\hat y - y) \rVert / \lVert LoG(y) \rVert$: 0 is best, 1 is a blank.

    The Laplacian of Gaussian is three-dimensional, with a standard deviation of 1.5 voxels. It is applied in k-space,
    so the borders are periodic. Ravishankar & Bresler, IEEE TMI 2011, use a 15 x 15 kernel of this standard deviation.

    Args:
        pred: the prediction, ``(1, H, W, D)``.
        label: the reference, of the same shape.

    Example:
        >>> label = torch.rand(1, 16, 16, 16)
        >>> float(hfen(label, label)), float(hfen(torch.zeros_like(label), label))
        (0.0, 1.0)
    """
    _check_same_shape(pred, label)
    height, width, depth = (f.square() for f in angular_frequencies(label))
    squared = height[:, None, None] + width[:, None] + depth
    response = squared * torch.exp(-0.5 * LAPLACIAN_SIGMA**2 * squared)
    error, edges = (
        torch.fft.irfftn(torch.fft.rfftn(x, dim=SPATIAL) * response, s=x.shape[-3:]) for x in (pred - label, label)
    )
    return error.norm() / edges.norm()


def shift_gain_corrected_psnr(pred: Tensor, label: Tensor) -> Tensor:
    """:func:`psnr` after correction by the best global gain and sub-voxel shift.

    It is a diagnostic, not a score, because unpaired losses cannot see a consistent sub-voxel shift. When it exceeds
    :func:`psnr` by more than 0.3 dB, the uncorrected number measures registration rather than resolution.

    Example:
        >>> label = torch.rand(1, 16, 16, 16)
        >>> float(shift_gain_corrected_psnr(1.1 * label.roll(1, dims=1), label)) > 60
        True
    """
    _check_same_shape(pred, label)
    return psnr(register_shift_and_gain(pred, label)[0], label)


def masked_shift_gain_corrected_psnr(pred: Tensor, masked_label: Tensor) -> Tensor:
    """:func:`masked_psnr` after the same global correction as in :func:`shift_gain_corrected_psnr`.

    Example:
        >>> label, mask = torch.rand(1, 16, 16, 16), torch.ones(1, 16, 16, 16)
        >>> float(masked_shift_gain_corrected_psnr(1.1 * label.roll(1, dims=1), torch.cat([label, mask]))) > 60
        True
    """
    label = masked_label[:1]
    _check_same_shape(pred, label)
    return masked_psnr(register_shift_and_gain(pred, label)[0], masked_label)
