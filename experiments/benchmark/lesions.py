"""Lesions of scans without masks: boxes that a matrix states, as masks on the grids of the scans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scripts.utils.atomic import write_atomically, write_text_atomically

__all__ = ["Box", "add_lesions", "box_mask"]

Box = Sequence[Sequence[float]]  # bounds along the world's right, anterior and superior, in mm


def add_lesions(datalist: Path, boxes: Mapping[str, Box], folder: Path) -> dict[str, Any]:
    """Give the references of a datalist the masks of their lesions, which are written to ``folder``.

    Args:
        datalist: JSON file, changed.
        boxes: by subject.
        folder: for a mask per subject.

    Returns:
        what the file holds then.
    """
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for item in (item for section in ("validation", "test") for item in content[section]):
        if item["subject"] in boxes:
            path = folder / f"{item['subject']}.nii.gz"
            mask = box_mask(nib.load(item["label"]), boxes[item["subject"]])
            write_atomically(path, lambda unfinished, mask=mask: nib.save(mask, unfinished))
            item["lesion"] = str(path)
    write_text_atomically(datalist, json.dumps(content, indent=2))
    return content


def box_mask(scan: nib.Nifti1Image, box: Box) -> nib.Nifti1Image:
    """The voxels of a scan whose centres lie in a box.

    Raises:
        ValueError: when there is none.
    """
    voxels = np.indices(scan.shape).reshape(3, -1)
    places = scan.affine[:3, :3] @ voxels + scan.affine[:3, 3:]
    low, high = np.array(box, dtype=float).T[..., None]
    inside = ((places >= low) & (places <= high)).all(axis=0).reshape(scan.shape)
    if not inside.any():
        raise ValueError(f"a lesion's box must hold voxels of its scan, got {list(box)} mm, which holds none.")
    return nib.Nifti1Image(inside.astype(np.uint8), scan.affine)
