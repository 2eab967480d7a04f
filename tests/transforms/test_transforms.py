"""Transforms: grids in world coordinates, tracing and inversion, one intensity scale, and what bad input gets."""

from __future__ import annotations

import gzip
import logging
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import EXAMPLE, SHARED
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch
from monai.transforms import (
    Compose,
    DivisiblePad,
    EnsureChannelFirstd,
    EnsureTyped,
    Invertd,
    InvertibleTransform,
    Orientation,
    Orientationd,
    Randomizable,
    SaveImaged,
)
from scripts.physics.filters import acquisition_window
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import apodise, fftc, ifftc, truncate, zero_fill
from scripts.transforms import (
    CheckVolume,
    CheckVolumed,
    DataConsistencyd,
    DeclareHighResGrid,
    DeclareHighResGridd,
    InterpolateBaselinesd,
    KSpaceSpacing,
    KSpaceSpacingd,
    KSpaceTruncate,
    KSpaceTruncated,
    LoadImageStrictd,
    ScaleIntensityRobust,
    ScaleIntensityRobustd,
)

SHAPE = (31, 40, 37)
SPACING = (0.8, 1.0, 1.3)
DIM = (1, 2, 3)
SHARED_DATA = SHARED / "data"
EXACT = {"rtol": 0.0, "atol": 1e-12}


def oblique_affine() -> np.ndarray:
    """A rotation about a slanted axis, anisotropic spacing, left-handed, off the origin."""
    rotation = np.linalg.qr(np.array([[0.9, -0.3, 0.1], [0.2, 0.95, -0.2], [-0.1, 0.25, 0.97]]))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(SPACING)
    affine[:3, 3] = [-31.0, 12.5, 7.25]
    return affine


def random_volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1.5, shape))


def oblique_volume() -> MetaTensor:
    return MetaTensor(
        random_volume(1, *SHAPE), affine=torch.from_numpy(oblique_affine()), meta={"filename_or_obj": "sub-07.nii.gz"}
    )


def world(affine, voxel) -> np.ndarray:
    return nib.affines.apply_affine(np.asarray(affine), voxel)


def voxels(shape) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)


def save_nifti(path: Path, data, affine=None) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), np.eye(4) if affine is None else affine), path)
    return path


def smooth_volume(shape, kept) -> torch.Tensor:
    """A positive volume strictly inside the central ``kept`` of k-space, along every axis."""
    inside = [size - 1 if size % 2 == 0 else size for size in kept]
    return zero_fill(random_volume(1, *inside), shape, DIM) * 300 + 200


# KSpaceTruncate: what it computes


@pytest.mark.parametrize("scale_factor", [2, 1.5, (2, 2, 1), (1, 3.3, 2)])
def test_truncation_is_that_of_kspace(scale_factor):
    img = oblique_volume()
    low_res = KSpaceTruncate(scale_factor)(img)
    factors = np.broadcast_to(scale_factor, 3)
    matrix = [int(size / factor) for size, factor in zip(SHAPE, factors, strict=True)]
    assert low_res.shape == (1, *matrix)
    assert torch.equal(low_res.as_tensor(), truncate(img.as_tensor(), matrix, DIM))


def test_factor_one_is_the_identity():
    img = oblique_volume()
    low_res = KSpaceTruncate(1)(img)
    assert torch.equal(low_res, img)
    assert torch.equal(low_res.affine, img.affine)


