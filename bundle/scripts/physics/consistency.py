r"""Data consistency: how much of the acquired k-space to put back into a prediction.

For any acquisition $A$, the result is $\hat y + A^T U W U^T (x - A \hat y)$, see
:class:`scripts.physics.separable.SeparableAcquisition`. On frequency-limited axes $U$ is the Fourier basis. With the
transfer $H$ of the scan and the discrepancy $D = x - H \hat y$ inside the acquired band,

$$\hat y \leftarrow \hat y + W D, \qquad W = \frac{H P_{err}}{(H^2 + \delta^2) P_{err} + P_{noise}},$$

has the least expected error. $P_{err}$ is the power of the prediction's error. $P_{noise}$ is the power of the noise
that the scan has and the wanted image lacks. $\delta$ is the error of the transfer. In each shell of k-space,
$P_{err}$ is the part of the discrepancy beyond the noise. $H = 1$ and $P_{noise} = \delta = 0$ put back the whole
acquisition. Along slices the profile is uncertain, so only a part is put back, see ``SLICE_REGULARISATION``.

The weight depends on the wanted image:

* It may be this scan, acquired further out in k-space. The acquired part then has the same noise, and $P_{noise} = 0$.
* It may be an image without noise. Noise that the network smoothed away must then not return.

:func:`smoothed_noise` bounds that noise, so that the weight suits both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scripts.physics.kspace import (
    VOXELS_AT_ONCE,
    centred_frequencies,
    fftc,
    ifftc,
    open_grid,
    truncate,
    zero_fill,
)
from scripts.physics.separable import SLICE_REGULARISATION, SeparableAcquisition

__all__ = [
    "consistency_weight",
    "gain_and_shift",
    "in_band",
    "smoothed_noise",
    "soft_data_consistency",
    "wiener_inverse",
]


SHELLS = 10  # between the centre of k-space and the ellipsoid that touches the faces of the band
LOW_FREQUENCIES = 0.3  # share of the band in which gain and shift are measured
SIGNIFICANCE = 3.0  # standard errors of the noise's power below which a discrepancy does not count as an error
AXES = (0, 1, 2)


def in_band(pred: Tensor, image: Tensor, acquisition: SeparableAcquisition | None = None) -> tuple[Tensor, Tensor]:
    """Centred k-spaces of a scan and of the prediction acquired like it, both ``(H, W, D)``.

    Args:
        pred: the prediction on the output grid, real; ``(sH, sW, sD)`` for a plain truncation.
        image: the scan, ``(H, W, D)``.
        acquisition: of the scan, without its filters, which belong to the transfer; None for a plain truncation.

    Example:
        >>> acquired, predicted = in_band(torch.rand(8, 8, 8), torch.rand(4, 4, 4))
        >>> predicted.shape
        torch.Size([4, 4, 4])
    """
    acquired = truncate(pred, image.shape, AXES) if acquisition is None else acquisition.acquire(pred)
    return fftc(image, AXES), fftc(acquired, AXES)


def soft_data_consistency(
    pred: Tensor,
    image: Tensor,
    transfer: Tensor | None = None,
    noise: Tensor | None = None,
    transfer_error: Tensor | float = 0.0,
    kspaces: tuple[Tensor, Tensor] | None = None,
    acquisition: SeparableAcquisition | None = None,
    in_place: bool = False,
) -> tuple[Tensor, float]:
    """Put the acquired k-space back into a prediction, as far as this is expected to reduce the error.

    Args:
        pred: see :func:`in_band`.
        image: the scan, ``(H, W, D)``.
        transfer: see :func:`consistency_weight`; None for a plain truncation.
        noise: see :func:`consistency_weight`; None for :func:`smoothed_noise`.
        transfer_error: see :func:`consistency_weight`.
        kspaces: the result of :func:`in_band`, whose first one is changed; None to compute it.
        acquisition: see :func:`in_band`.
        in_place: whether to change ``pred`` itself, because volumes are large.

    Returns:
        the prediction, and the share of the acquired k-space that now comes from the scan.

    Example:
        >>> pred, image, silent = torch.zeros(8, 8, 8), torch.rand(4, 4, 4), torch.zeros(1, 1, 1)
        >>> volume, share = soft_data_consistency(pred, image, noise=silent)
        >>> round(share, 3)  # without noise, all of the acquired k-space comes back
        1.0
    """
    transfer = torch.ones_like(image) if transfer is None else transfer.to(image)
    kspaces = kspaces or in_band(pred, image, acquisition)
    correction, share = _correction(*kspaces, transfer, noise, transfer_error)
    onto = pred if in_place else pred.clone()
    if acquisition is None:
        return zero_fill(correction, pred.shape, AXES, onto), share
    return acquisition.restore(correction, SLICE_REGULARISATION, onto), share


def _correction(
    acquired: Tensor, predicted: Tensor, transfer: Tensor, noise: Tensor | None, transfer_error: Tensor | float
) -> tuple[Tensor, float]:
    """What to add to the prediction on the scan's grid, and the share of k-space that then comes from the scan."""
    if noise is None:
        inside = transfer > 0
        # if the network undid the filter, its prediction is closer to the scan once it is filtered again
        unfiltered = _distance(acquired, predicted, inside) <= _distance(acquired, predicted, inside, transfer)
        noise = smoothed_noise(acquired, predicted if unfiltered else transfer * predicted, inside)
    weight = consistency_weight(acquired, predicted, transfer, noise, transfer_error)
    share = float((weight * transfer).sum() / (transfer > 0).sum())
    for part in _parts(acquired.shape):  # in place: k-spaces are large
        acquired[part].sub_(transfer[part] * predicted[part]).mul_(weight[part])
    return ifftc(acquired, AXES).real.clone(), share  # the clone frees the imaginary part


