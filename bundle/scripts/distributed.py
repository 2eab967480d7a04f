"""Several processes: the same training on every GPU, each on its own samples, with one average gradient.

``DistributedDataParallel`` averages gradients by way of a network's ``forward``; an objective calls its networks by
their parts and several times, so the average is taken here once per step instead. Under ``torchrun`` every function
does its part; in a single process all of them leave everything as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.handlers import MLFlowHandler, StatsHandler
from monai.handlers.tensorboard_handlers import TensorBoardHandler
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch.utils.data import Sampler

from scripts.data import IterationSampler
from scripts.folders import Outcome, report_outcomes
from scripts.handlers import BestModelHandler
from scripts.slab_dataset import SlabDataset

__all__ = [
    "GradientAveragingHandler",
    "RankSampler",
    "handlers_of_rank",
    "report_all_outcomes",
    "share_of_rank",
    "start_process_group",
]

# what logs or writes; savers are not among them, for they see to it that the first rank alone writes
WRITERS = (StatsHandler, TensorBoardHandler, MLFlowHandler, ProgressBar, BestModelHandler)
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


def handlers_of_rank(handlers: Sequence[Any]) -> list[Any]:
    """All handlers on the first rank; on the others those that neither log nor write."""
    return [one for one in handlers if _rank() == 0 or not isinstance(one, WRITERS)]


def share_of_rank(items: Sequence[Any]) -> Sequence[Any]:
    """This rank's items, neighbours: with N ranks, the n-th N-th of them, or one more where they do not divide.

    What is gathered from the ranks in their order has therefore the order of the items.

    Args:
        items: those of all ranks.

    Raises:
        ValueError: when a rank would have none.
    """
    if 0 < len(items) < _world_size():
        raise ValueError(
            f"every process needs a scan, got {len(items)} scans for {_world_size()} processes; start as many at most."
        )
    first, last = (len(items) * rank // _world_size() for rank in (_rank(), _rank() + 1))
    return items[first:last]


def report_all_outcomes(outcomes: Sequence[Outcome], output_dir: PathLike) -> None:
    """:func:`scripts.folders.report_outcomes` of all ranks' scans, on the first rank.

    Args:
        outcomes: of this rank's scans.
        output_dir: where the results are.
    """
    shares = [list(outcomes)] * _world_size()
    if dist.is_initialized():
        dist.all_gather_object(shares, list(outcomes))
    if _rank() == 0:
        report_outcomes(sorted(outcome for share in shares for outcome in share), output_dir)


class RankSampler(Sampler[int]):
    """This rank's share of every batch: with N ranks, the n-th N-th of the samples of each iteration.

    Together the ranks see the batch that one process would see, so that N processes are one process with N times the
    batch, but for batch normalisation, whose statistics are those of each rank's samples.

    Args:
        dataset: its ``batch_size`` is that of all ranks together.
        start: the first iteration; a resumed training sets it to the iterations that are already done.

    Raises:
        ValueError: when the ranks cannot share a batch equally.
    """

    def __init__(self, dataset: SlabDataset, start: int = 0) -> None:
        if dataset.batch_size % _world_size():
            raise ValueError(
                f"the dataset's batch_size must be a multiple of the number of processes, got {dataset.batch_size} and "
                f"{_world_size()}."
            )
        self.batches = IterationSampler(dataset, start)
        self.batch_size = dataset.batch_size
        self.share = dataset.batch_size // _world_size()

    @property
    def start(self) -> int:
        return self.batches.start

    @start.setter
    def start(self, start: int) -> None:
        self.batches.start = start

    def __iter__(self) -> Iterator[int]:
        return (index for index in self.batches if index % self.batch_size // self.share == _rank())

    def __len__(self) -> int:
        return len(self.batches) // _world_size()


class GradientAveragingHandler:
    """Average the gradients of a step over all ranks, before they are clipped: attach it before the clipping."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(AdversarialEvents.GENERATOR_BACKWARD_COMPLETED, self, "g_optimizer")
        engine.add_event_handler(AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, self, "d_optimizer")

    def check(self, engine: Engine) -> None:
        """Refuse what would let the ranks part ways.

        Raises:
            ValueError: when gradients are scaled, for a rank could skip a step by itself.
        """
        if dist.is_initialized() and engine.grad_scaler.is_enabled():
            raise ValueError("amp_dtype must be 'bfloat16' or None with several processes, got 'float16'.")

    def __call__(self, engine: Engine, optimizer: str) -> None:
        if not dist.is_initialized():
            return
        groups = getattr(engine, optimizer).param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= dist.get_world_size()
        for gradient, average in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(average.view_as(gradient))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