@pytest.mark.parametrize("shape", [(1, 10), (2, 10, 12), (3, 6, 8, 10), (1, 6, 8, 10, 12)])
def test_any_number_of_axes_and_channels_is_truncated(shape):
    x = random_volume(*shape)
    low_res = KSpaceTruncate(2)(x)
    assert low_res.shape == (shape[0], *(size // 2 for size in shape[1:]))
    torch.testing.assert_close(low_res.mean(), x.mean(), **EXACT, check_dtype=False)


def test_the_matrix_is_rounded_down_but_not_by_floating_point_error():
    assert KSpaceTruncate(1.1)(torch.rand(1, 33)).shape == (1, 30)
    assert KSpaceTruncate(2)(torch.rand(1, 33)).shape == (1, 16)
    assert KSpaceTruncate(9)(torch.rand(1, 5)).shape == (1, 1)


def test_arrays_and_integers_are_taken_as_float():
    low_res = KSpaceTruncate(2)(np.full((1, 8, 8), 7, dtype=np.int16))
    assert low_res.dtype == torch.float32
    torch.testing.assert_close(low_res.as_tensor(), torch.full((1, 4, 4), 7.0))


@pytest.mark.parametrize(
    "window",
    [
        {"hamming": True},
        {"elliptical": True},
        {"partial_fourier": (1.0, 0.75, 1.0)},
        {"hamming": True, "elliptical": True},
        {"exponential": (0.9, 0.0, 0.0)},
        {"fermi": (None, (0.9, 0.05), None)},
        {"elliptical": True, "exponential": (0.9, 0.0, 0.0), "fermi": (None, (0.9, 0.05), None)},
    ],
)
def test_windows_weight_the_kspace_of_the_truncated_volume(window):
    x = random_volume(1, 12, 14, 16)
    low_res = truncate(x, (6, 7, 8), DIM)
    expected = ifftc(apodise(fftc(low_res, DIM), acquisition_window((6, 7, 8), **window), DIM), DIM).real
    actual = KSpaceTruncate(2, **window)(x)
    torch.testing.assert_close(actual.as_tensor(), expected, **EXACT)
    torch.testing.assert_close(actual.mean().as_tensor(), x.mean(), **EXACT)
    assert float(actual.var()) < float(low_res.var())


def test_noise_has_its_standard_deviation_and_leaves_the_mean():
    x = random_volume(1, 64, 64, 64)
    noise = KSpaceTruncate(2, noise_std=0.05)(x).as_tensor() - truncate(x, (32, 32, 32), DIM)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(noise.mean())) < 4 * 0.05 / noise.numel() ** 0.5


def test_noise_by_its_ratio_to_the_signal_has_the_same_share_in_scans_of_any_units():
    x = random_volume(1, 64, 64, 64) + 3
    x[:, :32] = 0  # air
    low_res = truncate(x, (32, 32, 32), DIM)
    for units in (1.0, 100.0):
        noise = KSpaceTruncate(2, snr=20)(units * x).as_tensor() / units - low_res
        assert float(noise.std()) == pytest.approx(float(low_res[low_res > low_res.mean()].mean()) / 20, rel=0.02)


def test_without_signal_a_rician_image_is_rayleigh():
    x = torch.zeros(1, 32, 32, 32, dtype=torch.float64)
    x[0, 0, 0, 0] = 1e-6
    y = KSpaceTruncate(1, noise_std=1.0, rician=True)(x)
    assert float(y.mean() / y.std()) == pytest.approx((np.pi / (4 - np.pi)) ** 0.5, rel=0.02)
    assert float(y.mean()) == pytest.approx((np.pi / 2) ** 0.5, rel=0.02)


def test_far_above_the_noise_a_rician_image_is_brighter_by_half_its_variance():
    x = torch.full((1, 64, 64, 64), 10.0, dtype=torch.float64)
    y = KSpaceTruncate(2, noise_std=1.0, rician=True)(x)
    assert float(y.mean()) == pytest.approx(10 + 1 / 20, abs=0.02)
    assert float(y.std()) == pytest.approx(1, rel=0.02)


def test_a_positive_image_without_noise_is_its_own_magnitude():
    x = random_volume(1, 12, 14, 16).abs() + 5
    torch.testing.assert_close(KSpaceTruncate(2, rician=True)(x), KSpaceTruncate(2)(x), **EXACT)


def test_a_scan_has_one_noise_realisation_and_another_scan_or_seed_another():
    x, other = random_volume(1, 16, 16, 16), random_volume(1, 16, 16, 16, seed=1)
    noise = [
        KSpaceTruncate(2, noise_std=0.1, seed=seed)(volume).as_tensor() - truncate(volume, (8, 8, 8), DIM)
        for volume, seed in [(x, 0), (x, 0), (other, 0), (x, 1)]
    ]
    torch.testing.assert_close(noise[0], noise[1], **EXACT)
    assert (noise[0] - noise[2]).abs().max() > 0.1
    assert (noise[0] - noise[3]).abs().max() > 0.1


# KSpaceTruncate: where the voxels are


@pytest.mark.parametrize("scale_factor", [2, 1.5, (2, 2, 1)])
def test_low_res_voxel_l_sits_on_high_res_position_l_n_over_m_in_the_world(scale_factor):
    img = oblique_volume()
    low_res = KSpaceTruncate(scale_factor)(img)
    index = voxels(low_res.shape[1:])
    position = index * np.array(SHAPE) / np.array(low_res.shape[1:])
    np.testing.assert_allclose(world(low_res.affine, index), world(img.affine, position), rtol=0, atol=1e-10)


def test_the_field_of_view_is_kept():
    low_res = KSpaceTruncate(2)(oblique_volume())
    field_of_view = nib.affines.voxel_sizes(low_res.affine.numpy()) * low_res.shape[1:]
    np.testing.assert_allclose(field_of_view, np.array(SHAPE) * SPACING, rtol=1e-12)


def test_two_dimensional_images_keep_their_affine_too():
    low_res = KSpaceTruncate(2)(MetaTensor(torch.rand(1, 9, 8), affine=torch.diag(torch.tensor([2.0, 3.0, 5.0, 1.0]))))
    np.testing.assert_allclose(low_res.affine.numpy(), np.diag([2 * 9 / 4, 6.0, 5.0, 1.0]))


# KSpaceTruncate: tracing and inversion


def test_the_inverse_is_zero_filling_on_the_grid_before():
    img, transform = oblique_volume(), KSpaceTruncate((2, 2, 1))
    low_res = transform(img)
    assert low_res.applied_operations[-1]["class"] == "KSpaceTruncate"
    assert tuple(low_res.applied_operations[-1]["orig_size"]) == SHAPE
    restored = transform.inverse(low_res)
    assert torch.equal(restored.as_tensor(), zero_fill(low_res.as_tensor(), SHAPE, DIM))
    torch.testing.assert_close(restored.affine, img.affine, **EXACT)
    assert restored.applied_operations == []


@pytest.mark.parametrize("size", [(30, 40, 36), (31, 40, 37), (62, 80, 74)])
def test_a_prediction_of_any_size_over_the_same_field_of_view_returns_to_the_grid_before(size):
    img, transform = oblique_volume(), KSpaceTruncate(2)
    truth = smooth_volume(SHAPE, (15, 20, 18))
    image = transform(MetaTensor(truth).copy_meta_from(img))
    zoom = np.diag([*(np.array(image.shape[1:]) / size), 1])
    pred = MetaTensor(zero_fill(image.as_tensor(), size, DIM)).copy_meta_from(image)
    pred.affine = image.affine @ torch.from_numpy(zoom)
    restored = transform.inverse(pred)
    torch.testing.assert_close(restored.as_tensor(), truth, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(restored.affine, img.affine, **EXACT)


def test_compose_inverts_orientation_and_truncation_in_turn():
    truth = MetaTensor(smooth_volume(SHAPE, (15, 20, 18))).copy_meta_from(oblique_volume())
    compose = Compose([Orientation(axcodes="ASR", labels=None), KSpaceTruncate(2)])
    restored = compose.inverse(compose(truth))
    torch.testing.assert_close(restored.as_tensor(), truth.as_tensor(), rtol=0.0, atol=1e-10)
    torch.testing.assert_close(restored.affine, truth.affine, **EXACT)


def test_another_instance_refuses_to_invert():
    with pytest.raises(RuntimeError, match="KSpaceTruncate"):
        KSpaceTruncate(2).inverse(KSpaceTruncate(2)(oblique_volume()))


def test_without_tracing_nothing_is_recorded():
    transform = KSpaceTruncate(2)
    with transform.trace_transform(False):
        assert transform(oblique_volume()).applied_operations == []


def test_the_dictionary_version_inverts_and_lets_keys_be_absent():
    transform = KSpaceTruncated(["image", "reals"], 2, allow_missing_keys=True)
    data = {"image": oblique_volume(), "subject": "07"}
    low_res = transform(data)
    assert low_res["image"].shape == (1, 15, 20, 18)
    assert data["image"].shape == (1, *SHAPE)
    assert transform.inverse(low_res)["image"].shape == (1, *SHAPE)
    with pytest.raises(KeyError, match="reals"):
        KSpaceTruncated(["image", "reals"], 2)(data)


def test_truncation_is_cached_noise_included_and_pickles():
    transform = KSpaceTruncated("image", 2, noise_std=0.1)
    assert not isinstance(transform, Randomizable)
    dataset = CacheDataset([{"image": oblique_volume()}], Compose([transform]), progress=False)
    assert torch.equal(dataset[0]["image"], dataset[0]["image"])
    copy = pickle.loads(pickle.dumps(transform))
    again = copy({"image": oblique_volume()})["image"]  # FFTs round by the alignment of their input
    assert torch.allclose(again, dataset[0]["image"], atol=1e-12)


def test_truncation_refuses_impossible_arguments():
    with pytest.raises(ValueError, match=r"scale_factor must be at least 1 along each axis, got \[2, 0.5, 1\]"):
        KSpaceTruncate([2, 0.5, 1])
    with pytest.raises(ValueError, match="at least 1 along each axis, got inf"):
        KSpaceTruncate(float("inf"))
    with pytest.raises(ValueError, match=r"noise_std must not be negative, got -0.1"):
        KSpaceTruncate(2, noise_std=-0.1)
    with pytest.raises(ValueError, match=r"snr must be positive, and noise_std then 0, got 20 and 0.1"):
        KSpaceTruncate(2, noise_std=0.1, snr=20)
    with pytest.raises(ValueError, match=r"sub-07.nii.gz: .* each of the 3 spatial axes, got \(2, 2\)"):
        KSpaceTruncate((2, 2))(oblique_volume())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"hamming": True, "noise_std": 0.1}, {"rician": True}])
