"""Rigid registration: a known movement is found to a tenth of a voxel, undone by one resampling, and remembered."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.data.demonstration import make_subject
from scripts.metrics import psnr
from scripts.physics.kspace import truncate
from scripts.transforms import DeclareHighResGrid, KSpaceTruncate, Misalignd, RigidRegisterd
from scripts.transforms import registration as registration_module
from scripts.transforms.misalignment import movement

AXES = {"rotation": (2.0, 2.0, 2.0), "translation": (2.0, 2.0, 2.0), "shrinkage": (0.0, 0.0, 0.0)}


@pytest.fixture(scope="module")
def subject() -> MetaTensor:
    """A high-resolution volume, obliquely placed, on a common intensity scale."""
    volume = make_subject(np.random.default_rng(0), spacing=2.0)[None]
    angle = np.deg2rad(10)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:2, :2] @= [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = (-70, -90, -60)
    return MetaTensor(volume / volume.max(), affine=affine, meta={"filename_or_obj": "sub-01.nii.gz"})


def corners(img: MetaTensor) -> np.ndarray:
    return np.array([[*c, 1] for c in np.ndindex(2, 2, 2)]) * [*(np.array(img.shape[1:]) - 1), 1]


def error_in_voxels(img: MetaTensor, matrix: np.ndarray, drawn: dict) -> float:
    """Largest distance, over the volume's corners, between where a movement and its registration take them."""
    centre = np.eye(4)
    centre[:3, 3] = (np.array(img.shape[1:]) - 1) / 2
    true = centre @ movement(img, **drawn) @ np.linalg.inv(centre)
    affine = np.asarray(img.affine)
    found = np.linalg.inv(affine) @ matrix @ affine
    return float(np.linalg.norm(((found - true) @ corners(img).T)[:3], axis=0).max())


def flipped_affine(img: MetaTensor) -> np.ndarray:
    """The affine of ``img`` with its first axis reversed and its last axis put first."""
    reverse = np.diag([-1.0, 1.0, 1.0, 1.0])
    reverse[0, 3] = img.shape[1] - 1
    return (np.asarray(img.affine) @ reverse)[:, [2, 0, 1, 3]]


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_movement_is_found_to_a_tenth_of_a_voxel_and_undone(subject, scale_factor, seed):
    transform = Misalignd("label", seed=seed, **AXES)
    moved = transform({"label": subject, "subject": "sub-01"})["label"]
    image = KSpaceTruncate(scale_factor)(subject)
    registered = RigidRegisterd("label", "image", scale_factor)({"image": image, "label": moved})["label"]
    assert error_in_voxels(subject, np.array(registered.meta["registration"]), transform.draw("sub-01")) < 0.1
    assert psnr(registered.as_tensor(), subject.as_tensor()) > psnr(moved.as_tensor(), subject.as_tensor()) + 8
    torch.testing.assert_close(registered.affine, subject.affine, rtol=0, atol=1e-9)


def test_the_result_lies_on_the_fine_grid_of_the_low_res_volume(subject):
    """Also where the scans were not prescribed alike: another field of view, spacing and orientation."""
    image = KSpaceTruncate((2, 2, 2))(subject)[:, 3:, :, 2:]
    shifted = image.affine.clone()
    shifted[:3, 3] += shifted[:3, [0, 2]] @ torch.tensor([3.0, 2.0], dtype=torch.float64)
    image = MetaTensor(image.as_tensor(), affine=shifted)
    flipped = MetaTensor(subject.as_tensor().flip(1).permute(0, 3, 1, 2), affine=flipped_affine(subject))
    label = RigidRegisterd("label", "image", (2, 2, 2))({"image": image, "label": flipped})["label"]
    grid = DeclareHighResGrid((2, 2, 2))(image)
    assert tuple(label.shape[1:]) == tuple(grid.meta["spatial_shape"])
    torch.testing.assert_close(label.affine, grid.affine)
    expected = subject[:, 6:, :, 4:].as_tensor()
    assert psnr(label.as_tensor(), expected) > 35


def test_a_result_is_remembered_by_the_content_of_the_volumes(tmp_path, monkeypatch):
    calls = []

    def register(fixed, moving):
        calls.append(1)
        return np.eye(4)

    monkeypatch.setattr(registration_module, "register_rigid", register)
    label = MetaTensor(torch.rand(1, 8, 8, 8), affine=np.eye(4))
    image = MetaTensor(truncate(label.as_tensor(), (4, 4, 4), (1, 2, 3)), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    for _ in range(2):
        result = RigidRegisterd("label", "image", 2, cache_dir=tmp_path)({"image": image, "label": label})["label"]
        torch.testing.assert_close(result.as_tensor(), label.as_tensor())
    assert len(calls) == 1
    RigidRegisterd("label", "image", 2, cache_dir=tmp_path)({"image": image, "label": label * 2})
    assert len(calls) == 2
    records = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()]
    assert [record["matrix"] for record in records] == [np.eye(4).tolist()] * 2
