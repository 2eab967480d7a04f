"""Panels: the systems side by side on one test subject, below each its error map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scripts.handlers.pictures import save_comparison

from experiments.benchmark.matrix import Row

__all__ = ["CAPTIONS", "draw_panels", "keep_one_subject"]

VOLUMES = "evaluation/volumes"
SIDE_BY_SIDE = (
    "zero_filling",
    "linear_inverse_estimated",
    "initial",
    "kspace_pairs",
    "fine_tuning",
    "cyclegan",
    "udean",
    "without_contrastive",
    "contrastive",
    "spectral",
    "spectral_tuning",
    "supervised_oracle",
)
COMPARED = ("without_contrastive", "contrastive")  # across shares of the source subjects
CAPTIONS = {
    "panel_systems": "One test subject, system by system, with error maps and PSNR (lowest seed, first fold).",
    "panel_hr_fractions": "The same with all source subjects and with the smallest share of them.",
}


def keep_one_subject(folder: Path) -> None:
    """Remove the volumes of an evaluation but those of its first subject."""
    paths = sorted(folder.glob("*.nii.gz"))
    for path in paths:
        if _subject(path) != _subject(paths[0]):
            path.unlink()


def draw_panels(rows: Sequence[Row], output: Path, folder: Path) -> None:
    """Draw the panels that the volumes in the folders of rows that are done allow, as PDF and PNG."""
    systems = {}
    for row in rows:  # the lowest seed and first fold come first
        usual = row.hr_fraction == 1 and row.assignment == "unpaired" and row.scale_factor == rows[0].scale_factor
        if usual and row.system in SIDE_BY_SIDE:
            systems.setdefault(row.system, output / "rows" / row.name / VOLUMES)
    shares = {}
    smallest = min((row.hr_fraction for row in rows), default=1)
    for row in rows:
        if row.system in COMPARED and row.hr_fraction in (1, smallest) and smallest < 1:
            title = f"{row.system.replace('_', ' ')}, {100 * row.hr_fraction:g} %"
            shares.setdefault(title, output / "rows" / row.name / VOLUMES)
    ordered = {name.replace("_", " "): systems[name] for name in SIDE_BY_SIDE if name in systems}
    for name, folders in (("panel_systems", ordered), ("panel_hr_fractions", shares)):
        found = {title: volumes for title, volumes in folders.items() if list(volumes.glob("*_pred.nii.gz"))}
        if len(found) > 1:
            _draw(found, folder / name)


def _draw(folders: Mapping[str, Path], path: Path) -> None:
    """One page of all folders, which hold the same subject."""
    first = next(iter(folders.values()))
    label = nib.load(next(first.glob("*_label.nii.gz")))
    reference = _upright(label, label.affine)
    low_res = _upright(nib.load(next(first.glob("*_image.nii.gz"))), label.affine)
    for axis in range(3):  # each voxel of the acquisition as a block
        low_res = low_res.repeat(reference.shape[axis] // low_res.shape[axis], axis=axis)
    images = {title: nib.load(next(folder.glob("*_pred.nii.gz"))) for title, folder in folders.items()}
    volumes = {title: _upright(image, label.affine) for title, image in images.items()}
    spacing = nib.as_closest_canonical(label).header.get_zooms()[:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".pdf", ".png"):
        subject = _subject(next(first.glob("*_label.nii.gz")))
        save_comparison(path.with_suffix(suffix), {"low resolution": low_res, **volumes}, reference, spacing, subject)


def _upright(image: nib.Nifti1Image, affine: np.ndarray) -> np.ndarray:
    """The volume with axes that grow towards right, anterior and superior; all lie along those of the reference."""
    placed = nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), affine)
    return np.asarray(nib.as_closest_canonical(placed).dataobj)


def _subject(path: Path) -> str:
    return path.name.rpartition("_")[0]
