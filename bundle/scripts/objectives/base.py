"""The objective: which images a method makes, and which named terms it minimises on them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from scripts.losses import absolute_error, discriminator_loss, ssim_loss

Terms = dict[str, Tensor]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``modules`` without reaching their parameters."""
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def restoration(name: str, made: Tensor, given: Tensor, ssim_form: str = "abs") -> Terms:
    """The two terms ``<name>_l1`` and ``<name>_ssim``, of a slab that should equal a given one."""
    return {f"{name}_l1": absolute_error(made, given), f"{name}_ssim": ssim_loss(made, given, form=ssim_form)}


def discrimination(
    name: str,
    discriminator: nn.Module,
    real: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor] = discriminator_loss,
    **fakes: Tensor,
) -> Terms:
    """A term ``<name>_<fake>`` per pair of a real and a fake; real and fakes pass in batches of their own."""
    real_logits = discriminator(real)
    return {f"{name}_{fake}": loss(real_logits, discriminator(made)) for fake, made in fakes.items()}


class Objective(nn.Module, ABC):
    """A training method, to be read like its paper: what is synthesised, what is minimised.

    A method states its terms' names in ``generator_terms`` and ``discriminator_terms``, makes every image once in
    ``forward``, and returns the terms *unweighted*. The weights are the config's; the engine owns the steps, the
    precision and the freezing of the discriminators.

    Args:
        weights: one weight per term; None, which lets an overlay take a term out, counts as absent.

    Raises:
        ValueError: when a weight is not a finite number.
    """

    generator_terms: tuple[str, ...] = ()
    discriminator_terms: tuple[str, ...] = ()

    def __init__(self, weights: Mapping[str, float | None]) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.added_terms: set[str] = set()
        self._set_weights(weights)

    def _set_weights(self, weights: Mapping[str, float | None]) -> None:
        given = {name: weight for name, weight in weights.items() if weight is not None}
        for name, weight in given.items():
            if isinstance(weight, str) or not math.isfinite(weight):
                raise ValueError(
                    f"the weight of {name!r} must be a finite number, got {weight!r}; in YAML write 1.0e-3, not 1e-3."
                )
        self.weights.update(given)

    def add_terms(self, weights: Mapping[str, float]) -> None:
        """Accept further generator terms, which a handler computes, with their weights.

        Raises:
            ValueError: when a weight is not a finite number.
        """
        self._set_weights(weights)
        self.added_terms.update(weights)

    @property
    @abstractmethod
    def generators(self) -> nn.ModuleList:
        """The networks that the generator step moves."""

    @property
    def discriminators(self) -> nn.ModuleList:
        """The networks that the discriminator step moves; none by default."""
        return nn.ModuleList()

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make every image and feature map of the method once, and publish them under names.

        Slabs may come with context, see :func:`scripts.data.crops.learned_slices`; what is published has none.
        """

    @abstractmethod
    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        """The terms that the generators minimise; the discriminators are frozen meanwhile."""

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        """The terms that the discriminators minimise, on images that the engine has detached."""
        return {}

    def check_weights(self) -> None:
        """Compare the names of weights and terms, before anything is computed.

        Raises:
            ValueError: when a term has no weight or a weight no term.
        """
        terms = {*self.generator_terms, *self.discriminator_terms, *self.added_terms}
        missing, unknown = sorted(terms - self.weights.keys()), sorted(self.weights.keys() - terms)
        if missing or unknown:
            raise ValueError(
                f"{type(self).__name__} needs one weight per term: no weight for {missing}, no term for {unknown}. "
                f"Its terms are {sorted(terms)}; set objective_def::weights accordingly."
            )

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the terms; one of weight 0 is only logged, and costs no backward pass."""
        return sum(self.weights[name] * term for name, term in terms.items() if self.weights[name])
