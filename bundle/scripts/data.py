"""Unpaired data: slabs of high-resolution source and low-resolution target volumes, drawn reproducibly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from scripts.datalist import unpaired_datalist
from scripts.transforms import KSpaceSpacing

__all__ = [
    "IterationSampler",
    "UnpairedSlabDataset",
    "crop_slab",
    "draw_slab",
    "draw_start",
    "is_informative",
    "unpaired_datalist",
]

logger = logging.getLogger(__name__)

GROUPS = {"image": "low-resolution target", "reals": "high-resolution source"}
REDRAWS = 20


class Scan(NamedTuple):
    """One volume of a group, (1, H, W, D), with the names that its messages need."""

    subject: str
    file: str
    volume: MetaTensor


def draw_start(rng: np.random.Generator, shape: Sequence[int], size: Sequence[int], step: Sequence[int]) -> list[int]:
    """Draw where a slab starts, uniformly on the low-resolution grid.

    Args:
        rng: source of randomness.
        shape: sizes of the volume.
        size: sizes of the slab.
        step: voxels of this volume per low-resolution voxel along each axis (1 for a low-resolution volume), so that
            every slab starts on a low-resolution voxel.
    """
    return [s * int(rng.integers((n - w) // s + 1)) for n, w, s in zip(shape, size, step, strict=True)]


def crop_slab(volume: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cut a slab out of a volume (H, W, D) and make its slices the channels, (d, h, w), in their order along D."""
    for axis, (begin, length) in enumerate(zip(start, size, strict=True)):
        volume = volume.narrow(axis, begin, length)
    return volume.movedim(-1, 0).contiguous()


def is_informative(slab: Tensor) -> bool:
    """Whether a slab, of intensities such that bright tissue is about 1, shows more than air.

    The rule of the papers' authors with higher bounds (theirs: 0.005 and 0.05): their scans are masked, whereas the air
    of a raw scan holds noise of a few hundredths.
    """
    return bool(slab.std() >= 0.05 or slab.mean() > 0.1)


