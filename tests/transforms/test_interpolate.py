"""Interpolate: what header, sidecar and spectrum say, in any order of the axes, and the volume that follows."""

from __future__ import annotations

import json
import logging
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import head_like
from dicom_objects import dataset, write_enhanced, write_series
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Orientation
from scripts.inferers import SlabInferer
from scripts.inferers.slab import described
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.kspace import truncate, zero_fill
from scripts.transforms import (
    Acquire,
    DataConsistencyd,
    InterpolateAcquiredd,
    LoadImageStrictd,
    MeasureConsistencyd,
    SimulateAcquiredd,
    simulated_acquisition,
)
from scripts.transforms.evidence import evidence_of
from scripts.transforms.interpolate import acquisition_of, named_option

SHAPE = (20, 24, 9)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
DIM = (1, 2, 3)


def loaded(path, axcodes: str | None = None) -> MetaTensor:
    image = LoadImageStrictd("image")({"image": str(path)})["image"][None]
    return image if axcodes is None else Orientation(axcodes, labels=None)(image)


def write_nifti(path, sidecar: dict, shape=SHAPE, spacing=(1.0, 1.0, 4.0)):
    values = np.random.default_rng(1).uniform(0, 1000, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), path)
    path.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def write_2d(folder):
    def edit(image, _):
        image.MRAcquisitionType, image.SliceThickness, image.SpacingBetweenSlices = "2D", 1.5, 2.0
        image.AcquisitionMatrix, image.InPlanePhaseEncodingDirection = [0, 24, 15, 0], "ROW"
        image.PercentPhaseFieldOfView, image.PercentSampling = 100, 80

    return write_series(folder / "series", VALUES, edit)


@pytest.mark.parametrize("axcodes", [None, "ASR", "PIL", "SAR"])
def test_a_dicom_header_is_understood_in_any_order_of_the_axes(tmp_path, axcodes):
    """Voxels of 1.5 x 1.25 x 2 mm: 15 of 20 columns were acquired as phase, and all rows."""
    image = loaded(write_2d(tmp_path), axcodes)
    codes = nib.aff2axcodes(image.affine.numpy())
    right, superior = (next(a for a, code in enumerate(codes) if code in pair) for pair in ("RL", "SI"))
    (found,) = evidence_of(image)
    assert found.source == "header"
    assert (found.kind, found.through, found.thickness) == ("2D", superior, 1.5)
    assert found.acquired[right] == pytest.approx(2.0)
    assert found.acquired[3 - right - superior] == pytest.approx(1.25)
    data = InterpolateAcquiredd()({"image": image})
    axes = acquisition_of(data["image"]).encodings
    assert axes[superior] == SliceSelection(2.0, 1.5)
    assert axes[right] == FrequencyEncoding(2.0)
    assert data["acquired"].shape[right + 1] == 15
    assert "protocol" not in data["image"].meta
    assert "header" in data["image"].meta["assumed"]


def test_an_enhanced_header_says_the_same(tmp_path):
    def edit(groups, _):
        groups.MRFOVGeometrySequence = [
            dataset(
                InPlanePhaseEncodingDirection="COLUMN",
                MRAcquisitionFrequencyEncodingSteps=20,
                MRAcquisitionPhaseEncodingStepsInPlane=16,
                PercentPhaseFieldOfView=100.0,
                PercentSampling=100.0,
            )
        ]

    path = write_enhanced(tmp_path / "scan.dcm", VALUES, range(9), edit)
    (found,) = evidence_of(loaded(path))
    assert found.thickness == 2.0
    assert found.through == 2
    assert found.acquired == [pytest.approx(1.5), pytest.approx(1.25 * 24 / 16), None]


def test_a_sidecar_of_a_converter_is_understood(tmp_path):
    sidecar = {
        "MRAcquisitionType": "2D",
        "SliceThickness": 3,
        "PercentPhaseFOV": 120,
        "BaseResolution": 20,
        "AcquisitionMatrixPE": 18,
        "ReconMatrixPE": 24,
        "InPlanePhaseEncodingDirectionDICOM": "COL",
    }
    for axcodes, through in ((None, 2), ("ASR", 1)):
        image = loaded(write_nifti(tmp_path / "scan.nii", sidecar), axcodes)
        (found,) = evidence_of(image)
        assert (found.source, found.kind, found.through, found.thickness) == ("sidecar", "2D", through, 3.0)
        assert found.acquired[0 if axcodes else 1] == pytest.approx(24 / 18)


