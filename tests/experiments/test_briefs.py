"""The short tables that pages quote."""

from __future__ import annotations

import json

from experiments import briefs
from experiments.gains import REFERENCES, Gains


def gains(psnr: list[float], acquisition: str = "2x2x2") -> Gains:
    values = {"psnr": psnr, "psnr_deep": [0.5] * len(psnr), "ssim": [0.01] * len(psnr)}
    return Gains("heads", acquisition, "zero_filling", values)


def test_the_range_of_a_training_has_open_ends_and_units(tmp_path):
    ranges = {"output_spacing": [0.6995, 1.3793], "factor": [None, 2.5], "snr": [12.0, None]}
    (tmp_path / "model.json").write_text(json.dumps({"ranges": ranges}))
    assert briefs.training_range(tmp_path / "model.json").splitlines()[2:] == [
        "| voxel of the output grid | 0.7 mm | 1.38 mm |",
        "| acquired spacing along an axis that is frequency-limited | any | 2.5 output voxels |",
        "| signal over noise | 12 | any |",
    ]


def test_other_weights_stand_beside_the_shipped_ones_where_both_were_measured():
    shipped = [gains([1.0, 0.5]), gains([0.2, 0.2], "slices")]
    assert briefs.against_removed(shipped, [gains([1.5, 0.6])]).splitlines()[2:] == [
        "| heads | 2x2x2 | 2 | +1.05 | +0.75 | +0.50 | +0.50 | +0.0100 | +0.0100 |"
    ]


def test_the_coverage_of_each_dataset_is_its_own_line_and_the_least_is_first(tmp_path):
    lines = ["acquisition,scan,coverage", "2x2x1,a/1.nii,0.93", "2x2x1,b/1.nii,0.78", "2x2x1,b/2.nii,0.82"]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    assert briefs.coverage_by_source(tmp_path / "test.csv").splitlines()[2:] == [
        "| 2x2x1 | b | 2 | 80.0 | 78.0 to 82.0 |",
        "| 2x2x1 | a | 1 | 93.0 | 93.0 to 93.0 |",
    ]


def test_limits_name_small_gains_harm_and_coverage():
    found = briefs.limits([gains([1.0, 0.5]), gains([-0.1, 0.1], "slices of 2")], REFERENCES).splitlines()
    assert found[0] == "- slices of 2: +0.00 dB PSNR above zero-filling, 1 of 2 scans gain."
    assert sum("false signal" in line for line in found) == 2  # one per acquisition of the evidence
    assert "lines of the downstream evidence" in found[-2]
    assert found[-1].startswith("- Error bars of 90 % cover")
