"""Datasets: random slabs or crops of unpaired or paired volumes for training, and scans for inference."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from monai.data import Dataset
from monai.utils import CommonKeys

from scripts.data.crops import Crops, Slabs, slab_axis_last
from scripts.data.scans import common_spacing, load_scans, match_spacing
from scripts.data.training import TrainingDataset
from scripts.transforms import DeclareHighResGrid
from scripts.transforms.grid import CheckSameGridd
from scripts.transforms.saving import RECORD, Derivatives
from scripts.utils.errors import explain

__all__ = ["PairedDataset", "ScanDataset", "UnpairedDataset"]

logger = logging.getLogger(__name__)


class UnpairedDataset(TrainingDataset):
    """Random samples of a low-resolution (LR) target volume and of an unrelated high-resolution (HR) source volume.

    All volumes are transformed and checked once, before the training. A sample ``{"image", "reals"}`` holds slabs or
    crops, see :class:`TrainingDataset`.

    Args:
        data: items with the file of a target scan under ``image`` or of a source scan under ``reals``, and optionally
            the name of the ``subject``.
        transform: makes a volume (1, H, W, D) in the canonical frame of each file. It must allow missing keys.
        cut: how samples are cut. Its scale factors are the ratio of target to source spacing.
        num_iterations: number of batches.
        intensity_transform: applied to each item after its spacing was matched, so that it measures intensities at the
            resolution that the networks see. It must allow missing keys. None if ``transform`` scales intensities.
        batch_size: see :class:`TrainingDataset`.
        seed: see there.
        last_axes: see there.
        flip: mirror the samples of either group at random along each axis. Only unpaired ones may be mirrored, because
            a mirrored LR voxel l no longer lies on HR voxel s l.
        spacing_tolerance: relative deviation within which two spacings count as the same.
        progress: whether to show a progress bar while loading.

    Raises:
        ValueError: when a group is empty, a volume is too small, a source spacing is too coarse, a scale factor is not
            whole, or ``last_axes`` do not fit it.
    """

    groups: ClassVar = {"image": "low-resolution target", "reals": "high-resolution source"}

    def __init__(
        self,
        data: Sequence[Mapping],
        transform: Callable,
        cut: Slabs | Crops,
        num_iterations: int,
        intensity_transform: Callable | None = None,
        batch_size: int = 8,
        seed: int = 0,
        last_axes: Sequence[int] = (2,),
        flip: bool = False,
        spacing_tolerance: float = 0.1,
        progress: bool = True,
    ) -> None:
        super().__init__(cut, num_iterations, batch_size, seed, last_axes)
        self.flip = flip
        scans = load_scans(data, transform, self.groups, progress)
        spacing = common_spacing(scans["image"], spacing_tolerance)
        scans["reals"] = match_spacing(scans["reals"], spacing / cut.scale_factor, spacing_tolerance)
        self._keep(scans, intensity_transform)

    def _draw(self, choose: Callable[[Iterable[str]], str], axis: int, rng: np.random.Generator) -> dict:
        sample = {}
        for key, group in self.volumes.items():
            subject = choose(group)
            volume = slab_axis_last(group[subject][rng.integers(len(group[subject]))], axis)
            low_res = key == self.low_res_key
            one = self.cut.cut(volume, low_res, self.cut.draw(volume, low_res, rng))
            sample[key] = one.flip([-d for d in (1, 2, 3) if rng.random() < 0.5]) if self.flip else one
            sample[f"{key}_subject"] = subject
        return sample


class PairedDataset(TrainingDataset):
    """Random samples of pairs, from the same place of an LR volume and of its HR reference.

    A sample ``{"image", "label"}`` holds slabs or crops, see :class:`TrainingDataset`. They are not mirrored, because
    that would break the common grid of a pair.

    Args:
        data: items with files, and optionally the name of the ``subject``.
        transform: makes a pair of volumes (1, H, W, D) of each item, ``image`` (LR) and ``label`` (HR), in the
            canonical frame. LR voxel l must lie on HR voxel s l, where s are the scale factors of ``cut``.
        cut: see :class:`TrainingDataset`.
        num_iterations: see there.
        intensity_transform: applied to each volume. None if ``transform`` scales intensities.
        batch_size: see :class:`TrainingDataset`.
        seed: see there.
        last_axes: see there.
        copies: number of pairs to make of each item, for a random ``transform``.
        progress: whether to show a progress bar while loading.

    Raises:
        ValueError: when an item is no pair, the two grids do not fit, a volume is too small, a scale factor is not
            whole, or ``last_axes`` do not fit it.
    """

    groups: ClassVar = {"image": "low-resolution", "label": "high-resolution reference"}

    def __init__(
        self,
        data: Sequence[Mapping],
        transform: Callable,
        cut: Slabs | Crops,
        num_iterations: int,
        intensity_transform: Callable | None = None,
        batch_size: int = 8,
        seed: int = 0,
        last_axes: Sequence[int] = (2,),
        copies: int = 1,
        progress: bool = True,
    ) -> None:
        super().__init__(cut, num_iterations, batch_size, seed, last_axes)
        self.copies = copies
        scans = load_scans([*data] * copies, lambda item: _checked_pair(item, transform), self.groups, progress)
        declare, check = DeclareHighResGrid(cut.scale_factor), CheckSameGridd("label", image_key="image")
        for image, label in zip(scans["image"], scans["label"], strict=True):
            check({"image": declare(image.volume), "label": label.volume})
        self._keep(scans, intensity_transform)

    def _draw(self, choose: Callable[[Iterable[str]], str], axis: int, rng: np.random.Generator) -> dict:
        subject = choose(self.volumes["image"])
        pairs = list(zip(self.volumes["image"][subject], self.volumes["label"][subject], strict=True))
        image, label = (slab_axis_last(volume, axis) for volume in pairs[rng.integers(len(pairs))])
        start = self.cut.draw(image, True, rng)
        return {
            "image": self.cut.cut(image, True, start),
            "label": self.cut.cut(label, False, start),
            "image_subject": subject,
        }


def _checked_pair(item: Mapping, transform: Callable) -> Mapping:
    volumes = transform(item)
    if not {"image", "label"} <= volumes.keys():
        raise ValueError(
            f"an item of paired data must become `image` and `label`, got the keys {sorted(volumes)}. "
            "Leave the item out, or train without pairs."
        )
    return volumes


SCAN, FAULT, LEFT_OUT = "scan", "fault", "left_out"


class ScanDataset(Dataset):
    """MONAI's ``Dataset`` for scans, whose items report faults and finished results instead of raising errors.

    An item has the path under ``scan``. A scan that cannot be read has the reason under ``fault``. A scan with a
    finished result has its record instead of a volume. A scan that is left out has the reason under ``left_out``.

    Args:
        data: items with a path under ``image``. A known fault has its reason under ``fault``. A scan that is not to be
            processed has its reason under ``left_out``.
        transform: makes the volume of an item.
        derivatives: finds finished results. None makes every result again.

    Example:
        >>> ScanDataset([{"image": "scan.nii", "fault": "two scans share this name"}], transform=None)[0]
        {'scan': 'scan.nii', 'fault': 'two scans share this name'}
    """

    def __init__(self, data: Sequence[Mapping], transform: Any, derivatives: Derivatives | None = None) -> None:
        super().__init__(data, transform)
        self.derivatives = derivatives

    def _transform(self, index: int) -> dict[str, Any]:
        item = dict(self.data[index])
        named = {SCAN: item[CommonKeys.IMAGE]}
        for key in (key for key in (FAULT, LEFT_OUT) if key in item):
            return {**named, key: item[key]}
        try:
            record = None if self.derivatives is None else self.derivatives.finished(item[CommonKeys.IMAGE])
            if record is not None:
                return {**named, RECORD: json.dumps(record)}  # a text, so that it can be collated
            return {**named, **super()._transform(index)}
        except Exception as error:
            logger.debug("%s", named[SCAN], exc_info=error)
            return {**named, FAULT: explain(error)}
