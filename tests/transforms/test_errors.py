"""Error bars as transforms: by kind of acquisition, left out without a calibration, and honest out of range."""

from __future__ import annotations

import json

import pytest
import torch
from monai.data import MetaTensor
from scripts.transforms import CalibrateErrord, SimulateAcquiredd, SplitErrord, WarnUnfamiliard
from scripts.transforms.errors import ERROR_BARS, read_calibration
from scripts.transforms.sources import sha256

ONE = {"scale": [0.01, 0.1], "factor": [2.0, 2.0]}
CALIBRATION = {"kinds": {"slices": ONE, "isotropic": {**ONE, "factor": [3.0, 3.0]}}}


def restored(*acquisition: str) -> dict:
    volume = MetaTensor(torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0)), affine=torch.eye(4))
    item = SimulateAcquiredd(acquisition=acquisition)({"image": volume})
    both = torch.cat([item["image"].as_tensor(), torch.full((1, 24, 24, 24), 0.05)])
    item["pred"] = MetaTensor(both).copy_meta_from(item["image"])
    return SplitErrord("pred")(item)


@pytest.mark.parametrize(
    ("acquisition", "width"),
    [(("unknown", "slices 4.0", "unknown"), 0.1), (("frequency 2.0",) * 3, 0.15)],
)
def test_the_half_width_is_that_of_the_kind_of_acquisition(acquisition, width):
    item = CalibrateErrord("error", CALIBRATION)(restored(*acquisition))
    assert torch.allclose(item["error"].as_tensor(), torch.tensor(width))
    assert item["error"].affine.equal(item["pred"].affine)
    assert item["image"].meta[ERROR_BARS].startswith("half width of the 90 % interval")


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_without_a_calibration_for_its_acquisition_a_scan_has_no_bars_and_the_log_says_so(calibration, caplog):
    with caplog.at_level("INFO"):
        item = CalibrateErrord("error", calibration)(restored("frequency 2.0", "frequency 2.0", "unknown"))
    assert "error" not in item
    assert ERROR_BARS not in item["image"].meta
    assert len([one for one in caplog.messages if "no calibration of error bars" in one]) == 1


def test_a_network_without_a_head_leaves_its_prediction_as_it_is():
    pred = torch.rand(1, 4, 4, 4)
    assert SplitErrord("pred")({"pred": pred}) == {"pred": pred}
    assert CalibrateErrord("error", CALIBRATION, allow_missing_keys=True)({"pred": pred}) == {"pred": pred}


def test_bars_are_not_calibrated_with_another_option_than_in_the_calibration():
    calibration = {**CALIBRATION, "Settings": {"data_consistency": "auto", "orientations": [[0, 1, 2]]}}
    for mode, start in (("auto", "half width"), ("hard", "not calibrated: data_consistency is hard, and was auto")):
        transform = CalibrateErrord("error", calibration, settings={"data_consistency": mode})
        assert transform(restored(*["frequency 2.0"] * 3))["image"].meta[ERROR_BARS].startswith(start)


def test_a_scan_unlike_those_of_the_training_has_bars_that_are_not_calibrated(tmp_path):
    statistics = {"volumes": [], "ranges": {"slice_spacing": [None, 2.0]}}
    (tmp_path / "model.json").write_text(json.dumps(statistics))
    item = WarnUnfamiliard("image", tmp_path / "model.json")(restored("unknown", "slices 4.0", "unknown"))
    item = CalibrateErrord("error", CALIBRATION)(item)
    assert item["image"].meta[ERROR_BARS].startswith("not calibrated")
    assert "error" in item


def test_a_calibration_is_for_its_weights_and_its_head_alone(tmp_path, caplog):
    files = [tmp_path / "model.pt", tmp_path / "model_error_head.pt"]
    for file in files:
        file.write_bytes(file.name.encode())
    statistics = tmp_path / "model.json"

    def read():
        caplog.clear()
        with caplog.at_level("INFO"):
            return read_calibration(*files, statistics)

    assert read() is None
    assert "no error bars, because" in caplog.text
    statistics.write_text(json.dumps({"error_bars": {"WeightsSHA256": sha256(files), **CALIBRATION}}))
    assert read()["kinds"] == CALIBRATION["kinds"]
    assert caplog.text == ""
    files[0].write_bytes(b"other weights")
    assert read() is None
    assert "has no calibration for these weights" in caplog.text
    files[1].unlink()
    assert read() is None
    assert "model_error_head.pt is missing" in caplog.text
