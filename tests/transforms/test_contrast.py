"""Contrast: a part changes as the whole does, curves stay in bounds, and air stays dark."""

from __future__ import annotations

import numpy as np
import torch
from scripts.transforms.contrast import Contrast, draw_contrast

SHAPE = (10, 12, 14)


def test_a_part_of_a_volume_changes_as_the_volume_does():
    contrast = draw_contrast(np.random.default_rng(1), changed=1.0, biased=1.0)
    volume, window = torch.rand(SHAPE), (slice(2, 7), slice(0, 4), slice(9, 14))
    assert torch.allclose(contrast.apply(volume, window), contrast.apply(volume)[window], atol=1e-6)


def test_equal_steps_leave_the_intensities():
    volume = torch.rand(SHAPE)
    assert torch.allclose(Contrast((0.0, 0.25, 0.5, 0.75, 1.0)).apply(volume), volume, atol=1e-6)


def test_no_change_is_none():
    volume = torch.rand(SHAPE)
    assert torch.equal(draw_contrast(np.random.default_rng(0), changed=0.0, biased=0.0).apply(volume), volume)


def test_air_stays_dark_nothing_is_negative_and_no_curve_is_steep():
    x = torch.linspace(0, 1, 200).reshape(1, 1, -1)
    for seed in range(200):
        y = draw_contrast(np.random.default_rng(seed), changed=1.0, biased=0.0).apply(x).flatten()
        assert abs(float(y[0])) < 1e-6
        assert y.min() > -1e-6
        assert y.diff().abs().max() * 199 < 2.01


def test_about_half_of_the_curves_rise_throughout():
    x = torch.linspace(0, 1, 50).reshape(1, 1, -1)
    curves = [draw_contrast(np.random.default_rng(seed), 1.0, 0.0).apply(x).flatten() for seed in range(300)]
    rising = sum(bool((curve.diff() > 0).all()) for curve in curves) / 300
    assert 0.45 < rising < 0.75
    assert any(curve[-1] < curve.max() / 2 for curve in curves)  # some invert bright tissue


def test_a_bias_field_is_smooth_and_has_no_constant_part():
    contrast = draw_contrast(np.random.default_rng(3), changed=0.0, biased=1.0)
    field = contrast.apply(torch.ones(SHAPE)).log()
    assert contrast.bias[0, 0, 0] == 0
    assert 0.01 < field.std() < 1
    assert field.diff(dim=0).abs().max() < 0.5
