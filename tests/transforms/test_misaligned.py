"""Misaligned data: a movement per subject, drawn once, applied once, recorded, and unknown to the header."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import CONFIGS, head_phantom
from monai.data import MetaTensor
from scipy.ndimage import affine_transform
from scripts.physics.kspace import truncate
from scripts.transforms import Misalignd
from scripts.transforms.misalignment import movement
from torch import Tensor

STILL = (0.0, 0.0, 0.0)
PAPER = {"rotation": [0, 2, 2], "translation": [0, 2, 2], "shrinkage": [2, 0, 2]}  # axes AP, HF, LR


def misalign(seed: int = 0, rotation=STILL, translation=STILL, shrinkage=STILL, **settings) -> Misalignd:
    return Misalignd("reals", rotation, translation, shrinkage, seed=seed, **settings)


def blobs(*centres: tuple[float, ...], shape: tuple[int, ...] = (40, 36, 32), width: float = 2.0) -> Tensor:
    """Gaussian blobs (1, H, W, D), centred on voxel coordinates."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"), -1)
    return sum(torch.exp(-((grid - torch.tensor(c)) ** 2).sum(-1) / (2 * width**2)) for c in centres)[None]


def position(volume: Tensor) -> np.ndarray:
    """Centre of mass in voxels."""
    weight = volume[0].double()
    axes = [torch.arange(n).double() for n in weight.shape]
    return np.array(
        [float((weight.sum([d for d in range(3) if d != axis]) * x).sum()) for axis, x in enumerate(axes)]
    ) / float(weight.sum())


def moved(volume: Tensor, transform: Misalignd, subject: str = "sub-01") -> Tensor:
    return transform({"reals": volume, "subject": subject})["reals"]


# What is drawn


def test_a_movement_depends_on_the_seed_and_the_subject_alone():
    transform = misalign(**PAPER)
    first = transform.draw("sub-01")
    transform.draw("sub-02")
    np.random.default_rng().random()
    assert misalign(**PAPER).draw("sub-01") == first == transform.draw("sub-01")
    assert transform.draw("sub-02") != first != misalign(seed=1, **PAPER).draw("sub-01")


def test_movements_fill_the_papers_ranges_in_either_sense():
    drawn = [misalign(**PAPER).draw(f"sub-{n}") for n in range(500)]
    values = {name: np.array([d[name] for d in drawn]) for name in PAPER}
    for name, low in (("rotation", -2), ("translation", -2), ("shrinkage", 0)):
        for axis, limit in enumerate(PAPER[name]):
            column = values[name][:, axis]
            if limit == 0:
                assert not column.any()
            else:
                assert low <= column.min() < low + 0.05
                assert 1.95 < column.max() <= 2
                assert column.mean() == pytest.approx((low + 2) / 2, abs=0.15)


@pytest.mark.parametrize(
    "name", ["data/misaligned.yaml", "methods/supervised_misaligned.yaml", "methods/supervised_registered.yaml"]
)
def test_every_config_has_the_papers_ranges(name):
    steps = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))["+train"]["further_preprocessing"]
    (step,) = [step for step in steps if "seed" in step]
    assert {key: step[key] for key in PAPER} == PAPER


# What it does


def test_nothing_moves_by_nothing():
    volume = head_phantom(0)[None]
    torch.testing.assert_close(moved(volume, misalign()), volume, rtol=0, atol=1e-3)  # of 1000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_translation_moves_by_its_voxels_along_its_axis(axis):
    limit = [0.0, 0.0, 0.0]
    limit[axis] = 5.0
    transform = misalign(translation=limit)
    volume = blobs((20, 17, 16))
    shift = position(moved(volume, transform)) - position(volume)
    np.testing.assert_allclose(shift, transform.draw("sub-01")["translation"], atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotation_about_an_axis_turns_the_other_two(axis):
    limit = [0.0, 0.0, 0.0]
    limit[axis] = 30.0
    transform = misalign(rotation=limit)
    centre = (np.array([40, 36, 32]) - 1) / 2
    volume = blobs(tuple(c + d for c, d in zip(centre, (6, 7, 8), strict=True)))
    before, after = (position(v) - centre for v in (volume, moved(volume, transform)))
    assert after[axis] == pytest.approx(before[axis], abs=1e-3)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=1e-2)
    cosine = after @ before - before[axis] ** 2
    assert cosine / (before @ before - before[axis] ** 2) == pytest.approx(
        np.cos(np.deg2rad(transform.draw("sub-01")["rotation"][axis])), abs=1e-3
    )


