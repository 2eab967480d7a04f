from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scripts.transforms import DeclareHighResGrid
from scripts.transforms.reference import CheckSameGridd


def pair(label_affine=None, label_shape=(16, 18, 20)):
    """A low-resolution image with its declared grid, and a reference."""
    low_res = torch.tensor([[0.0, -2, 0, 5], [2, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]], dtype=torch.float64)
    high_res = low_res @ torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 8, 9, 10), affine=low_res, meta={"filename_or_obj": "low.nii"})
    affine = high_res if label_affine is None else label_affine(high_res)
    label = MetaTensor(torch.rand(1, *label_shape), affine=affine, meta={"filename_or_obj": "high.nii"})
    return {"image": DeclareHighResGrid([2, 2, 2])(image), "label": label}


def moved(by):
    def move(affine):
        affine = affine.clone()
        affine[0, 3] += by
        return affine

    return move


def test_a_reference_on_the_declared_grid_passes():
    data = pair(moved(0.01))
    assert CheckSameGridd()(data)["label"] is data["label"]


def test_a_reference_of_another_size_is_refused():
    with pytest.raises(
        ValueError, match=r"high\.nii: expected a reference of \(16, 18, 20\) .* low\.nii, got \(16, 18, 22"
    ):
        CheckSameGridd()(pair(label_shape=(16, 18, 22)))


def test_a_reference_elsewhere_is_refused():
    with pytest.raises(
        ValueError, match=r"high\.nii: expected .* grid of low\.nii, got one that lies up to 0\.5 voxels"
    ):
        CheckSameGridd()(pair(moved(0.5)))


def test_a_reference_of_another_spacing_is_refused():
    with pytest.raises(ValueError, match="Register and resample it"):
        CheckSameGridd()(pair(lambda affine: affine @ torch.diag(torch.tensor([1.05, 1, 1, 1], dtype=torch.float64))))
