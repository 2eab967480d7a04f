"""Error bars through the whole of inference: files, units, sidecar and page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import BUNDLE, head_phantom
from monai.bundle import ConfigWorkflow
from scripts.networks import FoldedNet
from scripts.transforms.sources import sha256

SIZES = {"num_groups": 1, "num_blocks": 1}
SCALE = math.exp(-4)  # what an untrained head predicts everywhere, in units of white


@pytest.fixture
def weights(tmp_path) -> Path:
    """Weights with an error head, and factors that double its scale for slices and triple it otherwise."""
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    network = FoldedNet(**SIZES).add_error_head()
    head = path.with_name("model_error_head.pt")
    torch.save(FoldedNet(**SIZES).state_dict(), path)
    torch.save(network.decoder[-1].error_head.state_dict(), head)
    kinds = {
        kind: {"scale": [0.001, 1.0], "factor": [factor] * 2} for kind, factor in (("slices", 2), ("isotropic", 3))
    }
    calibration = {"WeightsSHA256": sha256([path, head]), "Level": 0.9, "kinds": kinds}
    ranges = {"slice_spacing": [None, 4.0]}
    path.with_suffix(".json").write_text(json.dumps({"volumes": [], "ranges": ranges, "error_bars": calibration}))
    return path


def write(path: Path, shape, spacing, factor: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = nib.affines.from_matvec(np.diag([-spacing[0], *spacing[1:]]), [3.0, -7.0, 11.0])  # not the network's frame
    nib.save(nib.Nifti1Image(factor * head_phantom(0, shape).numpy(), affine), path)
    return path


def infer(weights: Path, scan: Path, out: Path, **options) -> Path:
    settings = {"bundle_root": str(BUNDLE), "dataset_dir": str(scan), "output_dir": str(out), "ckpt_path": str(weights)}
    settings |= {f"architecture::{key}": value for key, value in SIZES.items()}
    settings |= {"amp_dtype": None, "inferer::inferer::progress": False, "report": False, **options}
    files = [str(BUNDLE / "configs" / "inference.yaml")]
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **settings)
    workflow.initialize()
    workflow.run()
    return out


def loaded(out: Path, kind: str) -> nib.Nifti1Image:
    return nib.load(out / f"scan_desc-{kind}.nii.gz")


def record(out: Path, kind: str = "sr") -> dict:
    return json.loads((out / f"scan_desc-{kind}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("shape", "spacing", "factor"), [((20, 22, 24), (2.0, 2.0, 2.0), 3), ((24, 26, 9), (1.0, 1.0, 3.0), 2)]
)
def test_the_bars_are_saved_beside_the_result_in_its_units(weights, tmp_path, shape, spacing, factor):
    widths = []
    for brightness in (1.0, 10.0):
        scan = write(tmp_path / f"in{brightness}" / "scan.nii.gz", shape, spacing, brightness)
        out = infer(weights, scan, tmp_path / f"out{brightness}")
        result, bars = loaded(out, "sr"), loaded(out, "srerror")
        np.testing.assert_allclose(bars.affine, result.affine)
        assert bars.shape == result.shape
        values = bars.get_fdata()
        assert values.std() < 1e-4 * values.mean()  # the head is untrained
        widths.append(float(values.mean()))
        white = widths[-1] / (factor * SCALE)
        assert 0.7 * brightness * 1000 < 3 * white  # between the tissues of the phantom
        assert white < 1.2 * result.get_fdata().max()
        assert record(out)["ErrorBars"] == record(out, "srerror")["ErrorBars"]
        assert record(out)["ErrorBars"].startswith("half width of the 90 % interval")
        assert record(out, "srerror")["Description"].startswith("Error bars")
    assert widths[1] == pytest.approx(10 * widths[0], rel=1e-4)


def test_the_result_does_not_depend_on_the_bars(weights, tmp_path):
    scan = write(tmp_path / "in" / "scan.nii.gz", (20, 22, 24), (2.0, 2.0, 2.0))
    with_bars, without = (infer(weights, scan, tmp_path / str(bars), error_bars=bars) for bars in (True, False))
    assert np.array_equal(loaded(with_bars, "sr").get_fdata(), loaded(without, "sr").get_fdata())
    assert not (without / "scan_desc-srerror.nii.gz").exists()
    assert "ErrorBars" not in record(without)


def test_weights_without_a_head_have_no_bars_and_one_line_says_so(weights, tmp_path, caplog):
    weights.with_name("model_error_head.pt").unlink()
    scan = write(tmp_path / "in" / "scan.nii.gz", (20, 22, 24), (2.0, 2.0, 2.0))
    with caplog.at_level("INFO"):
        out = infer(weights, scan, tmp_path / "out")
    assert not (out / "scan_desc-srerror.nii.gz").exists()
    assert len([one for one in caplog.messages if "error bars" in one]) == 1


@pytest.mark.parametrize("every", [3.0, 6.0])
def test_the_page_shows_the_bars_and_says_when_they_are_not_calibrated(weights, tmp_path, every):
    scan = write(tmp_path / "in" / "scan.nii.gz", (24, 26, 9), (1.0, 1.0, every))
    out = infer(weights, scan, tmp_path / "out", report=True)
    page = (out / "report" / "scan_desc-sr.html").read_text(encoding="utf-8")
    volumes = json.loads(page.split('id="volumes">')[1].split("</script>")[0])
    (bars,) = [one for one in volumes["whole"]["legend"] if one["title"] == "error bar"]
    assert bars["high"] > 0
    known = every < 4
    assert ("In nine of ten voxels" in page) == known
    assert ("Error bars are not calibrated here" in page) == (not known)
    assert record(out)["ErrorBars"].startswith("not calibrated") == (not known)


def test_a_second_run_keeps_the_bars_unless_their_calibration_changed(weights, tmp_path):
    scan = write(tmp_path / "in" / "scan.nii.gz", (20, 22, 24), (2.0, 2.0, 2.0))
    out = infer(weights, scan, tmp_path / "out")
    made = (out / "scan_desc-srerror.nii.gz").stat().st_mtime_ns
    infer(weights, scan, out)
    assert (out / "scan_desc-srerror.nii.gz").stat().st_mtime_ns == made
    (out / "scan_desc-srerror.nii.gz").unlink()
    infer(weights, scan, out)
    assert (out / "scan_desc-srerror.nii.gz").is_file()
    statistics = weights.with_suffix(".json")
    content = json.loads(statistics.read_text(encoding="utf-8"))
    content["error_bars"]["kinds"]["isotropic"]["factor"] = [4.0, 4.0]
    statistics.write_text(json.dumps(content), encoding="utf-8")
    infer(weights, scan, out)
    assert (out / "scan_desc-srerror.nii.gz").stat().st_mtime_ns > made


def test_a_result_without_bars_removes_those_of_an_earlier_one(weights, tmp_path, caplog):
    scan = write(tmp_path / "in" / "scan.nii.gz", (20, 22, 24), (2.0, 2.0, 2.0))
    out = infer(weights, scan, tmp_path / "out")
    assert record(out)["ErrorBarsOption"] is True
    with caplog.at_level("INFO"):
        infer(weights, scan, out, error_bars=False)
    assert "The new result has no error bars." in caplog.text
    assert record(out)["ErrorBarsOption"] is False
    assert [path.name for path in sorted(out.iterdir())] == ["scan_desc-sr.json", "scan_desc-sr.nii.gz", "summary.csv"]
    infer(weights, scan, out)
    assert loaded(out, "srerror").shape == loaded(out, "sr").shape