def test_the_device_changes_nothing(options):
    x = random_volume(1, 16, 18, 20)
    on_device = KSpaceTruncate(2, **options)(x.cuda())
    assert on_device.device.type == "cuda"
    torch.testing.assert_close(on_device.as_tensor().cpu(), KSpaceTruncate(2, **options)(x).as_tensor(), **EXACT)


# KSpaceSpacing


def test_a_volume_is_brought_to_a_coarser_spacing_over_the_same_field_of_view(caplog):
    img = oblique_volume()
    with caplog.at_level(logging.INFO):
        out = KSpaceSpacing((1.6, 2.0, 1.3))(img)
    assert out.shape == (1, 16, 20, 37)
    reached = nib.affines.voxel_sizes(out.affine.numpy())
    np.testing.assert_allclose(reached * out.shape[1:], np.array(SHAPE) * SPACING, rtol=1e-12)
    np.testing.assert_allclose(world(out.affine, (0, 0, 0)), oblique_affine()[:3, 3], atol=1e-12)
    assert torch.equal(out.as_tensor(), truncate(img.as_tensor(), (16, 20, 37), DIM))
    assert "sub-07.nii.gz: changed the spacing from 0.8 x 1 x 1.3 mm to 1.55 x 2 x 1.3 mm" in caplog.text


