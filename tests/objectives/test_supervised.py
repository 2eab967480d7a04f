"""Supervised training: TS-RCAN's loss, pairs of the same place, and the four kinds of pairs of the benchmarks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import head_phantom
from monai.data import MetaTensor
from objective_checks import gain_over_tricubic, moved, overfit, paired_slabs, tiny_network
from scripts.data.crops import Crops, Slabs
from scripts.data.datasets import PairedDataset
from scripts.losses import structural_similarity
from scripts.objectives import Supervised
from scripts.physics.kspace import truncate, zero_fill
from scripts.physics.registration import sub_voxel_shift
from scripts.transforms import KSpaceTruncate, Subsample
from torch import Tensor

WEIGHTS = {"restoration_l1": 1.0, "restoration_ssim": 0.5}


# The objective


def supervised(skip: bool = False, margin: int = 0) -> Supervised:
    generators = {"network": tiny_network(skip=skip, margin=margin)}
    return Supervised(weights=WEIGHTS, generators=generators, ssim_form="one_minus_square")


def pair(slabs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"image": slabs["image"], "label": slabs["reals"]}


def test_every_term_moves_the_network_and_there_is_nothing_else_to_move():
    objective = supervised()
    terms = objective.generator_loss(objective(pair(paired_slabs())))
    assert tuple(terms) == objective.generator_terms
    assert {name: moved(term, {"network": objective.network}) for name, term in terms.items()} == {
        "restoration_l1": {"network"},
        "restoration_ssim": {"network"},
    }
    assert {id(p) for p in objective.generators.parameters()} == {id(p) for p in objective.network.parameters()}
    assert len(objective.discriminators) == 0


def test_the_loss_is_that_of_ts_rcan_s_code_divided_by_a_hundred():
    generator = torch.Generator().manual_seed(0)
    pred, label = torch.rand((2, 2, 6, 32, 32), generator=generator, dtype=torch.float64)
    objective = supervised()
    authors = 100 * (pred - label).abs().mean() + 50 * (structural_similarity(pred, label) ** 2 - 1).abs()
    loss = objective.total(objective.generator_loss({"pred": pred, "label": label}))
    torch.testing.assert_close(100 * loss, authors)


@pytest.mark.parametrize(("context", "expected"), [(0, (1, 4, 4)), (2, (3, 4, 4))])
def test_borders_are_not_compared_where_the_crop_shows_nothing_beyond_them(context, expected):
    label, image = (torch.rand(1, s * (3 + 2 * context), s * 6, s * 6) for s in (2, 1))
    images = supervised(skip=True, margin=1)({"image": image, "label": label})
    assert {name: tuple(slab.shape[1:]) for name, slab in images.items()} == {
        "image": expected,
        "label": tuple(2 * n for n in expected),
        "pred": tuple(2 * n for n in expected),
    }
    start = 2 * (1 if context == 0 else context)
    assert images["label"].equal(label[:, start : start + 2 * expected[0], 2:-2, 2:-2])
    with pytest.raises(ValueError, match="margin must be less than half of the slab"):
        supervised(skip=True, margin=3)({"image": image, "label": label})


def test_a_perfect_restoration_costs_nothing():
    label = torch.rand(1, 6, 32, 32)
    terms = supervised().generator_loss({"pred": label, "label": label})
    assert {name: pytest.approx(float(term), abs=1e-6) for name, term in terms.items()} == dict.fromkeys(WEIGHTS, 0.0)


@pytest.mark.slow
def test_overfitting_one_batch_passes_aligned_tricubic():
    slabs = paired_slabs()
    objective = supervised(skip=True)
    overfit(objective, pair(slabs))
    assert gain_over_tricubic(slabs, objective.network.restore) > 1.0


# The data


def paired_dataset(load: Callable | None = None, items: int = 3, **settings) -> PairedDataset:
    """Pairs of noise: ``image`` is every second voxel of ``label``, so that places can be compared."""

    def synthetic(item: dict) -> dict:
        label = torch.rand((1, 40, 36, 24), generator=torch.Generator().manual_seed(int(item["label"][-1])))
        volumes = {"label": label, "image": label[:, ::2, ::2, ::2]}
        for key, mm in (("image", 2.0), ("label", 1.0)):
            affine = np.diag([mm, mm, mm, 1.0])
            item[key] = MetaTensor(volumes[key], affine=affine, meta={"filename_or_obj": item[key]})
        return item

    data = [{"image": f"low-{n}", "label": f"high-{n}", "subject": f"s{n}"} for n in range(items)]
    arguments = {"cut": Slabs((2, 2, 2), (8, 8)), "num_iterations": 5, "batch_size": 3, "progress": False}
    return PairedDataset(data, load or synthetic, **{**arguments, **settings})


@pytest.mark.parametrize("last_axes", [(2,), (0, 1, 2)])
def test_the_slabs_of_a_pair_show_the_same_place(last_axes):
    for sample in paired_dataset(last_axes=last_axes):
        assert sample["image"].shape == (3, 8, 8)
        assert sample["label"].shape == (6, 16, 16)
        assert torch.equal(sample["label"][::2, ::2, ::2], sample["image"])


def test_the_crops_of_a_pair_show_the_same_place():
    def band_limited(item: dict) -> dict:
        image = torch.rand((1, 15, 13, 11), generator=torch.Generator().manual_seed(int(item["label"][-1])))
        label = zero_fill(image, (30, 26, 22), (1, 2, 3))
        return {
            key: MetaTensor(volume, affine=np.diag([mm, mm, mm, 1.0]), meta={"filename_or_obj": item[key]})
            for key, volume, mm in (("image", image, 2.0), ("label", label, 1.0))
        }

    for sample in paired_dataset(band_limited, cut=Crops((2, 2, 2), (8, 7, 5))):
        assert sample["image"].shape == (1, 8, 7, 5)
        torch.testing.assert_close(sample["image"], sample["label"], atol=1e-5, rtol=0)


def test_a_sample_depends_on_seed_iteration_and_index_only():
    one, other = paired_dataset(), paired_dataset()
    assert all(torch.equal(one[i]["label"], other[i]["label"]) for i in (11, 0, 7))
    assert not torch.equal(one[0]["label"], paired_dataset(seed=1)[0]["label"])


def test_a_batch_holds_different_subjects():
    dataset = paired_dataset()
    assert all({dataset[3 * n + i]["image_subject"] for i in range(3)} == {"s0", "s1", "s2"} for n in range(5))


def test_an_item_that_is_no_pair_is_refused():
    with pytest.raises(ValueError, match=r"must become `image` and `label`, got the keys \['reals'\]"):
        PairedDataset([{"reals": "a"}], lambda item: item, Slabs((2, 2, 2)), 1)


@pytest.mark.parametrize(("offset", "size", "message"), [(0, 38, "expected a reference of"), (1, 40, "1 voxels away")])
def test_a_reference_on_another_grid_is_refused_by_name(offset, size, message):
    def load(item: dict) -> dict:
        affine = np.eye(4)
        affine[0, 3] = offset
        label = MetaTensor(torch.rand(1, size, 36, 24), affine=affine, meta={"filename_or_obj": "high-0.nii.gz"})
        return {"image": MetaTensor(torch.rand(1, 20, 18, 12), affine=np.diag([2, 2, 2, 1])), "label": label}

    with pytest.raises(ValueError, match=rf"high-0.nii.gz: .*{message}"):
        paired_dataset(load, items=1)


def test_subsampling_keeps_every_second_voxel_and_the_place_of_the_first():
    volume = MetaTensor(head_phantom(0)[None], affine=np.diag([1.0, 2.0, 3.0, 1.0]))
    result = Subsample((2, 2, 1))(volume)
    assert torch.equal(result.as_tensor(), volume.as_tensor()[:, ::2, ::2])
    torch.testing.assert_close(result.affine, torch.diag(torch.tensor([2.0, 4.0, 3.0, 1.0])).double())


def test_subsampling_an_odd_size_is_refused():
    with pytest.raises(ValueError, match=r"multiples of \[2, 2, 2\], got \(5, 4, 4\)"):
        Subsample(2)(torch.rand(1, 5, 4, 4))


# The four benchmarks


@pytest.fixture
def pairs(train_stack) -> Callable[..., tuple[Tensor, Tensor]]:
    """The first subject's low- and high-resolution volumes in the training of an overlay."""

    def make(*names: str, still: bool = False, **settings) -> tuple[Tensor, Tensor]:
        parser = train_stack(*(f"methods/{name}.yaml" for name in names), **settings).parser
        for transform in parser["train::further_preprocessing"] if still else ():
            if transform["_target_"].endswith("Misalignd"):
                transform["_disabled_"] = True
        dataset = parser.get_parsed_content("train::dataset")
        return dataset.low_res_volumes[0], dataset.high_res_volumes[0]

    return make


