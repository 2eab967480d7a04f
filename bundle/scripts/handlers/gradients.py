"""Handlers that clip gradients, average them over processes, or measure them for each term."""

from __future__ import annotations

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

__all__ = ["GradientAveragingHandler", "GradientClippingHandler", "TermGradientHandler"]


class GradientClippingHandler:
    """Clip the gradient norm of each parameter group before its optimiser steps, and publish the norms to the engine.

    Each group is clipped by itself. A further group, such as the projection heads, then does not change how the
    networks' gradient is scaled.

    Args:
        max_norm: largest 2-norm over all parameters of a group.

    Example:
        >>> GradientClippingHandler(max_norm=1.0).max_norm
        1.0
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
    """Log the norm of each generator term's weighted gradient with respect to a network.

    The curves are named ``gradient_<term>``. The first iteration is logged, and then one in every ``interval``.

    Args:
        network: the network whose parameters are differentiated.
        summary_writer: TensorBoard's writer.
        interval: iterations between two values.
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
    """Average the gradients of a step over all ranks. Attach it before the clipping."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(AdversarialEvents.GENERATOR_BACKWARD_COMPLETED, self, "g_optimizer")
        engine.add_event_handler(AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED, self, "d_optimizer")

    def check(self, engine: Engine) -> None:
        """Refuse gradient scaling with several processes, because one rank could then skip a step alone.

        Raises:
            ValueError: when gradients are scaled.
        """
        if dist.is_initialized() and engine.grad_scaler.is_enabled():
            raise ValueError(
                "amp_dtype must be 'bfloat16' or None with several processes, got 'float16'. Set --amp_dtype bfloat16."
            )

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
