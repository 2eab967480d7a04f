"""Pairs of both groups: source and target scans are references of their own degradation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scripts.data.datasets import PairedDataset
from scripts.physics.kspace import truncate
from torch import Tensor

HIGH_RES, LOW_RES = (72, 68, 24), (36, 34, 12)  # of the phantoms, axes A, S, R


@pytest.fixture
def pooled(train_stack) -> Callable[..., PairedDataset]:
    def make(*methods: str, **settings) -> PairedDataset:
        stack = [*(f"methods/{name}.yaml" for name in methods or ("spectral", "kspace_pairs")), "data/pooled.yaml"]
        settings = {"copies_per_scan": 1, **settings}
        return train_stack(*stack, **settings).parser.get_parsed_content("train::dataset")

    return make


def without_air(volume: Tensor) -> Tensor:
    """A padded volume without its zeros."""
    kept = [volume.abs().amax([d for d in range(3) if d != dim]).nonzero().flatten() for dim in range(3)]
    return volume[tuple(slice(int(index[0]), int(index[-1]) + 1) for index in kept)]


def in_order(volume: Tensor) -> Tensor:
    """The values of a volume, which mirroring leaves, on the scale of their maximum."""
    values = volume.flatten().sort().values
    return values / values[-1]


@pytest.mark.parametrize("degrade_target", [False, True])
def test_the_target_s_scans_are_references_at_their_own_resolution(pooled, train_stack, degrade_target):
    dataset = pooled(degrade_target=degrade_target)
    unpaired = train_stack(degrade_target=degrade_target).parser.get_parsed_content("train::dataset").volumes
    assert dataset.volumes["label"].keys() == unpaired["reals"].keys() | unpaired["image"].keys()
    for subject, (label,) in dataset.volumes["label"].items():
        if subject in unpaired["reals"]:
            assert tuple(label.shape) == HIGH_RES
        else:
            scan = without_air(label)
            assert tuple(scan.shape) == LOW_RES
            torch.testing.assert_close(in_order(scan), in_order(unpaired["image"][subject][0]), atol=1e-4, rtol=0)


def test_every_pair_is_a_reference_and_its_truncation(pooled):
    dataset = pooled()
    assert len(dataset.volumes["image"]) == 4
    for subject, (image,) in dataset.volumes["image"].items():
        label = dataset.volumes["label"][subject][0]
        assert image.shape == tuple(n // 2 for n in label.shape)
        torch.testing.assert_close(image, truncate(label, image.shape, (0, 1, 2)), atol=1e-5, rtol=0)


def test_a_batch_of_one_source_subject_holds_the_target_s_too(pooled):
    dataset = pooled(hr_fraction=0.1, batch_size=3)
    subjects = {dataset[i]["image_subject"] for i in range(3)}
    assert len(subjects) == 3
    assert len(subjects & {"sub-02", "sub-03"}) == 2


def test_it_goes_with_an_estimated_degradation(pooled):
    dataset = pooled("spectral", copies_per_scan=2)
    assert {len(labels) for labels in dataset.volumes["label"].values()} == {2}
    low_res = [without_air(labels[0]) for labels in dataset.volumes["label"].values()]
    assert sorted(tuple(volume.shape) for volume in low_res) == [LOW_RES, LOW_RES, HIGH_RES, HIGH_RES]