ORACLE = ("spectral", "supervised_oracle")


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_oracle_pairs_are_a_scan_and_its_true_degradation(pairs, scale_factor):
    acquisition = {"elliptical": True, "exponential": [0.9, 0, 0], "fermi": [None, [0.9, 0.05], None], "rician": True}
    for options in ({}, acquisition):
        settings = {f"acquisition::{name}": value for name, value in options.items()}
        image, label = pairs(*ORACLE, scale_factor=scale_factor, **settings)
        expected = KSpaceTruncate(scale_factor, **options)(label[None]).as_tensor()[0]
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_the_oracle_differs_from_what_it_bounds_in_the_degradation_alone(train_stack):
    bounded, oracle = (
        copy.deepcopy(train_stack(*(f"methods/{name}.yaml" for name in names)).parser.config)
        for names in (ORACLE[:1], ORACLE)
    )
    for config in (bounded, oracle):
        del config["composition"], config["requires"]
    assert bounded.pop("degradation")["_target_"] == "scripts.transforms.RandDegraded"
    assert oracle.pop("degradation")["_target_"] == "scripts.transforms.KSpaceTruncated"
    assert oracle == bounded


def test_shifted_pairs_are_a_scan_and_its_every_second_voxel(pairs):
    image, label = pairs("supervised_shift")
    expected = label[::2, ::2, ::2]
    torch.testing.assert_close(image / image.max(), expected / expected.max(), rtol=0, atol=1e-6)


