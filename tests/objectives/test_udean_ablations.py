"""UDEAN without one or both adaptations: which terms and routes remain, and what the discriminators see."""

from __future__ import annotations

import pytest
import torch
from objective_checks import (
    Constant,
    batch,
    gain_over_tricubic,
    overfit,
    paired_slabs,
    routes,
    tiny_critic,
    tiny_degradation,
    tiny_network,
)
from scripts.objectives import UDEAN

IMAGE = {"image_adaptation", "low_res_discriminator_degraded"}
FEATURE = {"feature_adaptation", "feature_discriminator_target_features"}
ABSENT = {(True, True): set(), (False, True): IMAGE, (True, False): FEATURE, (False, False): IMAGE | FEATURE}
ROUTES = {
    "image_cycle_l1": {"network", "degradation"},
    "image_cycle_ssim": {"network", "degradation"},
    "image_cycle_adversarial": {"network", "degradation"},
    "feature_cycle_l1": {"network", "degradation"},
    "high_res_consistency_l1": {"network", "degradation"},
    "high_res_consistency_ssim": {"network", "degradation"},
    "high_res_consistency_adversarial": {"network", "degradation"},
    "low_res_consistency_l1": {"network", "degradation"},
    "low_res_consistency_ssim": {"network", "degradation"},
    "low_res_consistency_adversarial": {"network", "degradation"},
    "image_adaptation": {"degradation"},
    "feature_adaptation": {"network", "degradation"},
    "high_res_discriminator_reconstructed": {"high_res_discriminator"},
    "high_res_discriminator_cycled": {"high_res_discriminator"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
    "low_res_discriminator_reconstructed_image": {"low_res_discriminator"},
    "feature_discriminator_target_features": {"feature_discriminator"},
}
WEIGHTS = {
    **{name: 1.0 for name in UDEAN.generator_terms if name.endswith("_l1")},
    **{name: 0.5 for name in UDEAN.generator_terms if name.endswith("_ssim")},
    **{name: 0.01 for name in UDEAN.generator_terms if name.endswith("_adversarial")},
    **dict.fromkeys(["feature_cycle_l1", "image_adaptation", "feature_adaptation"], 0.1),
    **dict.fromkeys(UDEAN.discriminator_terms, 1.0),
}


def tiny_udean(
    image: bool,
    feature: bool,
    skip: bool = False,
    logit: float | None = None,
    cycle_to_degradation: bool = True,
    hinge: bool = False,
    **weights: float | None,
) -> UDEAN:
    critics = [tiny_critic(6, 2, 40), tiny_critic(3, 1, 50), tiny_critic(16, 1, 60)]
    if logit is not None:
        critics = [Constant(logit) for _ in critics]
    if not feature:
        critics[2] = None
    return UDEAN(
        weights={**WEIGHTS, **dict.fromkeys(ABSENT[image, feature]), **weights},
        generators={"network": tiny_network(skip=skip), "degradation": tiny_degradation(skip=skip)},
        discriminators=dict(zip(UDEAN.discriminator_names, critics, strict=True)),
        ssim_form="abs",
        image_adaptation=image,
        cycle_to_degradation=cycle_to_degradation,
        hinge=hinge,
    )


@pytest.mark.parametrize(("image", "feature"), ABSENT)
def test_an_adaptation_that_is_off_leaves_its_terms_and_networks_out(image, feature):
    objective = tiny_udean(image, feature)
    objective.check_weights()
    expected = {name: moved for name, moved in ROUTES.items() if name not in ABSENT[image, feature]}
    assert routes(objective, dict(objective.named_children())) == expected
    assert len(objective.discriminators) == (3 if feature else 2)


def test_a_cycle_that_is_kept_from_the_degradation_still_trains_the_network():
    """``feature_cycle_l1`` compares with the features of the degradation's extractor, which it moves either way."""
    objective = tiny_udean(True, True, cycle_to_degradation=False)
    found = routes(objective, {"decoder": objective.degradation.decoder, **dict(objective.named_children())})
    for name in ("image_cycle_l1", "image_cycle_ssim", "image_cycle_adversarial"):
        assert found[name] == {"network"}
    assert found["feature_cycle_l1"] == {"network", "degradation"}
    assert {name for name, moved in found.items() if "decoder" in moved} == {
        "low_res_consistency_l1",
        "low_res_consistency_ssim",
        "low_res_consistency_adversarial",
        "image_adaptation",
    }


@pytest.mark.parametrize(
    ("image", "fakes"), [(True, ["degraded", "reconstructed_image"]), (False, ["reconstructed_image"])]
)
def test_without_the_image_adaptation_the_made_image_is_no_fake(image, fakes):
    objective = tiny_udean(image, feature=True, logit=0.5)
    x = {name: torch.full_like(made, index) for index, (name, made) in enumerate(objective(batch()).items())}
    terms = objective.discriminator_loss(x)
    seen = [list(x)[int(s.mean())] for s in objective.low_res_discriminator.seen]
    assert seen == ["image", *fakes]
    assert [terms[f"low_res_discriminator_{fake}"].item() for fake in fakes] == [0.25] * len(fakes)


def test_the_hinge_replaces_the_losses_of_the_low_resolution_discriminator_alone():
    images = tiny_udean(True, True)(batch())
    papers, hinge = tiny_udean(True, True, logit=0.25), tiny_udean(True, True, logit=0.25, hinge=True)
    before = {**papers.generator_loss(images), **papers.discriminator_loss(images)}
    after = {**hinge.generator_loss(images), **hinge.discriminator_loss(images)}
    changed = {name: round(after[name].item(), 6) for name in after if not torch.equal(after[name], before[name])}
    assert changed == {
        "low_res_consistency_adversarial": -0.25,
        "image_adaptation": -0.25,
        "low_res_discriminator_degraded": 1.0,
        "low_res_discriminator_reconstructed_image": 1.0,
    }
    assert routes(hinge, dict(hinge.named_children()))["image_adaptation"] <= {"degradation"}


def test_the_remaining_terms_keep_their_values():
    full, ablated = tiny_udean(True, True).eval(), tiny_udean(False, False).eval()
    x = full(batch())
    terms, remaining = full.generator_loss(x), ablated.generator_loss(ablated(batch()))
    for name, term in remaining.items():
        torch.testing.assert_close(term, terms[name], msg=name)


def test_a_weight_for_a_term_that_is_off_is_refused():
    with pytest.raises(ValueError, match=r"no term for \['image_adaptation'\]"):
        tiny_udean(False, True, image_adaptation=0.1).check_weights()


def test_no_weight_for_a_term_that_is_on_is_refused():
    with pytest.raises(ValueError, match=r"no weight for \['feature_cycle_l1'\]"):
        tiny_udean(True, True, feature_cycle_l1=None).check_weights()


@pytest.mark.slow
@pytest.mark.parametrize(("image", "feature"), ABSENT)
def test_one_batch_is_learned_beyond_tricubic(image, feature):
    slabs, objective = paired_slabs(), tiny_udean(image, feature, skip=True)
    start = gain_over_tricubic(slabs, objective.network.restore)
    overfit(objective, slabs)
    assert gain_over_tricubic(slabs, objective.network.restore) > start + 1
