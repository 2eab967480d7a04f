"""Quality metrics: known errors give known numbers, and what a metric must not see changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine
from scripts import metrics
from scripts.physics.kspace import truncate, zero_fill
from skimage.metrics import structural_similarity

SPATIAL = (1, 2, 3)


def head(shape=(32, 36, 28), seed=0):
    """A smooth blob with texture, band-limited to half the Nyquist frequency, inside air."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = sum(a.square().reshape([-1 if i == j else 1 for j in range(3)]) for i, a in enumerate(axes))
    texture = torch.rand(shape, generator=generator)
    volume = ((0.3 + 0.7 * texture) * torch.sigmoid(20 * (0.5 - radius)))[None]
    return zero_fill(truncate(volume, [n // 2 for n in shape], SPATIAL), shape, SPATIAL)


def noise(shape, seed=0):
    return torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed))


def fourier_shift(volume, shift):
    spectrum = torch.fft.fftn(volume, dim=SPATIAL)
    for axis, s in zip(SPATIAL, shift, strict=True):
        size = [-1 if a == axis else 1 for a in range(4)]
        spectrum = spectrum * torch.exp(-2j * torch.pi * torch.fft.fftfreq(volume.shape[axis]) * s).reshape(size)
    return torch.fft.ifftn(spectrum, dim=SPATIAL).real


def blocks(shape=(16, 16, 16)):
    """A reference of 0 and 1, whose scale is 1, with one bright vessel."""
    label = torch.zeros(1, *shape)
    label[0, 2:10] = 1.0
    label[0, 5, 5, 5] = 3.0
    return label


def test_an_error_of_one_hundredth_is_forty_decibels():
    label = blocks()
    assert metrics.psnr(label + 0.01, label).item() == pytest.approx(40.0, abs=1e-4)


def test_the_scale_is_a_percentile_of_the_foreground_and_no_single_voxel():
    label = blocks((32, 32, 32))
    assert metrics.foreground_percentile(label) == 1
    brighter = label.clone()
    brighter[0, 5, 5, 5] = 100.0
    error = 0.01 * torch.ones_like(label)
    found = [metrics.psnr(volume + error, volume).item() for volume in (label, brighter)]
    assert found == pytest.approx([40.0, 40.0], abs=1e-3)
    assert metrics.foreground_percentile(torch.zeros(4, 4)) == 0
    ramp = torch.arange(1000.0)
    assert metrics.foreground_percentile(ramp) == pytest.approx(np.percentile(np.arange(500, 1000), 99.9))


def test_psnr_knows_no_unit_and_stays_finite():
    label = noise((12, 12, 12))
    pred = label * 1.01
    assert metrics.psnr(1000 * pred, 1000 * label).item() == pytest.approx(metrics.psnr(pred, label).item(), abs=1e-3)
    assert metrics.psnr(label, label).item() == pytest.approx(120.0)


def test_nothing_is_clipped_but_in_the_papers_convention():
    label = noise((12, 12, 12))
    pred = torch.where(label == label.max(), 2 * label, label)
    assert metrics.psnr(pred, label) < 40
    assert metrics.psnr_own_maximum(torch.where(label < 0.5, -1.0, label), label) < 20
    below = torch.where(label < 0.001, -0.5, label)
    assert metrics.psnr_own_maximum(below, label) > metrics.psnr(below, label)


def test_psnr_inside_a_mask_is_of_its_voxels_alone_on_the_scale_of_the_volume():
    label = blocks()
    mask = torch.zeros_like(label)
    mask[0, 4:8, 4:8, 4:8] = 1
    pred = label + 0.01 * mask + 0.5 * (1 - mask)
    assert metrics.masked_psnr(pred, torch.cat([label, mask])).item() == pytest.approx(40.0, abs=1e-3)


def test_psnr_inside_no_mask_is_no_number():
    label = noise((8, 8, 8))
    assert metrics.masked_psnr(label, label).isnan()
    empty = torch.cat([label, torch.zeros_like(label)])
    assert metrics.masked_psnr(label, empty).isnan()
    assert metrics.masked_ssim(label, label).isnan()
    assert metrics.masked_ssim(label, empty).isnan()
    assert metrics.masked_shift_gain_corrected_psnr(label, empty).isnan()


def test_volumes_divided_by_their_own_maxima_hide_a_gain():
    label, pred = head(), head(seed=1)
    assert metrics.psnr_own_maximum(2 * label, label).item() == pytest.approx(120, abs=1)
    assert metrics.ssim_own_maximum(2 * label, label).item() == pytest.approx(1, abs=1e-5)
    scaled = pred / pred.max() * label.max()
    error = (scaled.clamp(min=0) - label.clamp(min=0)) / label.max()
    expected = -10 * error.square().mean().log10()
    assert metrics.psnr_own_maximum(pred, label).item() == pytest.approx(expected.item(), abs=1e-4)
    assert metrics.psnr_own_maximum(-label.abs(), label).isfinite()


def test_ssim_equals_scikit_image_in_the_interior_and_averages_its_map_over_a_mask():
    label = head()
    pred = label + 0.05 * torch.randn(label.shape, generator=torch.Generator().manual_seed(1))
    scale = metrics.foreground_percentile(label)
    maps = []
    for z in range(label.shape[-1]):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        a, b = ((x[0, ..., z].double() / scale).numpy() for x in (pred, label))
        maps.append(structural_similarity(a, b, full=True, **options)[1])
    similarity, interior = np.stack(maps, -1), (slice(5, -5), slice(5, -5))
    assert metrics.ssim(pred, label).item() == pytest.approx(similarity[interior].mean(), abs=1e-6)
    mask = label > 0.3 * label.max()
    mask[0, :8] = True  # up to the border, where the window does not fit
    inside = mask[0].numpy()[interior]
    expected = similarity[interior][inside].mean()
    found = metrics.masked_ssim(pred, torch.cat([label, mask.float()]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_what_lies_far_outside_a_mask_changes_no_score_inside():
    label, pred = head(), head(seed=1)
    mask = torch.zeros_like(label)
    mask[0, 14:18, 14:20, 10:14] = 1
    elsewhere = pred.clone()
    elsewhere[0, :2] = 0.01
    masked = torch.cat([label, mask])
    for metric in (metrics.masked_psnr, metrics.masked_ssim):
        assert metric(elsewhere, masked).item() == metric(pred, masked).item()


def test_ssim_of_a_volume_with_itself_is_one_and_ignores_the_order_of_slices():
    label, pred = head(), head(seed=1)
    order = torch.randperm(label.shape[-1], generator=torch.Generator().manual_seed(0))
    assert metrics.ssim(label, label).item() == pytest.approx(1.0, abs=1e-6)
    assert metrics.ssim(pred[..., order], label[..., order]).item() == pytest.approx(
        metrics.ssim(pred, label).item(), abs=1e-6
    )


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_ssim_does_not_depend_on_how_many_slices_are_taken_at_once(monkeypatch, at_once):
    label, pred = head(), head(seed=1)
    expected = metrics.ssim(pred, label).item()
    monkeypatch.setattr("scripts.metrics.quality.SLICES_AT_ONCE", at_once)
    assert metrics.ssim(pred, label).item() == pytest.approx(expected, abs=1e-6)


def test_corrected_psnr_forgives_gain_and_shift_but_not_blur():
    label = head()
    label = (label - label.min()) / (label.max() - label.min())
    displaced = 0.9 * fourier_shift(label, (0.3, 0.0, 0.2))
    assert metrics.psnr(displaced, label) < 35
    assert metrics.shift_gain_corrected_psnr(displaced, label) > 80
    masked = torch.cat([label, (label > 0.3).float()])
    assert metrics.masked_psnr(displaced, masked) < 30
    assert metrics.masked_shift_gain_corrected_psnr(displaced, masked) > 80
    blurred = zero_fill(truncate(label, [8, 9, 7], SPATIAL), label.shape[1:], SPATIAL)
    assert metrics.shift_gain_corrected_psnr(blurred, label) < metrics.psnr(blurred, label) + 0.3


def test_hfen_is_zero_for_the_truth_and_one_for_a_blank():
    label = head()
    assert metrics.hfen(label, label).item() == 0
    assert metrics.hfen(torch.zeros_like(label), label).item() == pytest.approx(1.0)
    assert metrics.hfen(label + 3, label).item() == pytest.approx(0.0, abs=1e-4)


def test_consistency_is_perfect_for_zero_filling():
    image = noise((13, 16, 12))
    assert metrics.consistency_psnr(zero_fill(image, [26, 32, 24], SPATIAL), image).item() > 115
    wrong = zero_fill(image, [26, 32, 24], SPATIAL) + 0.01 * image.max()
    assert metrics.consistency_psnr(wrong, image).item() == pytest.approx(40.0, abs=1e-3)


def test_volume_metric_gives_one_value_per_volume_and_their_mean():
    label = [head(), head((28, 32, 30), seed=1)]
    pred = [x + 0.01 for x in label]
    metric = metrics.VolumeMetric(metrics.psnr)
    values = metric(pred, label)
    assert values.shape == (2, 1)
    assert values[:, 0].tolist() == pytest.approx([metrics.psnr(p, t).item() for p, t in zip(pred, label, strict=True)])
    assert metric.aggregate().item() == pytest.approx(values.mean().item())


def test_volume_metric_runs_in_an_ignite_handler():
    engine = Engine(lambda _, batch: batch)
    engine.state.metric_details = {}
    handler = IgniteMetricHandler(metrics.VolumeMetric(metrics.ssim), output_transform=from_engine(["pred", "label"]))
    handler.attach(engine, "ssim")
    engine.run([[{"pred": head(), "label": head()}], [{"pred": head(seed=1), "label": head(seed=1)}]])
    assert engine.state.metrics["ssim"] == pytest.approx(1.0, abs=1e-6)
    assert engine.state.metric_details["ssim"].shape == (2, 1)


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.hfen, metrics.shift_gain_corrected_psnr])
def test_grids_that_do_not_match_are_refused(metric):
    with pytest.raises(ValueError, match=r"same shape, got \(1, 8, 8, 8\) and \(1, 8, 8, 9\)"):
        metric(torch.ones(1, 8, 8, 8), torch.ones(1, 8, 8, 9))


def test_a_reference_without_signal_is_refused():
    for metric in (metrics.psnr, metrics.ssim):
        with pytest.raises(ValueError, match="foreground must be positive to define a scale, got 0"):
            metric(torch.ones(1, 8, 8, 8), torch.zeros(1, 8, 8, 8))
