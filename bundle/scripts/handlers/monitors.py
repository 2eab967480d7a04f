"""Monitors: the metrics of a validation, and what it measures besides."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import IgniteMetricHandler, from_engine
from torch import Tensor, nn

from scripts.metrics import (
    VolumeMetric,
    consistency_psnr,
    intensity_drift,
    mtf,
    position_drift,
    psnr,
    spectral_distance,
    ssim,
)
from scripts.metrics.quality import SPATIAL
from scripts.physics.kspace import truncate
from scripts.physics.registration import sub_voxel_shift
from scripts.utils.atomic import write_atomically

__all__ = [
    "DegradationMonitorHandler",
    "FeatureNormHandler",
    "MetricGainHandler",
    "check_patience",
    "validation_metrics",
]


def validation_metrics(referenced: bool) -> dict[str, IgniteMetricHandler]:
    """The metrics of a validation by name, the key metric first.

    Args:
        referenced: whether the validation scans have HR references. Without references no metric ranks the iterates of
            a training as PSNR does, so none of them may select a model.

    Example:
        >>> list(validation_metrics(referenced=False))
        ['consistency_psnr', 'intensity_drift', 'position_drift']
    """
    with_reference = {"psnr": (psnr, "pred"), "psnr_zero_filling": (psnr, "zero_filling"), "ssim": (ssim, "pred")}
    without = {
        "consistency_psnr": consistency_psnr,
        "intensity_drift": intensity_drift,
        "position_drift": position_drift,
    }
    compared = {name: (function, [key, "label"]) for name, (function, key) in with_reference.items()}
    compared = compared if referenced else {}
    compared |= {name: (function, ["pred", "acquired_scan"]) for name, function in without.items()}
    return {
        name: IgniteMetricHandler(VolumeMetric(function), output_transform=from_engine(keys))
        for name, (function, keys) in compared.items()
    }


def check_patience(patience: int | None, referenced: bool) -> None:
    """Refuse early stopping without references.

    Raises:
        ValueError: when ``patience`` is set and the validation scans have no references.
    """
    if patience is not None and not referenced:
        raise ValueError(
            f"patience needs validation scans with references, got {patience} without any. Leave it out, or name "
            "validation subjects with HR scans."
        )


class MetricGainHandler:
    """Log the difference of two metrics of an evaluator, such as PSNR minus the PSNR of zero-filling.

    Args:
        name: name of the difference.
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
    """Log the root-mean-square of a network's features in an evaluation as ``feature_norm``.

    It reveals a collapse: small features make every term small that compares features.

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


class DegradationMonitorHandler:
    r"""Log how well the degradation is learned, at every validation.

    It adds these metrics to the evaluator. All but the last need an HR reference of the evaluated volume.

    * ``degradation_psnr``: PSNR of the LR volume made from the reference against ``image``, its true degradation.
    * ``degradation_gain``: mean intensity of the made volume over that of ``image``.
    * ``degradation_shift``: largest sub-voxel displacement of the made volume, in LR voxels.
    * ``degradation_mtf_<axis>``: modulation transfer at half the LR Nyquist frequency along each axis.
    * ``degradation_spectral_distance``: rms distance in dB between the spectra of LR volumes made from the source group
      and the spectra of the target group.

    Args:
        degradation: maps HR volumes ``(1, 1, sH, sW, sD)`` to LR volumes. They lie on their own grid, or are
            interpolated to that of the input. Its ``factors`` are $s$.
        source_volumes: HR volumes ``(H, W, D)`` on the common intensity scale.
        target_volumes: LR volumes ``(H, W, D)`` on the same scale.
        image_key: key of the LR volume, on either grid.
        label_key: key of the HR reference. Volumes without it are skipped.
        max_volumes: number of volumes of each group for the spectra.
        transfer_path: CSV file for the modulation transfer along each axis, learned and true, as means over the
            volumes. Each evaluation replaces it. None writes no file.
    """

    FREQUENCIES = np.linspace(0.02, 0.48, 24)  # in the file, cycles per LR voxel

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
        image = truncate(image, made.shape[1:], SPATIAL)  # undoes an interpolation
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
        """Write one row per axis and frequency, with the learned and the true transfer."""
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
        """The LR volume ``(1, H, W, D)`` made from an HR volume, cut to multiples of the scale factor."""
        matrix = [size // factor for size, factor in zip(volume.shape[1:], self.degradation.factors, strict=True)]
        for axis, (size, factor) in enumerate(zip(matrix, self.degradation.factors, strict=True), start=1):
            volume = volume.narrow(axis, 0, size * factor)
        training = self.degradation.training
        made = self.degradation.eval()(volume[None].to(next(self.degradation.parameters()).device))[0].float().cpu()
        self.degradation.train(training)
        return truncate(made, matrix, SPATIAL)
