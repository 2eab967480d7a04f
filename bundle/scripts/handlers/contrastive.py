"""Contrastive terms, which compare two images in the embedding of a projection head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

from scripts.losses import info_nce, patch_nce
from scripts.utils.distributed import gather_batch

__all__ = ["ContrastiveHandler"]


class ContrastiveHandler:
    """Add contrastive terms to the generator's loss of any objective.

    Each term compares two published images in the embedding of a projection head.

    * Sample by sample (arXiv 2310.15767): both views pass the projection head in one batch, so that its batch
      normalisation treats them alike. Negatives are the other samples of the batch, in both views. With several
      processes they are the samples of all processes.
    * Patch by patch (CUT), with ``num_patches``: the positive is the same location of the second view, whose gradient
      stops. The negatives are its other locations. All images and processes use the same locations, which are drawn
      from seed and iteration.

    Args:
        heads: projection heads by name. The generator's optimiser must hold their parameters.
        pairs: for each term, the projection head's name and the names of the two published images.
        weights: for each term, its weight in the generator's loss.
        temperature: see :func:`scripts.losses.info_nce` and :func:`scripts.losses.patch_nce`.
        num_patches: number of locations of ``(B, C, H, W)`` to compare, at most all. None compares samples.
        seed: seed of the locations.

    Raises:
        ValueError: when a term lacks a weight or a pair. When the training starts: if a pair names an unknown
            projection head, or the optimiser lacks the parameters of one.

    Example:
        >>> pairs = {"contrastive_cycle": ["image", "cycled", "reals"]}
        >>> handler = ContrastiveHandler(nn.ModuleDict(), pairs, weights={"contrastive_cycle": 0.1})
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
                f"each contrastive term needs a pair and a weight, got {sorted(pairs)} and {sorted(weights)}. "
                "Give contrastive_terms::pairs and contrastive_terms::weights the same names."
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
        """Check projection heads, pairs and optimiser before the first iteration."""
        unknown = sorted({head for head, _, _ in self.pairs.values()} - set(self.heads))
        if unknown:
            raise ValueError(
                f"the contrastive pairs must name projection heads of {sorted(self.heads)}, got {unknown}. "
                "Correct contrastive_terms::pairs."
            )
        held = {id(p) for group in engine.g_optimizer.param_groups for p in group["params"]}
        if any(id(p) not in held for p in self.heads.parameters()):
            raise ValueError(
                "g_optimizer must hold the projection heads' parameters, but lacks some. Add them to generator_groups."
            )

    def __call__(self, engine: Engine) -> None:
        images = engine.state.output
        for term, (head, first, second) in self.pairs.items():
            for name in (first, second):
                if name not in images:
                    raise ValueError(
                        f"{term} must compare two of the images {sorted(images)}, got {name!r}. "
                        "Correct contrastive_terms::pairs."
                    )
            views = (images[first], images[second])
            engine.state.terms[term] = self._compare(self.heads[head], *views, engine.state.iteration)

    def _compare(self, head: nn.Module, first: Tensor, second: Tensor, iteration: int) -> Tensor:
        if self.num_patches is None:
            u, v = (gather_batch(view) for view in head(torch.cat([first, second])).chunk(2))
            return info_nce(u, v, temperature=self.temperature)
        query, key = (head(self._draw_patches(view, iteration)) for view in (first, second))
        return patch_nce(query, key, temperature=self.temperature)

    def _draw_patches(self, features: Tensor, iteration: int) -> Tensor:
        """The features ``(B, N, C)`` of N locations of ``(B, C, H, W)``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + iteration)
        drawn = torch.randperm(features[0, 0].numel(), generator=generator)[: self.num_patches]
        return features.flatten(2).index_select(2, drawn.to(features.device)).mT
