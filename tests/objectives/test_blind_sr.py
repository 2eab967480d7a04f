"""Blind-SR (reconstruction): what each term moves and is worth at known points, and the penalties of the kernel."""

from __future__ import annotations

import pytest
import torch
from objective_checks import (
    Constant,
    batch,
    gain_over_tricubic,
    images,
    overfit,
    paired_slabs,
    routes,
    tiny_critic,
    tiny_network,
    tiny_translator,
)
from scripts.networks import LinearDegradation, TranslatedDegradation
from scripts.objectives import BlindSR
from scripts.objectives.blind_sr import kernel_penalties
from torch import Tensor

KERNEL_TERMS = ("kernel_sum", "kernel_border", "kernel_centre", "kernel_sparsity")
ROUTES = {
    "high_res_cycle_l1": {"network", "kernel", "translator"},
    "high_res_cycle_ssim": {"network", "kernel", "translator"},
    "low_res_cycle_l1": {"network", "kernel"},
    "low_res_cycle_ssim": {"network", "kernel"},
    "high_res_adversarial": {"network"},
    "low_res_adversarial": {"kernel", "translator"},
    "translation_l1": {"kernel", "translator"},
    "kernel_sum": {"kernel"},
    "kernel_border": {"kernel"},
    "kernel_centre": {"kernel"},
    "kernel_sparsity": {"kernel"},
    "high_res_discriminator_super_resolved": {"high_res_discriminator"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
}


def tiny_blind_sr(scale_factor=(2, 2, 2), skip: bool = False, logit: float | None = None) -> BlindSR:
    critics = [tiny_critic(3 * scale_factor[2], 2, 40), tiny_critic(3, 1, 50)]
    if logit is not None:
        critics = [Constant(logit) for _ in critics]
    weights = dict.fromkeys([*BlindSR.generator_terms, *BlindSR.discriminator_terms], 1.0)
    weights |= {"high_res_cycle_ssim": 0.5, "low_res_cycle_ssim": 0.5, "kernel_sum": 0.5, "kernel_border": 0.5}
    weights |= {"high_res_adversarial": 0.1, "low_res_adversarial": 0.1, "kernel_sparsity": 5.0}
    kernel = LinearDegradation(scale_factor, num_features=4, seed=80)
    degradation = TranslatedDegradation(kernel, tiny_translator(skip=True))
    return BlindSR(
        weights,
        generators={"network": tiny_network(scale_factor, skip), "degradation": degradation},
        discriminators=dict(zip(BlindSR.discriminator_names, critics, strict=True)),
        ssim_form="abs",
    )


def impulse(*position: int) -> Tensor:
    kernel = torch.zeros((13, 13, 13))
    kernel[position] = 1
    return kernel


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_each_term_moves_the_networks_of_the_method(scale_factor, skip):
    objective = tiny_blind_sr(scale_factor, skip)
    networks = {
        "network": objective.network,
        "kernel": objective.degradation.downsampling,
        "translator": objective.degradation.translator,
        "high_res_discriminator": objective.high_res_discriminator,
        "low_res_discriminator": objective.low_res_discriminator,
    }
    assert routes(objective, networks, scale_factor[2]) == ROUTES


def test_the_images_are_made_in_the_order_of_the_method():
    objective, given = tiny_blind_sr(), batch()
    kernel, translate = objective.degradation.downsampling.degrade, objective.degradation.translator.translate
    super_resolve, made = objective.network.restore, objective(given)
    torch.testing.assert_close(made["cycled"], super_resolve(translate(kernel(given["reals"]))))
    torch.testing.assert_close(made["cycled_image"], kernel(super_resolve(given["image"])))


def test_terms_have_the_values_of_the_formulas():
    objective = tiny_blind_sr(logit=0.25)
    x = images(objective, cycled=torch.full((2, 6, 64, 64), 0.3), cycled_image=torch.full((2, 3, 32, 32), 0.2))
    x |= {"degraded": torch.full((2, 3, 32, 32), 0.1), "kernel": impulse(6, 6, 6)}
    terms = {name: round(term.item(), 6) for name, term in objective.generator_loss(x).items()}
    names = ["high_res_cycle_l1", "low_res_cycle_l1", "translation_l1", "high_res_adversarial", "low_res_adversarial"]
    assert [terms[name] for name in names] == [0.3, 0.2, 0.1, 0.75**2, 0.75**2]
    x |= {"cycled": x["reals"], "cycled_image": x["image"]}
    terms = objective.generator_loss(x)
    assert terms["high_res_cycle_ssim"].item() == terms["low_res_cycle_ssim"].item() == pytest.approx(0, abs=1e-6)


def test_each_discriminator_compares_a_scan_with_one_made():
    objective = tiny_blind_sr(logit=0.5)
    x = {name: torch.full_like(image, index) for index, (name, image) in enumerate(objective(batch()).items())}
    terms = {name: term.item() for name, term in objective.discriminator_loss(x).items()}
    assert terms == dict.fromkeys(objective.discriminator_terms, 0.25)
    names = ("high_res_discriminator", "low_res_discriminator")
    seen = {name: [list(x)[int(s.mean())] for s in getattr(objective, name).seen] for name in names}
    assert seen == {
        "high_res_discriminator": ["reals", "super_resolved"],
        "low_res_discriminator": ["image", "degraded"],
    }


# Penalties of the kernel


def test_an_impulse_in_the_centre_is_penalised_only_for_its_taps():
    terms = {name: term.item() for name, term in kernel_penalties(impulse(6, 6, 6)).items()}
    floor = (13**3 - 1) * 1e-8**0.1 / 13**3  # of the smoothed |k|^0.2 of all the other taps
    assert tuple(terms) == KERNEL_TERMS
    assert terms["kernel_sparsity"] == pytest.approx(floor + 1 / 13**3)
    assert [terms[name] for name in KERNEL_TERMS[:3]] == [0, 0, 0]


def test_a_kernel_off_its_centre_costs_the_square_of_its_distance():
    assert kernel_penalties(impulse(6, 7, 6))["kernel_centre"].item() == pytest.approx(1 / 3)
    assert kernel_penalties(impulse(6, 6, 3))["kernel_centre"].item() == pytest.approx(9 / 3)
    between = (impulse(6, 6, 6) + impulse(6, 6, 7)) / 2  # half a voxel, as a bicubic kernel would be
    assert kernel_penalties(between)["kernel_centre"].item() == pytest.approx(0.25 / 3)


def test_a_kernel_pays_for_a_sum_other_than_one():
    assert kernel_penalties(0.7 * impulse(6, 6, 6))["kernel_sum"].item() == pytest.approx(0.3)
    assert kernel_penalties(1.2 * impulse(6, 6, 6))["kernel_sum"].item() == pytest.approx(0.2)


def test_only_taps_near_the_border_cost_and_the_corner_most():
    cost = {
        p: kernel_penalties(impulse(*p))["kernel_border"].item() for p in ((2, 6, 6), (1, 6, 6), (0, 6, 6), (0, 0, 0))
    }
    assert cost[2, 6, 6] == 0
    assert 0 < cost[1, 6, 6] < cost[0, 6, 6] < cost[0, 0, 0]
    expected = 30 * (1 - torch.exp(torch.tensor(-((6 / 13) ** 2) / 2))) / 13**3
    assert cost[0, 6, 6] == pytest.approx(expected.item())


def test_few_taps_cost_less_than_many_of_the_same_sum():
    few, many = impulse(6, 6, 6), torch.full((13, 13, 13), 1 / 13**3)
    assert kernel_penalties(few)["kernel_sparsity"] < kernel_penalties(many)["kernel_sparsity"]


def test_the_sparsity_has_a_finite_slope_at_zero():
    kernel = torch.zeros((13, 13, 13), requires_grad=True)
    kernel_penalties(kernel + impulse(6, 6, 6))["kernel_sparsity"].backward()
    assert torch.isfinite(kernel.grad).all()


# Its overlay


@pytest.mark.parametrize("kernel_iterations", [2, 1])
def test_the_kernel_is_trained_first(train_stack, kernel_iterations):
    workflow = train_stack(
        "methods/blind_sr.yaml", kernel_iterations=kernel_iterations, **{"train::warmup_iterations": 0}
    )
    workflow.initialize()
    objective = workflow.parser.get_parsed_content("objective")
    networks = {"network": objective.network, **dict(objective.degradation.named_children())}
    start = {name: [p.detach().clone() for p in network.parameters()] for name, network in networks.items()}
    workflow.run()
    moved = {
        n for n, net in networks.items() if any((p != q).any() for p, q in zip(net.parameters(), start[n], strict=True))
    }
    assert moved == ({"downsampling"} if kernel_iterations == 2 else set(networks))


@pytest.mark.slow
def test_one_batch_is_learned_beyond_tricubic():
    slabs, objective = paired_slabs(), tiny_blind_sr(skip=True)
    start = gain_over_tricubic(slabs, objective.network.restore)
    overfit(objective, slabs)
    assert gain_over_tricubic(slabs, objective.network.restore) > start + 1
