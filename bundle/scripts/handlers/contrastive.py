"""Contrastive handler: terms that compare two images in the embedding of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

from scripts.losses import info_nce, patch_nce
from scripts.utils.distributed import gather_batch

if TYPE_CHECKING:
    pass


class ContrastiveHandler:
    """Add contrastive terms to the generator's, for any objective: those of arXiv 2310.15767, or patch-wise ones (CUT).

    Each term compares two of the published images in the embedding of a projection head.

    * Sample by sample, as in the paper: both views pass the head in one batch, so that its batch normalisation cannot
      tell them apart. Negatives are the other samples of the batch, in both views; with several processes, of all their
      batches.
    * Patch by patch of feature maps, with ``num_patches``: the same location of the second view, which is a constant,
      is the positive, and its other locations are the negatives. Locations are drawn from (seed, iteration), alike in
      all images and processes; as no image is compared with another, several processes share a batch as they are.

    Args:
        heads: projection heads by name; their parameters belong in the generator's optimiser.
        pairs: for each term, the head's name and the names of the two published images.
        weights: for each term, its weight in the generator's loss.
        temperature: of :func:`scripts.losses.info_nce`, or of :func:`scripts.losses.patch_nce`.
        num_patches: how many locations of ``(B, C, H, W)`` are compared, or all if there are fewer; None compares
            samples.
        seed: of the locations.

    Raises:
        ValueError: when a term has no weight or no pair; at the start of training, when a pair names an unknown head or
            the optimiser misses a head.
    """

    def __init__(
        self,
        heads: nn.ModuleDict,
        pairs: Mapping[str, Sequence[str]],
        weights: Mapping[str, float],
        temperature: float = 0.2,
        num_patches: int | None = None,
        seed: int = 0,
    ) -> None:
        if set(pairs) != set(weights):
            raise ValueError(
                f"each contrastive term needs a pair and a weight, got {sorted(pairs)} and {sorted(weights)}."
            )
        self.heads = heads
        self.pairs = {term: tuple(pair) for term, pair in pairs.items()}
        self.weights = weights
        self.temperature = temperature
        self.num_patches = num_patches
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.declare_terms(self.weights)
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
                "g_optimizer must hold the projection heads' parameters; name them in g_optimizer::params."
            )

    def __call__(self, engine: Engine) -> None:
        images = engine.state.output
        for term, (head, first, second) in self.pairs.items():
            for name in (first, second):
                if name not in images:
                    raise ValueError(f"{term} compares {name!r}, but the objective publishes {sorted(images)}.")
            views = (images[first], images[second])
            engine.state.terms[term] = self._compare(self.heads[head], *views, engine.state.iteration)

    def _compare(self, head: nn.Module, first: Tensor, second: Tensor, iteration: int) -> Tensor:
        if self.num_patches is None:
            u, v = (gather_batch(view) for view in head(torch.cat([first, second])).chunk(2))
            return info_nce(u, v, temperature=self.temperature)
        query, key = (head(self._draw_patches(view, iteration)) for view in (first, second))
        return patch_nce(query, key, temperature=self.temperature)

    def _draw_patches(self, features: Tensor, iteration: int) -> Tensor:
        """``(B, C, H, W)`` to the features ``(B, N, C)`` of some locations."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        drawn = torch.randperm(features[0, 0].numel(), generator=generator)[: self.num_patches]
        return features.flatten(2).index_select(2, drawn.to(features.device)).mT
