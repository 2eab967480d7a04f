"""Several processes: joining them, sharing data among them, and gathering batches."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["gather_batch", "share_of_rank", "start_process_group"]

TIMEOUT = timedelta(hours=2)  # the other ranks wait while the first one prepares data


def start_process_group(device: torch.device) -> None:
    """Join the processes that ``torchrun`` started, with NCCL on GPUs and Gloo on CPUs.

    Without ``torchrun`` it does nothing. Ranks other than the first log warnings only.

    Args:
        device: the device of this process.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    if dist.get_rank() > 0:
        logging.disable(logging.INFO)


def share_of_rank(items: Sequence[Any]) -> Sequence[Any]:
    """This rank's share: consecutive items, as many on every rank as possible.

    Results that are gathered in the order of the ranks then have the order of the items.

    Args:
        items: the items of all ranks.

    Raises:
        ValueError: when there are fewer items than ranks.

    Example:
        >>> share_of_rank(["a.nii", "b.nii"])
        ['a.nii', 'b.nii']
    """
    if 0 < len(items) < world_size():
        raise ValueError(
            f"every process needs a scan, got {len(items)} scans for {world_size()} processes. Start fewer processes."
        )
    first, last = (len(items) * rank // world_size() for rank in (rank(), rank() + 1))
    return items[first:last]


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


class _GatherBatch(torch.autograd.Function):
    """All ranks' samples on every rank. The gradient of a sample is the sum over all ranks."""

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
    """Join every rank's samples ``(N, ...)`` to the batch ``(N * ranks, ...)``, in the order of the ranks.

    A loss of the joined batch is equal on every rank. Its gradient reaches each rank's samples once from every rank.
    The average of the parameters' gradients over the ranks is then the gradient of one process with the joined batch,
    see ``scripts.handlers.gradients.GradientAveragingHandler``. A single process gets its own samples back.

    Args:
        share: this rank's samples, equally many on every rank.
    """
    return _GatherBatch.apply(share) if dist.is_initialized() and dist.get_world_size() > 1 else share
