"""The study of known degradations: its comparison and its table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.physics.degradation import Degradation, Transfer
from scripts.physics.filters import Filter

from experiments.studies.known_degradations import ACQUISITIONS, GROUPS, acquired, agreement, table


def hamming() -> Degradation:
    u = np.linspace(0, 1, 65)
    amplitude = Filter("hamming").at(u)
    curves = [tuple(values.tolist()) for values in (u, amplitude, 0 * u, amplitude)]
    transfer = Transfer(*curves, family="hamming", parameter=None, misfit=0.0)
    return Degradation((2.0,) * 3, (transfer,) * 3, False, 1.0, 0.0, 0.2, 0.0, True, 0.5, (2, 1))


def test_the_right_estimate_agrees_with_the_degradation_without_its_noise():
    volume = MetaTensor(torch.rand((1, 32, 36, 28), generator=torch.Generator().manual_seed(0)), affine=np.eye(4))
    found = agreement(hamming(), volume, {"hamming": True, "noise_std": 0.1})
    assert found["truncation"] < 20
    assert found["estimate"] > 60


def test_each_acquisition_is_a_line_with_what_was_found():
    rows = [
        {
            "acquisition": title,
            "families": f"box box {last}",
            "elliptical": last == "box",
            "detectable": 0.5 if last == "box" else 0.4,
            "truncation": 20.0,
            "estimate": e,
        }
        for title in ACQUISITIONS
        for last, e in (("box", 40.0), ("hamming", 50.0))
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(ACQUISITIONS)
    expected = "| truncation alone | box 5, hamming 1; empty corners 1 of 2 | 0.40 | 20.0 to 20.0 | 40.0 to 50.0 |"
    assert lines[2] == expected


@pytest.mark.parametrize("title", ACQUISITIONS)
def test_every_acquisition_keeps_a_constant_and_the_grid_of_the_truncation(title):
    volume = MetaTensor(torch.ones((1, 32, 36, 28)), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    options = {name: value for name, value in ACQUISITIONS[title].items() if name != "noise_std"}
    low_res, plain = acquired(volume, options), acquired(volume, {})
    torch.testing.assert_close(low_res.as_tensor(), plain.as_tensor(), atol=1e-4, rtol=0)
    torch.testing.assert_close(low_res.affine, plain.affine)


def test_no_subject_is_in_two_groups_of_a_data_set_or_in_another_role_of_a_test():
    for groups in GROUPS.values():
        assert not set(groups["test"]) & {*groups["source"], *groups["target"]}
    assert not set(GROUPS["ds002748"]["source"]) & set(GROUPS["ds002748"]["target"])
