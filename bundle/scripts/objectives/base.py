"""The objective: which images a method makes, and which named terms it minimises on them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from scripts.losses import SSIM_FORMS, absolute_error, ssim_loss
from scripts.losses import discriminator_loss as least_squares_discriminator_loss

Terms = dict[str, Tensor]
Networks = Mapping[str, nn.Module | None]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``modules`` without reaching their parameters.

    Example:
        >>> critic = nn.Linear(2, 1)
        >>> with frozen(critic):
        ...     critic.weight.requires_grad
        False
    """
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class Objective(nn.Module, ABC):
    """A training method that reads like its paper: which images it makes, which terms it minimises.

    A subclass declares the names of its networks and of its terms. ``forward`` makes every image once. The two losses
    return *unweighted* terms. The config brings the networks and the weights. The engine owns the steps, the precision
    and the freezing of the discriminators. Each network is an attribute, such as ``objective.network``.

    Args:
        weights: one weight per term. None counts as absent, so that an overlay can remove a term.
        generators: by name, the networks that the generator step moves.
        discriminators: by name, the networks that the discriminator step moves. None counts as absent here, too.
        fixed: by name, networks that the method uses and never moves.
        ssim_form: see :func:`scripts.losses.ssim_loss`. A method without SSIM terms needs none.

    Raises:
        ValueError: when a network is missing or unknown, a weight is not a finite number, or ``ssim_form`` is unknown.
    """

    generator_names: tuple[str, ...] = ("network",)
    discriminator_names: tuple[str, ...] = ()
    fixed_names: tuple[str, ...] = ()
    optional_names: tuple[str, ...] = ()
    generator_terms: tuple[str, ...] = ()
    discriminator_terms: tuple[str, ...] = ()

    def __init__(
        self,
        weights: Mapping[str, float | None],
        generators: Networks,
        discriminators: Networks | None = None,
        fixed: Networks | None = None,
        ssim_form: str | None = None,
    ) -> None:
        super().__init__()
        self._hold("generators", self.generator_names, generators)
        self._hold("fixed", self.fixed_names, fixed or {})
        self._hold("discriminators", self.discriminator_names, discriminators or {})
        if ssim_form not in SSIM_FORMS and any(name.endswith("_ssim") for name in self.generator_terms):
            raise ValueError(
                f"{type(self).__name__} has SSIM terms: ssim_form must be one of {SSIM_FORMS}, got {ssim_form!r}. "
                "Set objective_def::ssim_form, in a method's overlay to '@ssim_form'."
            )
        self.ssim_form = ssim_form
        self.weights: dict[str, float] = {}
        self.added_terms: set[str] = set()
        self._set_weights(weights)

    def _hold(self, role: str, names: Sequence[str], networks: Networks) -> None:
        """Register the networks of a role in the order of ``names``; an absent optional one becomes None."""
        present = {name for name, network in networks.items() if network is not None}
        missing = [name for name in names if name not in present and name not in self.optional_names]
        unknown = [name for name in networks if name not in names]
        if missing or unknown:
            raise ValueError(
                f"{type(self).__name__} expects the {role} {list(names)}, got {sorted(present)}: "
                f"missing {missing}, unknown {unknown}. Set objective_def::{role} accordingly."
            )
        for name in names:
            self.register_module(name, networks.get(name))

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
    def generators(self) -> nn.ModuleDict:
        """The networks that the generator step moves, by name."""
        return nn.ModuleDict({name: getattr(self, name) for name in self.generator_names})

    @property
    def discriminators(self) -> nn.ModuleDict:
        """The networks that the discriminator step moves, by name."""
        networks = {name: getattr(self, name) for name in self.discriminator_names}
        return nn.ModuleDict({name: network for name, network in networks.items() if network is not None})

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make every image and feature map of the method once, and publish them under names.

        An image enters the networks as the dataset cuts it. ``network.compared`` makes of it what the terms compare:
        ``(B, S, H, W)``, slices as channels.
        """

    @abstractmethod
    def generator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        """The terms that the generators minimise. The engine freezes the discriminators meanwhile."""

    def discriminator_loss(self, images: Mapping[str, Tensor]) -> Terms:
        """The terms that the discriminators minimise, on images that the engine has detached."""
        return {}

    def restoration(self, name: str, made: Tensor, given: Tensor) -> Terms:
        """The terms ``<name>_l1`` and ``<name>_ssim`` of an image ``made`` that should equal ``given``."""
        return {f"{name}_l1": absolute_error(made, given), f"{name}_ssim": ssim_loss(made, given, form=self.ssim_form)}

    def discrimination(
        self,
        name: str,
        images: Mapping[str, Tensor],
        real: str,
        fakes: Sequence[str],
        loss: Callable[[Tensor, Tensor], Tensor] = least_squares_discriminator_loss,
    ) -> Terms:
        """The terms ``<name>_<fake>`` of the discriminator ``name``, one per fake.

        The real image and each fake pass in batches of their own.

        Args:
            name: name of the discriminator.
            images: the images that ``forward`` published.
            real: name of the real image.
            fakes: names of the images that the discriminator should distinguish from it.
            loss: maps the logits of the real image and of a fake to a scalar.
        """
        discriminator = getattr(self, name)
        real_logits = discriminator(images[real])
        return {f"{name}_{fake}": loss(real_logits, discriminator(images[fake])) for fake in fakes}

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
        """The weighted sum of the terms. A term of weight 0 is only logged and costs no backward pass."""
        return sum(self.weights[name] * term for name, term in terms.items() if self.weights[name])
