"""Demonstration cohort: brain-like T1-weighted subjects, made from the ICBM152 maps that nilearn ships.

The maps average 152 subjects and are too smooth for learning resolution. Each generated subject therefore warps them
and folds the cortex along the zero crossings of a random field. It decides between the tissues on a grid finer than
that of its scan, so that borders are about as sharp as in life. The scan truncates the k-space of that anatomy. It has
detail up to its Nyquist frequency, and ringing. The subjects are brain-extracted. They resemble no real subject and
prove nothing about patients.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from scripts.physics.filters import acquisition_window
from scripts.physics.kspace import apodise, fftc, ifftc, truncate, zero_fill
from scripts.transforms import KSpaceTruncate

__all__ = ["generate_cohort", "make_subject"]

GROUPS = ("source", "target", "validation", "test")
MARKER = "cohort.json"
RECIPE = 2  # raise it when the same arguments make other subjects, so that cached cohorts are generated again

FIELD_OF_VIEW = (152.0, 192.0, 160.0)  # mm, along R, A, S
TEMPLATE_CENTRE = (98.0, 117.0, 78.0)  # voxel of the ICBM152 maps at the centre of the field of view
OVERSAMPLING = 1.5  # anatomy voxels per scan voxel
BLOCK = 8  # anatomy planes rendered at a time, to bound the memory
BRAIN = slice(2, 3)  # its place among the template's maps
SOFTNESS = 0.08  # of the decision between tissues: from 10 to 90 % within about one scan voxel
TILT = (0.09, -0.12, 0.17)  # rad, rotation of the first test subject, so that one affine is oblique


class _Anatomy(NamedTuple):
    """The anatomy of one subject. Fields cover the field of view, positions are in mm."""

    to_template: Tensor  # (3, 3)
    displacement: Tensor  # (3, ...) mm
    folds: Tensor  # (1, ...) zero in the sulci, large in the middle of gyri
    intensities: Tensor  # (4,) background, CSF, grey matter, white matter


def generate_cohort(
    folder: str | os.PathLike,
    num_source: int = 6,
    num_target: int = 6,
    num_validation: int = 2,
    num_test: int = 2,
    seed: int = 0,
    spacing: float = 1.0,
    scale_factor: Sequence[int] = (2, 2, 2),
    progress: bool = True,
) -> Path:
    """Generate an unpaired cohort of disjoint subjects, unless the folder already holds it.

    Args:
        folder: folder for the files ``{source,target,validation,test}/sub-XXX_T1w.nii.gz``.
        num_source: number of HR subjects in the source group.
        num_target: number of subjects in the target group, which are stored in low resolution only.
        num_validation: number of HR subjects for validation.
        num_test: number of HR subjects for the test. The first one lies obliquely in the scanner.
        seed: seed of the subjects.
        spacing: voxel spacing of the HR scans in mm.
        scale_factor: factors by which the target is truncated, along the axes (A, S, R) of the canonical frame.
        progress: whether to show a progress bar.

    Returns:
        ``folder``.

    Raises:
        ValueError: when the folder holds scans that this function did not generate.

    Example:
        >>> folder = generate_cohort("demonstration", num_source=12, num_target=12)  # doctest: +SKIP
        >>> sorted(path.name for path in (folder / "test").iterdir())  # doctest: +SKIP
        ['sub-027_T1w.nii.gz', 'sub-028_T1w.nii.gz']
    """
    folder = Path(folder)
    counts = dict(zip(GROUPS, (num_source, num_target, num_validation, num_test), strict=True))
    settings = {**counts, "seed": seed, "spacing": spacing, "scale_factor": list(scale_factor), "recipe": RECIPE}
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == settings:
        return folder
    if not marker.is_file() and any((folder / group).exists() for group in GROUPS):
        raise ValueError(
            f"{folder}: cohort_dir must be new or hold a demonstration cohort, got a folder with scans and without "
            f"{MARKER}. Pass it as --dataset_dir to use these scans, or choose another cohort_dir."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # the marker is moved last, so that an interrupted cohort does not look complete
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial, _single_thread():
        _write_subjects(Path(partial), counts, seed, spacing, scale_factor, progress)
        (Path(partial) / MARKER).write_text(json.dumps(settings, indent=2))
        marker.unlink(missing_ok=True)
        for name in (*GROUPS, MARKER):
            shutil.rmtree(folder / name, ignore_errors=True)
            os.replace(Path(partial) / name, folder / name)
    return folder


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Use one thread. With small tensors more threads are hardly faster, and on a busy machine far slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _write_subjects(
    folder: Path, counts: dict[str, int], seed: int, spacing: float, scale_factor: Sequence[int], progress: bool
) -> None:
    places = [(group, number) for group in GROUPS for number in range(counts[group])]
    # volumes have the axes (R, A, S), scale factors the order (A, S, R)
    to_low_res = KSpaceTruncate((scale_factor[2], *scale_factor[:2]))
    for group in GROUPS:
        (folder / group).mkdir(parents=True)
    bar = tqdm(places, desc="Generating the demonstration cohort", disable=not progress)
    for index, (group, number) in enumerate(bar):
        volume = make_subject(np.random.default_rng((seed, index)), spacing)
        affine = _affine(volume.shape, spacing, TILT if (group, number) == ("test", 0) else (0.0, 0.0, 0.0))
        scan = MetaTensor(volume[None], affine=affine)
        scan = to_low_res(scan) if group == "target" else scan
        image = nib.Nifti1Image(scan[0].numpy().round().astype(np.int16), scan.affine.numpy())
        image.header.set_xyzt_units("mm")
        image.set_sform(image.affine, code="scanner")
        image.set_qform(image.affine, code="scanner")
        nib.save(image, folder / group / f"sub-{index + 1:03d}_T1w.nii.gz")


def make_subject(rng: np.random.Generator, spacing: float = 1.0) -> Tensor:
    """Generate the scan of a new subject.

    Args:
        rng: source of randomness for anatomy, contrast, bias field, noise and gain.
        spacing: isotropic voxel spacing in mm.

    Returns:
        float32 volume with the axes (R, A, S), sizes that are multiples of 4 and intensities from 0 to about 1500.

    Example:
        >>> make_subject(np.random.default_rng(0), spacing=2.0).shape  # doctest: +SKIP
        torch.Size([76, 96, 80])
    """
    matrix_size = [4 * math.ceil(length / spacing / 4) for length in FIELD_OF_VIEW]
    image = _acquire(_draw_anatomy(rng), matrix_size)
    bias = torch.exp(0.1 * _smooth_field(rng, 1, cell=50.0, spacing=4.0))
    image = image * F.interpolate(bias[None], size=matrix_size, mode="trilinear")[0, 0]
    noise = rng.uniform(0.008, 0.014) * _normal(rng, (2, *matrix_size))
    return rng.uniform(800, 1200) * torch.hypot(image + noise[0], noise[1])  # Rician, as in magnitude images


def _draw_anatomy(rng: np.random.Generator) -> _Anatomy:
    displacement = 2.5 * _smooth_field(rng, 3, cell=30.0, spacing=4.0) + 0.9 * _smooth_field(rng, 3, 12.0, 4.0)
    folds = _smooth_field(rng, 1, cell=7.0, spacing=2.0) + 0.3 * _smooth_field(rng, 1, 3.0, 2.0)
    scale = torch.tensor(rng.uniform(0.87, 0.98, 3), dtype=torch.float32)  # the ICBM152 brain is larger than most
    means = [rng.uniform(*limits) for limits in ((0.0, 0.0), (0.10, 0.20), (0.50, 0.60), (0.82, 0.90))]
    return _Anatomy(_rotation(rng.uniform(-0.08, 0.08, 3)) / scale, displacement, folds, torch.tensor(means))


def _acquire(anatomy: _Anatomy, matrix_size: Sequence[int]) -> Tensor:
    """Truncate the k-space of the finely sampled anatomy to the scan's matrix."""
    fine = [round(OVERSAMPLING * n) for n in matrix_size]
    x, y, z = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in fine]  # in [-1, 1] over the field of view
    blocks = []
    for planes in x.split(BLOCK):
        position = torch.stack(torch.meshgrid(planes, y, z, indexing="ij"), dim=-1)
        blocks.append(truncate(_render(anatomy, position), matrix_size[1:], (1, 2)))
    return truncate(torch.cat(blocks), matrix_size[:1], (0,))


