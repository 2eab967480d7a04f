"""Gradients: clipped, averaged over processes, and measured term by term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
import torch.distributed as dist

__all__ = ["GradientAveragingHandler"]


class GradientClippingHandler:
    """Clip the norm of the gradient of each parameter group before its optimiser steps, and let the engine look at it.

    Groups are clipped one by one, so that the networks' gradient is scaled alike whatever other groups, such as the
    projection heads, the optimiser holds.

    Args:
        max_norm: largest 2-norm over all the parameters of a group.
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(AdversarialEvents.GENERATOR_BACKWARD_COMPLETED, self, "g_optimizer")
        engine.add_event_handler(AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, self, "d_optimizer")

    def __call__(self, engine: Engine, optimizer: str) -> None:
        for group in getattr(engine, optimizer).param_groups:
            engine.state.gradient_norms.append(nn.utils.clip_grad_norm_(group["params"], self.max_norm))


class TermGradientHandler:
    """Log how strongly each of the generators' terms pulls at a network: the norm of its weighted gradient.

    The curves are ``gradient_<term>``, at the first iteration and every ``interval`` iterations from there on.

    Args:
        network: whose parameters the gradients are taken for.
        summary_writer: where to log, a ``torch.utils.tensorboard.SummaryWriter``.
        interval: in iterations.
    """

    def __init__(self, network: nn.Module, summary_writer: SummaryWriter, interval: int = 250) -> None:
        self.parameters = list(network.parameters())
        self.summary_writer = summary_writer
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(AdversarialEvents.GENERATOR_LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        if (iteration - 1) % self.interval:
            return
        for name, term in engine.state.terms.items():
            norm = abs(engine.objective.weights[name]) * self._norm(term)
            self.summary_writer.add_scalar(f"gradient_{name}", norm, iteration)

    def _norm(self, term: Tensor) -> float:
        if not term.requires_grad:
            return 0.0
        found = torch.autograd.grad(term, self.parameters, retain_graph=True, allow_unused=True)
        return float(sum(gradient.square().sum() for gradient in found if gradient is not None)) ** 0.5


class GradientAveragingHandler:
    """Average the gradients of a step over all ranks, before they are clipped: attach it before the clipping."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(AdversarialEvents.GENERATOR_BACKWARD_COMPLETED, self, "g_optimizer")
        engine.add_event_handler(AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, self, "d_optimizer")

    def check(self, engine: Engine) -> None:
        """Refuse what would let the ranks part ways.

        Raises:
            ValueError: when gradients are scaled, for a rank could skip a step by itself.
        """
        if dist.is_initialized() and engine.grad_scaler.is_enabled():
            raise ValueError("amp_dtype must be 'bfloat16' or None with several processes, got 'float16'.")

    def __call__(self, engine: Engine, optimizer: str) -> None:
        if not dist.is_initialized():
            return
        groups = getattr(engine, optimizer).param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= dist.get_world_size()
        for gradient, average in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(average.view_as(gradient))
