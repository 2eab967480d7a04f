"""Slabs: between volumes and thin slabs, whose slices are the channels of 2-D convolutions. Scriptable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def volume_to_slabs(volume: Tensor, size: int, step: int) -> Tensor:
    """One slab per ``step`` slices, centred on them. Beyond the ends the first and the last slice are replicated.

    Args:
        volume: ``(B, 1, H, W, D)``, the slab axis last, ``D`` a multiple of ``step``.
        size: slices per slab, an odd multiple of ``step``.
        step: slices from one slab to the next.

    Returns:
        ``(B * D / step, size, H, W)``, slices in order along the channels.

    Example:
        >>> volume_to_slabs(torch.rand(1, 1, 8, 8, 5), size=3, step=1).shape
        torch.Size([5, 3, 8, 8])
    """
    margin = (size - step) // 2
    padded = F.pad(volume, [margin, margin, 0, 0, 0, 0], mode="replicate")[:, 0]
    slabs = padded.unfold(3, size, step).permute(0, 3, 4, 1, 2)
    return slabs.reshape(-1, size, volume.shape[2], volume.shape[3])


def per_pass(x: Tensor, wanted: int | None, cached: int, launched: int) -> int:
    """How much of ``x`` passes a network at once.

    Args:
        x: the input.
        wanted: the user's choice; None for the value that suits the device.
        cached: the value for a processor, whose cache should hold the features of a layer.
        launched: the value for an accelerator, where each of a pass's hundreds of calls needs enough work.

    Example:
        >>> per_pass(torch.rand(1), wanted=None, cached=8, launched=256)
        8
    """
    if wanted is not None:
        return wanted
    return cached if x.device.type == "cpu" else launched


def threads_for(x: Tensor) -> int:
    """How many parts of ``x`` pass a network at a time, see :func:`scripts.utils.threads.in_turn`.

    A GPU has threads of its own. Gradients, exports and compilation need one part after the other.
    """
    alone = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
    return 1 if alone or x.device.type != "cpu" else torch.get_num_threads()


def in_passes(slabs: Tensor, slabs_per_pass: int | None) -> list[Tensor]:
    """Slabs ``(B, n, H, W)`` in parts that pass a network one after the other.

    Args:
        slabs: all slabs.
        slabs_per_pass: how many slabs of up to 64 x 64. Of larger slabs proportionally fewer pass at once, so that the
            features of a pass do not grow with the volume. None for the number that suits the device.

    Example:
        >>> [len(part) for part in in_passes(torch.rand(5, 3, 8, 8), slabs_per_pass=2)]
        [2, 2, 1]
    """
    pixels = slabs.shape[2] * slabs.shape[3]
    number = per_pass(slabs, slabs_per_pass, cached=8, launched=256)
    return list(torch.split(slabs, max(1, number * 64 * 64 // max(pixels, 64 * 64))))


def central(slab: Tensor, size: int) -> Tensor:
    """The ``size`` slices in the middle of a slab ``(B, n, H, W)``. The others are their context.

    Example:
        >>> central(torch.arange(5.0).reshape(1, 5, 1, 1), size=3).flatten().tolist()
        [1.0, 2.0, 3.0]
    """
    return slab.narrow(1, (slab.shape[1] - size) // 2, size)


def surround(slab: Tensor, size: int) -> Tensor:
    """A slab of ``size`` slices with ``slab`` in its middle and zeros elsewhere.

    Example:
        >>> surround(torch.ones(1, 1, 1, 1), size=3).flatten().tolist()
        [0.0, 1.0, 0.0]
    """
    margin = (size - slab.shape[1]) // 2
    return F.pad(slab, [0, 0, 0, 0, margin, margin])


def slabs_to_volume(slabs: Tensor, batch_size: int) -> Tensor:
    """Stack the slices that each slab contributes: ``(B * D, S, H, W)`` to ``(B, 1, H, W, D * S)``.

    Example:
        >>> slabs_to_volume(torch.rand(5, 2, 8, 8), batch_size=1).shape
        torch.Size([1, 1, 8, 8, 10])
    """
    height, width = slabs.shape[2], slabs.shape[3]
    return slabs.reshape(batch_size, -1, height, width).permute(0, 2, 3, 1).unsqueeze(1)


def channels_last(volume: Tensor) -> Tensor:
    """A volume in the layout in which 3-D convolutions are fast."""
    return volume.contiguous(memory_format=torch.channels_last_3d)


def volume_to_channels(volume: Tensor) -> Tensor:
    """``(B, C, H, W, S)`` to ``(B, C * S, H, W)``, a crop or its features as 2-D networks see them.

    Example:
        >>> volume_to_channels(torch.rand(1, 4, 8, 8, 3)).shape
        torch.Size([1, 12, 8, 8])
    """
    return volume.movedim(-1, 2).flatten(1, 2)


def channels_to_volume(features: Tensor, slices: int) -> Tensor:
    """Inverse of :func:`volume_to_channels`, for features of ``slices`` slices."""
    return channels_last(features.unflatten(1, (-1, slices)).movedim(2, -1))


def compared_slabs(slab_size: int, margin: int, image: Tensor, **images: Tensor) -> dict[str, Tensor]:
    """The parts of slabs that terms compare: the middle slices, without a margin. The rest is context for the skips.

    Args:
        slab_size: slices of the networks' slabs.
        margin: LR voxels to cut off at the borders, where a skip interpolates beyond the slab. Slices that are
            interpolated and have no context lose it, too.
        image: LR slab (B, d, h, w). Its middle ``slab_size`` slices are kept.
        images: slabs of the same extent on finer grids. The same part of each is kept.

    Raises:
        ValueError: when nothing would be left.

    Example:
        >>> compared_slabs(3, 0, torch.zeros(1, 5, 8, 8), label=torch.zeros(1, 10, 16, 16))["label"].shape
        torch.Size([1, 6, 16, 16])
    """
    slabs = {"image": image, **images}
    slices = image.shape[1]
    for name, slab in slabs.items():
        slabs[name] = central(slab, slab.shape[1] * slab_size // slices)
    interpolated = any(slab.shape[1] > slab_size for slab in slabs.values())
    dims = (1, 2, 3) if interpolated and slices == slab_size else (2, 3)
    return without_margin(margin, dims, **slabs) if margin else slabs


def without_margin(margin: int, dims: Sequence[int], image: Tensor, **images: Tensor) -> dict[str, Tensor]:
    """Cut ``margin`` LR voxels off either border of slabs along ``dims``, see :func:`compared_slabs`."""
    if 2 * margin >= min(image.shape[dim] for dim in dims):
        raise ValueError(f"margin must be less than half of the slab {list(image.shape[1:])}, got {margin}. Lower it.")
    slabs = {"image": image, **images}
    for dim in dims:
        size = slabs["image"].shape[dim]
        for name, slab in slabs.items():
            cut = margin * slab.shape[dim] // size
            slabs[name] = slab.narrow(dim, cut, slab.shape[dim] - 2 * cut)
    return slabs
