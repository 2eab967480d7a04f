"""Export: the network for any acquisition as a program of ``torch.export``, which runs without this bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.config import PathLike
from torch import Tensor, nn
from torch.export import Dim

from scripts.utils.atomic import write_atomically

from .folded import FoldedNet, fold, unfold

__all__ = ["OnePass", "export_network"]

EXAMPLE = (18, 21, 15)  # sizes of the traced volume; even and odd ones


class OnePass(nn.Module):
    """A :class:`FoldedNet` in one pass, the same to rounding, and in operations that fix no size.

    Args:
        network: with its weights.

    Example:
        >>> volume, network = torch.rand(1, 1, 9, 8, 7), FoldedNet()
        >>> torch.allclose(OnePass(network)(volume, torch.zeros(1, 9)), network(volume, torch.zeros(1, 9)))
        True
    """

    def __init__(self, network: FoldedNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, acquisition: Tensor) -> Tensor:
        """Interpolated volume ``(B, 1, H, W, D)`` to the restored volume, see :meth:`FoldedNet.forward`."""
        net, even = self.network, x
        for axis in (2, 3, 4):  # a gather has strides of its own; a slice or a padding would make torch fix the parity
            size = x.shape[axis]
            places = torch.arange(2 * ((size + 1) // 2), device=x.device).clamp(max=size - 1)
            even = even.index_select(axis, places)
        told = net._told(acquisition, x.shape[0])
        restored = even + net.output_scale * unfold(net.decoder(net.encoder(fold(even), told=told), told=told))
        for axis in (2, 3, 4):
            restored = restored.index_select(axis, torch.arange(x.shape[axis], device=x.device))
        return restored


def export_network(network: nn.Module, path: PathLike) -> Path:
    """Write a network as a program for volumes and batches of any size, from 3 voxels per axis.

    ``torch.export.load(path).module()(x, acquisition)`` runs it. ``x`` is the interpolated volume ``(B, 1, H, W, D)``
    with bright tissue at about 1. :func:`scripts.physics.description.acquisition_vector` makes ``acquisition``.

    Args:
        network: a :class:`FoldedNet` with its weights.
        path: ends with ``.pt2``.

    Returns:
        ``path``.

    Raises:
        ValueError: when the network is another one, or the path ends otherwise.
        OSError: when the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"export_path must end with .pt2, got {path}. Correct --export_path.")
    if not isinstance(network, FoldedNet):
        raise ValueError(f"an exported network must be a FoldedNet, got a {type(network).__name__}. Use `ckpt_export`.")
    example = (torch.zeros(2, 1, *EXAMPLE), torch.zeros(2, network.conditions))
    sizes = {"x": {axis: Dim.DYNAMIC for axis in (0, 2, 3, 4)}, "acquisition": {0: Dim.DYNAMIC}}
    program = torch.export.export(OnePass(network.eval()).cpu(), example, dynamic_shapes=sizes)
    write_atomically(path, lambda unfinished: torch.export.save(program, unfinished))
    return path
