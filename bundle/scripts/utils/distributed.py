"""Several processes: joining them, and what each sees of the others."""

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

TIMEOUT = timedelta(hours=2)  # the others wait while the first rank prepares data


def start_process_group(device: torch.device) -> None:
    """Join the processes that ``torchrun`` started, by NCCL on GPUs and Gloo on CPUs; alone, do nothing.

    Ranks other than the first log warnings only.

    Args:
        device: of this process.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    if dist.get_rank() > 0:
        logging.disable(logging.INFO)


def share_of_rank(items: Sequence[Any]) -> Sequence[Any]:
    """This rank's items, neighbours: with N ranks, the n-th N-th of them, or one more where they do not divide.

    What is gathered from the ranks in their order has therefore the order of the items.

    Args:
        items: those of all ranks.

    Raises:
        ValueError: when a rank would have none.
    """
    if 0 < len(items) < world_size():
        raise ValueError(
            f"every process needs a scan, got {len(items)} scans for {world_size()} processes; start as many at most."
        )
    first, last = (len(items) * rank // world_size() for rank in (rank(), rank() + 1))
    return items[first:last]


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


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
    rank; averaged over the ranks, as ``scripts.handlers.gradients.GradientAveragingHandler`` does with the parameters'
    gradients, it is what one process with the joined batch would have. Alone, a process gets back what it gave.

    Args:
        share: this rank's samples, as many on every rank.
    """
    return _GatherBatch.apply(share) if dist.is_initialized() and dist.get_world_size() > 1 else share