def _render(anatomy: _Anatomy, position: Tensor) -> Tensor:
    """The intensity of the anatomy at positions (..., 3), which are in [-1, 1] over the field of view."""
    maps = _template_maps()
    moved = (position * torch.tensor(FIELD_OF_VIEW) / 2) @ anatomy.to_template.T + torch.tensor(TEMPLATE_CENTRE)
    moved += _sample(anatomy.displacement, position).movedim(0, -1)
    moved = moved / (torch.tensor(maps.shape[1:]) - 1) * 2 - 1  # in [-1, 1] over the maps
    inside = _sample(maps[BRAIN], moved, align_corners=True)[0] > 0  # most of the field of view is air
    image = torch.zeros(position.shape[:-1])
    local = _sample(maps, moved[inside][:, None, None], align_corners=True)[..., 0, 0]
    fold = _sample(anatomy.folds, position[inside][:, None, None])[0, :, 0, 0].abs()
    image[inside] = _tissue(*local, fold, anatomy.intensities)
    return image


def _tissue(
    grey: Tensor, white: Tensor, brain: Tensor, t1: Tensor, cortex: Tensor, fold: Tensor, intensities: Tensor
) -> Tensor:
    """Decide between the tissues and give each its intensity. Every tensor but the last has one value per point."""
    fluid = (brain - grey - white).clamp(min=0)
    sulcus = 1.1 * cortex * (1 - fold / 0.4).clamp(min=-0.4)
    gyrus = 0.6 * cortex * (fold - 0.7) * (4 * white).clamp(max=1)
    bright = 20 * grey * white * (t1 - 0.72)  # T1 decides where the maps do not, as in the brain stem
    scores = torch.stack((1.5 * (1 - brain), fluid + sulcus, grey, white + gyrus + bright))
    share = torch.softmax(scores / SOFTNESS, dim=0)
    within_tissue = t1 - (0.35 * fluid + 0.62 * grey + 0.85 * white)  # detail of the average T1 within its tissues
    return intensities @ share + 0.5 * within_tissue * brain * (1 - share[0])


