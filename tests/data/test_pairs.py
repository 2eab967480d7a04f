"""Pairs of any acquisition: exact crops, reproducible samples, masks, and named acquisitions for validation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import head_phantom
from monai.data import MetaTensor
from scripts.data.acquisitions import AcquisitionRange
from scripts.data.pairs import AnyAcquisitionDataset, NamedAcquisitionDataset
from scripts.transforms import InterpolateAcquiredd, ScaleIntensityRobustd
from scripts.transforms.interpolate import acquisition_of

SHAPE = (40, 44, 36)
UNDISTURBED = {"filtered": 0.0, "noisy": 0.0, "uneven": 0.0, "moved": 0.0}
OWN = {"changed": 0.0, "biased": 0.0}


def reading(item: dict) -> dict:
    """Phantoms instead of files; a masked one has air of exactly 0."""
    out = dict(item)
    for key in {"reals", "label"} & item.keys():
        volume = head_phantom(item[key], SHAPE)
        if item.get("masked"):
            volume = volume * (volume > 100)
        out[key] = MetaTensor(volume[None], affine=np.diag([*item.get("spacing", [1.0, 1.0, 1.0]), 1.0]))
    return out


def dataset(masked: bool = False, **options) -> AnyAcquisitionDataset:
    items = [{"reals": seed, "subject": f"sub-{seed}", "masked": masked} for seed in range(3)]
    settings = {"num_iterations": 6, "crop_size": 16, "copies": 2, "repeats": 2, "batch_size": 2, **options}
    acquisitions = settings.pop("acquisitions", AcquisitionRange())
    return AnyAcquisitionDataset(
        items,
        reading,
        acquisitions=acquisitions,
        intensity_transform=ScaleIntensityRobustd("reals", scale_factor=2.0),
        progress=False,
        **settings,
    )


def test_a_sample_depends_on_seed_and_index_alone():
    forward, backward = dataset(), dataset()
    samples = [forward[i] for i in range(len(forward))]
    for i in reversed(range(len(backward))):
        again = backward[i]
        assert all(torch.equal(again[key], samples[i][key]) for key in ("image", "label", "weight", "acquisition"))
    assert not torch.equal(dataset(seed=1)[0]["label"], samples[0]["label"])


def test_subjects_of_a_batch_differ_and_a_scan_serves_several_iterations():
    one = dataset(num_iterations=12, repeats=3)
    names = [[one[2 * iteration + index]["image_subject"] for index in range(2)] for iteration in range(12)]
    changes = [[a != b for a, b in zip(now, then, strict=True)] for now, then in itertools.pairwise(names)]
    assert all(sum(each) <= 1 for each in changes)  # the scans of a batch change at different iterations
    assert any(any(each) for each in changes)


def test_a_crop_equals_that_part_of_the_whole_interpolated_scan():
    one = dataset(contrast={"changed": 1.0, "biased": 1.0})
    one[0]
    acquired = one._acquired[0][1]
    whole, window = acquired.crop(), (slice(3, 19), slice(8, 24), slice(1, 17))
    part = acquired.crop(window)
    for key in ("image", "label", "weight"):
        assert torch.allclose(part[key], whole[key][:, window[0], window[1], window[2]], atol=1e-5)


def test_the_truth_is_the_scan_on_its_scale_and_the_image_its_acquisition():
    factor_two = AcquisitionRange(kinds={"isotropic": 1.0}, common=1.0, **UNDISTURBED)
    one = dataset(contrast=OWN, acquisitions=factor_two)
    one[0]
    whole = one._acquired[0][1].crop()
    assert whole["image"].shape == whole["label"].shape
    assert 0 < (whole["image"] - whole["label"]).abs().mean() < 0.3 * whole["label"].abs().mean()
    assert whole["weight"].min() == 1
    assert whole["acquisition"].abs().max() <= 0.55


def test_the_description_follows_the_turned_crop():
    slabs = AcquisitionRange(kinds={"slices": 1.0}, common=1.0, **UNDISTURBED)
    one = dataset(contrast=OWN, acquisitions=slabs, num_iterations=20)
    turned = set()
    for i in range(0, 40, 2):
        sample = one[i]
        told = int(sample["acquisition"].reshape(3, 3)[:, 1].argmax())
        error = (sample["image"] - sample["label"])[0]
        roughness = [float(error.diff(dim=axis).abs().mean()) for axis in range(3)]
        turned.add(told)
        assert error.abs().max() == 0 or roughness[told] == pytest.approx(max(roughness), rel=0.6)
    assert turned == {0, 1, 2}


def test_output_spacings_reach_from_the_scan_s_own_to_the_coarsest():
    shapes = [tuple(truth.volume.shape) for truth in dataset(copies=2).truths["sub-0"]]
    assert shapes == [SHAPE, tuple(round(n / 1.4**0.5) for n in SHAPE)]
    assert len(dataset(spacings=(0.6, 0.9)).truths["sub-0"]) == 1


def test_a_masked_scan_counts_where_the_acquisition_smears_nothing():
    one = dataset(masked=True, contrast=OWN)
    one[0]
    acquired = one._acquired[0][1]
    weight = acquired.crop()["weight"][0].bool()
    assert 0 < weight.float().mean() < acquired.truth.mask.float().mean()
    assert not (weight & ~acquired.truth.mask).any()


def test_a_volume_smaller_than_a_crop_is_padded_without_weight():
    one = dataset(crop_size=48, contrast=OWN)
    sample = one[0]
    assert sample["image"].shape == (1, 48, 48, 48)
    assert 0 < sample["weight"].mean() < 1


def test_a_training_can_widen_its_range():
    one = dataset(num_iterations=8, widening=8, contrast=OWN)
    one[0]
    spacings = [axis.spacing for axis in one._acquired[0][1].scan.encodings]
    assert np.allclose(spacings, np.round(spacings), atol=0.1)


def test_a_scan_that_is_coarse_along_an_axis_loses_resolution_along_the_others_alone():
    items = [{"reals": 0, "subject": "sub-0", "spacing": [1.0, 2.0, 1.1]}]
    one = AnyAcquisitionDataset(items, reading, 4, AcquisitionRange(), crop_size=16, repeats=1, progress=False)
    assert [truth.volume.shape for truth in one.truths["sub-0"]] == [SHAPE]
    for i in range(16):
        one[i]
        spacings = [axis.spacing for axis in one._acquired[i % 4][1].scan.encodings]
        assert spacings[1] == 1
        assert min(spacings[0], spacings[2]) > 1.25


def test_an_index_beyond_the_budget_is_refused():
    with pytest.raises(IndexError, match=r"\[0, 11\], got 12"):
        dataset()[12]


def test_validation_pairs_have_names_and_no_noise():
    names = {"2x2x2": [2, 2, 2], "slices": [1, 1, [5, 4]]}
    pairs = NamedAcquisitionDataset([{"label": 0, "subject": "a"}, {"label": 1, "subject": "b"}], reading, names)
    assert [(pairs[i]["name"], pairs[i]["image_subject"]) for i in range(4)] == [
        ("2x2x2", "a"),
        ("slices", "a"),
        ("2x2x2", "b"),
        ("slices", "b"),
    ]
    assert torch.equal(pairs[0]["image"], pairs[0]["image"])
    assert pairs[0]["label"].shape == (1, *SHAPE)
    assert len(NamedAcquisitionDataset([], reading, names)) == 0


def test_the_range_of_the_training_is_that_of_its_grids_and_acquisitions():
    items = [{"reals": 0, "subject": "a"}, {"reals": 1, "subject": "b", "spacing": [1.0, 2.0, 0.9]}]
    one = AnyAcquisitionDataset(items, reading, 1, AcquisitionRange(), crop_size=16, copies=2, progress=False)
    low, high = one.ranges["output_spacing"]
    assert (low, high) == (pytest.approx(0.9), pytest.approx(1.4**0.5, rel=0.02))
    assert one.ranges["factor"] == (None, 2.5)
    assert one.ranges["slice_spacing"] == (None, 6.0)
    assert one.ranges["snr"] == (12.0, None)
    assert len(one.high_res_volumes) == 2
    assert AcquisitionRange(kinds={"in_plane": 1.0}, noisy=0).ranges["slice_spacing"] == (None, 1.0)


# Real scans, without truth


def real_scans(spacing=(1.0, 1.0, 4.0), shape=(30, 32, 9)):
    def transform(item: dict) -> dict:
        volume = MetaTensor(head_phantom(item["image"], shape)[None], affine=np.diag([*spacing, 1.0]))
        return InterpolateAcquiredd()({"image": volume})

    return {"scans": [{"image": 7, "subject": "real"}], "scan_transform": transform}


def test_real_scans_take_turns_without_weight():
    one = dataset(num_iterations=24, repeats=1, crop_size=24, **real_scans())
    samples = [one[i] for i in range(len(one))]
    real = [sample for sample in samples if sample["image_subject"] == "real"]
    assert 0.15 < len(real) / len(samples) < 0.35  # one of four subjects
    for sample in real:
        assert sample["weight"].abs().max() == 0
        assert torch.equal(sample["image"], sample["label"])
        told = sample["acquisition"].reshape(3, 3)
        assert sorted(told[:, 1].tolist()) == [-0.5, -0.5, 0.5]
    again = dataset(num_iterations=24, repeats=1, crop_size=24, **real_scans())
    assert all(torch.equal(again[i]["image"], samples[i]["image"]) for i in (5, 1, 40))


def test_a_real_scan_is_interpolated_by_the_acquisition_that_was_found_on_the_scale_of_inference():
    settings = real_scans()
    one = dataset(crop_size=16, **settings)
    (scan,) = one.scans["real"]
    found = settings["scan_transform"]({"image": 7})
    expected = ScaleIntensityRobustd(["acquired", "image"], measured_on="acquired")(found)["image"]
    assert scan.scan.encodings == acquisition_of(found["image"]).encodings
    torch.testing.assert_close(scan.crop()["image"], expected.as_tensor())


def test_a_real_scan_smaller_than_a_crop_is_continued():
    one = dataset(crop_size=40, copies=1, num_iterations=12, repeats=1, **real_scans())
    assert {tuple(one[i]["image"].shape) for i in range(len(one))} == {(1, 40, 40, 40)}


def test_a_subject_may_have_a_truth_and_a_real_scan():
    settings = real_scans()
    one = dataset(num_iterations=40, repeats=1, **{**settings, "scans": [{"image": 7, "subject": "sub-0"}]})
    own = [one[i] for i in range(len(one)) if one[i]["image_subject"] == "sub-0"]
    assert {bool(sample["weight"].any()) for sample in own} == {True, False}
