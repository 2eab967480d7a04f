"""Evaluation on acquisitions that training did not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, head_phantom, write_scan
from monai.bundle import ConfigParser
from scripts.transforms import KSpaceTruncate


def low_res_of(scan: Path, **options) -> torch.Tensor:
    """The LR scan that evaluate.yaml simulates, in the units of the scan."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("evaluate.yaml", "networks/fixed_factor.yaml")])
    parser.update({"bundle_root": str(CONFIGS.parent), "load_pretrain": False})
    parser.update({f"acquisition::{name}": value for name, value in options.items()})
    item = parser.get_parsed_content("preprocessing")({"image": str(scan), "label": str(scan)})
    return item["image"].as_tensor() * item["image"].meta["intensity_scale"]


@pytest.mark.parametrize(
    "options", [{}, {"hamming": True}, {"elliptical": True}, {"partial_fourier": [0.75, 1, 1]}, {"snr": 20.0}]
)
def test_the_evaluation_acquires_as_its_options_say(tmp_path, options):
    volume = head_phantom(0, (24, 32, 36))
    scan = write_scan(tmp_path / "scan.nii.gz", volume, (1.0, 1.0, 1.0))
    in_canonical_frame = volume.permute(1, 2, 0)  # from R, A, S to A, S, R
    expected = KSpaceTruncate((2, 2, 2), **options)(in_canonical_frame[None])
    torch.testing.assert_close(low_res_of(scan, **options), expected, rtol=1e-4, atol=0.05)
