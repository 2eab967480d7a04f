"""Registration: the sub-voxel shift and the gain between two volumes of one grid, found in k-space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["angular_frequencies", "register_shift_and_gain", "sub_voxel_shift"]


NEWTON_STEPS = 5  # enough, because they converge quadratically from the best whole voxel


def angular_frequencies(x: Tensor) -> list[Tensor]:
    """Radians per voxel along each axis of the volume's real Fourier transform.

    Example:
        >>> [f.tolist() for f in angular_frequencies(torch.rand(1, 1, 1, 2))]
        [[0.0], [0.0], [0.0, 3.1415927410125732]]
    """
    height, width, depth = x.shape[-3:]
    frequencies = torch.fft.fftfreq(height), torch.fft.fftfreq(width), torch.fft.rfftfreq(depth)
    return [2 * math.pi * f.to(x) for f in frequencies]


def _shifted(spectrum: Tensor, frequencies: Sequence[Tensor], shift: Tensor) -> Tensor:
    """Spectrum of the volume moved by ``shift`` voxels."""
    height, width, depth = (torch.exp(-1j * f * s) for f, s in zip(frequencies, shift.tolist(), strict=True))
    return spectrum * height[:, None, None] * width[:, None] * depth


def _best_voxel(spectrum: Tensor, reference: Tensor, shape: Sequence[int]) -> Tensor:
    """The whole-voxel shift that maximises the cross-correlation, each component in [-N / 2, N / 2)."""
    correlation = torch.fft.irfftn(reference * spectrum.conj(), s=shape)
    position = torch.unravel_index(correlation.argmax(), correlation.shape)
    return torch.tensor([(int(p) + n // 2) % n - n // 2 for p, n in zip(position, shape, strict=True)]).double()


def _moments(cross: Tensor, frequencies: Sequence[Tensor], shift: Tensor) -> Tensor:
    r"""$\sum_k C(k)\,e^{-i k \cdot t}\,k_x^a k_y^b k_z^c$ for powers of 0 to 2 each, shape ``(3, 3, 3)``."""
    height, width, depth = (
        torch.stack([torch.exp(-1j * f * s) * f**power for power in range(3)], dim=-1)
        for f, s in zip(frequencies, shift.tolist(), strict=True)
    )
    return torch.einsum("hwd,dc,wb,ha->abc", cross, depth, width, height).to("cpu", torch.complex128)


def _newton_step(cross: Tensor, frequencies: Sequence[Tensor], shift: Tensor) -> Tensor:
    """One step towards the maximum of the cross-correlation, whose derivatives are moments of the cross-spectrum."""
    moments = _moments(cross, frequencies, shift)
    axes = torch.eye(3, dtype=torch.long)
    gradient = torch.stack([moments[tuple(axis)].imag for axis in axes])
    hessian = -torch.stack([moments[tuple(axis + other)].real for axis in axes for other in axes]).reshape(3, 3)
    return shift - torch.linalg.solve(hessian, gradient).clamp(-0.5, 0.5)


def register_shift_and_gain(pred: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Least-squares registration by a global gain and a sub-voxel shift, with periodic borders.

    It solves $\min_{g, t} \lVert g\,S_t \hat y - y \rVert$ in k-space. The shift maximises the cross-correlation: the
    best whole voxel comes first, then Newton steps. The gain follows in closed form.

    Args:
        pred: the volume to move, ``(1, H, W, D)``.
        label: the fixed volume, of the same shape.

    Returns:
        the registered prediction, the shift $t$ in voxels, shape ``(3,)``, and the gain $g$.

    Raises:
        ValueError: when the shapes differ.

    Example:
        >>> label = torch.rand(1, 8, 8, 8)
        >>> moved, shift, gain = register_shift_and_gain(2 * label.roll(1, dims=1), label)
        >>> [round(voxels) for voxels in shift.tolist()], round(float(gain), 3)
        ([-1, 0, 0], 0.5)
    """
    if pred.shape != label.shape:
        raise ValueError(f"both volumes must have the same shape, got {tuple(pred.shape)} and {tuple(label.shape)}.")
    spectrum, reference = (torch.fft.rfftn(x[0]) for x in (pred, label))
    frequencies, shape = angular_frequencies(label), label.shape[-3:]
    cross = reference.conj() * spectrum
    cross[..., 1 : (shape[-1] + 1) // 2] *= 2  # a real transform omits the conjugate half of k-space
    shift = _best_voxel(spectrum, reference, shape)
    for _ in range(NEWTON_STEPS):
        shift = _newton_step(cross, frequencies, shift)
    moved = torch.fft.irfftn(_shifted(spectrum, frequencies, shift), s=shape)[None]
    gain = (moved * label).sum() / moved.square().sum()
    return gain * moved, shift, gain


def sub_voxel_shift(pred: Tensor, reference: Tensor) -> Tensor:
    """The shift of ``pred`` against ``reference`` along each axis in voxels, shape ``(3,)``; zero when they agree.

    To measure the drift of a super-resolved volume, take the zero-filled acquisition as the reference. The
    cross-spectrum then holds only the acquired frequencies.

    Args:
        pred: ``(1, H, W, D)``.
        reference: of the same shape.

    Example:
        >>> volume = torch.rand(1, 8, 8, 8)
        >>> [round(voxels) for voxels in sub_voxel_shift(volume.roll(2, dims=3), volume).tolist()]
        [0, 0, 2]
    """
    return -register_shift_and_gain(pred, reference)[1]
