r"""Data consistency: how much of the acquired k-space to put back into a prediction.

With the transfer $H$ of the scan and the discrepancy $D = x - H \hat y$ inside the acquired band,

$$\hat y \leftarrow \hat y + W D, \qquad W = \frac{H P_{err}}{(H^2 + \delta^2) P_{err} + P_{noise}},$$

has the least expected error when $P_{err}$ is the power of the prediction's error, $P_{noise}$ that of the noise which
the scan has and the target has not, and $\delta$ the error of the transfer. Shell by shell of k-space, $P_{err}$ is
what the discrepancy shows beyond the noise. $H = 1$ and $P_{noise} = \delta = 0$ put the acquisition back as it is.

The target matters. A scanner that had gone on to acquire the rest of k-space would have had the very same noise in the
part that it did acquire: for *that* scan as the target, nothing is noise. For an image without noise, what a network
smoothed away must stay away. :func:`smoothed_noise` bounds it, so that the weight suits both targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.physics.kspace import fftc, ifftc, truncate, zero_fill

__all__ = [
    "consistency_weight",
    "gain_and_shift",
    "in_band",
    "smoothed_noise",
    "soft_data_consistency",
    "wiener_inverse",
]


SHELLS = 10  # between the centre of k-space and the ellipsoid that touches the faces of the band
LOW = 0.3  # of the band: where gain and shift are seen
CHANCE = 3.0  # standard errors of the noise's power, in pairs of conjugate points, that are not taken for an error
AXES = (0, 1, 2)


def in_band(pred: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Centred k-spaces, ``(H, W, D)``, of a scan and of a prediction ``(sH, sW, sD)`` truncated to its band."""
    return fftc(image, AXES), fftc(truncate(pred, image.shape, AXES), AXES)


def soft_data_consistency(
    pred: Tensor,
    image: Tensor,
    transfer: Tensor | None = None,
    noise: Tensor | None = None,
    transfer_error: Tensor | float = 0.0,
    kspaces: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, float]:
    """Put the acquired k-space back into a prediction as far as it is expected to lessen the error.

    Args:
        pred: the prediction, ``(sH, sW, sD)``, real.
        image: the scan, ``(H, W, D)``.
        transfer: see :func:`consistency_weight`; None for a plain truncation.
        noise: see there; None for :func:`smoothed_noise`, where a network that has undone the transfer itself is told
            from one that has not.
        transfer_error: see there.
        kspaces: what :func:`in_band` gives, where it is known already.

    Returns:
        the prediction, and the share of the acquired k-space that it now has from the scan.
    """
    transfer = torch.ones_like(image) if transfer is None else transfer.to(image)
    correction, share = _correction(*(kspaces or in_band(pred, image)), transfer, noise, transfer_error)
    return zero_fill(correction, pred.shape, AXES).add_(pred), share  # in place: volumes are large


def _correction(
    acquired: Tensor, predicted: Tensor, transfer: Tensor, noise: Tensor | None, transfer_error: Tensor | float
) -> tuple[Tensor, float]:
    """What to add to the prediction, on the grid of the scan, and the share that the scan then has."""
    filtered = transfer * predicted
    if noise is None:  # a network that has undone the filter itself gives what, filtered again, is nearer to the scan
        inside = transfer > 0
        comparable = min((predicted, filtered), key=lambda k: _distance(acquired, k, inside))
        noise = smoothed_noise(acquired, comparable, inside)
    weight = consistency_weight(acquired, predicted, transfer, noise, transfer_error)
    share = float((weight * transfer).sum() / (transfer > 0).sum())
    return ifftc(weight * (acquired - filtered), AXES).real.clone(), share  # not half of a complex volume


def _distance(a: Tensor, b: Tensor, inside: Tensor) -> float:
    return float((a - b).abs().square().mul_(inside).sum(dtype=torch.float64))


