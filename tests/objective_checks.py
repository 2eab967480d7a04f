"""Shared by the tests of the objectives: tiny networks, gradient routes, training loops and overfitting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from conftest import TINY_NETWORK, head_phantom
from monai.handlers import LrScheduleHandler
from monai.optimizers import WarmupCosineSchedule
from scripts.engines.trainer import ObjectiveTrainer
from scripts.handlers.gradients import GradientClippingHandler
from scripts.metrics import psnr
from scripts.networks import DegradationNet, SuperResolutionNet, TranslationNet, VGGDiscriminator
from scripts.objectives.base import Objective, frozen
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import truncate
from torch import Tensor, nn

Images = Mapping[str, Tensor]


def tiny_network(
    scale_factor: Sequence[int] = (2, 2, 2), skip: bool = False, margin: int = 0, seed: int = 10
) -> SuperResolutionNet:
    return SuperResolutionNet(scale_factor, slab_size=3, skip=skip, margin=margin, seed=seed, **TINY_NETWORK)


def tiny_degradation(scale_factor: Sequence[int] = (2, 2, 2), skip: bool = False, seed: int = 20) -> DegradationNet:
    return DegradationNet(scale_factor, slab_size=3, skip=skip, seed=seed, **TINY_NETWORK)


def tiny_translator(skip: bool = False, noise: bool = False, seed: int = 30) -> TranslationNet:
    return TranslationNet(slab_size=3, skip=skip, noise=noise, seed=seed, **TINY_NETWORK)


def tiny_critic(in_channels: int = 3, feature_size: int = 1, seed: int = 40) -> VGGDiscriminator:
    return VGGDiscriminator(in_channels, feature_size, num_features=4, seed=seed)


class Constant(nn.Module):
    """A discriminator with a constant logit, which records its inputs."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.logit.expand(len(x), 1)


def images(objective: Objective, **given: Tensor) -> dict[str, Tensor]:
    """Black slabs under every published name, except the given ones."""
    shapes = {name: image.shape for name, image in objective(batch()).items()}
    return {name: given.get(name, torch.zeros(shape)) for name, shape in shapes.items()}


def batch(through_plane: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """A batch of noise slabs in the shapes of the dataset."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand((2, 3, 32, 32), generator=generator, dtype=dtype),
        "reals": torch.rand((2, 3 * through_plane, 64, 64), generator=generator, dtype=dtype),
    }


# Routes


def awaken(objective: Objective) -> Objective:
    """Give random weights to layers that start at zero, so that gradients pass."""
    for seed, layer in enumerate(objective.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.05, generator=torch.Generator().manual_seed(seed))
    return objective.train()


def moved(term: Tensor, networks: Mapping[str, nn.Module]) -> set[str]:
    """The networks with a gradient of the term in any parameter."""
    for network in networks.values():
        network.zero_grad()
    if term.requires_grad:
        term.backward(retain_graph=True)
    return {
        name for name, net in networks.items() if any(p.grad is not None and p.grad.any() for p in net.parameters())
    }


def routes(objective: Objective, networks: Mapping[str, nn.Module], through_plane: int = 2) -> dict[str, set[str]]:
    """The networks that each term moves, in the order of the terms."""
    made = awaken(objective)(batch(through_plane))
    with frozen(objective.discriminators):
        terms = objective.generator_loss(made)
    assert tuple(terms) == objective.generator_terms
    found = {name: moved(term, networks) for name, term in terms.items()}
    terms = objective.discriminator_loss({name: image.detach() for name, image in made.items()})
    assert tuple(terms) == objective.discriminator_terms
    return {**found, **{name: moved(term, networks) for name, term in terms.items()}}


# Loops


def adam(*networks: nn.Module, learning_rate: float = 1e-4) -> torch.optim.Adam:
    parameters = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam(parameters, learning_rate, betas=(0.9, 0.99), amsgrad=True)


def train(
    objective: Objective, batches: Sequence[Images], learning_rate: float = 1e-4, as_the_trunk: bool = False
) -> Objective:
    """Train with the engine, one iteration per batch, optionally with the schedule and clipping of train.yaml."""
    optimizers = {"g_optimizer": adam(objective.generators, learning_rate=learning_rate)}
    if list(objective.discriminators.parameters()):
        optimizers["d_optimizer"] = adam(objective.discriminators, learning_rate=learning_rate)
    handlers: list[Any] = []
    if as_the_trunk:
        schedules = [WarmupCosineSchedule(o, len(batches) // 20, len(batches)) for o in optimizers.values()]
        handlers = [LrScheduleHandler(s, epoch_level=False, print_lr=False) for s in schedules]
        handlers.append(GradientClippingHandler(1.0))
    ObjectiveTrainer(
        device="cpu",
        max_epochs=1,
        epoch_length=len(batches),
        train_data_loader=batches,
        objective=objective,
        train_handlers=handlers,
        **optimizers,
    ).run()
    return objective


def plainly(batches: Sequence[Images], step: Callable[[Images], None]) -> None:
    """A plain training loop with the engine's random numbers."""
    for iteration, given in enumerate(batches, start=1):
        torch.manual_seed(iteration)
        step(given)


def step(optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between the parameters of two modules of one kind."""
    pairs = zip(a.named_parameters(), b.named_parameters(), strict=True)
    differences = []
    for (name, p), (other, q) in pairs:
        assert name == other
        differences.append(float((p - q).detach().abs().max()))
    return max(differences)


# Overfitting


def paired_slabs(scale_factor: Sequence[int] = (2, 2, 2), count: int = 2) -> dict[str, Tensor]:
    """Slabs of phantoms: ``image`` is the k-space truncation of ``reals``."""
    factors = (scale_factor[2], scale_factor[0], scale_factor[1])
    slabs: dict[str, list[Tensor]] = {"image": [], "reals": []}
    for seed in range(count):
        high_res = truncate(head_phantom(seed, (24, 128, 128)), (12, 64, 64), (0, 1, 2)) / 1000
        low_res = truncate(high_res, [n // s for n, s in zip((12, 64, 64), factors, strict=True)], (0, 1, 2))
        slabs["image"].append(low_res[1:4])
        slabs["reals"].append(high_res[factors[0] : 4 * factors[0]])
    return {name: torch.stack(parts) for name, parts in slabs.items()}


def gain_over_tricubic(slabs: Images, super_resolve: Callable[[Tensor], Tensor]) -> float:
    """The gain in PSNR (dB) of a network over aligned tricubic interpolation."""
    low_res, high_res = slabs["image"], slabs["reals"]
    tricubic = interpolate_cubic(interpolate_cubic(low_res, 2, (2, 3)), high_res.shape[1] // low_res.shape[1], 1)
    with torch.no_grad():
        made = super_resolve(low_res)
    return float(psnr(made, high_res) - psnr(tricubic, high_res))


def overfit(objective: Objective, slabs: Images, iterations: int = 400) -> None:
    """Train on one batch with a tenth of the adversarial weights, because a discriminator memorises the batch."""
    weights = {n: w / 10 for n, w in objective.weights.items() if n.endswith("adversarial") or n == "texture"}
    objective.weights.update(weights)
    train(objective, [slabs] * iterations, learning_rate=1e-3, as_the_trunk=True)