def test_a_3d_volume_that_a_converter_turned_has_its_directions_from_the_sidecar(tmp_path):
    """Sagittal partitions of 1.2 mm: dcm2niix turns such a volume, so that its third axis is superior."""
    sidecar = {"MRAcquisitionType": "3D", "SliceThickness": 1.2, "ImageOrientationPatientDICOM": [0, 1, 0, 0, 0, -1]}
    path = write_nifti(tmp_path / "scan.nii", sidecar, (12, 20, 22), (1.2, 1.0, 1.0))
    (found,) = evidence_of(loaded(path))
    assert found.through == 0
    unknown = {"MRAcquisitionType": "3D", "SliceThickness": 1.2}
    (found,) = evidence_of(loaded(write_nifti(tmp_path / "scan.nii", unknown, (12, 20, 22), (1.2, 1.0, 1.0))))
    assert found.through is None


@pytest.mark.parametrize(
    ("content", "remarks"),
    [
        (b"[1, 2]", 1),
        (b"{", 1),
        (b'{"InstitutionName": "Universit\xe4t"}', 1),
        (b'{"SliceThickness": "n/a", "MRAcquisitionType": null}', 0),
    ],
)
def test_an_unusable_sidecar_says_nothing_and_a_broken_one_is_named(tmp_path, content, remarks):
    path = write_nifti(tmp_path / "scan.nii", {})
    path.with_suffix(".json").write_bytes(content)
    image = InterpolateAcquiredd()({"image": loaded(path)})["image"]
    assert acquisition_of(image).encodings[2] == SliceSelection(4.0, 4.0)
    assert image.meta.get("warnings", "").count("scan.json: expected a JSON object") == remarks


def test_a_sidecar_with_a_byte_order_mark_is_read(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", {})
    path.with_suffix(".json").write_text('{"MRAcquisitionType": "2D", "SliceThickness": 3}', encoding="utf-8-sig")
    image = InterpolateAcquiredd()({"image": loaded(path)})["image"]
    assert acquisition_of(image).encodings[2] == SliceSelection(4.0, 3.0)


def test_the_header_outweighs_the_sidecar(tmp_path):
    image = loaded(write_2d(tmp_path))
    sidecar = write_nifti(tmp_path / "scan.nii", {"MRAcquisitionType": "3D", "SliceThickness": 2.0})
    image.meta["filename_or_obj"] = str(sidecar)
    assert [one.source for one in evidence_of(image)] == ["header", "sidecar"]
    data = InterpolateAcquiredd()({"image": image})
    assert acquisition_of(data["image"]).encodings[2] == SliceSelection(2.0, 1.5)


def test_the_spectrum_shows_an_interpolated_matrix(caplog):
    caplog.set_level(logging.INFO)
    scan = head_like(shape=(48, 64, 44)).float()[None]
    scan = scan + 0.02 * scan.std() * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))
    stored = MetaTensor(zero_fill(scan, (64, 64, 44), DIM), affine=torch.diag(torch.tensor([0.75, 1.0, 1.0, 1.0])))
    data = InterpolateAcquiredd()({"image": stored})
    assert data["acquired"].shape == scan.shape
    torch.testing.assert_close(data["acquired"].as_tensor(), truncate(stored.as_tensor(), (48, 64, 44), DIM))
    assert "spectrum" in data["image"].meta["assumed"]
    assert "stored 64 x 64 x 44 voxels, acquired 48 x 64 x 44" in caplog.text
    assert "million voxels" in caplog.text


def test_the_interpolation_of_whole_factors_is_zero_filling():
    scan = torch.rand(1, 16, 12, 10)
    image = InterpolateAcquiredd()({"image": MetaTensor(scan, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))})[
        "image"
    ]
    torch.testing.assert_close(image.as_tensor(), zero_fill(scan, (32, 24, 20), DIM), rtol=0, atol=1e-5)
    assert image.applied_operations == []


@pytest.mark.parametrize("given", [["frequency 1.0"], "slices 5.0"])
def test_an_option_has_a_text_for_each_axis(given):
    assert named_option(None) == (None, None, None)
    with pytest.raises(ValueError, match="one text for each of the three axes"):
        named_option(given)


def test_a_wrong_text_is_answered_with_the_axes_and_an_example():
    with pytest.raises(ValueError, match=r"got 'slice 5'\. The axes are .* anterior, superior, right.*slices 5\.0"):
        named_option(["unknown", "slice 5", "unknown"])


@pytest.mark.parametrize(
    ("option", "value"), [("spacing", "1mm"), ("spacing", 0), ("spacing", [1, 1]), ("largest", "big"), ("largest", -1)]
)
def test_a_number_that_is_none_is_refused_before_any_scan(option, value):
    with pytest.raises(ValueError, match=f"{option} must be a positive number .*got .* Set .*--{option}"):
        InterpolateAcquiredd(**{option: value})


def interpolated(spacing, shape, **options):
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    volume = head_like(shape=shape).float()[None]
    return InterpolateAcquiredd(**options)({"image": MetaTensor(volume - volume.min(), affine=affine)})


