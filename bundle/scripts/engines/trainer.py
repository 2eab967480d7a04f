"""The engine: one iteration of any objective. The engine owns the steps; the objective owns the images and terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from ignite.metrics import Metric
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from monai.transforms import Transform
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from monai.utils import AdversarialKeys, CommonKeys
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from scripts.objectives.base import Objective, Terms, frozen
from scripts.utils.precision import resolve_amp_dtype

__all__ = ["ObjectiveTrainer", "whole_epochs"]


def whole_epochs(max_iterations: int, iterations_per_epoch: int) -> int:
    """The number of epochs of a budget of iterations.

    Args:
        max_iterations: the budget.
        iterations_per_epoch: the length of an epoch, after which the training is validated and saved.

    Raises:
        ValueError: when the budget is not a positive multiple of the epoch.

    Example:
        >>> whole_epochs(2000, 100)
        20
    """
    numbers = {"max_iterations": max_iterations, "iterations_per_epoch": iterations_per_epoch}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}. Correct --{name}.")
    epochs, left = divmod(max_iterations, iterations_per_epoch)
    if epochs == 0:
        raise ValueError(
            f"max_iterations must be at least iterations_per_epoch, got {max_iterations} and {iterations_per_epoch}. "
            f"Set --iterations_per_epoch {max_iterations}, or more --max_iterations."
        )
    if left:
        near = epochs * iterations_per_epoch
        raise ValueError(
            f"max_iterations must be a multiple of iterations_per_epoch, got {max_iterations} and "
            f"{iterations_per_epoch}. Set --max_iterations {near} or {near + iterations_per_epoch}."
        )
    return epochs


class ObjectiveTrainer(Trainer):
    """Train the networks of an :class:`~scripts.objectives.base.Objective`: discriminator step, then generator step.

    Both steps use the images of one forward. Events are MONAI's ``AdversarialIterationEvents``, fired in this order::

        GENERATOR_FORWARD_COMPLETED
        DISCRIMINATOR_LOSS_COMPLETED, DISCRIMINATOR_BACKWARD_COMPLETED, DISCRIMINATOR_MODEL_COMPLETED
        GENERATOR_LOSS_COMPLETED, GENERATOR_BACKWARD_COMPLETED, GENERATOR_MODEL_COMPLETED
        MODEL_COMPLETED

    ``engine.state.terms`` holds the unweighted terms by name. A handler declares a term of its own by
    :meth:`declare_terms` and adds it at ``GENERATOR_LOSS_COMPLETED``. ``engine.state.output`` holds the published
    images, the ``terms``, ``loss`` and the discriminators' loss, all detached. A handler that measures gradient norms
    adds them to ``engine.state.gradient_norms``. The engine makes no step with a loss or a norm that is not finite.

    A resumed run equals one that was never stopped. For that, the randomness inside an iteration depends on ``seed``
    and the iteration's number alone, and the data loader's sampler starts at the engine's iteration.

    Args:
        device: where to train.
        max_epochs: number of epochs, each of ``epoch_length`` iterations.
        train_data_loader: yields dictionaries, whose tensors are moved to ``device``. The engine sets the attribute
            ``start`` of its sampler, where there is one, to the number of iterations already done.
        objective: the method, whose networks are on ``device``.
        g_optimizer: holds the parameters of ``objective.generators`` and of handlers' own networks.
        d_optimizer: holds the parameters of ``objective.discriminators``. None when there are none.
        epoch_length: iterations per epoch, by default the loader's length.
        amp_dtype: autocast type, see :func:`scripts.utils.precision.resolve_amp_dtype`. With float16 the gradients
            are scaled. Losses are in float32 with every type.
        seed: seed of the randomness inside iterations.
        non_blocking: copy to the device asynchronously.
        postprocessing: applied to the output, see ``monai.engines.Workflow``.
        key_train_metric: see ``monai.engines.Workflow``.
        additional_metrics: see ``monai.engines.Workflow``.
        train_handlers: handlers to attach.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        objective: Objective,
        g_optimizer: Optimizer,
        d_optimizer: Optimizer | None = None,
        epoch_length: int | None = None,
        amp_dtype: str | None = None,
        seed: int = 0,
        non_blocking: bool = False,
        postprocessing: Transform | None = None,
        key_train_metric: dict[str, Metric] | None = None,
        additional_metrics: dict[str, Metric] | None = None,
        train_handlers: Sequence | None = None,
    ) -> None:
        self.objective = objective
        self.g_optimizer = g_optimizer
        self.d_optimizer = d_optimizer
        self.amp_dtype = resolve_amp_dtype(amp_dtype, torch.device(device))
        self.seed = seed
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            postprocessing=postprocessing,
            key_metric=key_train_metric,
            additional_metrics=additional_metrics,
            handlers=train_handlers,
            event_names=[AdversarialEvents],
            decollate=False,
        )
        self.grad_scaler = torch.amp.GradScaler(self.state.device.type, enabled=self.amp_dtype == torch.float16)
        self.add_event_handler(Events.STARTED, self._check)
        self.add_event_handler(Events.EPOCH_STARTED, self._align_data)

    def declare_terms(self, weights: Mapping[str, float]) -> None:
        """Announce the terms that a handler adds to the generator's, with their weights."""
        self.objective.add_terms(weights)

    def _check(self) -> None:
        """Fail before the first iteration when the config does not fit the objective."""
        self.objective.check_weights()
        self._check_optimizer("g_optimizer", self.g_optimizer, self.objective.generators)
        self._check_optimizer("d_optimizer", self.d_optimizer, self.objective.discriminators)

    @staticmethod
    def _check_optimizer(name: str, optimizer: Optimizer | None, networks: torch.nn.ModuleDict) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]} if optimizer else set()
        left = [key for key, parameter in networks.named_parameters() if id(parameter) not in held]
        if left:
            raise ValueError(
                f"{name} must hold every parameter of {sorted(networks)}, but lacks {len(left)}, first {left[0]!r}. "
                f"Name these networks in {name}::params."
            )

    def _align_data(self) -> None:
        """Let the data go on where the engine stands. It stands beyond 0 after a checkpoint was loaded."""
        sampler = getattr(self.data_loader, "sampler", None)
        if hasattr(sampler, "start"):
            sampler.start = self.state.iteration

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def _iteration(self, engine: ObjectiveTrainer, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """One discriminator step and one generator step on the images of one forward."""
        torch.manual_seed(self.seed * 1_000_003 + self.state.iteration)
        self.objective.train()
        batch = {
            key: value.to(self.state.device, non_blocking=self.non_blocking) if isinstance(value, Tensor) else value
            for key, value in batchdata.items()
        }
        with self._autocast():
            self.state.output = self.objective(batch)
        self.fire_event(AdversarialEvents.GENERATOR_FORWARD_COMPLETED)
        detached = {name: image.detach() for name, image in self.state.output.items()}

        d_terms, d_loss = self._discriminator_step(detached)
        g_terms, g_loss = self._generator_step()
        self.grad_scaler.update()

        self.state.output = {
            **detached,
            "terms": {name: term.detach() for name, term in {**g_terms, **d_terms}.items()},
            CommonKeys.LOSS: g_loss,
            AdversarialKeys.DISCRIMINATOR_LOSS: d_loss,
        }
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _discriminator_step(self, images: dict[str, Tensor]) -> tuple[Terms, Tensor]:
        if self.d_optimizer is None:
            return {}, torch.zeros(())
        return self._step(
            lambda: self.objective.discriminator_loss(images),
            self.d_optimizer,
            AdversarialEvents.DISCRIMINATOR_LOSS_COMPLETED,
            AdversarialEvents.DISCRIMINATOR_BACKWARD_COMPLETED,
            AdversarialEvents.DISCRIMINATOR_MODEL_COMPLETED,
        )

    def _generator_step(self) -> tuple[Terms, Tensor]:
        images = self.state.output
        with frozen(self.objective.discriminators):
            return self._step(
                lambda: self.objective.generator_loss(images),
                self.g_optimizer,
                AdversarialEvents.GENERATOR_LOSS_COMPLETED,
                AdversarialEvents.GENERATOR_BACKWARD_COMPLETED,
                AdversarialEvents.GENERATOR_MODEL_COMPLETED,
            )

    def _step(
        self,
        compute_terms: Callable[[], Terms],
        optimizer: Optimizer,
        loss_completed: AdversarialEvents,
        backward_completed: AdversarialEvents,
        model_completed: AdversarialEvents,
    ) -> tuple[Terms, Tensor]:
        """Compute terms, total and gradients, then step. Handlers see unweighted terms, then unscaled gradients."""
        with self._autocast():
            self.state.terms = compute_terms()
            self.fire_event(loss_completed)
            loss = self.objective.total(self.state.terms)
        self.state.gradient_norms = []
        optimizer.zero_grad()
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(optimizer)
        self.fire_event(backward_completed)
        self._check_finite(loss, optimizer)
        self.grad_scaler.step(optimizer)
        self.fire_event(model_completed)
        return self.state.terms, loss.detach()

    def _check_finite(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Stop before a step that would spoil the networks.

        One test covers loss and norms, because a GPU finishes its queue before it answers. Under gradient scaling a
        step with such gradients is skipped and is no error.
        """
        norms = [] if self.grad_scaler.is_enabled() else self.state.gradient_norms
        if torch.stack([loss.detach(), *norms]).isfinite().all():
            return
        where = f"at iteration {self.state.iteration} ({self._describe_batch()})"
        advice = "look at these scans, lower the learning rate, and resume from the last checkpoint."
        if loss.isfinite():
            name = "g_optimizer" if optimizer is self.g_optimizer else "d_optimizer"
            raise ValueError(
                f"the gradient of {name} must be finite, but is not {where}, although the loss is; {advice}"
            )
        names = [name for name, term in self.state.terms.items() if not torch.isfinite(term)]
        raise ValueError(f"the loss must be finite, but {names or 'the total'} is not {where}; {advice}")

    def _describe_batch(self) -> str:
        """The subjects of the batch, for messages."""
        subjects = {key: value for key, value in self.state.batch.items() if key.endswith("subject")}
        return f"batch of {subjects}"
