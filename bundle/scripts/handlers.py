"""Handlers: what stands beside an objective and has a life of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

from scripts.losses import info_nce


class ContrastiveHandler:
    """Add the contrastive terms of arXiv 2310.15767 to the generator's, for any objective.

    Each term compares two of the published images, sample by sample, in the embedding of a projection head. Both views
    pass the head in one batch, so that its batch normalisation cannot tell them apart. Negatives are the other samples
    of the batch, in both views.

    Args:
        heads: projection heads by name; their parameters belong in the generator's optimiser.
        pairs: for each term, the head's name and the names of the two published images.
        temperature: of :func:`scripts.losses.info_nce`.

    Raises:
        ValueError: at the start of training, when a pair names an unknown head or the optimiser misses a head.
    """

    def __init__(self, heads: nn.ModuleDict, pairs: Mapping[str, Sequence[str]], temperature: float = 0.2) -> None:
        self.heads = heads
        self.pairs = {term: tuple(pair) for term, pair in pairs.items()}
        self.temperature = temperature

    def attach(self, engine: Engine) -> None:
        engine.declare_terms(self.pairs)
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(AdversarialEvents.GENERATOR_LOSS_COMPLETED, self)

    def check(self, engine: Engine) -> None:
        """Fail before the first iteration when heads and pairs do not fit."""
        unknown = sorted({head for head, _, _ in self.pairs.values()} - set(self.heads))
        if unknown:
            raise ValueError(f"the contrastive pairs name heads {unknown}, but the heads are {sorted(self.heads)}.")
        held = {id(p) for group in engine.g_optimizer.param_groups for p in group["params"]}
        if any(id(p) not in held for p in self.heads.parameters()):
            raise ValueError(
                "g_optimizer must hold the projection heads' parameters; chain them in g_optimizer::params."
            )

    def __call__(self, engine: Engine) -> None:
        images = engine.state.output
        for term, (head, first, second) in self.pairs.items():
            for name in (first, second):
                if name not in images:
                    raise ValueError(f"{term} compares {name!r}, but the objective publishes {sorted(images)}.")
            u, v = self.heads[head](torch.cat([images[first], images[second]])).chunk(2)
            engine.state.terms[term] = info_nce(u, v, temperature=self.temperature)


class GradientClippingHandler:
    """Clip the norm of the gradient of each optimiser before it steps.

    Args:
        max_norm: largest 2-norm over all the parameters of an optimiser.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(AdversarialEvents.GENERATOR_BACKWARD_COMPLETED, self, "g_optimizer")
        engine.add_event_handler(AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, self, "d_optimizer")

    def __call__(self, engine: Engine, optimizer: str) -> None:
        groups: list[dict] = getattr(engine, optimizer).param_groups
        parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.max_norm)