@pytest.mark.parametrize("mode", ["hard", "soft", "auto"])
def test_whole_factors_keep_the_results_of_data_consistency(mode):
    data = interpolated((2.0, 2.0, 2.0), (40, 36, 34))
    pred = data["image"] + 0.02 * torch.randn(data["image"].shape, generator=torch.Generator().manual_seed(2))
    old = DataConsistencyd(mode=mode)({"image": data["acquired"].as_tensor(), "pred": pred.as_tensor()})["pred"]
    new = DataConsistencyd(mode=mode)({**data, "pred": pred})["pred"]
    torch.testing.assert_close(new.as_tensor(), old, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spacing", "shape"), [((1.0, 1.0, 3.7), (20, 22, 12)), ((1.3, 1.3, 1.0), (31, 20, 24))], ids=["slices", "1.3"]
)
def test_hard_consistency_gives_the_scan_back_for_any_acquisition(spacing, shape):
    data = interpolated(spacing, shape)
    pred = data["image"] + 0.1 * torch.randn(data["image"].shape, generator=torch.Generator().manual_seed(2))
    before = MeasureConsistencyd()({**data, "pred": pred})["image"].meta["consistency_psnr"]
    restored = DataConsistencyd(mode="hard")({**data, "pred": pred})
    after = MeasureConsistencyd()(restored)["image"].meta["consistency_psnr"]
    assert restored["image"].meta["data_consistency"] == "hard"
    assert after > before + 20


def test_automatic_consistency_leaves_slices_alone_and_says_so():
    data = interpolated((1.0, 1.0, 4.0), (36, 34, 12))
    pred = data["image"].clone()
    out = DataConsistencyd(mode="auto")({**data, "pred": pred})
    assert torch.equal(out["pred"], pred)
    assert out["image"].meta["data_consistency"].startswith("off: the scan has slices")
    assert "warnings" not in out["image"].meta
    soft = DataConsistencyd(mode="soft")({**data, "pred": pred})
    assert soft["image"].meta["data_consistency"].endswith("of the acquired k-space")


def test_a_prediction_of_another_size_is_refused():
    data = interpolated((1.0, 1.0, 4.0), (20, 22, 12))
    with pytest.raises(
        ValueError, match=r"expected a prediction of \(20, 22, 49\) voxels from a scan of \(20, 22, 12\)"
    ):
        DataConsistencyd(mode="hard")({**data, "pred": data["image"][:, 1:]})


def test_the_description_of_a_batch_turns_with_the_volume():
    data = interpolated((1.0, 1.0, 4.0), (20, 22, 12))
    (vector,) = described(data["image"][None])
    torch.testing.assert_close(vector[0], data["acquisition"])
    told = []

    def network(volume, acquisition):
        told.append(acquisition[0].tolist())
        return volume

    SlabInferer(SlidingWindowInferer((-1, -1, -1)), orientations=[(0, 1, 2), (1, 2, 0)])(data["image"][None], network)
    parts = [vector[0, 3 * axis : 3 * axis + 3].tolist() for axis in range(3)]
    assert told == [[one for axis in order for one in parts[axis]] for order in ((0, 1, 2), (1, 2, 0))]
    assert described(torch.rand(1, 1, 8, 8, 8)) == ()


def test_a_simulated_acquisition_has_the_grid_of_its_reference():
    volume = MetaTensor(head_like(shape=(20, 21, 40)).float()[None], affine=torch.diag(torch.tensor([1.0, 1, 1, 1])))
    data = SimulateAcquiredd(acquisition=["frequency 2.0", "unknown", "slices 4.0/3.0 box"])({"image": volume})
    assert data["image"].shape == volume.shape
    torch.testing.assert_close(data["image"].affine, volume.affine.double())
    acquisition = acquisition_of(data["image"])
    assert acquisition.encodings == (FrequencyEncoding(2.0), FrequencyEncoding(1.0), SliceSelection(4.0, 3.0, "box"))
    torch.testing.assert_close(data["acquired"].as_tensor(), acquisition.acquire(volume.as_tensor()))