@functools.lru_cache(maxsize=1)
def _template_maps() -> Tensor:
    """Grey matter, white matter, brain, T1 and cortex of ICBM152 in [0, 1] on its 1 mm grid: (5, R, A, S)."""
    import nilearn  # only its data is used, and only here

    data = Path(nilearn.__file__).parent / "datasets" / "data"
    names = [f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("gm", "wm", "t1")]
    grey, white, t1 = (torch.from_numpy(nib.load(data / name).get_fdata(dtype=np.float32)) / 255 for name in names)
    brain = _blur((t1 > 0.05).float(), 3)
    fluid = (brain - grey - white).clamp(min=0)
    # the cortex lies near fluid or the outside, except around the ventricles
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in t1.shape), indexing="ij"), dim=-1)
    depth = ((grid - torch.tensor([98.0, 120.0, 75.0])) / torch.tensor([38.0, 58.0, 40.0])).square().sum(-1)
    near_fluid = (5 * _blur(_blur(1 - brain + fluid, 13), 13)).clamp(max=1)
    return torch.stack((grey, white, brain, t1, near_fluid * (2 * depth - 1).clamp(0, 1) * brain))


def _blur(volume: Tensor, width: int) -> Tensor:
    """Mean over a cube of ``width`` voxels, axis by axis."""
    for axis in range(3):
        kernel = [width if other == axis else 1 for other in range(3)]
        volume = F.avg_pool3d(volume[None], kernel, stride=1, padding=[n // 2 for n in kernel])[0]
    return volume


def _sample(field: Tensor, position: Tensor, align_corners: bool = False) -> Tensor:
    """Interpolate a field (C, H, W, D) linearly at positions (h, w, d, 3) in [-1, 1] to (C, h, w, d)."""
    return F.grid_sample(field[None], position.flip(-1)[None], "bilinear", "border", align_corners)[0]


def _smooth_field(rng: np.random.Generator, channels: int, cell: float, spacing: float) -> Tensor:
    """Isotropic random field of zero mean and unit variance, with wavelengths of at least two cells (mm)."""
    cells, dim = [max(2, round(length / cell)) for length in FIELD_OF_VIEW], (1, 2, 3)
    window = acquisition_window(cells, elliptical=True, hamming=True)
    field = ifftc(apodise(fftc(_normal(rng, (channels, *cells)), dim), window, dim), dim).real
    field = zero_fill(field, [round(length / spacing) for length in FIELD_OF_VIEW], dim)
    field = field - field.mean((1, 2, 3), keepdim=True)
    return field / field.std()


def _normal(rng: np.random.Generator, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))


def _rotation(angles: Sequence[float]) -> Tensor:
    """The rotation by angles (rad) about the three axes, one after the other."""
    rotation = torch.eye(3)
    for angle, (i, j) in zip(angles, ((1, 2), (0, 2), (0, 1)), strict=True):
        turn = torch.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        rotation = turn @ rotation
    return rotation


def _affine(shape: Sequence[int], spacing: float, angles: Sequence[float]) -> Tensor:
    """The isotropic, rotated affine from voxels to mm that puts the volume's centre at the origin."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = spacing * _rotation(angles).double()
    affine[:3, 3] = -affine[:3, :3] @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2)
    return affine
