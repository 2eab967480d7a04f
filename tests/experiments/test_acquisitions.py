"""The matrix acquisition x method: its cases, its evaluations and its table."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import BUNDLE, head_phantom, write_scan
from monai.bundle import ConfigWorkflow
from scripts.physics.encoding import SliceSelection
from scripts.physics.protocol import encoding_from_text

from experiments import ROOT
from experiments.studies import acquisitions

OWN = yaml.safe_load(acquisitions.MATRIX.read_text(encoding="utf-8"))
TINY = {"load_pretrain": False, "amp_dtype": None, "architecture::num_groups": 1, "architecture::num_blocks": 1}
TINY |= {"inferer::inferer::progress": False}
SLICES = "slices of 2.5 every 3.3"


@pytest.fixture
def matrix(tmp_path):
    """A matrix of two acquisitions of a phantom, and the folder of its dataset."""
    write_scan(tmp_path / "scans" / "sub-01_T1w.nii.gz", head_phantom(1, (24, 40, 36)), (1.0, 1.1, 1.2))
    content = {
        "axcodes": "ASR",
        "acquisitions": {name: OWN["acquisitions"][name] for name in ("2x2x2", SLICES)},
        "sets": {"phantoms": {"acquisitions": "every", "scans": ["phantom/sub-01_T1w.nii.gz"]}},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture
def commands(monkeypatch):
    """The options of every evaluation, which runs in this process."""
    given = []

    def command(run_id, configs, options, folder):
        given.append(options)
        known = {**options, **TINY} | {"amp_dtype": None}
        files = [str(ROOT / name) for name in configs]
        workflow = ConfigWorkflow(
            files, workflow_type="infer", run_id=run_id, logging_file=False, bundle_root=str(BUNDLE), **known
        )
        workflow.initialize()
        workflow.run()
        return True

    monkeypatch.setattr(acquisitions, "command", command)
    monkeypatch.setattr(acquisitions, "resolve_amp_dtype", lambda *_: torch.bfloat16)  # so that float32 is a run apart
    return given


def test_the_matrix_of_the_project_is_complete():
    factors = [encoding_from_text(OWN["acquisitions"][name][0]).spacing for name in ("2x2x2", "factor 1.5")]
    assert factors == [2.0, 1.5]
    through = [encoding_from_text(texts[1]) for texts in OWN["acquisitions"].values()]
    slices = [one for one in through if isinstance(one, SliceSelection)]
    assert [one.spacing for one in slices] == [2, 3, 3.3, 4, 5, 6]
    assert [one.spacing for one in slices if one.thickness < one.spacing] == [3.3]
    scans = [scan for one in OWN["sets"].values() for scan in one["scans"]]
    assert len(set(scans)) == len(scans) == 20
    assert OWN["sets"]["ds002748"]["acquisitions"] == ["2x2x1"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_voxels_become_mm_in_the_frame_whatever_the_order_of_the_file(tmp_path, order):
    sizes = np.diag([1.0, -1.1, 1.2])  # right, posterior, superior
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0.1, -0.1) @ sizes[:, order])
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine), tmp_path / "scan.nii.gz")
    found = acquisitions.in_mm(["frequency 2", "slices 3/2 box", "unknown"], tmp_path / "scan.nii.gz", "ASR")
    assert found == ["frequency 2.2", "slices 3.6/2.4 box", "unknown"]


def test_a_missing_folder_or_scan_is_named(matrix, tmp_path):
    content = yaml.safe_load(matrix.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="Add phantom=DIR"):
        acquisitions.read_cases(content, {"other": tmp_path})
    with pytest.raises(ValueError, match=r"expected a scan of the matrix, found none. Correct phantom=DIR"):
        acquisitions.read_cases(content, {"phantom": tmp_path / "elsewhere"})


def test_the_matrix_is_evaluated_once_and_again_with_other_options(matrix, commands, tmp_path, capsys):
    arguments = {"phantom": tmp_path / "scans"}, matrix, tmp_path / "out"
    table = acquisitions.main(*arguments, {"load_pretrain": False})
    assert len(commands) == 4  # two acquisitions, each also in float32
    assert table == tmp_path / "out" / "tiny.md"
    text = table.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "- weights: none" in text
    with open(table.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        rows = {(row["acquisition"], row["method"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * len(acquisitions.METHODS)
    for acquisition, reference in (("2x2x2", "zero_filling"), (SLICES, "tricubic")):
        # the untrained network is the reference: zero-filling, or cubic along slices and zero-filling in plane
        found, expected = (rows[acquisition, method] for method in ("pred", reference))
        assert found["reference"] == reference
        assert float(found["psnr"]) == pytest.approx(float(expected["psnr"]), abs=0.01)
        assert float(found["seconds"]) >= 0
        assert expected["seconds"] == ""
    acquisitions.main(*arguments, {"load_pretrain": False})
    assert len(commands) == 4
    acquisitions.main(*arguments, {"load_pretrain": False, "orientations": [[0, 1, 2]]})
    assert len(commands) == 8


def test_a_failure_names_the_log(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr(acquisitions, "command", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"2x2x2 of phantom/sub-01_T1w.nii.gz failed. .*log.txt has the reason"):
        acquisitions.main({"phantom": tmp_path / "scans"}, matrix, tmp_path / "out")


def test_the_table_has_the_reference_and_the_gains_above_it():
    gains = dict(zip(acquisitions.METHODS, (-0.5, 0.0, 0.25, 0.5, 1.0, 1.0, 1.125), strict=True))
    rows = [
        {"set": "a", "acquisition": "slices of 4", "reference": "tricubic", "scan": str(scan), "method": method}
        | {"psnr": 30 + scan + gain, "psnr_deep": 28 + gain, "ssim": 0.9 + gain / 100}
        | ({"seconds": "1.5", "seconds_float32": "3.0"} if method == "pred" else {})
        for scan in range(2)
        for method, gain in gains.items()
    ]
    lines = [line for line in acquisitions.summary(rows, {m: m for m in gains}).splitlines() if "slices" in line]
    assert lines == [
        "| a | slices of 4 | 2 | -0.50 | **30.50** | +0.25 | +0.50 | +1.00 | +1.00 | +1.12 | 1.5 | 3.0 |",
        "| a | slices of 4 | 2 | -0.50 | **28.00** | +0.25 | +0.50 | +1.00 | +1.00 | +1.12 |",
        "| a | slices of 4 | 2 | -0.0050 | **0.9000** | +0.0025 | +0.0050 | +0.0100 | +0.0100 | +0.0112 |",
    ]
