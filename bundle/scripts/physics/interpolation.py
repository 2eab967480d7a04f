r"""Interpolation: cubic, on the grid of k-space truncation.

k-space truncation places low-resolution voxel $l$ at $s l$. Stock interpolation places it at $s l + (s - 1) / 2$
(``align_corners=False``, MATLAB's ``imresize``), or stretches the volume end to end. An error of half a voxel costs
several decibels, so a tricubic reference is only fair on the right grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["interpolate_axis", "interpolate_cubic", "keys_kernel", "keys_matrix", "lanczos_matrix"]


def keys_kernel(distance: Tensor) -> Tensor:
    """Cubic convolution kernel of Keys (IEEE TASSP 29, 1981) with a = -1/2, exact for quadratics.

    Args:
        distance: from the interpolated position to a sample, in samples.

    Example:
        >>> keys_kernel(torch.tensor([0.0, 0.5, 1.5])).tolist()
        [1.0, 0.5625, -0.0625]
    """
    d = distance.abs()
    inner = (1.5 * d - 2.5) * d**2 + 1
    outer = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, inner, torch.where(d < 2, outer, torch.zeros_like(d)))


def keys_matrix(places: Tensor, size: int) -> Tensor:
    """Keys' cubic convolution, whose rows sum to 1. Beyond its ends the scan repeats its end.

    Args:
        places: ``(N,)`` in samples of the scan.
        size: of the scan.

    Returns:
        ``(N, size)``.

    Example:
        >>> keys_matrix(torch.tensor([1.5]), 4)[0].tolist()
        [-0.0625, 0.5625, 0.5625, -0.0625]
    """
    return _matrix(keys_kernel, 2, places, size)


LOBES = 4  # of the windowed sinc, on either side


def lanczos_matrix(places: Tensor, size: int) -> Tensor:
    """The windowed sinc of Lanczos with four lobes, whose rows sum to 1. Beyond its ends the scan repeats its end.

    Args:
        places: ``(N,)`` in samples of the scan.
        size: of the scan.

    Returns:
        ``(N, size)``.

    Example:
        >>> [round(weight, 3) for weight in lanczos_matrix(torch.tensor([1.5]), 4)[0].tolist()]
        [-0.119, 0.619, 0.619, -0.119]
    """
    matrix = _matrix(_windowed_sinc, LOBES, places, size)
    return matrix / matrix.sum(1, keepdim=True)


def _windowed_sinc(distance: Tensor) -> Tensor:
    return torch.where(distance.abs() < LOBES, torch.sinc(distance) * torch.sinc(distance / LOBES), 0.0)


def _matrix(kernel: Callable[[Tensor], Tensor], reach: int, places: Tensor, size: int) -> Tensor:
    taps = torch.arange(-reach, size + reach, dtype=places.dtype)
    weights = kernel(places.clamp(-1, size)[:, None] - taps)
    ends = taps.long().clamp(0, size - 1)
    return torch.zeros(len(places), size, dtype=places.dtype).index_add_(1, ends, weights)


def interpolate_cubic(x: Tensor, scale_factor: int, dim: int | Sequence[int], centred: bool = False) -> Tensor:
    """Interpolate by cubic convolution along ``dim``; beyond a border the outermost voxel is repeated.

    Args:
        x: real floating point tensor of any shape.
        scale_factor: how many voxels to make of one, along each axis of ``dim``.
        dim: one axis or several, which are interpolated in turn.
        centred: place voxel ``l`` in the centre of its block, as ``imresize`` does. By default it is placed at
            ``scale_factor * l``, as by k-space truncation.

    Returns:
        tensor whose sizes along ``dim`` are ``scale_factor`` times larger.

    Example:
        >>> interpolate_cubic(torch.tensor([0.0, 1.0, 2.0, 3.0]), 2, dim=0)[2:5].tolist()
        [1.0, 1.5, 2.0]
    """
    for axis in [dim] if isinstance(dim, int) else dim:
        x = interpolate_axis(x, scale_factor, axis, centred)
    return x


def interpolate_axis(x: Tensor, scale_factor: int, dim: int, centred: bool) -> Tensor:
    """:func:`interpolate_cubic` along one axis, in a form that TorchScript compiles.

    Example:
        >>> interpolate_axis(torch.rand(1, 4, 4), 2, dim=1, centred=True).shape
        torch.Size([1, 8, 4])
    """
    size = x.shape[dim]
    position = torch.arange(size * scale_factor, dtype=torch.float64, device=x.device)
    position = (position + 0.5) / scale_factor - 0.5 if centred else position / scale_factor
    first = position.floor().long() - 1
    shape = [1] * x.ndim
    shape[dim] = -1
    result = torch.zeros((), dtype=x.dtype, device=x.device)
    for offset in range(4):
        tap = first + offset
        weight = keys_kernel(position - tap).to(x.dtype).reshape(shape)
        result = result + weight * x.index_select(dim, tap.clamp(0, size - 1))
    return result
