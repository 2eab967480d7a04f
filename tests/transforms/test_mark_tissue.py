"""Skipping of air: the marks reach the network in every orientation, the share is said, and the head stays the same."""

from __future__ import annotations

import json
import logging
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import head_phantom, write_scan
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from scripts.inferers import SlabInferer
from scripts.networks import FoldedNet
from scripts.transforms import MarkTissued
from torch import nn

from experiments.bundle import BUNDLE, CONFIGS

THREE = [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def restoring() -> FoldedNet:
    network = FoldedNet(num_features=8, num_groups=1, num_blocks=1).eval()
    nn.init.normal_(network.decoder[-1].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return network


def small_head() -> tuple[MetaTensor, torch.Tensor]:
    """A head in the corner of much air, and where it is."""
    volume = torch.zeros(1, 72, 64, 56)
    inside = torch.zeros_like(volume, dtype=torch.bool)
    inside[:, 4:32, 6:30, 8:28] = True
    volume[inside] = 0.5 + 0.5 * torch.rand(int(inside.sum()), generator=torch.Generator().manual_seed(0))
    return MetaTensor(volume, affine=torch.eye(4)), inside


@pytest.mark.parametrize("orientations", [THREE[:1], THREE[1:2], THREE])
def test_the_head_comes_out_as_without_marks_in_every_orientation(orientations, caplog):
    caplog.set_level(logging.INFO)
    head, inside = small_head()
    marked = MarkTissued("image")({"image": head.clone()})["image"]
    inferer = SlabInferer(SlidingWindowInferer((-1, -1, -1)), orientations)
    with torch.inference_mode():
        skipped, whole = (inferer(image[None], restoring())[0] for image in (marked, head))
    torch.testing.assert_close(skipped[inside], whole[inside], rtol=0, atol=1e-5)
    shares = re.findall(r"The network computes (\d+) % of what", caplog.text)  # the whole volume is no news
    assert len(shares) == len(orientations)
    assert all(0 < int(share) < 60 for share in shares)
    assert torch.equal(skipped[:, 60:], head[:, 60:])


def test_the_share_is_logged_and_recorded(caplog):
    head, inside = small_head()
    with caplog.at_level(logging.INFO):
        meta = MarkTissued("image")({"image": head})["image"].meta
    share = meta["tissue_share"]
    assert inside.float().mean() < share < 3 * inside.float().mean()
    assert f"{100 * share:.0f} % of the output grid holds tissue" in caplog.text


def test_inference_skips_air_by_default_and_restores_it_where_asked(tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", head_phantom(0, (48, 48, 48)), (2.0, 2.0, 2.0))
    found = {}
    for skip in (True, False):
        output = tmp_path / str(skip)
        made = ConfigWorkflow(
            config_file=str(CONFIGS / "inference.yaml"),
            logging_file=False,
            workflow_type="infer",
            bundle_root=str(BUNDLE),
            dataset_dir=str(scan),
            output_dir=str(output),
            report=False,
            **({} if skip else {"skip_air": False}),
        )
        made.initialize()
        made.run()
        record = json.loads(next(output.rglob("scan_desc-sr.json")).read_text(encoding="utf-8"))
        found[skip] = record, nib.load(next(output.rglob("*.nii.gz"))).get_fdata()
    assert 0 < found[True][0]["TissueShare"] <= 1
    assert "TissueShare" not in found[False][0]
    head = found[False][1] > 0.2 * found[False][1].max()
    np.testing.assert_allclose(found[True][1][head], found[False][1][head], atol=1e-3 * found[False][1].max())
