"""Objectives: which networks each term moves, and what they publish and refuse."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from scripts.losses import adaptation_loss, info_nce
from scripts.objectives import UDEAN
from scripts.objectives.base import Objective, frozen
from torch import Tensor, nn

# term -> the networks that it moves: the method's essence
GENERATOR_ROUTES = {
    "image_cycle_l1": {"extractor", "low_res_decoder", "encoder", "high_res_decoder"},
    "image_cycle_ssim": {"extractor", "low_res_decoder", "encoder", "high_res_decoder"},
    "image_cycle_adversarial": {"extractor", "low_res_decoder", "encoder", "high_res_decoder"},
    "feature_cycle_l1": {"extractor", "low_res_decoder", "encoder"},
    "high_res_consistency_l1": {"extractor", "high_res_decoder"},
    "high_res_consistency_ssim": {"extractor", "high_res_decoder"},
    "high_res_consistency_adversarial": {"extractor", "high_res_decoder"},
    "low_res_consistency_l1": {"encoder", "low_res_decoder"},
    "low_res_consistency_ssim": {"encoder", "low_res_decoder"},
    "low_res_consistency_adversarial": {"encoder", "low_res_decoder"},
    "image_adaptation": {"extractor", "low_res_decoder"},
    "feature_adaptation": {"extractor", "encoder"},
    "contrastive_feature": {"extractor", "low_res_decoder", "encoder", "feature_head"},
    "contrastive_consistency": {"extractor", "high_res_decoder", "image_head"},
    "contrastive_cycle": {"extractor", "low_res_decoder", "encoder", "high_res_decoder", "image_head"},
}
DISCRIMINATOR_ROUTES = {
    "high_res_discriminator_reconstructed": {"high_res_discriminator"},
    "high_res_discriminator_cycled": {"high_res_discriminator"},
    "low_res_discriminator_degraded": {"low_res_discriminator"},
    "low_res_discriminator_reconstructed_image": {"low_res_discriminator"},
    "feature_discriminator_target_features": {"feature_discriminator"},
}
# term -> the published images that it passes a gradient to; nothing is detached but the target's half of an adaptation
COMPARED = {
    "image_cycle_l1": {"cycled", "reals"},
    "image_cycle_ssim": {"cycled", "reals"},
    "image_cycle_adversarial": {"cycled"},
    "feature_cycle_l1": {"cycled_features", "features"},
    "high_res_consistency_l1": {"reconstructed", "reals"},
    "high_res_consistency_ssim": {"reconstructed", "reals"},
    "high_res_consistency_adversarial": {"reconstructed"},
    "low_res_consistency_l1": {"reconstructed_image", "image"},
    "low_res_consistency_ssim": {"reconstructed_image", "image"},
    "low_res_consistency_adversarial": {"reconstructed_image"},
    "image_adaptation": {"degraded"},
    "feature_adaptation": {"target_features", "features"},
    "high_res_discriminator_reconstructed": {"reals", "reconstructed"},
    "high_res_discriminator_cycled": {"reals", "cycled"},
    "low_res_discriminator_degraded": {"image", "degraded"},
    "low_res_discriminator_reconstructed_image": {"image", "reconstructed_image"},
    "feature_discriminator_target_features": {"features", "target_features"},
}
CONTRASTIVE_PAIRS = {
    "contrastive_feature": ("feature", "cycled_features", "features"),
    "contrastive_consistency": ("image", "reconstructed", "reals"),
    "contrastive_cycle": ("image", "cycled", "reals"),
}


class Fidelity(Objective):
    """One generator and at most two discriminators, with a term each."""

    discriminator_names = ("critic", "second_critic")
    optional_names = ("critic", "second_critic")
    generator_terms = ("fidelity",)
    discriminator_terms = ("criticism",)

    def __init__(self, weights: Mapping[str, float], **networks: Mapping[str, nn.Module | None]) -> None:
        super().__init__(weights, **{"generators": {"network": nn.Linear(1, 1)}, **networks})

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"pred": self.network(batch["image"])}

    def generator_loss(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"fidelity": images["pred"].square().mean()}


def moved(term: Tensor, networks: Mapping[str, nn.Module]) -> set[str]:
    """The networks any of whose parameters the term has a gradient for."""
    for network in networks.values():
        network.zero_grad()
    if term.requires_grad:
        term.backward(retain_graph=True)
    gradients = {name: [p.grad for p in network.parameters()] for name, network in networks.items()}
    return {name for name, grads in gradients.items() if any(g is not None and g.any() for g in grads)}


def parts(udean: nn.Module, heads: nn.ModuleDict) -> dict[str, nn.Module]:
    return {
        "extractor": udean.degradation.extractor,
        "low_res_decoder": udean.degradation.decoder,
        "encoder": udean.network.encoder,
        "high_res_decoder": udean.network.decoder,
        "high_res_discriminator": udean.high_res_discriminator,
        "low_res_discriminator": udean.low_res_discriminator,
        "feature_discriminator": udean.feature_discriminator,
        "feature_head": heads["feature"],
        "image_head": heads["image"],
    }


@pytest.fixture
def trained_udean(tiny_udean):
    """A UDEAN whose last layers say something; those of an untrained network with skip pass no gradient."""

    def make(**kwargs):
        udean = tiny_udean(**kwargs)
        for seed, network in enumerate((udean.network, udean.degradation)):
            nn.init.normal_(network.decoder.last.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
        return udean.train()

    return make


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_each_generator_term_moves_the_networks_of_the_papers(
    trained_udean, tiny_heads, unpaired_batch, scale_factor, skip
):
    udean, heads = trained_udean(scale_factor=scale_factor, skip=skip), tiny_heads(scale_factor[2])
    images = udean(unpaired_batch(scale_factor[2]))
    with frozen(udean.discriminators):
        terms = udean.generator_loss(images)
    for name, (head, first, second) in CONTRASTIVE_PAIRS.items():
        terms[name] = info_nce(*heads[head](torch.cat([images[first], images[second]])).chunk(2))
    networks = parts(udean, heads)
    assert {name: moved(term, networks) for name, term in terms.items()} == GENERATOR_ROUTES


def test_each_discriminator_term_moves_its_own_discriminator(trained_udean, tiny_heads, unpaired_batch):
    udean, heads = trained_udean(), tiny_heads()
    images = {name: image.detach() for name, image in udean(unpaired_batch()).items()}
    terms = udean.discriminator_loss(images)
    assert {name: moved(term, parts(udean, heads)) for name, term in terms.items()} == DISCRIMINATOR_ROUTES


def test_each_term_compares_the_images_of_the_papers(tiny_udean, unpaired_batch):
    udean = tiny_udean()
    images = {name: image.detach().requires_grad_() for name, image in udean(unpaired_batch()).items()}
    terms = {**udean.generator_loss(images), **udean.discriminator_loss(images)}
    compared = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(images.values()), retain_graph=True, allow_unused=True)
        compared[name] = {image for image, gradient in zip(images, gradients, strict=True) if gradient is not None}
    assert compared == COMPARED


def test_the_terms_computed_are_the_terms_announced(tiny_udean, unpaired_batch):
    udean = tiny_udean()
    images = udean(unpaired_batch())
    assert tuple(udean.generator_loss(images)) == udean.generator_terms
    assert tuple(udean.discriminator_loss(images)) == udean.discriminator_terms


def test_the_second_half_of_the_image_adaptation_changes_the_value_and_moves_nothing(trained_udean, unpaired_batch):
    udean = trained_udean().eval()  # so that the discriminator's answers do not depend on its batch statistics
    images = udean(unpaired_batch())
    first = adaptation_loss(udean.low_res_discriminator(images["degraded"]))
    second = adaptation_loss(udean.low_res_discriminator(images["image"]))
    term = udean.generator_loss(images)["image_adaptation"]
    assert torch.equal(term, first + second)
    assert second > 0
    parameters = list(udean.generators.parameters())
    gradients = [torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in (term, first)]
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_images_are_published_in_their_papers_roles(tiny_udean, unpaired_batch):
    udean, batch = tiny_udean(), unpaired_batch()
    images = udean(batch)
    network, degradation = udean.network, udean.degradation
    truncated = degradation.truncate(batch["reals"])
    features = degradation.encode(batch["reals"])
    degraded = degradation.decode(features, truncated)
    cycled_features = network.encode(degraded)
    expected = {
        "reals": batch["reals"],
        "image": batch["image"],
        "features": features,
        "truncated": truncated,
        "degraded": degraded,
        "cycled_features": cycled_features,
        "cycled": network.decode(cycled_features, degraded),
        "reconstructed": network.decode(features, truncated),
        "target_features": network.encode(batch["image"]),
        "reconstructed_image": degradation.decode(network.encode(batch["image"]), batch["image"]),
    }
    assert images.keys() == expected.keys()
    for name, image in images.items():
        torch.testing.assert_close(image, expected[name], msg=name)


def test_context_is_not_published(tiny_udean, unpaired_batch):
    """Wide slabs publish what the slabs in their middle do, wherever the networks have no skip that sees the rest."""
    objective, batch = tiny_udean(), unpaired_batch()
    wide = {
        "image": F.pad(batch["image"], [0, 0, 0, 0, 2, 2], mode="constant"),
        "reals": F.pad(batch["reals"], [0, 0, 0, 0, 4, 4], mode="constant"),
    }
    narrow_images, wide_images = objective(batch), objective(wide)
    assert narrow_images.keys() == wide_images.keys()
    for name in narrow_images.keys() - {"truncated"}:  # physics, which sees the context
        torch.testing.assert_close(wide_images[name], narrow_images[name], atol=1e-6, rtol=0)
    assert wide_images["truncated"].shape == narrow_images["truncated"].shape


def test_discriminators_that_cannot_tell_cost_a_quarter_per_pair(tiny_udean, unpaired_batch):
    udean = tiny_udean()
    for discriminator in udean.discriminators.values():
        nn.init.zeros_(discriminator.classifier[-1].weight)
        nn.init.constant_(discriminator.classifier[-1].bias, 0.5)
    images = udean(unpaired_batch())
    terms = {name: term.item() for name, term in udean.discriminator_loss(images).items()}
    assert terms == dict.fromkeys(udean.discriminator_terms, 0.25)
    assert udean.generator_loss(images)["image_adaptation"].item() == 0
    assert udean.generator_loss(images)["feature_adaptation"].item() == 0


def test_the_form_of_the_ssim_loss_is_an_argument(tiny_udean, unpaired_batch):
    udean = tiny_udean()
    images = udean(unpaired_batch())
    by_form = {}
    for udean.ssim_form in ("abs", "square"):
        by_form[udean.ssim_form] = udean.generator_loss(images)["image_cycle_ssim"]
    torch.testing.assert_close(by_form["square"], by_form["abs"] ** 2)


# frozen()


def test_gradients_pass_through_frozen_networks_without_reaching_them():
    generator, critic = nn.Linear(3, 3), nn.Linear(3, 1)
    with frozen(critic):
        assert not any(p.requires_grad for p in critic.parameters())
        loss = critic(generator(torch.ones(1, 3))).sum()
    loss.backward()
    assert generator.weight.grad.any()
    assert critic.weight.grad is None


def test_networks_are_as_they_were_after_an_error_inside_frozen():
    critic = nn.Linear(3, 1)
    critic.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), frozen(critic):
        critic(torch.ones(1, 2))
    assert critic.weight.requires_grad
    assert not critic.bias.requires_grad


# Networks


def test_networks_are_attributes_in_the_order_of_their_names():
    critic = nn.Linear(2, 1)
    objective = Fidelity({}, discriminators={"critic": critic, "second_critic": None})
    assert objective.critic is critic
    assert objective.second_critic is None
    assert list(dict(objective.named_children())) == ["network", "critic"]
    assert list(objective.generators) == ["network"]
    assert list(objective.discriminators) == ["critic"]


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"generators": {}}, r"generators \['network'\], got \[\]: missing \['network'\], unknown \[\]"),
        ({"generators": {"network": None}}, r"missing \['network'\]\D* Set objective_def::generators"),
        ({"discriminators": {"critics": nn.Identity()}}, r"got \['critics'\]: missing \[\], unknown \['critics'\]"),
        ({"fixed": {"teacher": nn.Identity()}}, r"expects the fixed \[\], got \['teacher'\]"),
    ],
)
def test_networks_that_are_missing_or_unknown_are_refused(networks, message):
    with pytest.raises(ValueError, match=message):
        Fidelity({}, **networks)


@pytest.mark.parametrize("form", [None, "sq"])
def test_a_method_with_ssim_terms_states_their_form(tiny_udean, form):
    udean = tiny_udean()
    networks = {"generators": dict(udean.generators.items()), "discriminators": dict(udean.discriminators.items())}
    with pytest.raises(ValueError, match=r"UDEAN has SSIM terms: ssim_form must be one of .*, got .*objective_def"):
        UDEAN(weights={}, **networks, ssim_form=form, image_adaptation=True, cycle_to_degradation=True)


# Weights


def test_the_total_is_the_weighted_sum():
    objective = Fidelity({"fidelity": 2.0, "criticism": 0.5})
    terms = {"fidelity": torch.tensor(3.0), "criticism": torch.tensor(4.0)}
    assert objective.total(terms).item() == 8.0


def test_a_term_without_a_weight_is_named():
    with pytest.raises(ValueError, match=r"Fidelity needs one weight per term: no weight for \['criticism'\]"):
        Fidelity({"fidelity": 1.0}).check_weights()


def test_a_weight_without_a_term_is_named():
    objective = Fidelity({"fidelity": 1.0, "criticism": 1.0, "fidelty": 1.0})
    with pytest.raises(ValueError, match=r"no term for \['fidelty'\]\. Its terms are \['criticism', 'fidelity'\]"):
        objective.check_weights()


def test_added_terms_bring_their_weights():
    objective = Fidelity({"fidelity": 1.0, "criticism": 1.0})
    objective.add_terms({"contrast": 0.1})
    objective.check_weights()
    assert objective.weights == {"fidelity": 1.0, "criticism": 1.0, "contrast": 0.1}
    with pytest.raises(ValueError, match="the weight of 'contrast' must be a finite number, got nan"):
        objective.add_terms({"contrast": float("nan")})


@pytest.mark.parametrize("weight", ["1e-3", float("inf"), float("nan")])
def test_weights_that_are_no_numbers_are_refused(weight):
    message = f"the weight of 'fidelity' must be a finite number, got {weight!r}; in YAML write 1.0e-3"
    with pytest.raises(ValueError, match=message):
        Fidelity({"fidelity": weight, "criticism": 1.0})


def test_an_objective_without_discriminators_has_no_discriminator_terms():
    objective = Fidelity({"fidelity": 1.0, "criticism": 1.0})
    assert len(objective.discriminators) == 0
    assert objective.discriminator_loss({}) == {}