def test_a_spacing_within_tolerance_is_left_alone():
    img = oblique_volume()
    out = KSpaceSpacing((0.81, 0.99, 1.3))(img)
    assert torch.equal(out, img)
    assert torch.equal(out.affine, img.affine)
    assert KSpaceSpacing((0.82, 1.0, 1.3), tolerance=0.01)(img).shape == (1, 30, 40, 37)


def test_a_finer_spacing_is_refused_with_file_expectation_finding_and_remedy():
    expected = (
        r"sub-07.nii.gz: expected a spacing of at most 0.8 x 1 x 1 mm, got 0.8 x 1 x 1.3 mm. .* Leave this scan out"
    )
    with pytest.raises(ValueError, match=expected):
        KSpaceSpacing((0.8, 1.0, 1.0))(oblique_volume())
    with pytest.raises(ValueError, match=r"sub-07.nii.gz: pixdim must have 3 values, got \(1.0, 1.0\)"):
        KSpaceSpacing((1, 1))(oblique_volume())


def test_the_coarser_spacing_stays_when_other_transforms_are_inverted():
    compose = Compose([KSpaceSpacingd("image", (1.6, 2.0, 2.6)), ScaleIntensityRobustd("image")])
    assert not isinstance(KSpaceSpacing((1, 1, 1)), InvertibleTransform)
    assert compose.inverse(compose({"image": oblique_volume()}))["image"].shape == (1, 16, 20, 18)


# ScaleIntensityRobust


