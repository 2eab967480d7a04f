"""What a validation on several acquisitions measures."""

from __future__ import annotations

from collections import defaultdict

from ignite.engine import Engine, Events
from monai.handlers import IgniteMetricHandler, from_engine
from monai.utils import CommonKeys

from scripts.metrics import VolumeMetric, psnr, ssim

__all__ = ["AcquisitionGainHandler", "restoration_metrics"]


def restoration_metrics() -> dict[str, IgniteMetricHandler]:
    """The metrics of a validation on pairs of an interpolated scan and its reference, the key metric first.

    Example:
        >>> list(restoration_metrics())
        ['psnr', 'psnr_interpolation', 'ssim']
    """
    compared = {
        "psnr": (psnr, CommonKeys.PRED),
        "psnr_interpolation": (psnr, CommonKeys.IMAGE),
        "ssim": (ssim, CommonKeys.PRED),
    }
    return {
        name: IgniteMetricHandler(VolumeMetric(function), output_transform=from_engine([key, CommonKeys.LABEL]))
        for name, (function, key) in compared.items()
    }


class AcquisitionGainHandler:
    """Log the mean PSNR gain over the interpolation, in dB, for each acquisition: ``psnr_gain_<name>``.

    Attach it to an evaluator whose batches have the acquisition under ``name``, and whose output is decollated.

    Example:
        >>> AcquisitionGainHandler().attach(Engine(lambda engine, batch: None))
    """

    def __init__(self) -> None:
        self.gains: dict[str, list[float]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: self.gains.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def measure(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            pred, image, label = (output[key] for key in (CommonKeys.PRED, CommonKeys.IMAGE, CommonKeys.LABEL))
            self.gains[item["name"]].append(float(psnr(pred, label) - psnr(image, label)))

    def __call__(self, engine: Engine) -> None:
        for name, gains in self.gains.items():
            engine.state.metrics[f"psnr_gain_{name}"] = sum(gains) / len(gains)
