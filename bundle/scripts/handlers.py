"""Handlers: what stands beside an objective and has a life of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

from scripts.losses import info_nce
from scripts.metrics import mtf, psnr, spectral_distance, sub_voxel_shift


class ContrastiveHandler:
    """Add the contrastive terms of arXiv 2310.15767 to the generator's, for any objective.

    Each term compares two of the published images, sample by sample, in the embedding of a projection head. Both views
    pass the head in one batch, so that its batch normalisation cannot tell them apart. Negatives are the other samples
    of the batch, in both views.

    Args:
        heads: projection heads by name; their parameters belong in the generator's optimiser.
        pairs: for each term, the head's name and the names of the two published images.
        weights: for each term, its weight in the generator's loss.
        temperature: of :func:`scripts.losses.info_nce`.

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
    ) -> None:
        if set(pairs) != set(weights):
            raise ValueError(
                f"each contrastive term needs a pair and a weight, got {sorted(pairs)} and {sorted(weights)}."
            )
        self.heads = heads
        self.pairs = {term: tuple(pair) for term, pair in pairs.items()}
        self.weights = weights
        self.temperature = temperature

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


class MetricGainHandler:
    """Log how far one metric of an evaluator is above another, such as PSNR above that of zero-filling.

    Args:
        name: of the new metric.
        metric: name of the metric.
        baseline: name of the metric to subtract.
    """

    def __init__(self, name: str, metric: str, baseline: str) -> None:
        self.name = name
        self.metric = metric
        self.baseline = baseline

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        metrics = engine.state.metrics
        if self.metric in metrics and self.baseline in metrics:
            metrics[self.name] = metrics[self.metric] - metrics[self.baseline]


class DegradationMonitorHandler:
    r"""Log how well the degradation is learned: the papers' central claim, measured at every validation.

    The degradation network is applied to the high-resolution reference of each volume. Metrics added to the evaluator:

    * ``degradation_psnr``: PSNR of the made LR volume against ``image``, the reference's true degradation;
    * ``degradation_gain``, ``degradation_shift``: intensity of the made LR volume relative to ``image``, and its
      largest sub-voxel displacement in LR voxels;
    * ``degradation_mtf_<axis>``: modulation transfer at half the LR Nyquist frequency along each axis;
    * ``degradation_spectral_distance``: rms distance in dB between the spectra of the made LR volumes and of the real
      target group, which needs no pairs.

    Args:
        degradation: maps ``(1, 1, sH, sW, sD)`` to ``(1, 1, H, W, D)``.
        target_volumes: the real LR group, volumes ``(H, W, D)`` on the common intensity scale.
        image_key: LR volume.
        label_key: HR reference; volumes without it are passed over.
    """

    def __init__(
        self,
        degradation: nn.Module,
        target_volumes: Sequence[Tensor],
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        self.degradation = degradation
        self.target_volumes = [volume[None] for volume in target_volumes]
        self.image_key = image_key
        self.label_key = label_key
        self.values: dict[str, list[float]] = {}
        self.made: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.summarise)

    def reset(self) -> None:
        self.values, self.made = {}, []

    def __call__(self, engine: Engine) -> None:
        for item in engine.state.batch:
            if self.label_key in item:
                self._measure(torch.as_tensor(item[self.label_key]), torch.as_tensor(item[self.image_key]))

    def _measure(self, label: Tensor, image: Tensor) -> None:
        device = next(self.degradation.parameters()).device
        training = self.degradation.training
        self.degradation.eval()
        with torch.no_grad():
            made = self.degradation(label[None].to(device))[0].float().cpu()
        self.degradation.train(training)
        image = image.float().cpu()
        self.made.append(made)
        measured = {
            "degradation_psnr": psnr(made, image),
            "degradation_gain": made.mean() / image.mean(),
            "degradation_shift": sub_voxel_shift(made, image).abs().max(),
        }
        for axis in range(1, 4):
            frequencies, transfer = mtf(made, label.float().cpu(), axis)
            measured[f"degradation_mtf_{axis - 1}"] = transfer[(frequencies - 0.25).abs().argmin()]
        for name, value in measured.items():
            self.values.setdefault(name, []).append(float(value))

    def summarise(self, engine: Engine) -> None:
        if self.made:
            engine.state.metrics.update({name: sum(v) / len(v) for name, v in self.values.items()})
            distance = spectral_distance(self.made, self.target_volumes)
            engine.state.metrics["degradation_spectral_distance"] = float(distance)