def _distance(a: Tensor, b: Tensor, inside: Tensor, factor: Tensor | None = None) -> float:
    """The squared distance from ``a`` to ``b``, or to its product with a factor."""
    own = (a[part] - (b[part] if factor is None else factor[part] * b[part]) for part in _parts(a.shape))
    squares = (one.abs().square().mul_(inside[part]) for one, part in zip(own, _parts(a.shape), strict=True))
    return float(sum(one.sum(dtype=torch.float64) for one in squares))


def _parts(shape: Sequence[int]) -> list[slice]:
    """Parts of a k-space along its first axis, so that what is computed on the way needs little memory."""
    step = max(1, VOXELS_AT_ONCE * shape[0] // math.prod(shape))
    return [slice(start, start + step) for start in range(0, shape[0], step)]


def _radii(matrix_size: Sequence[int], device: torch.device) -> list[Tensor]:
    """Signed distance from the centre of k-space along each axis, as a share of the band, shaped to broadcast."""
    return open_grid([centred_frequencies(n, device).float() for n in matrix_size])


def _shell_index(matrix_size: Sequence[int], part: slice, device: torch.device) -> Tensor:
    """The shell of each point in a part of a centred k-space."""
    first, *others = _radii(matrix_size, device)
    return (SHELLS * sum(r.square() for r in (first[part], *others)).sqrt()).long()


def _shell_sums(values: Callable[[slice], Tensor], inside: Tensor) -> Tensor:
    """Sum of ``values``, made for a part at a time, over the part of each shell that is ``inside``."""
    sums = torch.zeros(math.floor(SHELLS * 3**0.5) + 1, dtype=torch.float64, device=inside.device)
    for part in _parts(inside.shape):
        shell = _shell_index(inside.shape, part, inside.device)
        sums.index_add_(0, shell.flatten(), values(part).double().mul_(inside[part]).flatten())
    return sums


def _shell_means(values: Callable[[slice], Tensor], inside: Tensor) -> Tensor:
    """Mean of ``values`` over the part of each shell that is ``inside``; 0 for a shell without one."""
    count = _shell_sums(lambda part: torch.ones_like(inside[part], dtype=torch.float64), inside)
    return _shell_sums(values, inside) / count.clamp(min=1)


def smoothed_noise(acquired: Tensor, predicted: Tensor, inside: Tensor) -> Tensor:
    r"""Bound the noise that the network smoothed away.

    Where the discrepancy resembles the scan, the network removed signal or noise: $r = \langle x - \hat y, x \rangle$.
    A network smooths like a Wiener filter, which removes more where the scan's power $P$ is lower: $r \propto 1/P$.
    At low frequencies the network also sharpens, which hides what it removed. The value of $r P$ at any frequency
    therefore serves as a bound for all lower ones.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.
        inside: where k-space was acquired.

    Returns:
        power of the noise in each shell.

    Example:
        >>> k = fftc(torch.rand(8, 8, 8), AXES)
        >>> float(smoothed_noise(k, k, torch.ones(8, 8, 8, dtype=torch.bool)).max())  # an unchanged scan lost no noise
        0.0
    """
    removed = _shell_means(lambda part: ((acquired[part] - predicted[part]) * acquired[part].conj()).real, inside)
    removed = removed.clamp(min=0)
    power = _shell_means(lambda part: acquired[part].abs().square(), inside)
    bound = torch.cummax((removed * power).flip(0), 0).values.flip(0)
    return torch.where(power > 0, bound / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)


def consistency_weight(
    acquired: Tensor, predicted: Tensor, transfer: Tensor, noise: Tensor, transfer_error: Tensor | float = 0.0
) -> Tensor:
    """The weight $W$ of the discrepancy in each shell, from the discrepancy itself.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.
        transfer: real, of their shape; 0 where nothing was acquired.
        noise: power of the noise at each point, or in each shell as :func:`smoothed_noise` gives it.
        transfer_error: standard error of the transfer.

    Returns:
        real tensor of their shape, at most 1 over the transfer; 0 where nothing was acquired.

    Example:
        >>> acquired, predicted, transfer = torch.ones(4, 4, 4), torch.zeros(4, 4, 4), torch.full((4, 4, 4), 0.5)
        >>> float(consistency_weight(acquired, predicted, transfer, noise=torch.zeros(1, 1, 1)).mean())
        2.0
    """
    inside, shape = transfer > 0, acquired.shape
    noise = noise.to(transfer)
    points = noise if noise.ndim == 1 else noise.expand(shape)

    def noise_at(part: slice) -> Tensor:
        return points[_shell_index(shape, part, noise.device)] if noise.ndim == 1 else points[part]

    def beyond(part: slice) -> Tensor:
        power = (acquired[part] - transfer[part] * predicted[part]).abs().square()
        return transfer[part].square() * (power - noise_at(part))

    seen = _shell_sums(beyond, inside)
    chance = _shell_sums(lambda part: (transfer[part].square() * noise_at(part)).square(), inside)
    scale = _shell_sums(lambda part: transfer[part] ** 4, inside)
    errors = (seen - SIGNIFICANCE * chance.sqrt()).clamp(min=0) / scale.clamp(min=torch.finfo(scale.dtype).tiny)
    errors, weight = errors.to(transfer), torch.empty_like(transfer)
    for part in _parts(shape):
        error = errors[_shell_index(shape, part, noise.device)]
        uncertain = transfer_error[part] if isinstance(transfer_error, Tensor) else transfer_error
        power = (transfer[part].square() + uncertain**2) * error + noise_at(part)
        gain = transfer[part] * error / power.clamp(min=torch.finfo(power.dtype).tiny)
        weight[part] = torch.where(inside[part] & (power > 0), gain, 0.0)
    return weight


def wiener_inverse(image: Tensor, transfer: Tensor, noise: Tensor) -> Tensor:
    r"""Undo a transfer as far as the noise allows, $W = H P_y / (H^2 P_y + P_{noise})$: the best linear inverse.

    $P_y$ is the power of the image before the transfer: the mean over each shell of the scan's power beyond the noise.
    Points with a higher transfer weigh more.

    Args:
        image: the scan, ``(H, W, D)``, real.
        transfer: on its centred k-space; 0 where nothing was acquired.
        noise: power of the noise at each point.

    Returns:
        the restored scan, ``(H, W, D)``.

    Example:
        >>> half, silent = torch.full((4, 4, 4), 0.5), torch.zeros(4, 4, 4)
        >>> float(wiener_inverse(torch.ones(4, 4, 4), half, silent).mean())
        2.0
    """
    k = fftc(image, AXES)
    squared, noise = transfer.square(), noise.expand(image.shape)
    inside, shell = transfer > 0, _shell_index(image.shape, slice(None), image.device)
    seen = _shell_sums(lambda part: squared[part] * (k[part].abs().square() - noise[part]), inside).clamp(min=0)
    scale = _shell_sums(lambda part: squared[part].square(), inside)
    power = (seen / scale.clamp(min=torch.finfo(scale.dtype).tiny)).to(transfer)[shell]
    total = (squared * power + noise).clamp(min=torch.finfo(power.dtype).tiny)
    return ifftc(torch.where(inside, transfer * power / total, 0.0) * k, AXES).real


def gain_and_shift(acquired: Tensor, predicted: Tensor) -> tuple[float, list[float]]:
    """The gain and the shift of the prediction against the scan, measured at low frequencies.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.

    Returns:
        gain of the prediction, 1 when there is none, and its shift in voxels of the scan along each axis.

    Example:
        >>> k = fftc(torch.rand(16, 16, 16), AXES)
        >>> gain, shift = gain_and_shift(k, 1.05 * k)
        >>> round(gain, 3)
        1.05
    """
    radii = _radii(acquired.shape, acquired.device)
    low = sum(r.square() for r in radii).sqrt() < LOW_FREQUENCIES
    x, y = (k[low].to(torch.complex128) for k in (acquired, predicted))
    power = x.abs().square()
    angles = torch.stack([torch.pi * r.expand(low.shape)[low].double() for r in radii])
    shift = torch.linalg.lstsq((angles * power) @ angles.T, -(angles @ (x.conj() * y).imag)[:, None]).solution[:, 0]
    return float((y.abs().square().sum() / power.sum()).sqrt()), shift.tolist()
