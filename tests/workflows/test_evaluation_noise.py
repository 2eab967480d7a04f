"""An evaluation adds the noise that its user asks for, whatever the acquisition, and its table says so."""

from __future__ import annotations

import csv

import pytest
from conftest import BUNDLE
from monai.bundle import ConfigWorkflow

UNTRAINED = {"load_pretrain": False, "amp_dtype": None, "architecture::num_groups": 1, "architecture::num_blocks": 1}
UNTRAINED |= {"inferer::inferer::progress": False, "pictures": False}
SLICES = ["unknown", "slices 3.0", "unknown"]


def psnr(folder, output_dir, **options) -> float:
    settings = {"bundle_root": str(BUNDLE), "dataset_dir": str(folder), "output_dir": str(output_dir), **UNTRAINED}
    config = str(BUNDLE / "configs" / "evaluate.yaml")
    workflow = ConfigWorkflow(
        config, workflow_type="infer", run_id="evaluating", logging_file=False, **settings, **options
    )
    workflow.initialize()
    workflow.run()
    rows = csv.DictReader((output_dir / "subjects.csv").read_text(encoding="utf-8").splitlines())
    return next(float(row["psnr"]) for row in rows if row["method"] == "pred")


@pytest.mark.parametrize("options", [{"acquisition": SLICES}, {}], ids=["slices", "2x2x2"])
def test_noise_lowers_the_quality_is_the_same_in_every_run_and_is_noted(phantom_dataset, tmp_path, options):
    folder = phantom_dataset() / "validation"
    silent, noisy, again = (
        psnr(folder, tmp_path / name, **options, snr=snr) for name, snr in (("a", None), ("b", 10.0), ("c", 10.0))
    )
    assert noisy == again < silent - 0.3
    summaries = [(tmp_path / name / "summary.md").read_text(encoding="utf-8") for name in "ab"]
    assert "- SNR: no noise added" in summaries[0]
    assert "- SNR: 10.0" in summaries[1]
