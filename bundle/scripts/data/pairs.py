"""Pairs of any acquisition: an HR crop, and what the interpolation makes of a simulated scan of its whole volume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Identity
from monai.utils import CommonKeys
from scipy.ndimage import binary_fill_holes
from torch import Tensor
from torch.utils.data import Dataset

from scripts.data.acquisitions import AcquisitionRange, named_encodings, scan_of
from scripts.data.crops import draw_informative_start
from scripts.data.scans import Scan, load_scans
from scripts.metrics.quality import foreground_percentile
from scripts.physics.description import PER_AXIS, acquisition_vector
from scripts.physics.output import ANISOTROPY
from scripts.physics.separable import SeparableAcquisition
from scripts.transforms import KSpaceSpacing
from scripts.transforms.contrast import Contrast, draw_contrast
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.utils import spacing

__all__ = ["AnyAcquisitionDataset", "NamedAcquisitionDataset"]


MASKED = 0.3  # share of voxels of exactly 0 from which a scan counts as masked
SMEARED = 0.05  # change of the mask by acquisition and interpolation from which a voxel counts as smeared
WHOLE = (slice(None),) * 3


class Truth(NamedTuple):
    """An HR volume and what is known of it.

    Args:
        volume: ``(H, W, D)``.
        subject: its name.
        mask: where it holds tissue; None for a scan without a mask.
        voxel: spacing in mm, without that of a coarse axis.
        fine_axes: the only two axes whose resolution may be lowered; None for all.
    """

    volume: Tensor
    subject: str
    mask: Tensor | None
    voxel: Sequence[float] = (1.0,)
    fine_axes: Sequence[int] | None = None


class Acquired(NamedTuple):
    """A scan of a whole volume, simulated or real, from which crops are interpolated."""

    truth: Truth
    contrast: Contrast
    scan: SeparableAcquisition
    y: Tensor
    mask: Tensor | None
    scale: float

    def crop(self, window: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        """Interpolated crop, HR crop and their weight ``(1, h, w, d)``, and the description ``(K,)``."""
        image = self.scan.interpolate(self.y, window) / self.scale
        label = self.contrast.apply(self.truth.volume, window) / self.scale
        weight = torch.ones_like(label)
        if self.truth.mask is not None:
            change = self.scan.interpolate(self.mask, window) - 1
            weight *= self.truth.mask[tuple(window)] & (change.abs() < SMEARED)
        pair = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label, "weight": weight}
        told = acquisition_vector(self.scan.encodings, self.scan.voxel)
        return {**{key: value[None] for key, value in pair.items()}, "acquisition": told}


class AnyAcquisitionDataset(Dataset):
    """Random crops of interpolated scans and of their HR truths, with acquisition and contrast drawn.

    A sample ``{"image", "label", "weight", "acquisition", "image_subject"}`` holds crops ``(1, h, w, d)`` at any voxel,
    and the vector that describes the acquisition. The intensity scale is that of the simulated scan, as in inference.
    The weight is 0 where a masked scan has no tissue, or where the acquisition smears the edge of its mask.

    Each scan is brought to several output spacings once, before the training. A volume is acquired as a whole, then
    ``repeats`` iterations take a crop from it. A sample still depends on the seed, the iteration and its index alone.

    Real scans have no truth. Their samples have weight 0 and their own image as the label, for a teacher to teach on.

    Args:
        data: items with the file of an HR scan under ``reals``, and optionally the name of the ``subject``. The scans
            of a subject share its turn. A scan that is coarse along one axis keeps its grid. Only the resolution along
            its two others is lowered.
        transform: makes a volume (1, H, W, D) of each file.
        num_iterations: number of batches.
        acquisitions: what is drawn.
        intensity_transform: scales the volumes so that bright tissue is at about 1. None if ``transform`` does.
        spacings: smallest and largest output spacing in mm.
        copies: output spacings per scan. The first is the finest that the scan allows.
        contrast: shares and strength, see :func:`scripts.transforms.contrast.draw_contrast`.
        crop_size: voxels of a crop along each axis. A smaller volume is padded by voxels without weight.
        batch_size: samples per iteration. The subjects of a batch differ if there are enough.
        repeats: iterations that crop the same simulated scan.
        widening: iterations until the whole range of acquisitions is drawn; 0 for the whole range at once.
        scans: items with the file of a real scan under ``image``. Their subjects take turns like all others.
        scan_transform: makes of such a file what :class:`scripts.transforms.InterpolateAcquiredd` makes.
        seed: seed of all draws.
        progress: whether to show a progress bar while loading.

    Raises:
        ValueError: when there is no scan.
    """

    def __init__(
        self,
        data: Sequence[Mapping],
        transform: Callable,
        num_iterations: int,
        acquisitions: AcquisitionRange,
        intensity_transform: Callable | None = None,
        spacings: Sequence[float] = (0.6, 1.4),
        copies: int = 3,
        contrast: Mapping[str, float] | None = None,
        crop_size: int = 48,
        batch_size: int = 4,
        repeats: int = 8,
        widening: int = 0,
        scans: Sequence[Mapping] = (),
        scan_transform: Callable | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.num_iterations, self.acquisitions, self.contrast = num_iterations, acquisitions, dict(contrast or {})
        self.crop_size, self.batch_size, self.repeats, self.widening = crop_size, batch_size, repeats, widening
        self.seed = seed
        self.truths: dict[str, list[Truth]] = {}
        self.high_res_volumes: list[Tensor] = []
        for scan in load_scans(data, transform, {"reals": "high-resolution"}, progress)["reals"]:
            made = [self._truth(scan, one, intensity_transform) for one in _spacings(scan, spacings, copies)]
            self.truths.setdefault(scan.subject, []).extend(made)
            self.high_res_volumes.append(made[0].volume)
        self.scans: dict[str, list[Acquired]] = {}
        if scans:
            real = load_scans(scans, scan_transform, {"image": "low-resolution", "acquired": "acquired"}, progress)
            for image, acquired in zip(real["image"], real["acquired"], strict=True):
                self.scans.setdefault(image.subject, []).append(_without_truth(image, acquired, crop_size))
        self.subjects = [*dict.fromkeys([*self.truths, *self.scans])]
        self._acquired: dict[int, tuple[int, Acquired]] = {}
        self.low_res_volumes: list[Tensor] = []  # there is no group of LR scans

    @property
    def ranges(self) -> dict[str, tuple[float | None, float | None]]:
        """What the training draws, see :func:`scripts.transforms.familiarity.save_group_statistics`."""
        voxels = [mm for copies in self.truths.values() for truth in copies for mm in truth.voxel]
        return {"output_spacing": (min(voxels), max(voxels)), **self.acquisitions.ranges}

    def _truth(self, scan: Scan, wanted: float | None, intensity_transform: Callable | None) -> Truth:
        mask = _mask(scan.volume[0].as_tensor())
        coarsen = Identity() if wanted is None else KSpaceSpacing([wanted] * 3)
        volume = coarsen(scan.volume)
        if mask is not None:
            mask = (coarsen(scan.volume.clone().copy_(mask)) > 0.5)[0].as_tensor()
        if intensity_transform is not None:
            volume = intensity_transform({"reals": volume})["reals"]
        fine, voxel = _fine_axes(scan), spacing(volume)
        seen = voxel[fine or [0, 1, 2]].tolist()
        return _padded(Truth(volume[0].as_tensor().contiguous(), scan.subject, mask, seen, fine), self.crop_size)

    def __len__(self) -> int:
        return self.batch_size * self.num_iterations

    def __getitem__(self, i: int) -> dict:
        if not 0 <= i < len(self):
            raise IndexError(f"index must be in [0, {len(self) - 1}], got {i}.")
        iteration, index = divmod(i, self.batch_size)
        acquired = self._scan(iteration, index)
        rng = np.random.default_rng((self.seed, iteration, 1 + index))
        sample = acquired.crop(self._window(acquired.truth.volume, rng))
        order, flips = rng.permutation(3), [1 + axis for axis in range(3) if rng.random() < 0.5]
        told = sample.pop("acquisition").reshape(3, PER_AXIS)[torch.as_tensor(order)].flatten()
        crops = {key: crop.permute(0, *(1 + order)).flip(flips).contiguous() for key, crop in sample.items()}
        return {**crops, "acquisition": told, "image_subject": acquired.truth.subject}

    def _scan(self, iteration: int, index: int) -> Acquired:
        """The simulated scan that a sample is cut from. The scans of a batch change at different iterations."""
        block = (iteration + index * self.repeats // self.batch_size) // self.repeats
        if self._acquired.get(index, (None, None))[0] != block:
            self._acquired[index] = block, self._acquire(block, index)
        return self._acquired[index][1]

    def _acquire(self, block: int, index: int) -> Acquired:
        # no sample has a negative iteration, so these streams are not those of the crops
        order, rng = (np.random.default_rng((self.seed, block, stream, 1)) for stream in (0, 1 + index))
        subject = self.subjects[order.permutation(len(self.subjects))[index % len(self.subjects)]]
        copies = [*self.truths.get(subject, []), *self.scans.get(subject, [])]
        truth = copies[rng.integers(len(copies))]
        if isinstance(truth, Acquired):
            return truth
        contrast = draw_contrast(rng, **self.contrast)
        breadth = min(1.0, block * self.repeats / self.widening) if self.widening else 1.0
        drawn = self.acquisitions.draw(rng, breadth, truth.fine_axes)
        scan = scan_of(drawn.encodings, truth.volume.shape)
        y = drawn.disturb(scan.acquire(contrast.apply(truth.volume)))
        mask = None if truth.mask is None else scan.acquire(truth.mask.float())
        return Acquired(truth, contrast, scan, y, mask, foreground_percentile(y))

    def _window(self, volume: Tensor, rng: np.random.Generator) -> list[slice]:
        """Draw a crop that shows anatomy, see :func:`scripts.data.crops.is_informative`."""

        def window(start: Sequence[int]) -> list[slice]:
            return [slice(first, first + self.crop_size) for first in start]

        size = [self.crop_size] * 3
        return window(
            draw_informative_start(volume.shape, size, (1, 1, 1), rng, lambda start: volume[tuple(window(start))])
        )


class NamedAcquisitionDataset(Dataset):
    """Whole interpolated scans and their HR truths, one for each scan and each named acquisition, for validation.

    An item ``{"image", "label", "weight", "acquisition", "name"}`` is as in :class:`AnyAcquisitionDataset`, without
    noise and with the contrast of the scan.

    Args:
        data: items with the file of an HR scan under ``label``.
        transform: makes a volume (1, H, W, D) of each file.
        acquisitions: what :func:`scripts.data.acquisitions.named_encodings` takes, by name.

    Raises:
        ValueError: when there is no scan.
    """

    def __init__(self, data: Sequence[Mapping], transform: Callable, acquisitions: Mapping[str, Sequence]) -> None:
        self.data = data
        scans = load_scans(data, transform, {"label": "high-resolution"}, progress=False)["label"] if data else []
        self.truths = [Truth(one.volume[0].as_tensor(), one.subject, _mask(one.volume[0].as_tensor())) for one in scans]
        self.encodings = {name: named_encodings(axes) for name, axes in acquisitions.items()}

    def __len__(self) -> int:
        return len(self.truths) * len(self.encodings)

    def __getitem__(self, i: int) -> dict:
        place, which = divmod(i, len(self.encodings))
        truth, (name, encodings) = self.truths[place], list(self.encodings.items())[which]
        scan = scan_of(encodings, truth.volume.shape)
        y = scan.acquire(truth.volume)
        mask = None if truth.mask is None else scan.acquire(truth.mask.float())
        pair = Acquired(truth, Contrast(), scan, y, mask, foreground_percentile(y)).crop()
        return {**pair, "name": name, "image_subject": truth.subject}


def _without_truth(image: Scan, acquired: Scan, size: int) -> Acquired:
    """A real scan on its output grid, which is at least as large as a crop. No voxel has a weight."""
    grid = acquisition_of(image.volume)
    grid = replace(grid, shape=tuple(max(n, size) for n in grid.shape))
    y = acquired.volume[0].as_tensor()
    y = y / foreground_percentile(y)
    volume = grid.interpolate(y)
    truth = Truth(volume, image.subject, torch.zeros_like(volume, dtype=torch.bool))
    return Acquired(truth, Contrast(), grid, y, torch.zeros_like(y), 1.0)


def _fine_axes(scan: Scan) -> list[int] | None:
    """The two fine axes of a scan that is coarse along the third; None for a scan without such an axis."""
    voxel = spacing(scan.volume)
    finest, fine, coarse = np.argsort(voxel).tolist()
    return sorted((finest, fine)) if voxel[coarse] >= ANISOTROPY * voxel[fine] else None


def _spacings(scan: Scan, allowed: Sequence[float], copies: int) -> Sequence[float | None]:
    """Output spacings of a scan in mm, from its own to the coarsest, evenly in their logarithm. None keeps its grid."""
    if _fine_axes(scan) is not None:
        return [None]
    finest = max(allowed[0], float(spacing(scan.volume).max()))
    if finest >= allowed[1]:
        return [finest]
    return np.geomspace(finest, allowed[1], copies + 1)[:copies].tolist()


def _padded(truth: Truth, size: int) -> Truth:
    """Append voxels without tissue to the axes that are shorter than a crop."""
    missing = [max(0, size - n) for n in truth.volume.shape]
    if not any(missing):
        return truth
    mask = torch.ones_like(truth.volume, dtype=torch.bool) if truth.mask is None else truth.mask
    pad = [number for n in reversed(missing) for number in (0, n)]
    return truth._replace(volume=F.pad(truth.volume, pad), mask=F.pad(mask, pad))


def _mask(volume: Tensor) -> Tensor | None:
    """Where a masked volume ``(H, W, D)`` holds tissue; None for a volume without a mask."""
    outside = volume == 0
    if outside.float().mean() < MASKED:
        return None
    return torch.as_tensor(binary_fill_holes(~outside.numpy()))