def test_the_scale_is_the_percentile_of_the_voxels_above_the_mean():
    x = torch.cat([torch.zeros(500), torch.arange(1.0, 1002.0)]).reshape(1, 1501)
    foreground = x[x > x.mean()]
    scale = ScaleIntensityRobust(50).measure(x)
    assert scale == pytest.approx(float(foreground.median()))
    assert scale > float(x.median())


def test_both_groups_measure_the_scale_at_low_resolution():
    high_res = oblique_volume()
    low_res = KSpaceTruncate((2, 2, 1))(high_res)
    at_low_res = ScaleIntensityRobust().measure(low_res)
    assert ScaleIntensityRobust(scale_factor=(2, 2, 1)).measure(high_res) == at_low_res
    assert ScaleIntensityRobust().measure(high_res) > 1.04 * at_low_res


def test_scaling_divides_remembers_and_is_undone_also_for_a_prediction():
    img, transform = oblique_volume() * 400, ScaleIntensityRobust()
    scaled = transform(img)
    scale = scaled.meta["intensity_scale"]
    torch.testing.assert_close((scaled * scale).as_tensor(), img.as_tensor(), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(transform(img * 7).as_tensor(), scaled.as_tensor(), rtol=1e-6, atol=0.0)
    pred = MetaTensor(torch.full((1, 4, 4, 4), 0.5)).copy_meta_from(scaled)
    restored = transform.inverse(pred)
    torch.testing.assert_close(restored.as_tensor(), torch.full((1, 4, 4, 4), scale / 2))
    assert "intensity_scale" not in restored.meta
    assert restored.applied_operations == []


def test_a_plain_tensor_is_scaled_alike():
    x = random_volume(1, 8, 8, 8)
    assert float(ScaleIntensityRobust(100)(x).max()) == 1


def test_scaling_refuses_dark_volumes_and_impossible_arguments():
    with pytest.raises(ValueError, match=r"sub-07.nii.gz: expected a positive intensity at percentile 99.9 .*, got -"):
        ScaleIntensityRobust()(oblique_volume() - 2)
    with pytest.raises(ValueError, match=r"volume: expected a positive intensity .* got 0"):
        ScaleIntensityRobust()(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"percentile must be in \(0, 100\], got 0"):
        ScaleIntensityRobust(percentile=0)
    with pytest.raises(ValueError, match=r"scale_factor must be at least 1 along each axis, got 0.5"):
        ScaleIntensityRobust(scale_factor=0.5)


# DeclareHighResGrid


@pytest.mark.parametrize("scale_factor", [2, (2, 2, 1)])
def test_the_declared_grid_puts_low_res_voxel_l_on_voxel_s_times_l(scale_factor):
    img = oblique_volume()
    out = DeclareHighResGrid(scale_factor)(img)
    index = voxels(SHAPE)
    np.testing.assert_allclose(world(out.affine, index * scale_factor), world(img.affine, index), rtol=0, atol=1e-10)
    assert tuple(out.meta["spatial_shape"]) == tuple(np.array(SHAPE) * scale_factor)
    assert torch.equal(out.meta["low_res_affine"], img.affine)
    assert torch.equal(out.as_tensor(), img.as_tensor())
    assert out.applied_operations == []
    np.testing.assert_allclose(img.affine, oblique_affine())


def test_a_tensor_without_metadata_has_no_grid_to_declare():
    x = torch.rand(1, 4, 4, 4)
    assert DeclareHighResGridd("image", 2)({"image": x})["image"] is x
    with pytest.raises(ValueError, match=r"sub-07.nii.gz: .* each of the 3 spatial axes, got \(2,\)"):
        DeclareHighResGrid((2,))(oblique_volume())


# DataConsistencyd and InterpolateBaselinesd


def test_data_consistency_restores_the_acquisition_and_keeps_the_metadata_of_the_prediction():
    image = oblique_volume()
    pred = MetaTensor(random_volume(1, 62, 80, 37)).copy_meta_from(DeclareHighResGrid((2, 2, 1))(image))
    out = DataConsistencyd()({"image": image, "pred": pred})["pred"]
    torch.testing.assert_close(truncate(out.as_tensor(), SHAPE, DIM), image.as_tensor(), **EXACT)
    assert torch.equal(out.affine, pred.affine)
    assert out.meta["filename_or_obj"] == "sub-07.nii.gz"


@pytest.mark.parametrize("mode", ["soft", "auto"])
def test_weighted_data_consistency_refuses_several_channels(mode):
    data = {"image": oblique_volume(), "pred": torch.rand(2, 62, 80, 74)}
    with pytest.raises(ValueError, match=r"sub-07.nii.gz: data_consistency \w+ expects .* one channel, got 2"):
        DataConsistencyd(mode=mode)(data)


def test_data_consistency_refuses_sizes_that_are_no_multiples():
    data = {"image": oblique_volume(), "pred": torch.rand(1, 62, 81, 74)}
    expected = r"sub-07.nii.gz: expected .* whole multiples of the image's size \(31, 40, 37\), got \(62, 81, 74\)"
    with pytest.raises(ValueError, match=expected):
        DataConsistencyd()(data)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("scale_factor", [[2, 2, 2], [2, 2, 1]])
def test_baselines_lie_on_the_grid_of_the_prediction(scale_factor, declared):
    image = oblique_volume()
    grid = DeclareHighResGrid(scale_factor)(image)
    out = InterpolateBaselinesd("image", scale_factor)({"image": grid if declared else image})
    size = tuple(np.array(SHAPE) * scale_factor)
    assert out["zero_filling"].shape == out["tricubic"].shape == (1, *size)
    assert torch.equal(out["zero_filling"].as_tensor(), zero_fill(image.as_tensor(), size, DIM))
    torch.testing.assert_close(out["tricubic"].as_tensor()[:, ::2, ::2, :: scale_factor[2]], image.as_tensor(), **EXACT)
    for key in ("zero_filling", "tricubic"):
        torch.testing.assert_close(out[key].affine, grid.affine, **EXACT)


def test_baselines_of_a_plain_tensor_are_plain_and_a_factor_must_be_whole():
    assert InterpolateBaselinesd("image", 2)({"image": torch.rand(1, 4, 4)})["tricubic"].shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"whole number of at least 1 along each axis, got \[2, 1.5\]"):
        InterpolateBaselinesd("image", [2, 1.5])


