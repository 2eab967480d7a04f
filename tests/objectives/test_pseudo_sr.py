"""Pseudo-SR: what each term moves, what it is worth at known points, and the loop of six optimisers."""

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
    tiny_network,
    tiny_translator,
    train,
)
from scripts.networks import CleanedSuperResolutionNet, CubicDownsampling, TranslatedDegradation
from scripts.objectives import PseudoSR
from torch import Tensor, nn

WEIGHTS = {
    "cleaned_adversarial": 1.0,
    "degraded_adversarial": 1.0,
    "super_resolved_adversarial": 0.1,
    "cycle_l1": 1.0,
    "identity_l1": 2.0,
    "geometry_l1": 1.0,
    "super_resolution_l1": 1.0,
    "clean_discriminator_cleaned": 1.0,
    "low_res_discriminator_degraded": 1.0,
    "high_res_discriminator_super_resolved_cycled": 1.0,
}
ROUTES = {
    "cleaned_adversarial": {"cleaner"},
    "degraded_adversarial": {"translator"},
    "super_resolved_adversarial": {"cleaner", "translator"},
    "cycle_l1": {"cleaner", "translator"},
    "identity_l1": {"cleaner"},
    "geometry_l1": {"cleaner"},
    "super_resolution_l1": {"super_resolution"},
    "clean_discriminator_cleaned": {"clean_discriminator"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
    "high_res_discriminator_super_resolved_cycled": {"high_res_discriminator"},
}


def tiny_pseudo_sr(scale_factor=(2, 2, 2), skip: bool = False, logit: float | None = None) -> PseudoSR:
    critics = [tiny_critic(3, 1, 40), tiny_critic(3, 1, 50), tiny_critic(3 * scale_factor[2], 2, 60)]
    if logit is not None:
        critics = [Constant(logit) for _ in critics]
    network = CleanedSuperResolutionNet(tiny_translator(skip, seed=80), tiny_network(scale_factor, skip))
    degradation = TranslatedDegradation(CubicDownsampling(scale_factor), tiny_translator(skip, noise=True))
    return PseudoSR(
        WEIGHTS,
        generators={"network": network, "degradation": degradation},
        discriminators=dict(zip(PseudoSR.discriminator_names, critics, strict=True)),
    )


class Pixelwise(nn.Module):
    """A cleaner that treats every pixel alike, so that turning and mirroring commute with it."""

    def translate(self, low_res: Tensor) -> Tensor:
        return low_res**2


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_each_term_moves_the_networks_of_the_paper(scale_factor, skip):
    objective = tiny_pseudo_sr(scale_factor, skip)
    networks = {
        "cleaner": objective.network.cleaner,
        "super_resolution": objective.network.super_resolution,
        "translator": objective.degradation.translator,
        **dict(objective.named_children()),
    }
    del networks["network"], networks["degradation"]
    assert routes(objective, networks, scale_factor[2]) == ROUTES


def test_the_super_resolution_learns_from_images_that_it_does_not_change():
    """Its own loss stops at its input, and the adversarial term passes it without moving it."""
    objective = tiny_pseudo_sr()
    made = objective(batch())
    assert torch.equal(made["super_resolved"], made["super_resolved_cycled"])
    parameters = list(objective.network.super_resolution.parameters())
    own = torch.autograd.grad(made["super_resolved"].sum(), parameters, allow_unused=True)
    passing = torch.autograd.grad(made["super_resolved_cycled"].sum(), parameters, allow_unused=True)
    assert all(gradient.any() for gradient in own)
    assert passing == (None,) * len(parameters)
    assert all(p.requires_grad for p in parameters)
    assert not made["super_resolved_image"].requires_grad


def test_reduced_precision_keeps_the_routes():
    """Autocast remembers converted weights; those of the frozen passes must not stand in for the others."""
    objective = tiny_pseudo_sr()
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective.total(objective.generator_loss(objective(batch())))
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in objective.network.super_resolution.parameters())
    assert all(p.grad is not None and p.grad.any() for p in objective.network.cleaner.parameters())


def test_translators_that_change_nothing_cost_nothing_but_by_their_discriminators():
    objective = tiny_pseudo_sr(skip=True, logit=1.0).eval()  # an untrained network with skip is the identity
    terms = {name: term.item() for name, term in objective.generator_loss(objective(batch())).items()}
    assert terms.pop("super_resolution_l1") > 0.1  # noise is not to be interpolated
    assert max(terms.values()) < 1e-7


def test_terms_have_the_values_of_the_formulas():
    objective = tiny_pseudo_sr(logit=0.25)
    values = {"cycled": 0.1, "identity": 0.2, "ensemble": 0.3}
    x = images(objective, **{name: torch.full((2, 3, 32, 32), v) for name, v in values.items()})
    x["super_resolved"] = torch.full((2, 6, 64, 64), 0.4)
    terms = {name: round(term.item(), 6) for name, term in objective.generator_loss(x).items()}
    assert terms == {
        "cleaned_adversarial": 0.75**2,
        "degraded_adversarial": 0.75**2,
        "super_resolved_adversarial": 0.75**2,
        "cycle_l1": 0.1,
        "identity_l1": 0.2,
        "geometry_l1": 0.3,
        "super_resolution_l1": 0.4,
    }