def test_a_rotation_is_rigid_in_mm_whatever_the_spacing():
    img = MetaTensor(torch.zeros(1, 8, 8, 8), affine=np.diag([0.7, 1.0, 2.0, 1.0]))
    mm = np.diag([0.7, 1.0, 2.0])
    rotation = mm @ movement(img, (10, -20, 30), STILL, STILL)[:3, :3] @ np.linalg.inv(mm)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_shrinkage_takes_its_voxels_off_the_length_of_an_axis():
    transform = misalign(shrinkage=(8.0, 0.0, 0.0))
    ends = [moved(blobs((x, 17.5, 15.5)), transform) for x in (12.0, 27.0)]
    lost = transform.draw("sub-01")["shrinkage"][0]
    assert lost > 1
    distance = position(ends[1])[0] - position(ends[0])[0]
    assert distance == pytest.approx(15 * (40 - lost) / 40, abs=1e-2)


def test_the_whole_movement_is_one_cubic_resampling():
    volume, transform = head_phantom(0)[None], misalign(**PAPER)
    drawn = transform.draw("sub-01")
    matrix = np.linalg.inv(movement(volume, **drawn))
    centre = (np.array(volume.shape[1:]) - 1) / 2
    offset = centre - matrix[:3, :3] @ centre + matrix[:3, 3]
    once = affine_transform(volume[0].numpy().astype(float), matrix[:3, :3], offset, order=3, mode="nearest")
    assert np.abs(moved(volume, transform)[0].numpy() - once).max() < 1  # of 1000


def test_the_header_does_not_know_of_it_but_the_record_does(tmp_path):
    affine = np.diag([1.0, 1.2, 0.8, 1.0])
    affine[:3, 3] = (-3, 4, 5)
    volume = MetaTensor(head_phantom(0)[None], affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    transform = misalign(record_dir=tmp_path / "record", **PAPER)
    result = moved(volume, transform)
    assert torch.equal(result.affine, volume.affine)
    assert result.meta["filename_or_obj"] == "a.nii.gz"
    assert result.meta["misalignment"] == transform.draw("sub-01")
    assert json.loads((tmp_path / "record" / "sub-01.json").read_text(encoding="utf-8")) == transform.draw("sub-01")
    assert (result.dtype, result.shape) == (volume.dtype, volume.shape)


def test_a_target_s_item_passes_unchanged():
    item = {"image": torch.ones(1, 4, 4, 4), "subject": "sub-01"}
    assert misalign(allow_missing_keys=True, **PAPER)(item) == item


def test_an_item_without_a_subject_is_refused():
    with pytest.raises(ValueError, match=r"expected the subject's name under 'subject', got the keys \['reals'\]"):
        misalign(**PAPER)({"reals": torch.ones(1, 4, 4, 4)})


# In a training


def test_misaligned_training_has_the_source_moved_and_the_target_in_place(train_stack):
    workflow = train_stack("methods/udean.yaml", "data/misaligned.yaml")
    volumes = workflow.parser.get_parsed_content("train::dataset").volumes
    in_place = train_stack("methods/udean.yaml", degrade_target=True).parser.get_parsed_content("data::datalist")
    assert volumes["reals"].keys() == volumes["image"].keys()
    assert volumes["reals"].keys() <= {item["subject"] for item in in_place["training"]}
    for subject, (image,) in volumes["image"].items():
        (moved,) = volumes["reals"][subject]
        assert float((truncate(moved, image.shape, (0, 1, 2)) - image).abs().mean()) > 0.01
