"""Acquire: a scan of any acquisition lies where the volume lies, and the way back is the interpolation."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import zero_fill
from scripts.transforms import Acquire, Acquired, KSpaceTruncate, LoadImageStrictd
from scripts.transforms.utils import spacing

SHAPE = (24, 30, 41)


def oblique(seed: int) -> np.ndarray:
    """A random affine: any rotation, flips, an order of the axes, and spacings from 0.5 to 1.4 mm."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation[:, rng.permutation(3)] * rng.uniform(0.5, 1.4, 3) * rng.choice([-1, 1], 3)
    affine[:3, 3] = rng.uniform(-120, 120, 3)
    return affine


def world_ramp(affine: np.ndarray, axis: int, shape=SHAPE) -> MetaTensor:
    """A volume whose value is the distance in the world along one axis of the volume, in mm."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    direction = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    values = (voxels @ affine[:3, :3].T + affine[:3, 3]) @ direction
    return MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine))


@pytest.mark.parametrize("seed", range(8))
def test_a_voxel_of_the_scan_keeps_its_world_coordinates_after_saving_and_reading(tmp_path, seed):
    """A ramp of world coordinates shows the place of each slice, and the interpolation keeps it."""
    rng, affine = np.random.default_rng(seed), oblique(seed)
    axis = int(rng.integers(3))
    slices = SliceSelection(rng.uniform(1.5, 5), rng.uniform(1.2, 4), str(rng.choice(["gaussian", "box", "trapezoid"])))
    volume = world_ramp(affine, axis)
    acquire = Acquire([slices if a == axis else None for a in range(3)])
    scan = acquire(volume)

    nib.save(nib.Nifti1Image(scan[0].numpy(), scan.affine.numpy()), tmp_path / "scan.nii.gz")
    image = nib.load(tmp_path / "scan.nii.gz")
    values, saved = np.asarray(image.dataobj), image.affine
    assert spacing(scan)[axis] == pytest.approx(slices.spacing)
    places = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1) @ saved[:3, :3].T + saved[:3, 3]
    direction = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
    np.testing.assert_allclose(places @ direction, values, rtol=0, atol=1e-4)

    back = acquire.inverse(scan)
    np.testing.assert_allclose(back.affine, affine, rtol=0, atol=1e-9)
    first, last = ((scan.movedim(axis + 1, -1)[0, 0, 0, j]) for j in (1, -2))
    between = (volume >= min(first, last)) & (volume <= max(first, last))
    torch.testing.assert_close(back[between].as_tensor(), volume[between].as_tensor(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spacings", [(2.0, 2.0, 2.0), (1.3, 1.0, 1.9), (0.8, 1.7, 1.0)])
def test_waves_keep_their_place_along_frequency_limited_axes(spacings):
    """Also where the field of view is no multiple of the spacing."""
    voxels = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in SHAPE), indexing="ij"))
    phases = [2 * torch.pi * 2 / n for n in SHAPE]

    def wave(places):
        return sum(torch.sin(phase * place + 0.3) for phase, place in zip(phases, places, strict=True))[None]

    scan = Acquire([FrequencyEncoding(one) for one in spacings])(MetaTensor(wave(voxels), affine=torch.eye(4).double()))
    grid = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in scan.shape[1:]), indexing="ij"))
    places = torch.einsum("ij,j...->i...", scan.affine[:3, :3], grid) + scan.affine[:3, 3, None, None, None]
    torch.testing.assert_close(scan.as_tensor(), wave(places), rtol=0, atol=1e-10)


def test_halving_k_space_is_the_truncation_and_its_inverse():
    volume = MetaTensor(torch.rand(1, 16, 20, 12, dtype=torch.float64), affine=torch.diag(torch.tensor([1.0, 1, 1, 1])))
    ours, old = Acquire([FrequencyEncoding(2.0)] * 3), KSpaceTruncate(2)
    scan, expected = ours(volume), old(volume)
    torch.testing.assert_close(scan.as_tensor(), expected.as_tensor(), rtol=0, atol=1e-12)
    torch.testing.assert_close(scan.affine, expected.affine)
    torch.testing.assert_close(ours.inverse(scan).as_tensor(), old.inverse(expected).as_tensor(), rtol=0, atol=1e-12)


def test_the_inverse_is_zero_filling_in_plane_and_cubic_through_it():
    acquire = Acquire((FrequencyEncoding(2.0), FrequencyEncoding(1.0), SliceSelection(3.0, 3.0)))
    scan = acquire(MetaTensor(torch.rand(1, 16, 8, 30, dtype=torch.float64)))
    back = acquire.inverse(scan).as_tensor()
    expected = interpolate_cubic(zero_fill(scan.as_tensor(), [16], [1]), 3, 3)  # slice 0 lies on voxel 1
    torch.testing.assert_close(back[..., 1:], expected[..., : back.shape[-1] - 1], rtol=0, atol=1e-12)


def test_the_dictionary_version_is_traced_among_other_transforms():
    pipeline = Compose([Flipd("image", 1), Acquired("image", (None, FrequencyEncoding(1.5), SliceSelection(4.0, 3.0)))])
    volume = MetaTensor(torch.rand(1, *SHAPE), affine=torch.from_numpy(oblique(3)))
    volume.affine[:3, :3] /= torch.from_numpy(spacing(volume))  # of 1 mm
    done = pipeline({"image": volume, "label": torch.zeros(1)})
    assert done["image"].shape == (1, 24, 20, 10)
    back = pipeline.inverse(done)["image"]
    assert back.shape == volume.shape
    assert back.applied_operations == []
    torch.testing.assert_close(back.affine, volume.affine, rtol=0, atol=1e-9)
    assert Acquired("absent", [None] * 3, allow_missing_keys=True)({}) == {}


def test_axes_without_an_encoding_are_unchanged(tmp_path):
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((8, 9, 10), dtype=np.float32), oblique(1)), tmp_path / "a.nii"
    )
    volume = LoadImageStrictd("image")({"image": str(tmp_path / "a.nii")})["image"][None]
    scan = Acquire([None] * 3)(volume)
    torch.testing.assert_close(scan.as_tensor(), volume.as_tensor(), rtol=0, atol=1e-6)
    torch.testing.assert_close(scan.affine, volume.affine)


@pytest.mark.parametrize("encodings", [(None, None), (2.0, None, None)])
def test_there_is_an_encoding_for_each_axis(encodings):
    with pytest.raises(ValueError, match="one for each of the three axes"):
        Acquire(encodings)


def test_a_volume_has_three_axes():
    with pytest.raises(ValueError, match=r"shape \(C, H, W, D\), got \(1, 8, 8\)"):
        Acquire([None] * 3)(torch.zeros(1, 8, 8))


def test_noise_is_rician_of_the_given_strength_and_the_same_in_every_run():
    encodings = (FrequencyEncoding(2.0), None, SliceSelection(3.0, 3.0))
    volume = torch.zeros(1, 40, 40, 42)
    volume[:, 10:30, 10:30] = 100.0
    silent, noisy, again = (Acquire(encodings, snr)(volume) for snr in (None, 20.0, 20.0))
    assert torch.equal(noisy, again)
    other = Acquire(encodings, 20.0, seed=1)(volume)
    assert not torch.equal(noisy, other)
    assert not torch.equal(Acquire(encodings, 20.0)(volume + 1e-3) - 1e-3, noisy)
    std = float(silent[silent >= silent.mean()].mean()) / 20
    inside, outside = silent > 99, silent.abs() < 1e-3
    assert (noisy - silent)[inside].std().item() == pytest.approx(std, rel=0.05)
    assert noisy[outside].mean().item() == pytest.approx(std * (torch.pi / 2) ** 0.5, rel=0.05)  # of Rayleigh
    assert Acquired("image", encodings, snr=20.0)({"image": volume})["image"].equal(noisy)


@pytest.mark.parametrize("snr", [0, -3.0, float("nan")])
def test_a_ratio_of_signal_to_noise_is_positive(snr):
    with pytest.raises(ValueError, match="snr must be positive"):
        Acquire([None] * 3, snr)
