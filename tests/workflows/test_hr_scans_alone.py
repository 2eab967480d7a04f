"""Trainings that need no target: HR scans alone are enough, and LR scans without truth may join."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import head_phantom, write_scan

ANY = "methods/any_acquisition.yaml"


def test_one_hr_scan_trains_the_network_for_any_acquisition(train_stack, tmp_path):
    write_scan(tmp_path / "hr" / "scan.nii.gz", head_phantom(0, (26, 34, 32)), (1.0, 1.0, 1.0))
    workflow = train_stack(ANY)
    workflow.parser["dataset_dir"] = str(tmp_path / "hr")
    workflow.initialize()
    workflow.run()
    assert (tmp_path / "model.pt").is_file()
    recorded = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert recorded["ranges"]["output_spacing"] == [1.0, pytest.approx(1.26, abs=0.02)]
    assert [set(volume) for volume in recorded["volumes"]] == [{"intensity", "contrast"}]


def test_a_source_alone_trains_a_supervised_method(train_stack, phantom_dataset, tmp_path):
    shutil.copytree(phantom_dataset() / "source", tmp_path / "hr" / "source")
    workflow = train_stack("methods/spectral.yaml", "methods/kspace_pairs.yaml", assignment="hr_only")
    workflow.parser["dataset_dir"] = str(tmp_path / "hr")
    workflow.initialize()
    workflow.run()
    assert (tmp_path / "model.pt").is_file()


def test_distillation_also_takes_lr_scans_of_the_target(train_stack, tmp_path):
    first = train_stack(ANY)
    first.initialize()
    first.run()
    workflow = train_stack(ANY, "methods/distillation.yaml", scan_acquisition=["slices 2.0", "unknown", "unknown"])
    workflow.initialize()
    dataset = workflow.parser.get_parsed_content("train::dataset")
    assert len(dataset.scans) == 2
    assert set(dataset.scans) == {"sub-02", "sub-03"}
    (scan,) = dataset.scans["sub-02"]
    assert [type(one).__name__ for one in scan.scan.encodings] == ["SliceSelection", *["FrequencyEncoding"] * 2]
    workflow.run()
    assert (tmp_path / "distilled.pt").is_file()
    assert (tmp_path / "distilled.json").is_file()
