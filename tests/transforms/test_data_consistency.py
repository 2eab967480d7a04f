"""Data consistency: its effect, record and warnings in each mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import head_like
from monai.data import MetaTensor
from scripts.physics.degradation import Degradation, Transfer
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import DataConsistencyd, KSpaceTruncate, consistency_mode

DIM = (0, 1, 2)


@pytest.mark.parametrize(("value", "mode"), [(True, "hard"), (False, "off"), ("soft", "soft"), ("auto", "auto")])
def test_a_boolean_is_a_mode_of_data_consistency_too(value, mode):
    assert consistency_mode(value) == mode == DataConsistencyd(mode=value).mode


@pytest.mark.parametrize("value", [None, "on", 1, ["hard"]])
def test_other_modes_of_data_consistency_are_refused(value):
    with pytest.raises(ValueError, match="must be one of off, hard, soft, auto, got"):
        consistency_mode(value)


def test_hard_data_consistency_knows_no_degradation():
    with pytest.raises(ValueError, match="hard takes the scan for a plain truncation, got a degradation as well"):
        DataConsistencyd(mode="hard", degradation="degradation.json")


def consistent(mode, scan, pred, **options):
    """The prediction under a mode, what was done, and the warnings."""
    image = MetaTensor(scan[None], affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    out = DataConsistencyd(mode=mode, **options)({"image": image, "pred": pred[None]})["pred"][0]
    return out, image.meta.get("data_consistency"), image.meta.get("warnings", "")


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    return head_like(shape=(96, 80, 88)).float()


def test_automatic_data_consistency_keeps_a_plain_scan(head):
    scan = truncate(head, (48, 40, 44), DIM)
    pred = head + 0.02 * head.std() * torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
    out, done, warnings = consistent("auto", scan, pred)
    assert (out - head).square().mean() < (pred - head).square().mean()
    assert done.endswith("of the acquired k-space")
    assert warnings == ""
    off, done, _ = consistent("off", scan, pred)
    assert torch.equal(off, pred)
    assert done is None


def test_automatic_data_consistency_undoes_a_filter_and_reports_it(head):
    scan = KSpaceTruncate(2, hamming=True)(head[None]).as_tensor()[0]
    pred = zero_fill(scan, head.shape, DIM)
    out, done, warnings = consistent("auto", scan, pred)
    assert (out - head).square().mean() < 0.7 * (pred - head).square().mean()
    assert "undoing hamming along the R axis" in done
    assert warnings.startswith("Data consistency expected a plain truncation, found hamming along the R axis")
    assert "Set data_consistency: off" in warnings


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scan, pred: (scan, 1.05 * pred), "as bright as the scan to 2%, but is 1.050 times as bright"),
        (lambda scan, pred: (scan, pred.roll(1, 0)), "should lie on the scan to 0.1 voxels, but is shifted by 0."),
        (lambda scan, pred: (scan[:, :, :30], pred[:, :, :60]), "at least 32 voxels along each axis"),
        (lambda scan, pred: (truncate(w := torch.rand(pred.shape), scan.shape, DIM), w), "but the best one differs by"),
    ],
)
def test_automatic_data_consistency_is_off_where_its_assumption_fails(head, change, reason):
    scan = truncate(head, (48, 40, 44), DIM)
    scan, pred = change(scan, zero_fill(scan, head.shape, DIM))
    out, done, warnings = consistent("auto", scan, pred)
    assert torch.equal(out, pred)
    assert done.startswith("off: ")
    assert warnings.startswith("Data consistency is off: ")
    assert reason in warnings


def test_the_degradation_of_the_group_gives_transfer_and_noise(head):
    hamming = tuple(np.round(0.54 + 0.46 * np.cos(np.pi * np.linspace(0, 1, 65)), 4).tolist())
    frequencies = tuple(np.linspace(0, 1, 65).tolist())
    axis = Transfer(frequencies, hamming, (0.02,) * 65, hamming, "hamming", None, 0.1)
    group = Degradation((2.0,) * 3, (axis,) * 3, False, 1.0, 0.1, 0.01, 0.1, True, 0.5, (3, 3))
    scan = KSpaceTruncate(2, hamming=True)(head[None]).as_tensor()[0]
    pred = zero_fill(scan, head.shape, DIM)
    for mode in ("soft", "auto"):
        out, _, warnings = consistent(mode, scan, pred, degradation=group)
        assert (out - head).square().mean() < 0.7 * (pred - head).square().mean()
        assert warnings == ""
    plain_scan = truncate(head, (48, 40, 44), DIM)
    _, done, warnings = consistent("auto", plain_scan, zero_fill(plain_scan, head.shape, DIM), degradation=group)
    assert done.startswith("off: along the R axis the scan should have its group's transfer (hamming)")
    assert "its spectrum shows another (box)" in warnings
