r"""k-space: what a scanner acquires, and how acquiring less of it lowers the resolution.

Conventions, for an axis of $N$ voxels of which a matrix of $M \leq N$ is kept:

* The phase refers to voxel 0. Low-resolution voxel $l$ therefore sits at high-resolution position $l N / M$, which is
  voxel $2l$ when the matrix is halved. This holds for odd and for even sizes.
* Intensities are preserved: a constant keeps its value.
* The field of view is kept, so the spacing grows by the factor $N / M$.

An even matrix has one unpaired plane, at $-M/2$. For a real volume, :func:`truncate` keeps the real part of that plane,
which is the mean of the planes at $\pm M/2$. :func:`zero_fill` puts the plane back at both places. With this choice
``truncate(zero_fill(y)) == y`` and ``zero_fill(truncate(x))`` is an orthogonal projector, both exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "apodise",
    "by_parts",
    "centred_frequencies",
    "complex_noise",
    "data_consistency",
    "fftc",
    "ifftc",
    "open_grid",
    "truncate",
    "zero_fill",
]


VOXELS_AT_ONCE = 2**20  # a larger volume is resized in parts of this size, which fit into a processor's cache


def fftc(x: Tensor, dim: Sequence[int]) -> Tensor:
    """Image to k-space, zero frequency in the centre (index ``N // 2``), phase referred to voxel 0.

    Args:
        x: real or complex tensor of any shape.
        dim: the axes to transform; every other axis is a batch.

    Example:
        >>> fftc(torch.ones(4), [0]).real.tolist()
        [0.0, 0.0, 4.0, 0.0]
    """
    return torch.fft.fftshift(torch.fft.fftn(x, dim=tuple(dim)), dim=tuple(dim))


def ifftc(k: Tensor, dim: Sequence[int]) -> Tensor:
    """k-space to complex image, the inverse of :func:`fftc`.

    Example:
        >>> ifftc(fftc(torch.ones(4), [0]), [0]).real.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return torch.fft.ifftn(torch.fft.ifftshift(k, dim=tuple(dim)), dim=tuple(dim))


def centred_frequencies(size: int, device: torch.device | None = None) -> Tensor:
    """Signed frequency of each sample of a centred k-space in units of the Nyquist frequency, float64 in [-1, 1).

    Example:
        >>> centred_frequencies(4).tolist()
        [-1.0, -0.5, 0.0, 0.5]
    """
    return (torch.arange(size, dtype=torch.float64, device=device) - size // 2) / max(size / 2, 1)


def open_grid(lines: Sequence[Tensor]) -> list[Tensor]:
    """Reshape vectors so that they broadcast against each other, the first one along the first axis.

    Example:
        >>> [line.shape for line in open_grid([torch.ones(4), torch.ones(5)])]
        [torch.Size([4, 1]), torch.Size([1, 5])]
    """
    return [line.reshape([-1 if a == axis else 1 for a in range(len(lines))]) for axis, line in enumerate(lines)]


def truncate(x: Tensor, matrix_size: Sequence[int], dim: Sequence[int]) -> Tensor:
    r"""Keep the central ``matrix_size`` of k-space, $y = \Re F^{-1} P_M F x$, with intensities preserved.

    Args:
        x: real tensor of any shape.
        matrix_size: how many samples to keep along each axis of ``dim``, in [1, N].
        dim: the axes to truncate; every other axis is a batch.

    Returns:
        real tensor whose sizes along ``dim`` are ``matrix_size``.

    Raises:
        ValueError: when a matrix size is not in [1, N].

    Example:
        >>> truncate(torch.rand(1, 8, 8, 6), (4, 4, 3), dim=(1, 2, 3)).shape
        torch.Size([1, 4, 4, 3])
    """
    for size, axis in zip(matrix_size, dim, strict=True):
        full = x.shape[axis]
        if not 1 <= size <= full:
            raise ValueError(f"matrix_size must be in [1, {full}] along axis {axis} to truncate, got {size}.")
    (first, size), *others = zip([axis % x.ndim for axis in dim], matrix_size, strict=True)
    smaller = [(axis, kept) for axis, kept in others if kept < x.shape[axis]]
    if smaller:  # the first axis comes last, so that no part needs another one
        x = by_parts(x, first, lambda part: _resized(part, smaller, _truncate_lines))
    return _along(x, first, size, _truncate_lines) if size < x.shape[first] else x


def zero_fill(y: Tensor, matrix_size: Sequence[int], dim: Sequence[int], onto: Tensor | None = None) -> Tensor:
    """Surround k-space with zeros up to ``matrix_size``: the scanner's own interpolation.

    :func:`truncate` undoes it exactly.

    Args:
        y: real tensor of any shape.
        matrix_size: the sizes to reach along each axis of ``dim``, not below the present ones.
        dim: the axes to interpolate; every other axis is a batch.
        onto: tensor of the result's shape, to which the result is added in place. None for a new tensor.

    Returns:
        real tensor whose sizes along ``dim`` are ``matrix_size``; voxel $l$ of ``y`` sits at $l N / M$. It is ``onto``
        where that is given.

    Raises:
        ValueError: when a matrix size is below the present size.

    Example:
        >>> zero_fill(torch.rand(1, 4, 4, 3), (8, 8, 6), dim=(1, 2, 3)).shape
        torch.Size([1, 8, 8, 6])
    """
    for size, axis in zip(matrix_size, dim, strict=True):
        kept = y.shape[axis]
        if size < kept:
            raise ValueError(f"matrix_size must be at least {kept} along axis {axis} to zero-fill, got {size}.")
    (first, size), *others = zip([axis % y.ndim for axis in dim], matrix_size, strict=True)
    if size > y.shape[first]:
        y = _along(y, first, size, _zero_fill_lines)
    larger = [(axis, size) for axis, size in others if size > y.shape[axis]]
    if not larger:
        return y if onto is None else onto.add_(y)
    return by_parts(y, first, lambda part: _resized(part, larger, _zero_fill_lines), onto)


def _truncate_lines(x: Tensor, axis: int, size: int) -> Tensor:
    spectrum = torch.fft.rfft(x, dim=axis).narrow(axis, 0, size // 2 + 1)
    return torch.fft.irfft(spectrum, n=size, dim=axis) * (size / x.shape[axis])


def _zero_fill_lines(x: Tensor, axis: int, size: int) -> Tensor:
    # irfft pads the half-spectrum with zeros, so its plane at M/2 stands for both +M/2 and -M/2
    return torch.fft.irfft(torch.fft.rfft(x, dim=axis), n=size, dim=axis) * (size / x.shape[axis])


def _resized(x: Tensor, sizes: Sequence[tuple[int, int]], resize: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    for axis, size in sizes:
        x = resize(x, axis, size)
    return x


def by_parts(x: Tensor, axis: int, function: Callable[[Tensor], Tensor], onto: Tensor | None = None) -> Tensor:
    """Apply a function to a large volume in parts along an axis, so that what it makes on the way needs little memory.

    Args:
        x: the volume.
        axis: along which the function neither mixes voxels nor changes their number.
        function: makes a volume of a part.
        onto: see :func:`zero_fill`.

    Example:
        >>> by_parts(torch.ones(4, 4), 0, lambda part: 2 * part, onto=torch.ones(4, 4)).unique().tolist()
        [3.0]
    """
    step = max(1, VOXELS_AT_ONCE * x.shape[axis] // max(1, x.numel() if onto is None else onto.numel()))
    if onto is None and step >= x.shape[axis]:
        return function(x)
    made = onto
    for start in range(0, x.shape[axis], step):
        part = function(x.narrow(axis, start, min(step, x.shape[axis] - start)))
        if made is None:
            made = part.new_empty([x.shape[a] if a == axis % x.ndim else n for a, n in enumerate(part.shape)])
        place = made.narrow(axis, start, part.shape[axis])
        place.copy_(part) if onto is None else place.add_(part)
    return made


def _along(x: Tensor, axis: int, size: int, resize: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """Resize the lines of one axis, in parts when the volume is large: the spectra of all lines need much memory."""
    axis %= x.ndim
    other = max((a for a in range(x.ndim) if a != axis), key=x.size, default=axis)
    step = max(1, VOXELS_AT_ONCE * x.shape[other] // max(1, x.numel()))
    if step >= x.shape[other] or other == axis:
        return resize(x, axis, size)
    resized = x.new_empty([*x.shape[:axis], size, *x.shape[axis + 1 :]])
    for start in range(0, x.shape[other], step):
        some = x.narrow(other, start, min(step, x.shape[other] - start))
        resized.narrow(other, start, some.shape[other]).copy_(resize(some, axis, size))
    return resized


def data_consistency(pred: Tensor, image: Tensor, dim: Sequence[int], in_place: bool = False) -> Tensor:
    r"""Replace the acquired part of the prediction's k-space by the acquisition, $\hat y + Z(x - T \hat y)$.

    When ``image`` is the truncation of the truth, this projects onto the consistent volumes and the error can only
    shrink. When ``image`` has another intensity scale or another degradation, it does harm.

    Args:
        pred: real tensor, the super-resolved volume.
        image: real tensor, the acquired volume, smaller along ``dim``.
        dim: the axes along which ``image`` is truncated.
        in_place: whether to change ``pred`` itself.

    Example:
        >>> pred, image = torch.zeros(8), torch.ones(4)
        >>> data_consistency(pred, image, dim=[0]).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    acquired = [image.shape[axis] for axis in dim]
    full = [pred.shape[axis] for axis in dim]
    return zero_fill(image - truncate(pred, acquired, dim), full, dim, onto=pred if in_place else pred.clone())


def complex_noise(k: Tensor, noise_std: float, dim: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Add the receiver's white complex Gaussian noise to k-space.

    Args:
        k: complex k-space.
        noise_std: standard deviation of the noise in the image, in the image's units, before any window. The real and
            the imaginary part each have it.
        dim: the k-space axes.
        generator: source of randomness, on the CPU.

    Example:
        >>> noisy = ifftc(complex_noise(torch.zeros(64, 64, dtype=torch.complex64), 0.1, (0, 1)), (0, 1))
        >>> 0.09 < noisy.real.std() < 0.11
        tensor(True)
    """
    samples = 1
    for axis in dim:
        samples *= k.shape[axis]
    scale = noise_std * samples**0.5
    noise = torch.randn((2, *k.shape), generator=generator, dtype=k.real.dtype)
    return k + scale * torch.complex(noise[0], noise[1]).to(k.device)


def apodise(k: Tensor, window: Tensor, dim: Sequence[int]) -> Tensor:
    """Weight a centred k-space by ``window``, whose axes correspond to ``dim`` in order.

    Raises:
        ValueError: when the sizes of the window differ from those of k-space along ``dim``.

    Example:
        >>> apodise(torch.ones(2, 3), torch.tensor([0.0, 1.0, 0.5]), dim=[1]).tolist()
        [[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]
    """
    sizes = tuple(k.shape[axis] for axis in dim)
    if tuple(window.shape) != sizes:
        raise ValueError(
            f"window must have k-space's shape {sizes} along axes {tuple(dim)}, got {tuple(window.shape)}."
        )
    axes = [axis % k.ndim for axis in dim]
    order = sorted(range(len(axes)), key=axes.__getitem__)
    shape = [k.shape[axis] if axis in axes else 1 for axis in range(k.ndim)]
    return k * window.permute(order).reshape(shape).to(k.real.dtype).to(k.device)
