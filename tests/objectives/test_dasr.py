"""DASR: what each term of its two stages moves, what it is worth at known points, and what comes from the first."""

from __future__ import annotations

import math
import re

import pytest
import torch
from objective_checks import (
    Constant,
    awaken,
    batch,
    gain_over_tricubic,
    images,
    overfit,
    paired_slabs,
    routes,
    tiny_degradation,
    tiny_network,
)
from scripts.networks import FrequencySeparatedDiscriminator
from scripts.objectives import DASR, DASRDegradation
from scripts.objectives.dasr import smooth
from torch import Tensor

DEGRADATION_ROUTES = {
    "colour": {"degradation"},
    "texture": {"degradation"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
}
ROUTES = {
    "weighted_l1": {"network"},
    "restoration_ssim": {"network"},
    "low_frequency_l1": {"network"},
    "adversarial": {"network"},
    "high_res_discriminator_super_resolved": {"high_res_discriminator"},
}


def critic(in_channels: int, seed: int) -> FrequencySeparatedDiscriminator:
    return FrequencySeparatedDiscriminator(in_channels, num_features=4, seed=seed)


def first_stage(scale_factor=(2, 2, 2), skip: bool = False, logit: float | None = None) -> DASRDegradation:
    weights = {"colour": 1.0, "texture": 0.005, "low_res_discriminator_degraded": 1.0}
    discriminator = critic(3, 40) if logit is None else Constant(logit)
    return DASRDegradation(
        weights,
        generators={"degradation": tiny_degradation(scale_factor, skip)},
        discriminators={"low_res_discriminator": discriminator},
    )


def second_stage(
    first: DASRDegradation, scale_factor=(2, 2, 2), skip: bool = False, logit: float | None = None
) -> DASR:
    weights = dict.fromkeys(["weighted_l1", "low_frequency_l1", "high_res_discriminator_super_resolved"], 1.0)
    weights |= {"restoration_ssim": 0.5, "adversarial": 0.01}
    discriminator = critic(3 * scale_factor[2], 50) if logit is None else Constant(logit)
    return DASR(
        weights,
        generators={"network": tiny_network(scale_factor, skip)},
        discriminators={"high_res_discriminator": discriminator},
        fixed=dict(first.named_children()),
        ssim_form="abs",
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_each_term_moves_the_networks_of_the_paper(scale_factor, skip):
    first = first_stage(scale_factor, skip)
    assert routes(first, dict(first.named_children()), scale_factor[2]) == DEGRADATION_ROUTES
    second = second_stage(first, scale_factor, skip)
    assert routes(second, dict(second.named_children()), scale_factor[2]) == ROUTES


def test_the_second_stage_takes_no_gradient_to_the_first():
    second = awaken(second_stage(first_stage()))
    made = second(batch())
    assert not made["degraded"].requires_grad
    assert not made["distance"].requires_grad
    held = {id(p) for networks in (second.generators, second.discriminators) for p in networks.parameters()}
    first = [*second.degradation.parameters(), *second.low_res_discriminator.parameters()]
    assert held & {id(p) for p in first} == set()


def test_the_distance_map_lies_on_the_high_resolution_grid_between_0_and_1():
    second = second_stage(first_stage())
    made = second(batch())
    expected = second.low_res_discriminator.domain_distance(made["degraded"])
    assert made["distance"].shape == (2, 1, 64, 64)
    assert torch.equal(made["distance"][..., ::2, ::2], expected)
    assert torch.equal(made["distance"][..., 1::2, 1::2], expected)
    assert 0 < made["distance"].min() < made["distance"].max() < 1


def test_the_colour_filter_is_one_quarter_one_half_one_quarter():
    impulse = torch.zeros((1, 1, 7, 7))
    impulse[..., 3, 3] = 1
    taps = torch.tensor([0, 0.25, 0.5, 0.25, 0])  # the result has lost a border of one voxel: still centred
    torch.testing.assert_close(smooth(impulse)[0, 0], taps[:, None] * taps)


def test_the_colour_of_an_untrained_degradation_with_skip_is_that_of_the_truncation():
    objective = first_stage(skip=True)
    assert objective.generator_loss(objective(batch()))["colour"].item() == 0


def test_high_frequencies_are_free_of_the_colour():
    objective = first_stage()
    checkerboard = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2) * 2.0 - 1
    x = images(objective, degraded=checkerboard.expand(2, 3, 32, 32))
    assert objective.generator_loss(x)["colour"].item() == 0
    x["degraded"] = torch.full((2, 3, 32, 32), 0.3)
    assert objective.generator_loss(x)["colour"].item() == pytest.approx(0.3)


def test_adversarial_terms_are_the_logarithms_of_the_original_gan():
    logit = math.log(3.0)  # a probability of 3/4
    first = first_stage(logit=logit)
    x = first(batch())
    assert first.generator_loss(x)["texture"].item() == pytest.approx(-math.log(0.75))
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert first.discriminator_loss(x)["low_res_discriminator_degraded"].item() == pytest.approx(expected)
    second = second_stage(first_stage(), logit=logit)
    x = second(batch())
    assert second.generator_loss(x)["adversarial"].item() == pytest.approx(-math.log(0.75))
    assert second.discriminator_loss(x)["high_res_discriminator_super_resolved"].item() == pytest.approx(expected)


def test_each_discriminator_compares_what_the_paper_compares():
    for objective, name, expected in (
        (first_stage(logit=0.0), "low_res_discriminator", ["image", "degraded"]),
        (second_stage(first_stage(), logit=0.0), "high_res_discriminator", ["reals", "super_resolved"]),
    ):
        x = {key: torch.full_like(image, index) for index, (key, image) in enumerate(objective(batch()).items())}
        objective.discriminator_loss(x)
        assert [list(x)[int(s.mean())] for s in getattr(objective, name).seen] == expected


def test_the_distance_weights_the_absolute_error():
    objective = second_stage(first_stage())
    distance = torch.zeros((2, 1, 64, 64))
    distance[..., :32] = 0.5
    x = images(objective, restored=torch.full((2, 6, 64, 64), 0.4), distance=distance)
    terms = objective.generator_loss(x)
    assert terms["weighted_l1"].item() == pytest.approx(0.5 * 0.5 * 0.4)
    assert terms["low_frequency_l1"].item() == pytest.approx(0.4)
    assert objective.generator_loss({**x, "restored": x["reals"]})["restoration_ssim"].item() == pytest.approx(
        0, abs=1e-6
    )


def test_details_are_free_of_the_low_frequency_term():
    objective = second_stage(first_stage())
    stripes = (torch.arange(64).remainder(2) * 2.0 - 1).expand(2, 6, 64, 64)
    assert objective.generator_loss(images(objective, restored=stripes))["low_frequency_l1"].item() == 0


def test_the_second_stage_says_when_the_first_is_missing(train_stack):
    workflow = train_stack("methods/dasr.yaml")
    workflow.initialize()
    with pytest.raises(RuntimeError) as failure:
        workflow.run()
    message = str(failure.value.__cause__)
    assert re.search(r"degradation\.pt: expected weights, found no .* set --degradation_weights", message)


def test_the_second_stage_takes_both_networks_of_the_first(train_stack):
    made = []
    for name in ("methods/dasr_degradation.yaml", "methods/dasr.yaml"):
        workflow = train_stack(name)
        workflow.initialize()
        workflow.run()
        made.append(workflow.parser.get_parsed_content("degradation_networks"))
    untrained = train_stack("methods/dasr.yaml").parser.get_parsed_content("degradation_networks")
    for name, network in untrained.items():
        before, first, second = (list(n.parameters()) for n in (network, made[0][name], made[1][name]))
        assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True)), name
        assert not all(torch.equal(p, q) for p, q in zip(before, first, strict=True)), name


@pytest.mark.slow
def test_one_batch_is_learned_beyond_tricubic():
    slabs, first = paired_slabs(), first_stage(skip=True)
    overfit(first, slabs, iterations=150)
    second = second_stage(first, skip=True)
    stored: list[Tensor] = [p.clone() for p in first.parameters()]
    start = gain_over_tricubic(slabs, second.network.restore)
    overfit(second, slabs)
    assert gain_over_tricubic(slabs, second.network.restore) > start + 1
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), stored, strict=True))
