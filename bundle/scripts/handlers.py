"""Handlers: what stands beside an objective and has a life of its own."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.utils import AdversarialIterationEvents as AdversarialEvents
from torch import Tensor, nn

from scripts.atomic import write_atomically
from scripts.gathering import gather_batch
from scripts.losses import info_nce, patch_nce
from scripts.metrics import mtf, psnr, spectral_distance
from scripts.registration import sub_voxel_shift

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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


class ResumableEMAHandler(EMAHandler):
    """Ignite's exponential moving average, whose warm-up goes on where a resumed engine stands.

    Ignite counts the warm-up's iterations anew in every run, so that a resumed run would average otherwise than one
    that was never stopped. Takes the arguments of ``ignite.handlers.EMAHandler``.
    """

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        if hasattr(self, "momentum_scheduler"):  # there is a warm-up
            engine.add_event_handler(Events.EPOCH_STARTED, self._align)

    def _align(self, engine: Engine) -> None:
        self.momentum_scheduler.event_index = engine.state.iteration


class AverageStartHandler:
    """Let a moving average begin with the weights that the model has when a training starts, such as those just loaded.

    To be attached after whatever loads weights, and before the first validation.

    Args:
        ema: the handler with the average and its model.
    """

    def __init__(self, ema: EMAHandler) -> None:
        self.ema = ema

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration == 0:
            self.ema.ema_model.load_state_dict(self.ema.model.state_dict())


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


class FeatureNormHandler:
    """Log the root-mean-square of a network's features in an evaluation as ``feature_norm``, to see a collapse.

    Terms that compare features can be made small by making the features small.

    Args:
        encoder: the part of the evaluated network whose output is measured.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.squares = 0.0
        self.count = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self) -> None:
        self.squares, self.count = 0.0, 0
        self.hook = self.encoder.register_forward_hook(self._measure)

    def _measure(self, module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        self.squares += features.float().square().sum().item()
        self.count += features.numel()

    def __call__(self, engine: Engine) -> None:
        self.hook.remove()
        if self.count:
            engine.state.metrics["feature_norm"] = (self.squares / self.count) ** 0.5


class BestModelHandler:
    """Keep the model with the best key metric, also across a resumed run.

    Attached to an evaluator, whose best metric then belongs to its ``state_dict``. The file is replaced at once, so
    that an interruption leaves the previous one.

    Args:
        model: network whose ``state_dict`` is saved, weights alone.
        path: file to write.
    """

    def __init__(self, model: nn.Module, path: str | os.PathLike) -> None:
        self.model = model
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        engine.state_dict_user_keys.extend(["best_metric", "best_metric_epoch"])
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch:
            write_atomically(self.path, lambda unfinished: torch.save(self.model.state_dict(), unfinished))


class DegradationMonitorHandler:
    r"""Log how well the degradation is learned: the papers' central claim, measured at every validation.

    Metrics added to the evaluator, the first ones where the evaluated volume has a high-resolution reference:

    * ``degradation_psnr``: PSNR of the LR volume made from the reference against ``image``, its true degradation;
    * ``degradation_gain``, ``degradation_shift``: the made volume's intensity relative to ``image``, and its largest
      sub-voxel displacement in LR voxels;
    * ``degradation_mtf_<axis>``: modulation transfer at half the LR Nyquist frequency along each axis;
    * ``degradation_spectral_distance``: rms distance in dB between the spectra of LR volumes made from the source group
      and of the real target group, which needs no pairs.

    Args:
        degradation: maps ``(1, 1, sH, sW, sD)`` to ``(1, 1, H, W, D)``.
        source_volumes: HR volumes ``(H, W, D)`` on the common intensity scale.
        target_volumes: LR volumes likewise.
        image_key: LR volume.
        label_key: HR reference; volumes without it are passed over.
        max_volumes: how many volumes of each group the spectra are taken from.
        transfer_path: CSV file for the whole modulation transfer along each axis beside that of the true degradation,
            means over the volumes, made anew at each evaluation; None: no file.
    """

    FREQUENCIES = np.linspace(0.02, 0.48, 24)  # of the file, in cycles per LR voxel

    def __init__(
        self,
        degradation: nn.Module,
        source_volumes: Sequence[Tensor],
        target_volumes: Sequence[Tensor],
        image_key: str = "image",
        label_key: str = "label",
        max_volumes: int = 2,
        transfer_path: str | os.PathLike | None = None,
    ) -> None:
        self.degradation = degradation
        self.source_volumes = [volume[None] for volume in source_volumes[:max_volumes]]
        self.target_volumes = [volume[None] for volume in target_volumes[:max_volumes]]
        self.image_key = image_key
        self.label_key = label_key
        self.transfer_path = None if transfer_path is None else Path(transfer_path)
        self.values: dict[str, list[float]] = {}
        self.transfers: list[np.ndarray] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.summarise)

    def reset(self) -> None:
        self.values = {}
        self.transfers = []

    def __call__(self, engine: Engine) -> None:
        for item in engine.state.batch:
            if self.label_key in item:
                label, image = (torch.as_tensor(item[key]).float().cpu() for key in (self.label_key, self.image_key))
                for name, value in self._measure(label, image).items():
                    self.values.setdefault(name, []).append(float(value))

    def summarise(self, engine: Engine) -> None:
        made = [self._degrade(volume) for volume in self.source_volumes]
        engine.state.metrics.update({name: sum(values) / len(values) for name, values in self.values.items()})
        engine.state.metrics["degradation_spectral_distance"] = float(spectral_distance(made, self.target_volumes))
        if self.transfers and self.transfer_path is not None:
            write_atomically(self.transfer_path, self._write_transfers)

    def _measure(self, label: Tensor, image: Tensor) -> dict[str, Tensor]:
        made = self._degrade(label)
        measured = {
            "degradation_psnr": psnr(made, image),
            "degradation_gain": made.mean() / image.mean(),
            "degradation_shift": sub_voxel_shift(made, image).abs().max(),
        }
        curves = []
        for axis in range(3):
            frequencies, transfer = mtf(made, label, axis + 1)
            measured[f"degradation_mtf_{axis}"] = transfer[(frequencies - 0.25).abs().argmin()]
            true = mtf(image, label, axis + 1)[1]
            curves.append([np.interp(self.FREQUENCIES, frequencies.numpy(), one.numpy()) for one in (transfer, true)])
        self.transfers.append(np.array(curves))
        return measured

    def _write_transfers(self, path: Path) -> None:
        """Rows of axis, frequency, and the transfer of the learned and of the true degradation there."""
        learned_and_true = np.mean(self.transfers, axis=0).transpose(0, 2, 1)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["axis", "frequency", "learned", "true"])
            for axis, curve in enumerate(learned_and_true):
                writer.writerows(
                    [axis, f"{frequency:.2f}", *(f"{value:.4f}" for value in pair)]
                    for frequency, pair in zip(self.FREQUENCIES, curve, strict=True)
                )

    @torch.no_grad()
    def _degrade(self, volume: Tensor) -> Tensor:
        """The made LR volume ``(1, H, W, D)`` of an HR volume, cut to whole multiples of the scale factor."""
        factors = (self.degradation.in_plane, self.degradation.in_plane, self.degradation.through_plane)
        for axis, factor in enumerate(factors, start=1):
            volume = volume.narrow(axis, 0, volume.shape[axis] // factor * factor)
        training = self.degradation.training
        made = self.degradation.eval()(volume[None].to(next(self.degradation.parameters()).device))[0].float().cpu()
        self.degradation.train(training)
        return made
