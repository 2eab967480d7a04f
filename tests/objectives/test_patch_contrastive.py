"""The patch-wise contrastive term: which locations it compares, what it moves, and how several processes share it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from objective_checks import awaken, moved
from scripts.handlers.contrastive import ContrastiveHandler
from scripts.losses import patch_nce
from scripts.networks import PatchProjectionHead
from torch import Tensor, nn

PAIRS = {"contrastive_patch": ["patch", "made", "given"]}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def patch_wise(head: nn.Module | None = None, **settings) -> ContrastiveHandler:
    settings = {"pairs": PAIRS, "temperature": 0.07, "num_patches": 256, **settings}
    return ContrastiveHandler(
        nn.ModuleDict({"patch": head or nn.Identity()}), weights={"contrastive_patch": 0.1}, **settings
    )


def term(handler: ContrastiveHandler, iteration: int = 1, **images: Tensor) -> Tensor:
    engine = SimpleNamespace(state=SimpleNamespace(output=images, terms={}, iteration=iteration))
    handler(engine)
    return engine.state.terms["contrastive_patch"]


@pytest.mark.parametrize(("size", "drawn"), [(32, 256), (8, 64)])
def test_a_map_without_detail_costs_the_logarithm_of_the_number_of_locations(size, drawn):
    flat = torch.ones(2, 5, size, size)
    assert term(patch_wise(), made=flat, given=flat).item() == pytest.approx(math.log(drawn), abs=1e-5)


def test_locations_that_are_orthogonal_cost_the_closed_form():
    orthogonal = torch.eye(16).reshape(1, 16, 4, 4)
    loss = term(patch_wise(temperature=0.5), made=orthogonal, given=orthogonal)
    assert loss.item() == pytest.approx(math.log1p(15 * math.exp(-2)), abs=1e-5)


def test_with_all_locations_it_is_the_loss_of_the_whole_map():
    made, given = uniform(2, 6, 5, 7), uniform(2, 6, 5, 7, seed=1)
    whole = patch_nce(made.flatten(2).mT, given.flatten(2).mT)
    torch.testing.assert_close(term(patch_wise(), made=made, given=given), whole)


def test_locations_follow_from_seed_and_iteration_and_are_those_of_both_views():
    seen: list[Tensor] = []
    head = nn.Identity()
    head.register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    places = torch.arange(64.0).reshape(1, 1, 8, 8).expand(3, 2, 8, 8)
    for seed, iteration in ((0, 1), (0, 1), (0, 2), (1, 1)):
        term(patch_wise(head, num_patches=10, seed=seed), iteration, made=places, given=places)
    torch.manual_seed(5)  # what else draws does not count
    term(patch_wise(head, num_patches=10), made=places, given=places)
    first, again, later, other, last = seen[::2]
    assert all(torch.equal(a, b) for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert first.shape == (3, 10, 2)
    assert len(set(first[0, :, 0].tolist())) == 10
    assert torch.equal(first[0], first[2])
    assert torch.equal(first, again)
    assert torch.equal(first, last)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


def test_processes_that_share_a_batch_average_to_its_term():
    head = PatchProjectionHead(6, embedding_dim=8)
    made, given = uniform(4, 6, 20, 20), uniform(4, 6, 20, 20, seed=1)
    whole = term(patch_wise(head), made=made, given=given)
    shares = [term(patch_wise(head), made=made[own], given=given[own]) for own in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_the_gradient_reaches_the_made_image_and_the_head_not_the_key():
    head = PatchProjectionHead(6, embedding_dim=8)
    made, given = (uniform(2, 6, 8, 8, seed=seed).requires_grad_() for seed in (0, 1))
    term(patch_wise(head), made=made, given=given).backward()
    assert made.grad.abs().max() > 0
    assert given.grad is None
    assert all(p.grad.any() for p in head.parameters())


def test_it_moves_what_makes_the_features_of_the_made_image(tiny_udean, unpaired_batch):
    udean, head = awaken(tiny_udean()), PatchProjectionHead(16, embedding_dim=8)
    handler = patch_wise(head, pairs={"contrastive_patch": ["patch", "cycled_features", "features"]})
    networks = {
        "extractor": udean.degradation.extractor,
        "low_res_decoder": udean.degradation.decoder,
        "encoder": udean.network.encoder,
        "high_res_decoder": udean.network.decoder,
        "critics": udean.discriminators,
        "head": head,
    }
    loss = term(handler, **udean(unpaired_batch()))
    assert moved(loss, networks) == {"extractor", "low_res_decoder", "encoder", "head"}


def test_the_head_has_the_parameters_of_cut_s():
    assert sum(p.numel() for p in PatchProjectionHead(64).parameters()) == 64 * 256 + 256 + 256 * 256 + 256
    assert PatchProjectionHead(6, embedding_dim=8)(uniform(2, 10, 6)).shape == (2, 10, 8)


@pytest.mark.parametrize("contrastive", [True, False])
def test_it_stands_beside_the_papers_loss_or_alone(train_stack, contrastive):
    workflow = train_stack("methods/patch_contrastive.yaml", contrastive=contrastive)
    workflow.initialize()
    heads = workflow.parser.get_parsed_content("patch_heads")
    start = [p.clone() for p in heads.parameters()]
    terms = {}
    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: terms.update(engine.state.output["terms"]))
    workflow.run()
    expected = {"contrastive_feature", "contrastive_consistency", "contrastive_cycle"} if contrastive else set()
    assert {name for name in terms if name.startswith("contrastive")} == expected | {"contrastive_patch"}
    assert any(not torch.equal(a, b) for a, b in zip(start, heads.parameters(), strict=True))
    assert "patch_heads" in workflow.parser.get_parsed_content("train::further_state")
