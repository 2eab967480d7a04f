"""Restorations of a volume in one acquisition, kept in files so that a second run makes only what is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Orientation
from scripts.handlers.weights import read_checkpoint
from scripts.physics.registration import sub_voxel_shift
from scripts.transforms.saving import describe_weights
from scripts.transforms.sources import sha256
from scripts.utils.atomic import write_atomically

from experiments.bundle import BUNDLE, read_configs

__all__ = ["METHODS", "kept", "restored", "weights_of_run"]

METHODS = {"tricubic": "tricubic", "zero_filling": "zero-filling", "automatic": "super-resolution"}  # as in inference
WEIGHTS = BUNDLE / "models" / "model.pt"


def kept(folder: Path, make: Callable[[], Mapping[str, np.ndarray]], *about: Any) -> dict[str, np.ndarray]:
    """Arrays from the file of a folder whose name is the hash of what they depend on. A missing file is made.

    Args:
        folder: of such files.
        make: makes the arrays.
        about: texts and arrays on which they depend.
    """
    digest = hashlib.sha256()
    for one in about:
        digest.update(np.ascontiguousarray(one).tobytes() if isinstance(one, np.ndarray) else str(one).encode())
    path = folder / f"{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = make()
        write_atomically(path, lambda unfinished: np.savez(unfinished, **arrays))
    with np.load(path) as content:
        return dict(content)


@cache
def weights_of_run() -> str:
    """Name and hash of the weights, read once, so that a file replaced meanwhile is not taken for them."""
    return describe_weights(WEIGHTS)


@cache
def code_of_run() -> str:
    """Hash of the config and of the bundle's code."""
    return sha256([BUNDLE / "configs" / "evaluate.yaml", *sorted((BUNDLE / "scripts").rglob("*.py"))])


@cache
def _evaluation(texts: Sequence[str]) -> tuple[Any, ...]:
    """What a scan passes through in an evaluation, with the shipped weights."""
    options = {"acquisition": list(texts), "device": "cpu", "pictures": False, "report": False}
    parser = read_configs("evaluate.yaml", **options)
    network = parser.get_parsed_content("network")
    network.load_state_dict(read_checkpoint(WEIGHTS))
    return network.eval(), *(parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "postprocessing"))


def restored(
    volume: np.ndarray, affine: np.ndarray, texts: Sequence[str], box: tuple[slice, ...], output_dir: Path
) -> dict[str, np.ndarray]:
    """A volume that was acquired and restored, by each method, and the shift of each in voxels.

    Args:
        volume: the HR volume, in canonical orientation.
        affine: of its voxels.
        texts: the acquisition in mm, see ``acquisition`` of evaluate.yaml.
        box: the part of the volumes that is kept.
        output_dir: for the files.

    Returns:
        for each of :data:`METHODS` the part of the volume in the box, and under ``NAME_shift`` its shift against
        ``volume``.
    """

    def make() -> dict[str, np.ndarray]:
        network, preprocessing, inferer, postprocessing = _evaluation(tuple(texts))
        file = output_dir / "volume.nii"
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume.astype(np.float32), affine), file)
        item = preprocessing({"image": str(file), "label": str(file)})
        with torch.no_grad():
            item["pred"] = inferer(item["image"][None], network)[0]
        item = postprocessing(item)
        file.unlink()
        found = {}
        for name in METHODS:
            one = Orientation("RAS", labels=None)(item[name]).numpy()[0]
            found[name] = one[box]
            shift = sub_voxel_shift(torch.as_tensor(one)[None], torch.as_tensor(volume.astype(np.float32))[None])
            found[f"{name}_shift"] = shift.numpy()
        return found

    about = (volume, affine, texts, [(one.start, one.stop) for one in box], weights_of_run(), code_of_run())
    return kept(output_dir / "restored", make, *about)
