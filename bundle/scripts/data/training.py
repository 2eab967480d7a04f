"""The base of the training datasets: a budget of iterations, reproducible draws, and volumes in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scripts.data.crops import Crops, Slabs, slab_axis_last
from scripts.data.scans import Scan, check_size

__all__ = ["TrainingDataset"]


class TrainingDataset(Dataset, ABC):
    """Random slabs or crops of volumes that are kept in memory.

    A sample depends on the seed, the iteration and its index in the batch alone. Neither the number of workers nor a
    resumed training changes it. The length is a budget of iterations, whatever the number of volumes.

    Args:
        cut: how samples are cut, :class:`scripts.data.crops.Slabs` or :class:`scripts.data.crops.Crops`.
        num_iterations: number of batches.
        batch_size: samples per iteration. The subjects of a batch differ if there are enough.
        seed: seed of all draws.
        last_axes: axes of the canonical frame, in [0, 2], which come last in a sample. One is drawn per sample. Axes
            other than the last need equal scale factors.

    Raises:
        ValueError: when the scale factors are not whole, or ``last_axes`` do not fit it.
    """

    groups: ClassVar[dict[str, str]]
    """The name of the scans under each key, LR first."""

    def __init__(
        self,
        cut: Slabs | Crops,
        num_iterations: int,
        batch_size: int,
        seed: int,
        last_axes: Sequence[int],
    ) -> None:
        _check_axes(last_axes, cut.scale_factor)
        self.cut = cut
        self.low_res_key = next(iter(self.groups))
        self.num_iterations, self.batch_size, self.seed = num_iterations, batch_size, seed
        self.last_axes = tuple(last_axes)
        self.volumes: dict[str, dict[str, list[Tensor]]] = {}
        self.copies = 1
        self.low_res_spacings: list[list[float]] = []

    def _keep(self, scans: Mapping[str, Sequence[Scan]], intensity_transform: Callable | None) -> None:
        """Keep the volumes of each group.

        Raises:
            ValueError: when a volume is too small.
        """
        self.volumes = {key: self._prepare(key, scans[key], intensity_transform) for key in self.groups}
        spacings: dict[str, list[list[float]]] = {}
        for scan in scans[self.low_res_key]:
            spacings.setdefault(scan.subject, []).append(scan.volume.pixdim.tolist())
        self.low_res_spacings = self._each_once(spacings)

    def _each_once(self, by_subject: Mapping[str, Sequence[Any]]) -> list[Any]:
        """One value per scan, without its copies, which come after the scans of their subject."""
        return [one for several in by_subject.values() for one in several[: len(several) // self.copies]]

    def _prepare(
        self, key: str, scans: Sequence[Scan], intensity_transform: Callable | None
    ) -> dict[str, list[Tensor]]:
        """Scale and check the volumes (H, W, D) of a key, and sort them by subject."""
        volumes: dict[str, list[Tensor]] = {}
        for scan in scans:
            volume = scan.volume if intensity_transform is None else intensity_transform({key: scan.volume})[key]
            for axis in self.last_axes:
                check_size(scan.file, key, slab_axis_last(volume[0], axis).shape, self.cut, key == self.low_res_key)
            volumes.setdefault(scan.subject, []).append(torch.as_tensor(volume[0].as_tensor(), dtype=torch.float32))
        return volumes

    @property
    def low_res_volumes(self) -> list[Tensor]:
        """The LR volume (H, W, D) of every scan."""
        return self._each_once(self.volumes[self.low_res_key])

    @property
    def high_res_volumes(self) -> list[Tensor]:
        """The HR volume (H, W, D) of every scan."""
        return self._each_once(self.volumes[list(self.groups)[-1]])

    def __len__(self) -> int:
        return self.batch_size * self.num_iterations

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < len(self):
            raise IndexError(f"index must be in [0, {len(self) - 1}], got {i}.")
        iteration, index = divmod(i, self.batch_size)
        # stream 0 orders the batch, each sample has one of the streams 1, 2, ...: NumPy seeds (a, b) like (a, b, 0)
        order, rng = (np.random.default_rng((self.seed, iteration, stream)) for stream in (0, 1 + index))
        axis = self.last_axes[rng.integers(len(self.last_axes))]

        def choose(subjects: Iterable[str]) -> str:
            names = list(subjects)
            return names[order.permutation(len(names))[index % len(names)]]

        return self._draw(choose, axis, rng)

    @abstractmethod
    def _draw(self, choose: Callable[[Iterable[str]], str], axis: int, rng: np.random.Generator) -> dict:
        """Draw one sample.

        Args:
            choose: picks this sample's subject, so that the subjects of a batch differ.
            axis: the axis that comes last.
            rng: source of all other randomness.
        """


def _check_axes(last_axes: Sequence[int], scale_factor: Sequence[int]) -> None:
    if len(scale_factor) != 3 or any(int(s) != s or s < 1 for s in scale_factor):
        raise ValueError(
            f"scale_factor must be three whole numbers of at least 1, got {list(scale_factor)}. Correct --scale_factor."
        )
    if not last_axes or not set(last_axes) <= {0, 1, 2}:
        raise ValueError(
            f"last_axes must name one or more of the axes 0, 1 and 2, got {list(last_axes)}. Correct --last_axes."
        )
    if set(last_axes) != {2} and len(set(scale_factor)) > 1:
        raise ValueError(
            f"last_axes must be [2] when the scale factors differ, got {list(last_axes)} with {list(scale_factor)}. "
            "Set --last_axes [2], because another axis would change the network's scale factors."
        )
