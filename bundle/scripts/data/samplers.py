"""Samplers: which samples come when, in one process or several."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from scripts.data.slabs import SlabDataset
from scripts.utils.distributed import rank, world_size

__all__ = ["IterationSampler", "RankSampler"]


class IterationSampler(Sampler[int]):
    """The samples of an :class:`SlabDataset` in order, from iteration ``start`` on.

    Args:
        dataset: the dataset.
        start: the first iteration; a resumed training sets it to the iterations that are already done.
    """

    def __init__(self, dataset: SlabDataset, start: int = 0) -> None:
        self.dataset = dataset
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start * self.dataset.batch_size, len(self.dataset)))

    def __len__(self) -> int:
        return max(0, len(self.dataset) - self.start * self.dataset.batch_size)


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
        if dataset.batch_size % world_size():
            raise ValueError(
                f"the dataset's batch_size must be a multiple of the number of processes, got {dataset.batch_size} and "
                f"{world_size()}."
            )
        self.batches = IterationSampler(dataset, start)
        self.batch_size = dataset.batch_size
        self.share = dataset.batch_size // world_size()

    @property
    def start(self) -> int:
        return self.batches.start

    @start.setter
    def start(self, start: int) -> None:
        self.batches.start = start

    def __iter__(self) -> Iterator[int]:
        return (index for index in self.batches if index % self.batch_size // self.share == rank())

    def __len__(self) -> int:
        return len(self.batches) // world_size()