def test_a_simulated_acquisition_has_noise_that_follows_from_the_scan():
    volume = MetaTensor(head_like(shape=(20, 21, 40)).float()[None].abs(), affine=torch.eye(4))
    texts = ["frequency 2.0", "unknown", "slices 4.0/3.0 box"]
    silent = SimulateAcquiredd(acquisition=texts)({"image": volume})["acquired"]
    noisy = SimulateAcquiredd(acquisition=texts, snr=30)({"image": volume})
    again = SimulateAcquiredd(acquisition=texts, snr=30)({"image": volume})
    expected = Acquire(acquisition_of(noisy["image"]).encodings, snr=30)(volume)
    assert torch.equal(noisy["acquired"], again["acquired"])
    torch.testing.assert_close(noisy["acquired"].as_tensor(), expected.as_tensor())
    assert 0 < (noisy["acquired"] - silent).std() < 0.1 * silent.mean()
    image = acquisition_of(noisy["image"]).interpolate(noisy["acquired"].as_tensor())
    torch.testing.assert_close(noisy["image"].as_tensor(), image)
    pair = {"image": volume, "label": volume}
    whole = simulated_acquisition((2, 1, 2), {"snr": 20, "hamming": True}, snr=30)(pair)["image"]
    as_given = simulated_acquisition((2, 1, 2), {"snr": 30, "hamming": True, "rician": True})(pair)["image"]
    assert torch.equal(whole, as_given)


def test_a_grid_of_a_few_voxels_is_refused():
    scan = MetaTensor(torch.rand(1, 40, 40, 12), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))
    with pytest.raises(ValueError, match="at least 5 voxels along each axis, got 3 x 3 x 5"):
        InterpolateAcquiredd(spacing=15)({"image": scan})


@pytest.mark.parametrize(
    ("spacing", "shape", "largest", "keeps"),
    [
        ((0.8, 0.8, 0.8), (16, 20, 20), 20_000, True),
        ((0.8, 0.8, 0.8), (16, 20, 20), 5_000, False),  # its own voxels are too many, too
        ((0.8, 0.8, 3.0), (16, 20, 8), 5_000, False),
    ],
)
@pytest.mark.parametrize("source", ["NIfTI", "DICOM"])
def test_a_grid_that_is_too_large_is_refused_with_what_fits(tmp_path, source, spacing, shape, largest, keeps):
    def edit(image, z):
        image.PixelSpacing, image.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        image.ImagePositionPatient = [0, 0, spacing[2] * z]

    values = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    if source == "NIfTI":
        nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), tmp_path / "scan.nii")
        image = loaded(tmp_path / "scan.nii")
    else:
        image = loaded(write_series(tmp_path / "series", values, edit))
    with pytest.raises(ValueError, match="which would need about") as error:
        InterpolateAcquiredd(largest=largest)({"image": image})
    message = str(error.value)
    assert ("Set --spacing 0.8 to keep the scan's own, --spacing" in message) == keeps
    *finer, fitting = map(float, re.findall(r"--spacing ([\d.]+)", message))
    more = int(re.search(r"or --largest (\d+)\.$", message)[1])
    for options in ({"spacing": fitting}, {"largest": more}, *({"spacing": mm} for mm in finer)):
        done = InterpolateAcquiredd(**{"largest": largest, **options})({"image": image})["image"]
        assert done.numel() <= options.get("largest", largest)
    with pytest.raises(ValueError, match="which would need about"):
        InterpolateAcquiredd(largest=largest, spacing=fitting - 0.01)({"image": image})


@pytest.mark.parametrize("interpolated_matrix", [True, False])
def test_a_sidecar_that_the_spectrum_contradicts_is_followed_with_a_warning(tmp_path, interpolated_matrix):
    scan = head_like(shape=(40, 48, 36)).float()
    scan = scan - scan.min() + 0.02 * scan.std() * torch.randn(scan.shape, generator=torch.Generator().manual_seed(1))
    if interpolated_matrix:
        scan = zero_fill(truncate(scan, (40, 36, 36), (0, 1, 2)), (40, 48, 36), (0, 1, 2))
    nib.save(nib.Nifti1Image(scan.numpy(), np.eye(4)), tmp_path / "scan.nii")
    sidecar = {"MRAcquisitionType": "2D", "SliceThickness": 1.0, "InPlanePhaseEncodingDirectionDICOM": "COL"}
    (tmp_path / "scan.json").write_text(json.dumps({**sidecar, "AcquisitionMatrixPE": 36, "ReconMatrixPE": 48}))
    image = InterpolateAcquiredd()({"image": loaded(tmp_path / "scan.nii")})["image"]
    assert acquisition_of(image).scan_shape == (40, 36, 36)
    assert ("says that 36 of 48 voxels were acquired along the A axis" in image.meta.get("warnings", "")) == (
        not interpolated_matrix
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slices 50", "factor of at most 8"),
        ("frequency 0.5", "at least that of the scan, 1 mm, got 0.5 mm"),
        ("slices 3/30", "at most 2 times their spacing"),
        ("slices 7", "at least 5 slices"),
    ],
)
def test_a_simulation_refuses_what_no_scan_could_be_restored_from(text, message):
    volume = MetaTensor(torch.rand(1, 16, 16, 24), affine=torch.eye(4))
    with pytest.raises(ValueError, match=message):
        SimulateAcquiredd(acquisition=["unknown", "unknown", text])({"image": volume})