def test_misaligned_pairs_are_off_and_registered_ones_less_so(pairs):
    image, clean = pairs("supervised_misaligned", still=True)
    torch.testing.assert_close(truncate(clean, image.shape, (0, 1, 2)), image, rtol=0, atol=1e-5)
    distance = {}
    for name in ("supervised_misaligned", "supervised_registered"):
        low_res, label = pairs(name)
        assert torch.equal(low_res, image)
        assert label.shape == clean.shape
        distance[name] = float((label - clean).abs().mean())
    assert 0.01 < distance["supervised_registered"] < 0.7 * distance["supervised_misaligned"]


def test_the_overlays_differ_in_their_pairs_alone(train_stack):
    names = ("misaligned", "registered", "shift")
    configs = [copy.deepcopy(train_stack(f"methods/supervised_{name}.yaml").parser.config) for name in names]
    for config in configs:
        del config["train"]["further_preprocessing"], config["composition"]
    assert all(config == configs[0] for config in configs[1:])
    optimizer = train_stack("methods/supervised_shift.yaml").parser.get_parsed_content("train::g_optimizer")
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(1e-4, 1e-7)}


def test_a_shift_experiment_changes_detail_not_place():
    head = head_phantom(0, (48, 48, 48))[None]
    low_res = truncate(head, (24, 24, 24), (1, 2, 3))
    correlation = [
        float(torch.corrcoef(torch.stack([v.flatten(), low_res.flatten()]))[0, 1])
        for v in (Subsample(2)(head), head[:, 1::2, 1::2, 1::2])
    ]
    assert correlation[0] > correlation[1]
    assert float(sub_voxel_shift(Subsample(2)(head), low_res).abs().max()) < 0.05