# the whole way from a file to a file


def preprocessing(*degradation) -> Compose:
    return Compose(
        [
            LoadImageStrictd("image"),
            EnsureChannelFirstd("image"),
            CheckVolumed("image"),
            Orientationd("image", axcodes="ASR", labels=None),
            *degradation,
            EnsureTyped("image", dtype=torch.float32),
            ScaleIntensityRobustd("image"),
            DeclareHighResGridd("image", 2),
        ]
    )


def zero_filled_file(path: Path, output_dir: Path, transform: Compose) -> nib.Nifti1Image:
    """Zero-fill a file through cache, loader, inversion and writer, and re-read it."""
    post = Compose(
        [
            InterpolateBaselinesd("image", 2),
            Invertd("zero_filling", transform=transform, orig_keys="image", nearest_interp=False),
            SaveImaged("zero_filling", output_dir=output_dir, separate_folder=False, print_log=False),
        ]
    )
    dataset = CacheDataset([{"image": path}], transform, progress=False)
    for batch in DataLoader(dataset, batch_size=1):
        for item in decollate_batch(batch):
            post(item)
    return nib.load(next(output_dir.glob("*.nii.gz")))


def test_a_degraded_file_comes_back_with_its_grid_orientation_and_units(tmp_path):
    truth = smooth_volume(SHAPE, (15, 20, 18))[0]
    path = save_nifti(tmp_path / "sub-07.nii.gz", truth, oblique_affine())
    saved = zero_filled_file(path, tmp_path / "out", preprocessing(KSpaceTruncated("image", 2)))
    np.testing.assert_allclose(saved.affine, oblique_affine(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(saved.get_fdata(), truth.numpy(), rtol=0, atol=1e-3)


def test_every_voxel_of_a_low_res_file_is_found_at_its_place_in_the_world(tmp_path):
    image = smooth_volume(SHAPE, SHAPE)[0]
    path = save_nifti(tmp_path / "sub-07.nii.gz", image, oblique_affine())
    saved = zero_filled_file(path, tmp_path / "out", preprocessing())
    assert saved.shape == (62, 80, 74)
    position = nib.affines.apply_affine(np.linalg.inv(saved.affine) @ oblique_affine(), voxels(SHAPE))
    index = np.round(position).astype(int)
    np.testing.assert_allclose(position, index, rtol=0, atol=1e-4)
    found = saved.get_fdata()[tuple(index.T)].reshape(SHAPE)
    np.testing.assert_allclose(found, image.numpy(), rtol=0, atol=1e-3)


# LoadImageStrictd


def test_a_good_file_is_read_as_by_nibabel(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).random((8, 9, 10)), oblique_affine())
    strict, other = LoadImageStrictd("image")({"image": path})["image"], nib.load(path)
    np.testing.assert_array_equal(strict, other.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(strict.affine, other.affine)
    assert strict.meta["filename_or_obj"] == str(path)
    both = LoadImageStrictd("image", image_only=False)({"image": path})
    assert both["image_meta_dict"]["filename_or_obj"] == str(path)


def test_deploy_recognises_the_loader_by_its_name():
    loader = LoadImageStrictd("image", allow_missing_keys=True)
    assert type(loader).__name__.startswith("LoadImage")
    assert loader({}) == {}


UNREADABLE = "expected a complete NIfTI, MGH, NRRD or MetaImage file or DICOM series, "


def nifti_bytes(folder: Path) -> bytes:
    return save_nifti(folder / "good.nii", np.random.default_rng(0).random((16, 16, 16))).read_bytes()


@pytest.mark.parametrize("name", ["truncated.nii", "truncated.nii.gz"])
def test_a_truncated_file_ends_in_an_error_with_file_and_remedy(tmp_path, name):
    content = nifti_bytes(tmp_path)
    content = gzip.compress(content) if name.endswith("gz") else content
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name}: {UNREADABLE}.* cannot be read .* export it again"):
        LoadImageStrictd("image")({"image": tmp_path / name})


@pytest.mark.parametrize(
    ("content", "finding"), [("", "an empty file"), ("no image", "a file that begins with b'no i")]
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "notes.txt"])
def test_what_is_no_image_ends_in_an_error_with_file_and_remedy(tmp_path, name, content, finding):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}: {UNREADABLE}got {finding}"):
        LoadImageStrictd("image")({"image": tmp_path / name})