def test_each_discriminator_compares_what_the_paper_compares():
    objective = tiny_pseudo_sr(logit=0.5)
    x = {name: torch.full_like(image, index) for index, (name, image) in enumerate(objective(batch()).items())}
    terms = {name: term.item() for name, term in objective.discriminator_loss(x).items()}
    assert terms == dict.fromkeys(objective.discriminator_terms, 0.25)
    order = list(x)
    names = ("clean_discriminator", "low_res_discriminator", "high_res_discriminator")
    seen = {name: [order[int(s.mean())] for s in getattr(objective, name).seen] for name in names}
    assert seen == {
        "clean_discriminator": ["downsampled", "cleaned"],
        "low_res_discriminator": ["image", "degraded"],
        "high_res_discriminator": ["super_resolved_image", "super_resolved_cycled"],
    }


def test_a_cleaner_that_commutes_with_the_symmetries_has_no_geometric_loss():
    objective, image = tiny_pseudo_sr(), batch()["image"]
    objective.network.cleaner = Pixelwise()
    torch.testing.assert_close(objective._ensemble(image, image**2), image**2)


def test_the_ensemble_is_the_mean_over_the_eight_symmetries():
    objective, image = tiny_pseudo_sr(), batch()["image"]
    clean = objective.network.cleaner.translate
    expected = torch.zeros_like(image)
    for transposed in (False, True):
        for axes in ((), (2,), (3,), (2, 3)):
            given = image.flip(axes).transpose(2, 3) if transposed else image.flip(axes)
            made = clean(given)
            expected += (made.transpose(2, 3) if transposed else made).flip(axes) / 8
    torch.testing.assert_close(objective._ensemble(image, clean(image)), expected)


def test_the_engine_equals_the_loop_of_six_optimisers():
    """The order of updates of Maeda's method: the three discriminators, both translators together, then U."""
    ours = tiny_pseudo_sr().double()
    theirs = copy.deepcopy(ours)
    clean, upscale = theirs.network.cleaner, theirs.network.super_resolution
    downsample, translate = theirs.degradation.downsampling, theirs.degradation.translator
    d_y, d_x, d_sr = theirs.clean_discriminator, theirs.low_res_discriminator, theirs.high_res_discriminator
    o_clean, o_upscale, o_translate, o_x, o_y, o_sr = map(adam, (clean, upscale, translate, d_x, d_y, d_sr))
    l1, mse = nn.functional.l1_loss, nn.functional.mse_loss

    def least_squares(logits, target):
        return mse(logits, torch.full_like(logits, target))

    def geometric_mean(image):
        total = 0.0
        for turns in range(4):
            turned = torch.rot90(image, turns, [2, 3])
            total = total + torch.rot90(clean.translate(turned), -turns, [2, 3])
            total = total + torch.rot90(clean.translate(turned.flip(3)).flip(3), -turns, [2, 3])
        return total / 8

    def iteration(given):
        y, x = given["reals"], given["image"]
        y_down = downsample.degrade(y)
        fake_x = translate.translate(y_down)
        rec_y = clean.translate(fake_x)
        fake_y = clean.translate(x)
        sr_y, sr_x = upscale.restore(rec_y), upscale.restore(fake_y)
        for critic, optimizer, real, fake in (
            (d_x, o_x, x, fake_x),
            (d_y, o_y, y_down, fake_y),
            (d_sr, o_sr, sr_x, sr_y),
        ):
            real_term, fake_term = least_squares(critic(real.detach()), 1.0), least_squares(critic(fake.detach()), 0.0)
            step([optimizer], (real_term + fake_term) / 2)
        translation = (
            least_squares(d_x(fake_x), 1.0)
            + least_squares(d_y(fake_y), 1.0)
            + 1.0 * l1(rec_y, y_down)
            + 2.0 * l1(clean.translate(y_down), y_down)
            + 1.0 * l1(fake_y, geometric_mean(x))
            + 0.1 * least_squares(d_sr(sr_y), 1.0)
        )
        step([o_translate, o_clean], translation)
        step([o_upscale], l1(upscale.restore(rec_y.detach()), y))

    batches = [batch(dtype=torch.float64, seed=seed) for seed in range(4)]
    start = copy.deepcopy(ours)
    train(ours, batches)
    plainly(batches, iteration)
    assert largest_difference(start, ours) > 1e-4
    assert largest_difference(ours, theirs) < 1e-12


@pytest.mark.slow
def test_one_batch_is_learned_beyond_tricubic():
    slabs, objective = paired_slabs(), tiny_pseudo_sr(skip=True)

    def super_resolve(low_res: Tensor) -> Tensor:
        return objective.network.super_resolution.restore(objective.network.cleaner.translate(low_res))

    start = gain_over_tricubic(slabs, super_resolve)
    overfit(objective, slabs)
    assert gain_over_tricubic(slabs, super_resolve) > start + 1
