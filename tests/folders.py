"""Folders of scans for the tests, and what discovery makes of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scripts.data.discovery import discover


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(path: Path, seed: int = 0, image=nib.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).random((8, 8, 8), dtype=np.float32)
    nib.save(image(values, np.eye(4, dtype=np.float32)), path)
    return path


def outcomes(root: Path) -> dict[str, str]:
    """What becomes of each path: "scan", "fault", or why it is left out."""
    return {
        found.path.relative_to(root).as_posix(): found.left_out or ("fault" if found.fault else "scan")
        for found in discover(root)
    }
