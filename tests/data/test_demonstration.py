"""Demonstration cohort: disjoint, seeded, cached subjects with detail up to the Nyquist frequency."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scripts.data import demonstration
from scripts.data.datalist import unpaired_datalist
from scripts.data.demonstration import generate_cohort, make_subject
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import truncate, zero_fill

SMALL = {"num_source": 2, "num_target": 2, "num_validation": 1, "num_test": 2, "spacing": 4.0, "progress": False}
HIGH_RES_SHAPE, LOW_RES_SHAPE = (40, 48, 40), (20, 24, 20)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return generate_cohort(tmp_path_factory.mktemp("demonstration") / "cohort", **SMALL)


@pytest.fixture(scope="module")
def subject():
    return make_subject(np.random.default_rng(0), spacing=2.0)


def scans(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): nib.load(path).get_fdata().tobytes() for path in folder.rglob("*.nii.gz")}


def volume(folder: Path, name: str) -> np.ndarray:
    return nib.load(folder / name).get_fdata()


def psnr(pred: torch.Tensor, label: torch.Tensor) -> float:
    return float(-10 * torch.log10(((pred - label) / label.max()).square().mean()))


def test_subjects_are_disjoint_and_filed_by_group(cohort):
    assert sorted(scans(cohort)) == [
        "source/sub-001_T1w.nii.gz",
        "source/sub-002_T1w.nii.gz",
        "target/sub-003_T1w.nii.gz",
        "target/sub-004_T1w.nii.gz",
        "test/sub-006_T1w.nii.gz",
        "test/sub-007_T1w.nii.gz",
        "validation/sub-005_T1w.nii.gz",
    ]
    datalist = unpaired_datalist(cohort)
    assert {section: len(items) for section, items in datalist.items()} == {"training": 4, "validation": 1, "test": 2}


def test_only_the_target_is_low_res_on_the_same_field_of_view(cohort):
    high_res, low_res = (nib.load(cohort / f) for f in ("source/sub-001_T1w.nii.gz", "target/sub-003_T1w.nii.gz"))
    assert high_res.shape == HIGH_RES_SHAPE
    assert low_res.shape == LOW_RES_SHAPE
    assert high_res.header.get_zooms() == (4.0, 4.0, 4.0)
    assert low_res.header.get_zooms() == (8.0, 8.0, 8.0)
    np.testing.assert_allclose(high_res.affine[:3, 3], low_res.affine[:3, 3])
    assert nib.aff2axcodes(low_res.affine) == ("R", "A", "S")


def test_the_scale_factor_counts_in_the_canonical_frame(tmp_path):
    counts = {"num_source": 0, "num_target": 1, "num_validation": 0, "num_test": 0}
    generate_cohort(tmp_path, **{**SMALL, **counts}, scale_factor=(2, 2, 1))  # along A, S, R
    assert nib.load(tmp_path / "target" / "sub-001_T1w.nii.gz").shape == (40, 24, 20)  # along R, A, S


def test_the_first_test_subject_lies_obliquely(cohort):
    oblique, straight = (nib.load(cohort / "test" / f"sub-{n:03d}_T1w.nii.gz") for n in (6, 7))
    assert nib.affines.obliquity(oblique.affine).max() > 0.1
    assert nib.affines.obliquity(straight.affine).max() == 0
    np.testing.assert_allclose(oblique.header.get_zooms(), 4.0, rtol=1e-6)
    for image in (oblique, straight):
        centre = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
        np.testing.assert_allclose(centre[:3], 0, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


def test_subjects_differ_in_anatomy_contrast_and_gain(cohort):
    one, other = (volume(cohort, f"source/sub-00{n}_T1w.nii.gz") for n in (1, 2))
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert 0.5 < correlation < 0.97  # brains, but two of them
    assert abs(np.percentile(one, 99.9) / np.percentile(other, 99.9) - 1) > 0.01


def test_a_subject_follows_from_its_seed():
    first, again, other = (make_subject(np.random.default_rng((n, 1)), spacing=8.0) for n in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_head_is_dark_outside_and_bright_inside(subject):
    assert subject.shape == (76, 96, 80)
    assert subject.min() >= 0
    tissue = subject[subject > 0.3 * subject.max()]
    assert 0.15 < tissue.numel() / subject.numel() < 0.45
    border = torch.cat([subject.select(axis, index).flatten() for axis in (0, 1) for index in (0, -1)])
    assert border.mean() < 0.05 * tissue.mean()


def detail(scan: torch.Tensor, dim: tuple[int, ...]) -> float:
    """Share of a scan's variance that is lost when half of k-space is left out along some axes."""
    full = [scan.shape[axis] for axis in dim]
    low_res = truncate(scan, [n // 2 for n in full], dim)
    return float((scan - zero_fill(low_res, full, dim)).square().mean() / scan.var())


@pytest.mark.parametrize(("dim", "least"), [((0, 1, 2), 0.02), ((0,), 0.008), ((1,), 0.008), ((2,), 0.008)])
def test_there_is_far_more_detail_than_in_the_average_it_is_made_of(subject, dim, least):
    template = demonstration._template_maps()[3, :196, :232, :188]
    template = truncate(template, [n // 2 for n in template.shape], (0, 1, 2))
    assert detail(subject, dim) > max(least, 2.5 * detail(template, dim))


def test_zero_filling_beats_aligned_cubic_which_beats_centred_cubic(subject):
    low_res = truncate(subject, [n // 2 for n in subject.shape], (0, 1, 2))
    zero_filled = psnr(zero_fill(low_res, subject.shape, (0, 1, 2)), subject)
    aligned = psnr(interpolate_cubic(low_res, 2, (0, 1, 2)), subject)
    centred = psnr(interpolate_cubic(low_res, 2, (0, 1, 2), centred=True), subject)
    assert zero_filled > aligned + 0.5
    assert aligned > centred + 2.5


def test_a_cohort_is_generated_once(cohort, monkeypatch):
    monkeypatch.setattr(demonstration, "make_subject", lambda *_: pytest.fail("generated again"))
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert generate_cohort(cohort, **SMALL) == cohort
    assert before == {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}


def test_other_arguments_replace_the_cohort(tmp_path):
    generate_cohort(tmp_path, **{**SMALL, "spacing": 8.0})
    before = scans(tmp_path)
    generate_cohort(tmp_path, **{**SMALL, "spacing": 8.0, "seed": 1, "num_test": 0})
    after = scans(tmp_path)
    assert after.keys() == {name for name in before if not name.startswith("test/")}
    assert all(after[name] != before[name] for name in after)
    assert json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8"))["seed"] == 1


def test_an_interrupted_generation_is_done_again(tmp_path, monkeypatch):
    settings = {**SMALL, "spacing": 8.0}
    made = []

    def interrupted(rng, spacing):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(make_subject(rng, spacing))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(demonstration, "make_subject", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_cohort(tmp_path / "cohort", **settings)
    assert list((tmp_path / "cohort").iterdir()) == []
    generate_cohort(tmp_path / "cohort", **settings)
    assert len(scans(tmp_path / "cohort")) == 7


def test_scans_from_elsewhere_are_not_overwritten(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(ValueError, match=r"without cohort.json\. Pass it as --dataset_dir"):
        generate_cohort(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
