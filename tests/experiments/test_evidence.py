"""Evidence downstream: alterations are what they say, and each measure knows its ideal."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import EXAMPLE, SHARED
from nibabel.processing import resample_to_output

from experiments.studies.acquisitions import scan_path
from experiments.studies.evidence import anatomy, heads, measures, restoring
from experiments.studies.evidence.__main__ import MATRIX, brain_box, texts_of
from experiments.studies.evidence.table import brief, summary

SPACING = (1.0, 1.25, 0.8)
SHAPE = (60, 48, 75)
RNG = np.random.default_rng(0)


def test_only_test_subjects_are_measured_and_the_stroke_scan_is_of_the_validation_subject():
    if not (SHARED / "people.yaml").is_file():
        pytest.skip("the list of who may be used for what is absent")
    people = yaml.safe_load((SHARED / "people.yaml").read_text())
    matrix = yaml.safe_load(MATRIX.read_text())
    for group, scans in (("test", matrix["scans"]), ("validation", [one["scan"] for one in matrix["stroke"]])):
        assert all(scan.split("/")[1] in people[scan.split("/")[0]][group] for scan in scans)


@pytest.mark.parametrize("radius", [2.5, 6.0])
def test_a_ball_has_its_volume_and_its_place(radius):
    share = heads.ball(SHAPE, SPACING, heads.Ball((30, 20, 40), radius))
    assert share.sum() * np.prod(SPACING) == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.03)
    centre = [(share.sum(tuple({0, 1, 2} - {axis})) * np.arange(SHAPE[axis])).sum() / share.sum() for axis in range(3)]
    assert centre == pytest.approx([30, 20, 40], abs=1e-4)


@pytest.fixture(scope="module")
def head():
    """A head of white matter, its lesions and what is removed."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 110),) * 3, indexing="ij"))
    white = (grid**2).sum(0) < 0.9
    volume = (500 * white + RNG.normal(scale=20, size=white.shape)).astype(np.float32)
    volume[50:60, 45:65, 50:60] += 300
    removed = heads.place_removal(volume, white, (1.0, 1.0, 1.0))
    return volume, white, removed, heads.place_lesions(volume, white, (1.0, 1.0, 1.0), [removed])


def test_lesions_lie_in_white_matter_and_apart(head):
    _, white, removed, lesions = head
    assert sorted(one.radius for one in lesions) == sorted([*heads.RADII, *heads.RADII])
    assert sum(one.change for one in lesions) == 0
    assert all(white[one.centre] for one in lesions)
    gaps = [math.dist(one.centre, other.centre) for i, one in enumerate(lesions) for other in lesions[:i]]
    assert min(gaps) >= heads.APART
    assert min(math.dist(one.centre, removed.centre) for one in lesions) >= heads.APART


def test_an_altered_head_differs_in_its_balls_alone(head):
    volume, _, removed, lesions = head
    altered = heads.alter(volume, (1.0, 1.0, 1.0), lesions, removed)
    distance = np.linalg.norm(np.indices(volume.shape) - np.reshape(removed.centre, (3, 1, 1, 1)), axis=0)
    assert math.dist(removed.centre, (55, 55, 55)) < heads.REMOVED
    assert np.ptp(altered[distance <= heads.REMOVED]) < 1e-3
    change = (altered - volume)[distance > heads.REMOVED + heads.FADE]
    expected = sum(one.change * heads.ball(volume.shape, (1.0, 1.0, 1.0), one) for one in lesions)
    assert change == pytest.approx(expected[distance > heads.REMOVED + heads.FADE], abs=1e-2)


def test_a_lesion_that_is_kept_has_ideal_values_and_a_faded_one_has_not():
    lesion = heads.Ball((30, 24, 37), 6.0, -200.0)
    true = -200 * heads.ball(SHAPE, SPACING, lesion)
    values = dict(measures.lesion_response(true, lesion, SPACING))
    assert values == pytest.approx({name: measures.MEASURES[name].ideal for name in values}, abs=1e-4)
    faded = dict(measures.lesion_response(0.4 * true, lesion, SPACING))
    assert (faded["kept"], faded["size"]) == (pytest.approx(40), 0)
    invented = dict(measures.lesion_response(true + np.roll(true, 12, axis=0) / 4, lesion, SPACING))
    assert invented["beyond"] == pytest.approx(25)


def test_what_was_removed_returns_wholly_or_not_at_all():
    volume = RNG.normal(size=SHAPE)
    ball = heads.Ball((30, 24, 37), heads.REMOVED)
    wholly, not_at_all = ((one + 7) for one in (volume, 0 * volume))
    assert dict(measures.removal_return(wholly, volume, ball, SPACING)) == pytest.approx(
        {"removed": 100, "smooth": 100}
    )
    assert dict(measures.removal_return(not_at_all, volume, ball, SPACING)) == pytest.approx(
        {"removed": 0, "smooth": 0}
    )


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
def test_equal_segmentations_agree_and_a_moved_boundary_is_as_far_as_it_moved():
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[5:55, 5:43, 5:70], labels[10:50, 10:38, 10:65], labels[20:40, 15:33, 20:55] = 1, 2, 3
    equal = dict(measures.tissue_agreement(labels, labels, SPACING))
    assert equal == {name: measures.MEASURES[name].ideal for name in equal}
    moved = labels.copy()
    moved[40:42, 15:33, 20:55] = 3
    values = dict(measures.tissue_agreement(moved, labels, SPACING))
    assert values["volume_WM"] == pytest.approx(10)
    assert values["boundary_outer"] == 0 < values["boundary_white"] < 2