def test_a_missing_file_is_told_from_an_unreadable_one(tmp_path):
    with pytest.raises(ValueError, match=r"missing.nii: expected an image file or a folder .* none. Check the path"):
        LoadImageStrictd("image")({"image": tmp_path / "missing.nii"})


def test_a_folder_without_a_dicom_series_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a DICOM series, got an empty folder. Check the path"):
        LoadImageStrictd("image")({"image": tmp_path})
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"{tmp_path}: expected .* no DICOMs"):
        LoadImageStrictd("image")({"image": tmp_path})


def test_the_reason_stays_visible_when_compose_wraps_it(tmp_path):
    with pytest.raises(RuntimeError) as error:
        preprocessing()({"image": tmp_path / "missing.nii.gz"})
    assert isinstance(error.value.__cause__, ValueError)
    assert "missing.nii.gz: expected an image file" in str(error.value.__cause__)


# CheckVolume


def test_a_sound_volume_passes_unchanged():
    img = oblique_volume()
    assert CheckVolume()(img) is img
    assert CheckVolume()(torch.rand(1, 8, 8, 8)).shape == (1, 8, 8, 8)


def altered(value: float) -> MetaTensor:
    img = oblique_volume()
    img[0, 3, 4, 5] = value
    return img


def with_affine(affine) -> MetaTensor:
    img = oblique_volume()
    img.meta["affine"] = torch.as_tensor(affine, dtype=torch.float64)
    return img


