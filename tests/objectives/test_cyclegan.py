"""CycleGAN: what each term moves, what it is worth at known points, and the loop that one would write by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from objective_checks import (
    Constant,
    adam,
    batch,
    gain_over_tricubic,
    images,
    largest_difference,
    overfit,
    paired_slabs,
    plainly,
    routes,
    step,
    tiny_critic,
    tiny_degradation,
    tiny_network,
    train,
)
from scripts.losses import ssim_loss
from scripts.objectives import CycleGAN
from torch import Tensor, nn

WEIGHTS = {
    "high_res_cycle_l1": 1.0,
    "high_res_cycle_ssim": 0.5,
    "high_res_cycle_adversarial": 0.01,
    "low_res_cycle_l1": 1.0,
    "low_res_cycle_ssim": 0.5,
    "low_res_cycle_adversarial": 0.01,
    "high_res_adversarial": 0.1,
    "low_res_adversarial": 0.1,
    "high_res_discriminator_cycled": 1.0,
    "high_res_discriminator_super_resolved": 1.0,
    "low_res_discriminator_cycled_image": 1.0,
    "low_res_discriminator_degraded": 1.0,
}
ROUTES = {
    "high_res_cycle_l1": {"up", "down"},
    "high_res_cycle_ssim": {"up", "down"},
    "high_res_cycle_adversarial": {"up", "down"},
    "low_res_cycle_l1": {"up", "down"},
    "low_res_cycle_ssim": {"up", "down"},
    "low_res_cycle_adversarial": {"up", "down"},
    "high_res_adversarial": {"up"},
    "low_res_adversarial": {"down"},
    "high_res_discriminator_cycled": {"high_res_discriminator"},
    "high_res_discriminator_super_resolved": {"high_res_discriminator"},
    "low_res_discriminator_cycled_image": {"low_res_discriminator"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
}


def ssim_term(x: Tensor, y: Tensor) -> Tensor:
    return ssim_loss(x, y, form="one_minus_square")


def tiny_cyclegan(scale_factor=(2, 2, 2), skip: bool = False, logit: float | None = None) -> CycleGAN:
    critics = [tiny_critic(3 * scale_factor[2], 2, seed=40), tiny_critic(3, 1, seed=50)]
    if logit is not None:
        critics = [Constant(logit), Constant(logit)]
    return CycleGAN(
        WEIGHTS,
        generators={"network": tiny_network(scale_factor, skip), "degradation": tiny_degradation(scale_factor, skip)},
        discriminators=dict(zip(CycleGAN.discriminator_names, critics, strict=True)),
        ssim_form="one_minus_square",
    )


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_each_term_moves_the_networks_of_the_paper(scale_factor, skip):
    objective = tiny_cyclegan(scale_factor, skip)
    networks = {
        "up": objective.network,
        "down": objective.degradation,
        "high_res_discriminator": objective.high_res_discriminator,
        "low_res_discriminator": objective.low_res_discriminator,
    }
    assert routes(objective, networks, scale_factor[2]) == ROUTES


def test_either_cycle_is_one_network_after_the_other():
    objective, given = tiny_cyclegan().eval(), batch()
    up, down, made = objective.network.restore, objective.degradation.degrade, objective(given)
    torch.testing.assert_close(made["cycled"], up(down(given["reals"])))
    torch.testing.assert_close(made["cycled_image"], down(up(given["image"])))


def test_perfect_cycles_cost_nothing():
    objective, given = tiny_cyclegan(logit=1.0), batch()
    x = images(objective, **given, cycled=given["reals"], cycled_image=given["image"])
    assert {name: round(term.item(), 6) for name, term in objective.generator_loss(x).items()} == dict.fromkeys(
        objective.generator_terms, 0.0
    )


def test_terms_have_the_values_of_the_formulas():
    objective = tiny_cyclegan(logit=0.25)
    terms = objective.generator_loss(images(objective, cycled=torch.full((2, 6, 64, 64), 0.3)))
    assert terms["high_res_cycle_l1"].item() == pytest.approx(0.3)
    assert terms["low_res_cycle_l1"].item() == 0
    adversarial = [term.item() for name, term in terms.items() if name.endswith("adversarial")]
    assert adversarial == [0.75**2] * 4  # (D - 1)^2


def test_the_ssim_term_has_the_form_that_is_asked_for():
    objective = tiny_cyclegan(logit=0.0)
    x = objective(batch())
    torch.testing.assert_close(objective.generator_loss(x)["high_res_cycle_ssim"], ssim_term(x["cycled"], x["reals"]))


def test_each_discriminator_compares_the_scan_with_two_fakes():
    objective = tiny_cyclegan(logit=0.5)
    x = {name: torch.full_like(image, index) for index, (name, image) in enumerate(objective(batch()).items())}
    terms = {name: term.item() for name, term in objective.discriminator_loss(x).items()}
    assert terms == dict.fromkeys(objective.discriminator_terms, 0.25)
    order = list(x)
    assert [order[int(s.mean())] for s in objective.high_res_discriminator.seen] == [
        "reals",
        "cycled",
        "super_resolved",
    ]
    assert [order[int(s.mean())] for s in objective.low_res_discriminator.seen] == [
        "image",
        "cycled_image",
        "degraded",
    ]


def test_the_engine_equals_the_loop_of_the_authors():
    """Four networks have an optimiser each. The images are made once, and the discriminators step first."""
    ours = tiny_cyclegan().double()
    theirs = copy.deepcopy(ours)
    up, down = theirs.network.restore, theirs.degradation.degrade
    d_high, d_low = theirs.high_res_discriminator, theirs.low_res_discriminator
    optimizers = {name: adam(net) for name, net in theirs.named_children()}
    l1, mse = nn.functional.l1_loss, nn.functional.mse_loss

    def least_squares(logits, target):
        return mse(logits, torch.full_like(logits, target))

    def iteration(given):
        y, x = given["reals"], given["image"]
        x_s, y_t = down(y), up(x)
        y_ss, x_tt = up(x_s), down(y_t)
        for name, critic, real, fakes in (
            ("high_res_discriminator", d_high, y, (y_ss, y_t)),
            ("low_res_discriminator", d_low, x, (x_tt, x_s)),
        ):
            loss = 0.0
            for fake in fakes:
                loss = loss + (least_squares(critic(real), 1.0) + least_squares(critic(fake.detach()), 0.0)) / 2
            step([optimizers[name]], loss)
        cycles = 0.0
        for critic, made, scan in ((d_high, y_ss, y), (d_low, x_tt, x)):
            cycles = cycles + l1(made, scan) + 0.5 * ssim_term(made, scan) + 0.01 * least_squares(critic(made), 1.0)
        gan = 0.1 * least_squares(d_low(x_s), 1.0) + 0.1 * least_squares(d_high(y_t), 1.0)
        step([optimizers["network"], optimizers["degradation"]], cycles + gan)

    batches = [batch(dtype=torch.float64, seed=seed) for seed in range(4)]
    start = copy.deepcopy(ours)
    train(ours, batches)
    plainly(batches, iteration)
    assert largest_difference(start, ours) > 1e-4
    assert largest_difference(ours, theirs) < 1e-12


@pytest.mark.slow
def test_one_batch_is_learned_beyond_tricubic():
    slabs, objective = paired_slabs(), tiny_cyclegan(skip=True)
    start = gain_over_tricubic(slabs, objective.network.restore)
    overfit(objective, slabs)
    assert gain_over_tricubic(slabs, objective.network.restore) > start + 1
