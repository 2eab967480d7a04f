"""Samplers: the order of the samples, in one process or several."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from scripts.data.training import TrainingDataset
from scripts.utils.distributed import rank, world_size

__all__ = ["IterationSampler", "RankSampler"]


class IterationSampler(Sampler[int]):
    """The samples of a :class:`TrainingDataset` in their order, from iteration ``start`` on.

    Args:
        dataset: the dataset.
        start: the first iteration. A resumed training sets it to the number of finished iterations.
    """

    def __init__(self, dataset: TrainingDataset, start: int = 0) -> None:
        self.dataset = dataset
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start * self.dataset.batch_size, len(self.dataset)))

    def __len__(self) -> int:
        return max(0, len(self.dataset) - self.start * self.dataset.batch_size)


class RankSampler(Sampler[int]):
    """This rank's share of every batch.

    Together the ranks see the batch that one process would see. Batch normalisation alone differs, because its
    statistics are those of each rank's samples.

    Args:
        dataset: the dataset, whose ``batch_size`` counts the samples of all ranks together.
        start: see :class:`IterationSampler`.

    Raises:
        ValueError: when the ranks cannot share a batch equally.
    """

    def __init__(self, dataset: TrainingDataset, start: int = 0) -> None:
        if dataset.batch_size % world_size():
            raise ValueError(
                f"the dataset's batch_size must be a multiple of the number of processes, got {dataset.batch_size} and "
                f"{world_size()}. Change --batch_size."
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
