"""Shared by the tests of reliability: the chain from file to file, checks of its results, and a tally of outcomes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from conftest import BUNDLE
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from scripts.utils.errors import full_message

TALLY = "RELIABILITY_TALLY"  # environment: a file that gets a line of JSON per case


def tally(area: str, case: str, outcome: str) -> None:
    """Count the outcome of a case: "right", "recovered", "warned", "harmless" or "refused".

    A wrong outcome fails the test instead.
    """
    if path := os.environ.get(TALLY):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"area": area, "case": case, "outcome": outcome}) + "\n")


class Chain:
    """Inference.yaml for one file, without its engine, for thousands of cases.

    Args:
        output_dir: folder of the results.
        overlays: names below configs/.
        overrides: entries of the config to set.
    """

    def __init__(self, output_dir: Path, *overlays: str, **overrides: Any) -> None:
        parser = ConfigParser()
        names = ("inference.yaml", "networks/fixed_factor.yaml", *overlays)
        parser.read_config([str(BUNDLE / "configs" / name) for name in names])
        parser.update(
            {
                "bundle_root": str(BUNDLE),
                "output_dir": str(output_dir),
                "load_pretrain": False,
                "amp_dtype": None,
                "device": "cpu",
                **overrides,
            }
        )
        names = ("preprocessing", "network", "inferer", "postprocessing", "derivatives")
        self.preprocessing, self.network, self.inferer, self.postprocessing, self.derivatives = (
            parser.get_parsed_content(name) for name in names
        )
        self.network.eval()

    @torch.no_grad()
    def __call__(self, path: Path) -> tuple[nib.Nifti1Image, dict[str, Any]]:
        """The result and its record."""
        image = list_data_collate([self.preprocessing({"image": str(path)})])["image"]
        (item,) = decollate_batch({"image": image, "pred": self.inferer(image, self.network)})
        self.postprocessing(item)
        result = self.derivatives.layout.filename(path)
        return nib.load(result), json.loads(self.derivatives.sidecar(result).read_text(encoding="utf-8"))


def refusal(error: Exception, path: Path) -> str:
    """The message of a refusal. It must name the file, what was expected and what came instead."""
    message = full_message(error)
    assert message.startswith(str(path)), message
    assert "expected" in message
    assert "got" in message or "cannot be read" in message or "absent" in message, message
    return message


def assert_same_places(result: nib.Nifti1Image, values: np.ndarray, affine: np.ndarray) -> None:
    """Assert that every voxel of the scan has a voxel of the result at the same world point with the same value.

    This holds for networks that interpolate, such as tricubic.
    """
    voxels = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
    places = nib.affines.apply_affine(np.linalg.inv(result.affine) @ affine, voxels)
    indices = places.round().astype(int)
    assert np.abs(places - indices).max() < 0.01
    assert (indices >= 0).all()
    assert (indices < result.shape).all()
    found = result.get_fdata()[tuple(np.moveaxis(indices, -1, 0))]
    np.testing.assert_allclose(found, values, atol=2e-5 * np.abs(values).max())
