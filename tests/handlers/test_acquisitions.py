"""What a validation on several acquisitions measures."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from scripts.handlers.acquisitions import AcquisitionGainHandler


def test_gains_are_means_by_name_and_start_anew_each_time():
    label = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    errors = {"2x2x2": (0.1, 0.05), "slices": (0.2, 0.2)}

    def iterate(engine: Engine, name: str) -> None:
        image, pred = (label + error for error in errors[name])
        engine.state.batch = [{"name": name}]
        engine.state.output = [{"pred": pred, "image": image, "label": label}]
        return engine.state.output

    engine = Engine(iterate)
    AcquisitionGainHandler().attach(engine)
    for _ in range(2):
        metrics = engine.run([*errors, "2x2x2"]).metrics
    assert metrics["psnr_gain_2x2x2"] == pytest.approx(6.02, abs=0.01)
    assert metrics["psnr_gain_slices"] == pytest.approx(0.0, abs=1e-6)