@pytest.mark.parametrize(
    ("img", "expected"),
    [
        (oblique_volume()[:, 0], r"a volume of 3 spatial axes, got 2 of shape \(40, 37\). Use a 3-D acquisition"),
        (oblique_volume()[None], r"a volume of 3 spatial axes, got 4 of shape \(1, 31, 40, 37\)"),
        (torch.cat([oblique_volume()] * 5), r"one channel, got 5 of shape \(31, 40, 37\). Extract one volume"),
        (oblique_volume()[..., :7], r"at least \(8, 8, 8\) voxels, got \(31, 40, 7\). Use a larger field of view"),
        (altered(float("nan")), r"finite voxels, got 1 that are NaN or infinite. Replace them"),
        (altered(float("inf")), r"finite voxels, got 1 that are NaN or infinite"),
        (oblique_volume() * 0 + 3, r"an image, got the constant 3. Check how the file was written"),
        (with_affine(np.diag([0.0, 1, 1, 1])), r"a positive, finite voxel spacing, got \[0.0, 1.0, 1.0\] mm"),
        (
            with_affine(np.diag([np.nan, 1, 1, 1])),
            r"a positive, finite voxel spacing, got \[nan, 1.0, 1.0\] mm. Correct",
        ),
    ],
)
def test_an_unsound_volume_ends_in_an_error_with_file_expectation_finding_and_remedy(img, expected):
    with pytest.raises(ValueError, match=f"sub-07.nii.gz: expected {expected}"):
        CheckVolumed("image")({"image": img})


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((16, 16), "a volume of 3 spatial axes, got 2"), ((9, 9, 9, 4), r"one channel, got 4 of shape \(9, 9, 9\)")],
)
def test_files_of_another_dimension_are_told_apart(tmp_path, shape, expected):
    path = save_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).random(shape))
    data = EnsureChannelFirstd("image")(LoadImageStrictd("image")({"image": path}))
    with pytest.raises(ValueError, match=f"a.nii.gz: expected {expected}"):
        CheckVolumed("image")(data)


# real scans


def scan(name: str) -> torch.Tensor:
    """A scan in the canonical frame, padded to multiples of 4, divided by its maximum."""
    path = (EXAMPLE if name[:6] == "sub-03" else SHARED_DATA) / name[:6] / "anat" / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip(f"the real scan {name} is not at {SHARED_DATA}")
    data = EnsureChannelFirstd("image")(LoadImageStrictd("image")({"image": path}))
    x = DivisiblePad(k=4)(Orientation(axcodes="ASR", labels=None)(CheckVolume()(data["image"]))).as_tensor()
    return x / x.max()


def psnr(pred: torch.Tensor, label: torch.Tensor) -> float:
    return float(-10 * (pred - label).square().mean().log10())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    ("name", "zero_filling", "aligned", "centred"),
    [("sub-02_T1w", 34.68, 33.83, 30.93), ("sub-03_T1w", 38.05, 37.39, 34.85), ("sub-04_T1w", 34.66, 33.92, 31.48)],
)
def test_on_a_t1_head_zero_filling_beats_aligned_cubic_beats_centred_cubic(name, zero_filling, aligned, centred):
    high_res = scan(name)
    size = high_res.shape[1:]
    low_res = truncate(high_res, [n // 2 for n in size], DIM)
    assert psnr(zero_fill(low_res, size, DIM), high_res) == pytest.approx(zero_filling, abs=0.01)
    assert psnr(interpolate_cubic(low_res, 2, DIM), high_res) == pytest.approx(aligned, abs=0.01)
    assert psnr(interpolate_cubic(low_res, 2, DIM, centred=True), high_res) == pytest.approx(centred, abs=0.01)


@pytest.mark.parametrize(("name", "even", "odd"), [("sub-03_T1w", 0.995, 0.975), ("sub-04_T1w", 0.984, 0.925)])
def test_on_a_t1_head_low_res_resembles_the_even_voxels_not_the_odd_ones(name, even, odd):
    high_res = scan(name)
    low_res = truncate(high_res, [n // 2 for n in high_res.shape[1:]], DIM)
    assert correlation(high_res[:, ::2, ::2, ::2], low_res) == pytest.approx(even, abs=1e-3)
    assert correlation(high_res[:, 1::2, 1::2, 1::2], low_res) == pytest.approx(odd, abs=1e-3)


def test_on_a_t1_head_a_flip_needs_a_roll_by_one_voxel():
    high_res = scan("sub-03_T1w")
    half = [n // 2 for n in high_res.shape[1:]]
    flipped = truncate(high_res, half, DIM).flip(DIM)
    assert psnr(truncate(high_res.flip(DIM), half, DIM), flipped) == pytest.approx(32.3, abs=0.1)
    assert psnr(truncate(high_res.flip(DIM).roll((-1, -1, -1), DIM), half, DIM), flipped) > 80