@pytest.mark.parametrize("reader", anatomy.READERS)
def test_each_reader_finds_three_tissues(reader):
    if reader == "random field":
        pytest.importorskip("dipy", reason="pip install --editable '.[evidence]'")
    true = np.zeros((24, 24, 24), dtype=np.uint8)
    true[2:22, 2:22, 2:22], true[5:19, 5:19, 5:19], true[8:16, 8:16, 8:16] = 1, 2, 3
    volume = (np.array([0, 200, 500, 800])[true] + RNG.normal(scale=50, size=true.shape)).astype(np.float32)
    priors = np.stack([np.where(true == label, 0.5, 0.25) for label in (1, 2, 3)])
    brain = anatomy.Anatomy(true > 0, priors, np.ones(true.shape))
    assert (anatomy.READERS[reader](volume, brain) == true).mean() > 0.97


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # DIPY's own
def test_the_brain_of_the_real_scan_is_found():
    pytest.importorskip("dipy", reason="pip install --editable '.[evidence]'")
    scan = resample_to_output(nib.load(next(EXAMPLE.rglob("*_T1w.nii.gz"))), (2.0,) * 3, order=1)
    found = anatomy.find_anatomy(scan)
    brain = scan.get_fdata() > 0.1 * np.percentile(scan.get_fdata(), 99)  # it has no skull
    assert 2 * (found.mask & brain).sum() / (found.mask.sum() + brain.sum()) > 0.9
    assert found.priors.sum(0) == pytest.approx(1, abs=1e-5)
    assert found.bias[found.mask].mean() == pytest.approx(1)


def test_flat_parts_are_flat_and_noise_has_no_anatomy():
    volume, where = heads.flat_phantom(64)
    assert {round(float(value), 3) for value in np.unique(volume[where])} == {0.6, 1.0}
    assert measures.flat_error(volume + 0.01, volume, where) == pytest.approx(1, rel=1e-4)
    noisy, inside = heads.noisy_phantom(64)
    assert noisy[inside].mean() == pytest.approx(1, abs=0.01)
    assert noisy[inside].std() == pytest.approx(1 / 20, rel=0.05)
    assert measures.noise_structure(noisy, noisy, inside) == 0
    wave = 0.1 * np.sin(np.arange(64) / 64 * 2 * np.pi * 4)[:, None, None]
    assert 4 < measures.noise_structure(noisy + wave, noisy, inside) < 7


def test_arrays_are_made_once_and_again_when_something_changes(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"one": np.arange(3.0)}

    for about in ("weights", "weights", "other weights"):
        assert restoring.kept(tmp_path, make, about, np.ones(2))["one"].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_a_volume_is_restored_by_each_method_on_its_own_grid(tmp_path):
    volume, _ = heads.flat_phantom(32)
    box = (slice(4, 28), slice(0, 32), slice(2, 30))
    found = restoring.restored(1000 * volume, np.eye(4), ["unknown", "slices 4", "unknown"], box, tmp_path)
    for method in restoring.METHODS:
        assert found[method].shape == (24, 32, 28)
        assert np.corrcoef(found[method].ravel(), volume[box].ravel())[0, 1] > 0.9
        assert np.abs(found[f"{method}_shift"][:2]).max() < 0.05  # along z the slices are few


def test_acquisitions_are_in_voxels_or_in_mm(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8)), np.diag([1.5, 1.5, 1.5, 1])), tmp_path / "scan.nii")
    axes = ["frequency 2", "unknown", "slices 4"]
    assert texts_of({"unit": "voxels", "axes": axes}, tmp_path / "scan.nii", "ASR")[0] == "frequency 3.0"
    assert texts_of({"unit": "mm", "axes": axes}, tmp_path / "scan.nii", "ASR") == axes


def test_a_dataset_without_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"folder of the dataset data, got .*Add data=DIR"):
        scan_path("data/sub-03.nii.gz", {})
    with pytest.raises(ValueError, match="expected a scan of the matrix, found none"):
        scan_path("data/sub-03.nii.gz", {"data": tmp_path})


def test_the_box_of_a_brain_has_a_margin():
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[2:8, 9, 10:19] = True
    assert brain_box(mask) == (slice(0, 12), slice(5, 14), slice(6, 23))


def test_the_table_names_the_nearest_method_and_where_super_resolution_harms():
    def rows(measure, **values):
        for method, list_ in values.items():
            for scan, value in enumerate(list_):
                about = {"acquisition": "2x2x2", "measure": measure, "detail": "", "method": method}
                yield {**about, "scan": str(scan), "value": str(value)}

    found = [
        *rows("volume_GM", tricubic=[4, -4], zero_filling=[3, 3], automatic=[1, 1]),
        *rows("shift", tricubic=[0, 0], zero_filling=[0.01, 0.01], automatic=[0.02, 0]),
    ]
    lines = summary(found).splitlines()
    assert lines[2].endswith("| 0 | 0.0 | 3.0 | **1.0** | 0 of 2 |")
    assert lines[3].endswith("| 0 | **0.0000** | 0.0100 | 0.0100 | on average, 1 of 2 |")
    counts = {row.split(" | ")[0]: row for row in brief(found).splitlines()}
    assert counts["| tissue"] == "| tissue | 1 | 0 |"
    assert counts["| place"] == "| place | 0 | 1 |"
