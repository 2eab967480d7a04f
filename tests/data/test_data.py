"""Unpaired slabs: reproducible draws, grid-true crops, one spacing and one intensity scale, refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.data.crops import Crops, Slabs, crop_slab, draw_start, is_informative, slab_axis_last
from scripts.data.datasets import UnpairedDataset
from scripts.data.samplers import IterationSampler
from scripts.networks.slabs import compared_slabs
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import ScaleIntensityRobustd
from torch.utils.data import DataLoader

LOW_RES_SHAPE, HIGH_RES_SHAPE = (20, 24, 12), (44, 40, 26)
ITEMS = [{"image": f"low-{n}", "subject": f"t{n}"} for n in range(3)] + [
    {"reals": f"high-{n}", "subject": f"s{n}"} for n in range(4)
]


def synthetic(
    low_res_shape: tuple = LOW_RES_SHAPE,
    high_res_shape: tuple = HIGH_RES_SHAPE,
    low_res_spacing: tuple = (2.0, 2.0, 2.0),
    high_res_spacing: tuple = (1.0, 1.0, 1.0),
) -> Callable:
    """A stand-in for the preprocessing: noise instead of a file, the same for the same name."""

    def load(item: dict) -> dict:
        settings = {"image": (low_res_shape, low_res_spacing), "reals": (high_res_shape, high_res_spacing)}
        for key, (shape, spacing) in settings.items():
            if key in item:
                noise = torch.rand((1, *shape), generator=torch.Generator().manual_seed(int(item[key][-1])))
                affine = np.diag([*spacing, 1.0])
                item[key] = MetaTensor(noise, affine=affine, meta={"filename_or_obj": item[key]})
        return item

    return load


def slab_dataset(items: list[dict] = ITEMS, load: Callable | None = None, **settings) -> UnpairedDataset:
    geometry = {"scale_factor": (2, 2, 2), "patch_size": (8, 8)}
    geometry |= {key: settings.pop(key) for key in ("scale_factor", "patch_size", "context") if key in settings}
    arguments = {"num_iterations": 5, "batch_size": 4, "progress": False, "cut": Slabs(**geometry), **settings}
    return UnpairedDataset(items, load or synthetic(), **arguments)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) if isinstance(one[k], torch.Tensor) else one[k] == other[k] for k in one
    )


# Slabs


@pytest.mark.parametrize(("scale_factor", "high_res_slab"), [((2, 2, 2), (6, 16, 16)), ((2, 2, 1), (3, 16, 16))])
def test_slices_are_channels_and_the_slab_keeps_the_scale_factor(scale_factor, high_res_slab):
    load = synthetic(high_res_spacing=tuple(2 / s for s in scale_factor))
    sample = slab_dataset(load=load, scale_factor=scale_factor)[0]
    assert sample["image"].shape == (3, 8, 8)
    assert sample["reals"].shape == high_res_slab
    assert {sample[key].dtype for key in ("image", "reals")} == {torch.float32}
    assert (sample["image_subject"][0], sample["reals_subject"][0]) == ("t", "s")


def test_slices_come_in_the_order_of_the_slab_axis():
    volume = torch.arange(4 * 5 * 6).reshape(4, 5, 6)
    slab = crop_slab(volume, (1, 2, 3), (2, 2, 3))
    for channel in range(3):
        assert torch.equal(slab[channel], volume[1:3, 2:4, 3 + channel])


def test_context_surrounds_a_slab_and_repeats_the_ends_of_the_volume():
    volume = torch.arange(4 * 5 * 6).reshape(4, 5, 6)
    slab = crop_slab(volume, (1, 2, 1), (2, 2, 3), context=2)
    for channel, slice_index in enumerate((0, 0, 1, 2, 3, 4, 5)):
        assert torch.equal(slab[channel], volume[1:3, 2:4, slice_index])
    assert torch.equal(slab[2:5], crop_slab(volume, (1, 2, 1), (2, 2, 3)))


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_the_learned_slices_of_a_sample_are_the_sample_without_context(scale_factor):
    load = synthetic(high_res_spacing=tuple(2 / s for s in scale_factor))
    narrow, wide = (slab_dataset(load=load, scale_factor=scale_factor, context=c)[0] for c in (0, 4))
    assert wide["image"].shape[0] == 11
    learned = compared_slabs(3, 0, wide["image"][None], reals=wide["reals"][None])
    for key, slab in learned.items():
        assert torch.equal(slab[0], narrow[key])


def test_high_res_slabs_start_on_low_res_voxels_and_reach_both_ends():
    rng = np.random.default_rng(0)
    starts = np.array([draw_start(rng, (20, 21, 10), (8, 8, 10), (2, 2, 1)) for _ in range(500)])
    assert not (starts[:, :2] % 2).any()
    assert set(starts[:, 0]) == set(starts[:, 1]) == set(range(0, 13, 2))
    assert set(starts[:, 2]) == {0}


def test_low_and_high_res_slabs_at_one_index_show_the_same_place():
    # a strictly band-limited volume equals its truncation on every second voxel
    wave = torch.cos(2 * torch.pi * torch.arange(16) / 16)
    high_res = wave[:, None, None] * wave[None, :, None] + wave[None, None, :]
    low_res = truncate(high_res, (8, 8, 8), (0, 1, 2))
    start = draw_start(np.random.default_rng(3), low_res.shape, (4, 4, 2), (1, 1, 1))
    low_slab = crop_slab(low_res, start, (4, 4, 2))
    high_slab = crop_slab(high_res, [2 * n for n in start], (8, 8, 4))
    torch.testing.assert_close(high_slab[::2, ::2, ::2], low_slab, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis_can_be_the_slab_axis(axis):
    volume = torch.zeros(4, 5, 6)
    rotated = slab_axis_last(volume, axis)
    assert rotated.shape[-1] == volume.shape[axis]
    assert rotated.shape == {0: (5, 6, 4), 1: (6, 4, 5), 2: (4, 5, 6)}[axis]


def test_last_axes_are_drawn_per_sample_and_alike_for_both_groups():
    # every voxel's value is its index along the first axis, so that constant slices tell that it is the slab axis
    def load(item):
        for key in item.keys() & {"image", "reals"}:
            size = 16 if key == "image" else 32
            ramp = torch.arange(1.0, size + 1)[:, None, None].expand(1, size, size, size)
            item[key] = MetaTensor(ramp.clone(), affine=np.eye(4) * (2 if key == "image" else 1))
        return item

    dataset = slab_dataset(load=load, last_axes=(0, 1, 2), num_iterations=10)
    across = [[bool((sample[k].std((1, 2)) == 0).all()) for k in ("image", "reals")] for sample in dataset]
    assert all(low == high for low, high in across)
    assert {low for low, _ in across} == {True, False}


def test_air_with_noise_is_not_informative_but_flat_tissue_is():
    rng = torch.Generator().manual_seed(0)
    assert not is_informative(torch.randn((3, 64, 64), generator=rng).mul(0.02).abs())
    assert is_informative(torch.full((3, 64, 64), 0.8))
    assert is_informative(torch.cat((torch.zeros(2, 64, 64), torch.full((1, 64, 64), 0.2))))


def test_empty_slabs_are_drawn_again():
    volume = torch.zeros(64, 64, 8)
    volume[16:48, 16:48] = 1
    rng = np.random.default_rng(0)
    for cut in (Slabs((2, 2, 2), (8, 8), 3), Crops((2, 2, 2), (16, 16, 6))):
        samples = (cut.cut(volume, True, cut.draw(volume, True, rng)) for _ in range(20))
        assert all(is_informative(sample) for sample in samples)


def test_a_volume_of_nearly_nothing_yields_its_most_varied_slab():
    volume = torch.zeros(8, 8, 30)
    volume[..., 15] = 0.02
    cut = Slabs((2, 2, 2), (8, 8), 3)
    assert cut.cut(volume, True, cut.draw(volume, True, np.random.default_rng(0))).max() > 0


# Randomness


def test_a_sample_depends_on_seed_iteration_and_index_only():
    one, two, other = slab_dataset(), slab_dataset(num_iterations=50), slab_dataset(seed=1)
    order = np.random.default_rng(0).permutation(len(one))
    assert all(same(one[int(i)], two[int(i)]) for i in order)
    assert not all(same(one[i], other[i]) for i in range(len(one)))
    assert not any(torch.equal(one[i]["image"], one[j]["image"]) for i, j in pairwise(range(len(one))))


def test_workers_and_resume_change_nothing():
    dataset = slab_dataset()
    whole = list(DataLoader(dataset, batch_size=4, sampler=IterationSampler(dataset)))
    resumed = list(DataLoader(dataset, batch_size=4, sampler=IterationSampler(dataset, start=3), num_workers=2))
    assert len(whole) == 5
    assert len(resumed) == 2
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))


def test_the_sampler_starts_where_it_is_told_and_ends_with_the_budget():
    sampler = IterationSampler(slab_dataset())
    assert list(sampler) == list(range(20))
    sampler.start = 4
    assert list(sampler) == [16, 17, 18, 19]
    assert len(sampler) == 4
    sampler.start = 5
    assert list(sampler) == []
    assert len(sampler) == 0


def test_the_length_is_the_budget_and_ends_the_iteration():
    dataset = slab_dataset()
    assert len(dataset) == len(list(dataset)) == 20
    with pytest.raises(IndexError, match=r"\[0, 19\], got 20"):
        dataset[20]


def test_a_batch_holds_different_subjects_as_far_as_there_are_enough():
    dataset = slab_dataset()
    orders = set()
    for iteration in range(5):
        batch = [dataset[4 * iteration + index] for index in range(4)]
        assert len({sample["reals_subject"] for sample in batch}) == 4
        assert len({sample["image_subject"] for sample in batch}) == 3
        orders.add(tuple(sample["reals_subject"] for sample in batch))
    assert len(orders) > 1


def test_scans_of_one_subject_do_not_enter_a_batch_as_two_subjects():
    items = [{"image": "low-0", "subject": "t"}] + [{"reals": f"high-{n}", "subject": f"s{n % 2}"} for n in range(4)]
    batch = [slab_dataset(items)[index] for index in range(2)]
    assert {sample["reals_subject"] for sample in batch} == {"s0", "s1"}


def test_flips_are_off_by_default_and_mirror_whole_slabs():
    plain, flipped = slab_dataset(), slab_dataset(flip=True)
    pairs = [(plain[i]["image"], flipped[i]["image"]) for i in range(len(plain))]
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a.flatten().sort().values, b.flatten().sort().values) for a, b in pairs)


def test_an_item_may_hold_both_groups():
    items = [{"image": f"low-{n}", "reals": f"high-{n + 3}"} for n in range(2)]
    sample = slab_dataset(items)[0]
    assert (sample["image_subject"][:3], sample["reals_subject"][:4]) == ("low", "high")


# Crops


def crop_dataset(size: tuple = (16, 16, 7), scale_factor: tuple = (2, 2, 2), **settings) -> UnpairedDataset:
    load = synthetic(high_res_spacing=tuple(2 / s for s in scale_factor))
    return slab_dataset(load=load, cut=Crops(scale_factor, size), **settings)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_crops_of_both_groups_have_one_size_and_start_anywhere(scale_factor):
    dataset = crop_dataset(scale_factor=scale_factor)
    for sample in (dataset[i] for i in range(4)):
        assert sample["image"].shape == sample["reals"].shape == (1, 16, 16, 7)
        assert sample["image"].dtype == torch.float32
    rng, volume = np.random.default_rng(0), dataset.low_res_volumes[0]
    starts = np.array([dataset.cut.draw(volume, True, rng) for _ in range(100)])
    assert {int(n) % 2 for n in starts[:, 0]} == {0, 1}


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_a_low_res_crop_is_part_of_the_zero_filled_volume(scale_factor):
    volume = torch.rand(12, 10, 9, generator=torch.Generator().manual_seed(0))
    whole = zero_fill(volume, [n * s for n, s in zip(volume.shape, scale_factor, strict=True)], (0, 1, 2))
    crop = Crops(scale_factor, (8, 7, 5)).cut(volume, True, [3, 2, 1])
    torch.testing.assert_close(crop[0], whole[3:11, 2:9, 1:6], atol=1e-5, rtol=0)


def test_a_volume_below_the_crop_is_refused_by_name():
    with pytest.raises(ValueError, match=r"low-0: `image` .*\[21, 8, 4\].*got \[20, 24, 12\].*smaller crop_size"):
        crop_dataset(size=(42, 16, 7))


# Spacing, intensity, refusals


def test_a_finer_source_is_truncated_to_the_spacing_of_the_target(caplog):
    with caplog.at_level(logging.INFO):
        dataset = slab_dataset(load=synthetic(high_res_shape=(60, 60, 40), high_res_spacing=(0.7, 0.7, 1.05)))
    assert {tuple(v.shape) for vs in dataset.volumes["reals"].values() for v in vs} == {(42, 42, 40)}
    assert "high-0" in caplog.text


def test_intensity_is_measured_after_the_spacing_was_matched():
    scale = ScaleIntensityRobustd(keys="reals", scale_factor=2, allow_missing_keys=True)
    load = synthetic(high_res_shape=(60, 60, 40), high_res_spacing=(0.7, 0.7, 1.0))
    volume = load({"reals": "high-0"})["reals"].as_tensor()
    expected = scale({"reals": truncate(volume, (42, 42), (1, 2))})["reals"][0]
    matched = slab_dataset(load=load, intensity_transform=scale).volumes["reals"]["s0"][0]
    torch.testing.assert_close(matched, expected)


def test_a_target_scan_of_another_spacing_is_reported(caplog):
    def load(item):
        return synthetic(low_res_spacing=(2.0, 2.0, 3.0 if item.get("image") == "low-1" else 2.0))(item)

    slab_dataset(load=load)
    assert "low-1: expected the target's median spacing [2. 2. 2.] mm, got [2. 2. 3.] mm" in caplog.text
    assert "low-0" not in caplog.text


@pytest.mark.parametrize("spacing", [(1.3, 1.3, 1.3), (0.9, 0.9, 5.0)])
def test_a_coarser_or_thick_sliced_source_is_refused_by_name(spacing):
    with pytest.raises(ValueError, match=r"high-0: .*1 x 1 x 1 mm, got .*target's median spacing"):
        slab_dataset(load=synthetic(high_res_spacing=spacing))


@pytest.mark.parametrize("key", ["image", "reals"])
def test_an_empty_group_is_refused(key):
    with pytest.raises(ValueError, match=f"at least one .*`{key}`"):
        slab_dataset([item for item in ITEMS if key not in item])


def test_a_volume_below_the_patch_is_refused_by_name():
    with pytest.raises(ValueError, match=r"low-0: `image` .*\[32, 32, 3\].*got \[20, 24, 12\].*smaller patch_size or"):
        slab_dataset(patch_size=(32, 32))


def test_a_volume_too_thin_for_another_slab_axis_is_refused_by_name():
    with pytest.raises(ValueError, match=r"low-0: `image` .*\[16, 16, 3\].*got \[24, 12, 20\]"):
        slab_dataset(patch_size=(16, 16), last_axes=(0, 2))


def test_other_last_axes_need_equal_scale_factors():
    with pytest.raises(ValueError, match=r"last_axes must be \[2\].*got \[0, 1, 2\] with \[2, 2, 1\]"):
        slab_dataset(scale_factor=(2, 2, 1), last_axes=(0, 1, 2))
    with pytest.raises(ValueError, match=r"axes 0, 1 and 2, got \[3\]"):
        slab_dataset(last_axes=(3,))


@pytest.mark.parametrize("scale_factor", [(2, 2), (2, 2, 1.5), (0, 2, 2)])
def test_scale_factors_must_be_three_whole_numbers(scale_factor):
    with pytest.raises(ValueError, match="three whole numbers"):
        slab_dataset(scale_factor=scale_factor)
