"""The costs that tables print."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedEvaluator
from scripts.handlers.costs import InferenceCosts, multiply_adds
from scripts.networks import SuperResolutionNet, ZeroFilling


def test_the_papers_network_takes_10_gmac_per_slab():
    assert multiply_adds(SuperResolutionNet()) / 1e9 == pytest.approx(10.0, abs=0.1)


def test_interpolation_has_no_convolution():
    assert multiply_adds(ZeroFilling((2, 2, 2))) == 0


def test_an_evaluator_is_timed_volume_by_volume():
    network = SuperResolutionNet(num_features=16, num_groups=1, num_blocks=1)
    costs = InferenceCosts(network)
    data = [{"image": torch.rand(1, 1, 16, 16, 2)}] * 3
    evaluator = SupervisedEvaluator("cpu", data, network, val_handlers=[costs], decollate=False)
    evaluator.run()
    assert len(costs.seconds) == 3
    assert min(costs.seconds) > 0
    assert costs.summary(evaluator)["parameters"] == f"{sum(p.numel() for p in network.parameters()):,}"
