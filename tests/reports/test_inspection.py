"""Inspecting a dataset: spectra that end early, groups that do not fit, and the lines that suit them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, head_phantom, write_scan
from monai.bundle import ConfigWorkflow
from scripts.physics.kspace import truncate, zero_fill
from scripts.physics.spectra import axis_spectrum, power_law
from scripts.reports.figures import spectra_of_groups
from scripts.reports.inspection import Facts, recommend
from torch.nn.functional import interpolate

TRAIN = REPOSITORY / "bundle" / "configs" / "train.yaml"
SHAPE = (64, 72, 68)


def head(seed: int = 0) -> torch.Tensor:
    """A head whose power falls as 1 / f^2 along each axis, and air that is dark but noisy."""
    return head_phantom(seed, SHAPE) + 20 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def cutoffs(volume: torch.Tensor, spacing: float = 1.0) -> list[float]:
    return [axis_spectrum(volume, axis, spacing).cutoff for axis in range(3)]


# Spectra


def test_the_law_of_a_head_falls_by_twenty_db_per_decade():
    assert power_law(torch.tensor([0.05, 0.5])).tolist() == pytest.approx([20.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_content_of_a_scan_ends_at_its_nyquist_frequency(seed):
    assert cutoffs(head(seed), spacing=2.0) == pytest.approx([0.25] * 3, rel=0.05)


def test_zero_filling_is_seen_along_its_axis_alone():
    low_res = truncate(head(), [SHAPE[1] // 2], [1])
    found = cutoffs(zero_fill(low_res, [SHAPE[1]], [1]).round())
    assert found[1] == pytest.approx(0.25, abs=0.04)
    assert [found[0], found[2]] == pytest.approx([0.5, 0.5], rel=0.05)


def test_linear_interpolation_is_seen():
    low_res = truncate(head(), [n // 2 for n in SHAPE], (0, 1, 2))
    volume = interpolate(low_res[None, None], scale_factor=2, mode="trilinear")[0, 0]
    assert max(cutoffs(volume)) < 0.35


def test_what_is_too_short_or_empty_has_no_spectrum():
    assert axis_spectrum(torch.rand(64, 64, 16), 2, 1.0) is None
    assert axis_spectrum(torch.zeros(64, 64, 64), 2, 1.0) is None


def test_the_picture_is_drawn_where_a_spectrum_is_missing(tmp_path):
    spectra = [[axis_spectrum(head(), 0, 1.0), None, None]]
    spectra_of_groups({"source": spectra, "target": spectra}, ["a", "b", "c"]).savefig(tmp_path / "spectra.png")
    assert (tmp_path / "spectra.png").stat().st_size > 10_000


# Recommendations


def facts(spacing, matrix=(160, 160, 160), lowest=0.0):
    return Facts("sub", "scan.nii", "RAS", tuple(spacing), tuple(matrix), 1.0, lowest, (None, None, None))


@pytest.mark.parametrize(
    ("source", "target", "lines"),
    [
        ((1, 1, 1), (2, 2, 2), {"scale_factor": [2, 2, 2]}),
        ((1, 1, 1), (2.05, 1.95, 2), {"scale_factor": [2, 2, 2]}),
        ((0.7, 0.7, 0.7), (2, 2, 2), {"scale_factor": [2, 2, 2]}),
        ((1, 1, 1), (2, 2, 1), {"scale_factor": [2, 2, 1]}),
        ((1, 1, 1), (2, 1, 2), {"scale_factor": [2, 2, 1], "axcodes": "ARS"}),
        ((1, 1, 1), (1, 1, 1), {"degrade_target": True, "scale_factor": [2, 2, 2]}),
    ],
)
def test_the_recommended_lines(source, target, lines):
    assert recommend([facts(source)], [facts(target)], "ASR")[0] == lines


@pytest.mark.parametrize(
    ("source", "target", "remark"),
    [
        ((0.7, 0.7, 0.7), (2, 2, 2), "finer than 1 x 1 x 1 mm"),
        ((1, 1, 1), (1.6, 1.6, 1.6), "coarser than 0.8 x 0.8 x 0.8 mm"),
        ((2, 2, 2), (1, 1, 1), "Are the groups swapped?"),
        ((1, 1, 1), (1, 1, 5), "These networks do not treat thick 2-D slices."),
    ],
)
def test_what_does_not_fit_is_said(source, target, remark):
    assert any(remark in text for text in recommend([facts(source)], [facts(target)], "ASR")[1])


def test_small_scans_get_small_patches_and_too_small_ones_a_remark():
    lines, remarks = recommend([facts((1, 1, 1))], [facts((2, 2, 2), (60, 40, 20))], "ASR")
    assert lines == {"scale_factor": [2, 2, 2]}
    assert remarks == []
    assert "has 24 voxels" in recommend([facts((1, 1, 1))], [facts((2, 2, 2), (60, 24, 20))], "ASR")[1][-1]


def test_scans_that_are_none_magnitudes_are_counted():
    remarks = recommend([facts((1, 1, 1)), facts((1, 1, 1), lowest=-3.0)], [facts((2, 2, 2))], "ASR")[1]
    assert remarks[0].startswith("1 of 2 scans of the source go below zero")


# The command


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two groups with a scan each that is as it should be, and one of every kind that is not."""
    low_res = [n // 2 for n in SHAPE]
    write_scan(tmp_path / "data/source/sub-01_T1w.nii.gz", head(1), (1.0, 1.0, 1.0))
    resampled = zero_fill(truncate(head(2), low_res, (0, 1, 2)), SHAPE, (0, 1, 2))
    write_scan(tmp_path / "data/source/sub-02_T1w.nii.gz", resampled, (1.0, 1.0, 1.0))
    write_scan(tmp_path / "data/target/sub-01_T2w.nii.gz", truncate(head(3), low_res, (0, 1, 2)), (2.0, 2.0, 2.0))
    turned = nib.Nifti1Image(truncate(head(4), low_res, (0, 1, 2)).numpy()[::-1], np.diag([-2.0, 2.0, 2.0, 1.0]))
    nib.save(turned, tmp_path / "data/target/sub-04_T1w.nii.gz")
    (tmp_path / "data/target/sub-05_T1w.nii.gz").write_bytes(b"not an image")
    (tmp_path / "data/old.nii").touch()
    return tmp_path / "data"


def inspect(dataset: Path | None, output: Path) -> str:
    settings = {
        "dataset_dir": dataset and str(dataset),
        "output_dir": str(output),
        "bundle_root": str(TRAIN.parents[1]),
    }
    stack = [str(TRAIN), str(TRAIN.with_name("tools.yaml"))]
    workflow = ConfigWorkflow(stack, run_id="inspecting", logging_file=False, **settings)
    workflow.initialize()
    workflow.run()
    return (output / "inspection" / "report.md").read_text(encoding="utf-8")


def test_the_command_reports_draws_and_recommends(dataset, tmp_path):
    report = inspect(dataset, tmp_path / "out")
    assert "| scans (measured) | 2 (2) | 3 (2) |" in report
    assert "| left-right | 64 x 1.00 mm" in report
    assert "| stored as | RAS (2) | RAS (1), LAS (1) |" in report
    assert "left-right | 64 x 1.00 mm, content 1.00 to 2.00 mm | 32 x 2.00 mm |" in report  # too few voxels to tell
    (suspected,) = [line for line in report.splitlines() if "its spectrum ends at" in line]
    assert "source/sub-02_T1w.nii.gz" in suspected
    assert "1 subjects are in both groups (sub-01)" in report
    assert "target/sub-05_T1w.nii.gz: " in report
    assert "old.nii: left out, because it is in no folder of a group." in report
    lines = yaml.safe_load((tmp_path / "out/inspection/recommended.yaml").read_text(encoding="utf-8"))
    assert lines == {"scale_factor": [2, 2, 2]}
    assert yaml.safe_load(report.split("```yaml\n")[1].split("```")[0]) == lines
    assert (tmp_path / "out/inspection/spectra.png").is_file()
    page = (tmp_path / "out/inspection/report/index.html").read_text(encoding="utf-8")
    assert "its spectrum ends at" in page
    assert page.count("data:image/jpeg") == 4  # a picture of each scan that can be read


def test_nothing_to_inspect_is_an_error(dataset, tmp_path):
    with pytest.raises((RuntimeError, ValueError), match="Failed to instantiate") as error:
        inspect(None, tmp_path / "out")
    assert "Give it by --dataset_dir" in str(error.value.__cause__)
    for scan in (dataset / "target").iterdir():
        scan.write_bytes(b"not an image")
    with pytest.raises((RuntimeError, ValueError), match="Failed to instantiate") as error:
        inspect(dataset, tmp_path / "out")
    assert "found none that can be read in ['target']" in str(error.value.__cause__)
