"""A degradation that its discriminator alone moves: which term moves which network."""

from __future__ import annotations

import pytest
from objective_checks import routes, tiny_critic, tiny_degradation, tiny_network
from scripts.objectives import AdversarialDegradation


def test_only_the_discriminator_moves_the_degradation():
    generators = {"network": tiny_network(), "degradation": tiny_degradation()}
    discriminators = {"low_res_discriminator": tiny_critic()}
    terms = (*AdversarialDegradation.generator_terms, *AdversarialDegradation.discriminator_terms)
    objective = AdversarialDegradation(dict.fromkeys(terms, 1.0), generators, discriminators, ssim_form="abs")
    assert routes(objective, generators | discriminators) == {
        "restoration_l1": {"network"},
        "restoration_ssim": {"network"},
        "image_adaptation": {"degradation"},
        "low_res_discriminator_degraded": {"low_res_discriminator"},
    }


def test_the_degradation_stays_once_its_iterations_are_over(train_stack):
    networks = (f"networks/{name}.yaml" for name in ("slabs", "slab_network", "kernel_degradation"))
    options = {"max_iterations": 8, "degradation_iterations": 4, "train::warmup_iterations": 2}
    parser = train_stack("methods/adversarial_degradation.yaml", *networks, **options).parser
    optimizer, scheduler = (parser.get_parsed_content(f"train::g_{name}") for name in ("optimizer", "scheduler"))
    rates = []
    for _ in range(8):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    of_network, of_degradation = (list(one) for one in zip(*rates, strict=True))
    assert of_degradation == pytest.approx([5e-5, 4.26777e-5, 2.5e-5, 0.73223e-5, 0, 0, 0, 0], abs=1e-9)
    assert of_network[0] == 0
    assert min(of_network[1:]) > 0
    assert [group["betas"][0] for group in optimizer.param_groups] == [0.9, 0.5]
