"""A degradation that its discriminator alone moves: which term moves which network."""

from __future__ import annotations

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
