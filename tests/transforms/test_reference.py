from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.transforms import DeclareHighResGrid
from scripts.transforms.grid import CheckSameGridd
from scripts.transforms.masks import ErodeMask, ErodeMaskd


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


# ErodeMask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.5, 3.0)])
def test_what_is_left_of_a_mask_is_as_deep_as_asked_for_in_mm(spacing):
    rng = np.random.default_rng(0)
    mask = np.ones((12, 10, 8), dtype=bool)
    outside = rng.integers(0, mask.shape, (4, 3))
    mask[tuple(outside.T)] = False
    volume = MetaTensor(torch.from_numpy(mask)[None].float(), affine=np.diag([*spacing, 1.0]))
    places = np.stack(np.indices(mask.shape), -1)
    distance = np.min([np.linalg.norm((places - place) * spacing, axis=-1) for place in outside], axis=0)
    eroded = ErodeMaskd("deep", 3.5)({"deep": volume})["deep"]
    np.testing.assert_array_equal(eroded[0].numpy() > 0, distance > 3.5)
    torch.testing.assert_close(eroded.affine, volume.affine)


def test_tissue_goes_on_beyond_the_end_of_a_volume():
    mask = torch.zeros(1, 8, 8, 8)
    mask[0, 3:] = 1
    eroded = ErodeMask(2.5)(mask)
    assert eroded[0, :, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert torch.equal(ErodeMask(2.5)(torch.ones(1, 4, 4, 4)), torch.ones(1, 4, 4, 4))


def test_a_negative_depth_is_refused():
    with pytest.raises(ValueError, match="depth must not be negative, got -1"):
        ErodeMask(-1)