def _radii(matrix_size: Sequence[int], device: torch.device) -> list[Tensor]:
    """Signed distance from the centre of k-space along each axis, as a share of the band, shaped to broadcast."""
    axes = [(torch.arange(n, device=device) - n // 2) / (n / 2) for n in matrix_size]
    return [axis.reshape([-1 if a == b else 1 for b in range(len(axes))]) for a, axis in enumerate(axes)]


def _shell_index(matrix_size: Sequence[int], device: torch.device) -> Tensor:
    """The shell of each point of a centred k-space."""
    return (SHELLS * sum(r.square() for r in _radii(matrix_size, device)).sqrt()).long()


def _shell_sums(values: Tensor, shell: Tensor, inside: Tensor) -> Tensor:
    """Sum of ``values`` over the part of each shell that is ``inside``."""
    return torch.bincount(shell.flatten(), values.double().mul_(inside).flatten())


def _shell_means(values: Tensor, shell: Tensor, inside: Tensor) -> Tensor:
    """Mean of ``values`` over the part of each shell that is ``inside``; 0 where there is none."""
    count = _shell_sums(torch.ones_like(values), shell, inside)
    return _shell_sums(values, shell, inside) / count.clamp(min=1)


def smoothed_noise(acquired: Tensor, predicted: Tensor, inside: Tensor) -> Tensor:
    r"""Bound the noise that the network smoothed away.

    Where the discrepancy resembles the scan itself, signal or noise was removed: $r = \langle x - \hat y, x \rangle$.
    A network smooths like a Wiener filter, which removes the more the smaller the scan's power $P$ is: $r \propto 1/P$.
    What is seen at any frequency so bounds what is removed at all lower ones, where the network sharpens as well and
    it does not show.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.
        inside: where k-space was acquired.

    Returns:
        power in each shell.
    """
    shell = _shell_index(acquired.shape, acquired.device)
    removed = _shell_means(((acquired - predicted) * acquired.conj()).real, shell, inside).clamp(min=0)
    power = _shell_means(acquired.abs().square(), shell, inside)
    bound = torch.cummax((removed * power).flip(0), 0).values.flip(0)
    return torch.where(power > 0, bound / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)


def consistency_weight(
    acquired: Tensor, predicted: Tensor, transfer: Tensor, noise: Tensor, transfer_error: Tensor | float = 0.0
) -> Tensor:
    """The weight $W$ of the discrepancy, shell by shell from the discrepancy itself.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.
        transfer: real, of their shape; 0 where nothing was acquired.
        noise: power of the noise at each point, or in each shell as :func:`smoothed_noise` gives it.
        transfer_error: its standard error.

    Returns:
        real tensor of their shape, from 0 to 1 over the transfer; 0 where nothing was acquired.
    """
    inside = transfer > 0
    shell = _shell_index(acquired.shape, acquired.device)
    noise = noise.to(transfer)
    noise = noise[shell] if noise.ndim == 1 else noise
    noise = noise.expand(shell.shape)
    squared = transfer.square()
    beyond = squared * ((acquired - transfer * predicted).abs().square() - noise)
    seen, chance, scale = (
        _shell_sums(v, shell, inside) for v in (beyond, (squared * noise).square(), squared.square())
    )
    error = (seen - CHANCE * chance.sqrt()).clamp(min=0) / scale.clamp(min=torch.finfo(scale.dtype).tiny)
    error = error.to(transfer)[shell]
    power = (squared + transfer_error**2) * error + noise
    return torch.where(inside & (power > 0), transfer * error / power.clamp(min=torch.finfo(power.dtype).tiny), 0.0)


def wiener_inverse(image: Tensor, transfer: Tensor, noise: Tensor) -> Tensor:
    r"""Undo a transfer as far as the noise allows, $W = H P_y / (H^2 P_y + P_{noise})$: the best linear inverse.

    The power $P_y$ of the image behind the transfer is the mean over each shell of k-space of what the scan shows
    beyond the noise, every point weighted by how well it was acquired.

    Args:
        image: the scan, ``(H, W, D)``, real.
        transfer: on its centred k-space; 0 where nothing was acquired.
        noise: power of the noise at each point.

    Returns:
        the restored scan, ``(H, W, D)``.
    """
    k = fftc(image, AXES)
    shell, inside = _shell_index(image.shape, image.device), transfer > 0
    squared = transfer.square()
    seen = _shell_sums(squared * (k.abs().square() - noise), shell, inside).clamp(min=0)
    scale = _shell_sums(squared.square(), shell, inside)
    power = (seen / scale.clamp(min=torch.finfo(scale.dtype).tiny)).to(transfer)[shell]
    total = (squared * power + noise).clamp(min=torch.finfo(power.dtype).tiny)
    return ifftc(torch.where(inside, transfer * power / total, 0.0) * k, AXES).real


def gain_and_shift(acquired: Tensor, predicted: Tensor) -> tuple[float, list[float]]:
    """By how much the prediction is brighter than the scan, and by how many voxels it lies off, at low frequencies.

    Args:
        acquired: k-space of the scan, centred.
        predicted: k-space of the prediction in the band of the scan, centred.

    Returns:
        gain of the prediction, 1 when there is none, and its shift in voxels of the scan along each axis.
    """
    radii = _radii(acquired.shape, acquired.device)
    low = sum(r.square() for r in radii).sqrt() < LOW
    x, y = (k[low].to(torch.complex128) for k in (acquired, predicted))
    power = x.abs().square()
    angles = torch.stack([torch.pi * r.expand(low.shape)[low].double() for r in radii])
    shift = torch.linalg.lstsq((angles * power) @ angles.T, -(angles @ (x.conj() * y).imag)[:, None]).solution[:, 0]
    return float((y.abs().square().sum() / power.sum()).sqrt()), shift.tolist()