def draw_slab(volume: Tensor, size: Sequence[int], step: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Draw a slab that shows anatomy: the first informative one of a few, or else the most varied of them.

    Args:
        volume: tensor (H, W, D), slab axis last.
        size: sizes (h, w, d) of the slab.
        step: see :func:`draw_start`.
        rng: source of randomness.

    Returns:
        tensor (d, h, w).
    """
    slabs: list[Tensor] = []
    for _ in range(REDRAWS):
        slabs.append(crop_slab(volume, draw_start(rng, volume.shape, size, step), size))
        if is_informative(slabs[-1]):
            return slabs[-1]
    return max(slabs, key=lambda slab: float(slab.std()))


class UnpairedSlabDataset(Dataset):
    """Random slabs of a low-resolution target volume and of an unrelated high-resolution source volume.

    All volumes are transformed once, checked, and kept in memory. A sample then depends on (seed, iteration, index in
    the batch) only: neither the number of workers nor a resumed training changes it. The length is a budget of
    iterations, whatever the number of volumes.

    Args:
        data: items with the file of a target scan under ``image``, of a source scan under ``reals``, or both, and
            optionally the name of the ``subject``.
        transform: makes a volume (1, H, W, D) in the canonical frame of each file; it must allow missing keys.
        scale_factor: integer ratio of target to source spacing along each axis of the canonical frame.
        num_iterations: how many batches there are.
        intensity_transform: applied to each item after its spacing was matched, so that an intensity scale is measured
            at the resolution that the networks see; it must allow missing keys. ``None`` when ``transform`` does that.
        patch_size: in-plane sizes of a low-resolution slab, in voxels.
        slab_size: slices of a low-resolution slab.
        batch_size: samples per iteration; one batch holds different subjects as far as there are enough.
        seed: of all draws.
        slab_axes: the axes of the canonical frame, in [0, 2], across which slabs are cut, drawn per sample. Axes other
            than the last need equal scale factors.
        flip: mirror the slabs of either group at random along each axis. This is safe only because nothing pairs the
            groups: mirrored, a low-resolution voxel no longer sits on high-resolution voxel 2l.
        spacing_tolerance: relative deviation that still counts as the same spacing.
        progress: whether to show a progress bar while loading.

    Raises:
        ValueError: when a group is empty, a volume is too small, a source spacing is too coarse, ``scale_factor`` is
            not whole, or ``slab_axes`` do not go with it.
    """

    def __init__(
        self,
        data: Sequence[Mapping],
        transform: Callable,
        scale_factor: Sequence[int],
        num_iterations: int,
        intensity_transform: Callable | None = None,
        patch_size: Sequence[int] = (64, 64),
        slab_size: int = 3,
        batch_size: int = 8,
        seed: int = 0,
        slab_axes: Sequence[int] = (2,),
        flip: bool = False,
        spacing_tolerance: float = 0.1,
        progress: bool = True,
    ) -> None:
        _check_axes(slab_axes, scale_factor)
        self.step = {"image": (1, 1, 1), "reals": tuple(scale_factor)}
        self.size = {k: [s * n for s, n in zip(self.step[k], (*patch_size, slab_size), strict=True)] for k in GROUPS}
        self.num_iterations, self.batch_size, self.seed = num_iterations, batch_size, seed
        self.slab_axes, self.flip = tuple(slab_axes), flip
        scans = _load(data, transform, progress)
        spacing = _common_spacing(scans["image"], spacing_tolerance)
        scans["reals"] = _match_spacing(scans["reals"], spacing / scale_factor, spacing_tolerance)
        self.volumes = {key: self._prepare(key, scans.pop(key), intensity_transform) for key in GROUPS}

    def _prepare(self, key: str, scans: list[Scan], intensity_transform: Callable | None) -> dict[str, list[Tensor]]:
        """Scale, check and file the volumes (H, W, D) of a group by subject."""
        volumes: dict[str, list[Tensor]] = {}
        for scan in scans:
            volume = scan.volume if intensity_transform is None else intensity_transform({key: scan.volume})[key]
            for axis in self.slab_axes:
                _check_size(scan.file, key, slab_axis_last(volume[0], axis).shape, self.size[key])
            volumes.setdefault(scan.subject, []).append(torch.as_tensor(volume[0].as_tensor(), dtype=torch.float32))
        return volumes

    def __len__(self) -> int:
        return self.batch_size * self.num_iterations

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < len(self):
            raise IndexError(f"index must be in [0, {len(self) - 1}], got {i}.")
        iteration, index = divmod(i, self.batch_size)
        # NumPy seeds (a, b) and (a, b, 0) alike: stream 0 orders the batch, streams 1, 2, ... are the samples' own
        order, rng = (np.random.default_rng((self.seed, iteration, stream)) for stream in (0, 1 + index))
        axis = self.slab_axes[rng.integers(len(self.slab_axes))]
        sample = {}
        for key in GROUPS:
            subjects = list(self.volumes[key])
            subject = subjects[order.permutation(len(subjects))[index % len(subjects)]]
            volumes = self.volumes[key][subject]
            volume = slab_axis_last(volumes[rng.integers(len(volumes))], axis)
            slab = draw_slab(volume, self.size[key], self.step[key], rng)
            sample[key] = slab.flip([d for d in range(3) if rng.random() < 0.5]) if self.flip else slab
            sample[f"{key}_subject"] = subject
        return sample


class IterationSampler(Sampler[int]):
    """The samples of an :class:`UnpairedSlabDataset` in order, from iteration ``start`` on.

    Args:
        dataset: the dataset.
        start: the first iteration; a resumed training sets it to the iterations that are already done.
    """

    def __init__(self, dataset: UnpairedSlabDataset, start: int = 0) -> None:
        self.dataset = dataset
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start * self.dataset.batch_size, len(self.dataset)))

    def __len__(self) -> int:
        return max(0, len(self.dataset) - self.start * self.dataset.batch_size)


def slab_axis_last(volume: Tensor, axis: int) -> Tensor:
    """Rotate the axes of a volume (H, W, D) cyclically until ``axis`` is last."""
    return volume.permute([(axis + 1 + d) % 3 for d in range(3)])


def _check_axes(slab_axes: Sequence[int], scale_factor: Sequence[int]) -> None:
    if len(scale_factor) != 3 or any(int(s) != s or s < 1 for s in scale_factor):
        raise ValueError(f"scale_factor must be three whole numbers of at least 1, got {list(scale_factor)}.")
    if not slab_axes or not set(slab_axes) <= {0, 1, 2}:
        raise ValueError(f"slab_axes must name one or more of the axes 0, 1 and 2, got {list(slab_axes)}.")
    if set(slab_axes) != {2} and len(set(scale_factor)) > 1:
        raise ValueError(
            f"slab_axes must be [2] when the scale factors differ, got {list(slab_axes)} with {list(scale_factor)}: "
            "another slab axis would give the network other scale factors."
        )


def _load(data: Sequence[Mapping], transform: Callable, progress: bool) -> dict[str, list[Scan]]:
    """Transform every item once, before any training."""
    scans: dict[str, list[Scan]] = {key: [] for key in GROUPS}
    for item in tqdm(data, desc="Loading scans", disable=not progress):
        volumes = transform(dict(item))
        for key in GROUPS:
            if key in volumes:
                file = str(volumes[key].meta.get("filename_or_obj", item[key]))
                scans[key].append(Scan(str(item.get("subject", file)), file, volumes[key]))
    for key in GROUPS:
        if not scans[key]:
            raise ValueError(
                f"data must hold at least one {GROUPS[key]} scan (`{key}`), got none in {len(data)} items."
            )
    return scans


def _common_spacing(scans: Sequence[Scan], tolerance: float) -> np.ndarray:
    """The median spacing (mm) of the target group, in which scans of another one stay, but are reported."""
    spacings = np.asarray([scan.volume.pixdim.numpy() for scan in scans])
    median = np.median(spacings, axis=0)
    for scan, spacing in zip(scans, spacings, strict=True):
        if np.any(np.abs(spacing / median - 1) > tolerance):
            logger.warning(
                f"{scan.file}: spacing {spacing.round(3)} mm, but the target's median is {median.round(3)} mm."
            )
    return median


def _match_spacing(scans: Sequence[Scan], spacing: np.ndarray, tolerance: float) -> list[Scan]:
    """Bring source scans to ``spacing`` (mm) by truncating their k-space, or refuse those that are coarser."""
    match = KSpaceSpacing(spacing.tolist(), tolerance)
    try:
        return [scan._replace(volume=match(scan.volume)) for scan in scans]
    except ValueError as error:
        raise ValueError(
            f"{error} The source group needs the target's median spacing over the scale factor."
        ) from error


def _check_size(file: str, key: str, shape: Sequence[int], size: Sequence[int]) -> None:
    if any(n < w for n, w in zip(shape, size, strict=True)):
        raise ValueError(
            f"{file}: `{key}` must have at least {list(size)} voxels (patch, patch, slab) to cut slabs from, got "
            f"{list(shape)}. Choose a smaller patch_size or slab_size, or leave the scan out."
        )
