"""One batch out of the shares that several processes hold, for losses that compare samples with each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["gather_batch"]


class _GatherBatch(torch.autograd.Function):
    """All ranks' samples on every rank; a sample's gradient is the sum of what all ranks have for it."""

    @staticmethod
    def forward(ctx: FunctionCtx, share: Tensor) -> Tensor:
        shares = [torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, share.contiguous())
        return torch.cat(shares)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Any:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather_batch(share: Tensor) -> Tensor:
    """The joined batch ``(N * ranks, ...)`` of every rank's ``(N, ...)``, in the order of the ranks, with gradients.

    A loss of the joined batch is the same on every rank, and its gradient arrives at each rank's share once from every
    rank; averaged over the ranks, as ``scripts.distributed.GradientAveragingHandler`` does with the parameters'
    gradients, it is what one process with the joined batch would have. Alone, a process gets back what it gave.

    Args:
        share: this rank's samples, as many on every rank.
    """
    return _GatherBatch.apply(share) if dist.is_initialized() and dist.get_world_size() > 1 else share
