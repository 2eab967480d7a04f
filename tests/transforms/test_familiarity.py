"""Familiarity: a scan unlike the training scans causes a warning, a similar one does not."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import SHARED, head_phantom
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from reliability_checks import tally
from scripts.data.acquisitions import AcquisitionRange
from scripts.transforms import (
    InterpolateAcquiredd,
    ScaleIntensityRobust,
    ScaleIntensityRobustd,
    SimulateAcquiredd,
    WarnUnfamiliard,
)
from scripts.transforms.familiarity import describe_volume, save_group_statistics, signal_to_noise
from scripts.transforms.utils import spacing

MM = (1.0, 1.0, 1.2)


def scan(seed: int = 0, mm=MM, change=lambda x: x) -> MetaTensor:
    volume = change(head_phantom(seed, (48, 50, 46))[None])
    return ScaleIntensityRobust()(MetaTensor(volume, affine=torch.diag(torch.tensor([*mm, 1.0]))))


@pytest.fixture
def statistics(tmp_path):
    save_group_statistics([scan(seed)[0].as_tensor() for seed in (1, 2, 3)], tmp_path / "model.json", [MM] * 3)
    return tmp_path / "model.json"


def warnings_of(image: MetaTensor, statistics) -> str:
    return WarnUnfamiliard("image", statistics)({"image": image})["image"].meta.get("warnings", "")


def test_a_scan_like_those_of_the_training_passes_in_silence(statistics):
    for seed in (1, 7, 8):
        assert warnings_of(scan(seed), statistics) == ""
        tally("unfamiliar scans", "a familiar scan", "right")


def noisy(x):
    return x + 300 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def blurred(x):
    return GaussianFilter(3, 1.5)(x[None])[0]


UNFAMILIAR = {
    "spacing": (scan(mm=(1.0, 1.0, 5.0)), "Its spacing is 1 x 1 x 5 mm; the network was trained for 1 x 1 x 1.2 mm"),
    "blurred": (scan(change=blurred), "Its power spectrum differs"),
    "noisy": (
        scan(change=lambda x: x + 300 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))),
        "Its power spectrum differs",
    ),
    "flat": (scan(change=lambda x: x + 200000), "Its contrast within tissue is"),
}


@pytest.mark.parametrize("name", UNFAMILIAR)
def test_an_unfamiliar_scan_is_told_why(statistics, name):
    image, words = UNFAMILIAR[name]
    assert words in warnings_of(image, statistics)
    tally("unfamiliar scans", name, "warned")


def test_voxels_and_place_do_not_change(statistics):
    image = scan(mm=(1.0, 1.0, 5.0))
    passed = WarnUnfamiliard("image", statistics)({"image": image})["image"]
    assert torch.equal(passed, image)
    assert torch.equal(passed.affine, image.affine)


def test_without_the_file_the_log_reports_that_nothing_is_compared(tmp_path, caplog):
    caplog.set_level("INFO")
    assert warnings_of(scan(mm=(9.0, 9.0, 9.0)), tmp_path / "model.json") == ""
    assert "model.json: the file is absent, so scans are not compared" in caplog.text


def test_the_description_does_not_depend_on_the_units():
    a, b = (describe_volume(scan(change=lambda x, f=f: f * x).as_tensor(), MM) for f in (1.0, 1000.0))
    assert a["intensity"] == pytest.approx(b["intensity"], rel=1e-4)
    assert a["contrast"] == pytest.approx(b["contrast"], rel=1e-4)
    for x, y in zip(a["spectrum"], b["spectrum"], strict=True):
        assert x == pytest.approx(y, abs=1e-2)


def test_training_leaves_the_statistics_beside_its_weights(train_stack, tmp_path):
    workflow = train_stack()
    workflow.initialize()
    workflow.run()
    recorded = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))["volumes"]
    assert [volume["spacing"] for volume in recorded] == [[2.0, 2.0, 2.0]] * 2
    assert set(recorded[0]) == {"spacing", "spectrum", "intensity", "contrast"}


# Any acquisition


RANGES = {"output_spacing": (0.7, 1.33), **AcquisitionRange().ranges}


@pytest.fixture
def of_any_acquisition(tmp_path):
    group = [scan(seed)[0].as_tensor() for seed in (1, 2, 3)]
    save_group_statistics(group, tmp_path / "any.json", ranges=RANGES)
    return tmp_path / "any.json"


def restored(mm, shape=(48, 50, 46), noise: float = 0.0, **options) -> MetaTensor:
    """A scan on its output grid, as inference hands it to the network, with the acquired scan beside it."""
    volume = head_phantom(0, shape)[None]
    volume = volume + noise * torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
    data = InterpolateAcquiredd(**options)({"image": MetaTensor(volume, affine=torch.diag(torch.tensor([*mm, 1.0])))})
    return ScaleIntensityRobustd(["acquired", "image"], measured_on="acquired")(data)


def remarks(data: dict, statistics) -> str:
    return WarnUnfamiliard("image", statistics)(data)["image"].meta.get("warnings", "")


FAMILIAR = {
    "2x2x2": {"mm": (2.0, 2.0, 2.0)},
    "1.4 mm": {"mm": (1.4, 1.4, 1.4)},
    "slices": {"mm": (1.0, 1.0, 5.0), "shape": (48, 50, 12)},
    "its own spacing": {"mm": (1.0, 1.0, 1.0), "spacing": 1.0},
    "noise": {"mm": (2.0, 2.0, 2.0), "noise": 20.0},
}
UNUSUAL = {
    "fine output": ({"mm": (1.0, 1.0, 1.0)}, "Its output voxels are 0.5 mm; in training they were 0.7 to 1.33 mm"),
    "coarse output": ({"mm": (4.0, 4.0, 4.0)}, "Its output voxels are 2 mm; in training they were 0.7 to 1.33 mm"),
    "coarse axis": (
        {"mm": (1.0, 1.0, 3.0), "acquisition": ["unknown", "unknown", "frequency 3.0"]},
        "An axis is 3 times as coarse as the output; in training it was at most 2.5 times",
    ),
    "far slices": (
        {"mm": (1.0, 1.0, 7.5), "shape": (48, 50, 12)},
        "Its slices are 7.5 output voxels apart; in training they were at most 6.",
    ),
    "thin slices": (
        {"mm": (1.0, 1.0, 5.0), "shape": (48, 50, 12), "acquisition": ["unknown", "unknown", "slices 5.0/1.5"]},
        "Its slices are 0.3 times as thick as their spacing; in training it was 0.6 to 1.2 times.",
    ),
    "noisy": ({"mm": (2.0, 2.0, 2.0), "noise": 200.0}, "times its noise; in training it was at least 12 times."),
}


@pytest.mark.parametrize("name", FAMILIAR)
def test_a_scan_within_the_range_of_the_training_passes_in_silence(of_any_acquisition, name):
    assert remarks(restored(**FAMILIAR[name]), of_any_acquisition) == ""


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_acquisition_beyond_the_range_of_the_training_is_told(of_any_acquisition, name):
    options, words = UNUSUAL[name]
    assert words in remarks(restored(**options), of_any_acquisition)


def test_intensities_unlike_those_of_the_training_are_told_for_any_acquisition(of_any_acquisition):
    data = restored((2.0, 2.0, 2.0))
    data["acquired"] = 0.02 * data["acquired"] + 0.98
    assert "Its contrast within tissue is" in remarks(data, of_any_acquisition)


@pytest.mark.filterwarnings("error")
def test_a_scan_of_negative_values_is_told_why(of_any_acquisition):
    data = restored((2.0, 2.0, 2.0))
    data["acquired"] = data["acquired"] - 2
    assert remarks(data, of_any_acquisition).startswith("It has negative intensities")


def test_an_interpolated_scan_is_compared_on_its_own_grid_where_the_training_had_one(statistics):
    assert remarks(restored(MM, scale_factor=(2, 2, 2)), statistics) == ""
    told = remarks(restored((1.0, 1.0, 5.0), (48, 50, 12)), statistics)
    assert "Its spacing is 1 x 1 x 5 mm; the network was trained for 1 x 1 x 1.2 mm" in told


@pytest.mark.parametrize("snr", [10.0, 20.0, 40.0])
def test_signal_to_noise_is_that_of_the_scan_whatever_its_edges(snr):
    volume = torch.zeros(1, 40, 42, 44)
    volume[:, 10:30, 12:30] = 2.0
    volume[:, 14:20, 14:20, 10:20] = 3.0
    noise = torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
    foreground = float(volume[volume >= volume.mean()].mean())
    assert signal_to_noise(volume + foreground / snr * noise) == pytest.approx(snr, rel=0.15)
    assert signal_to_noise(7 * (volume + foreground / snr * noise)) == pytest.approx(snr, rel=0.15)


ORDINARY = {
    "data": ["sub-01_T1w", "sub-02_T1w", "sub-04_T1w", "sub-06_T2w"],
    "ds000011": ["sub-01_T1w", "sub-02_T1w", "sub-03_T1w", "sub-04_T1w"],
}


@pytest.mark.slow
def test_ordinary_scans_cause_no_alarm(tmp_path):
    """Each is compared with the others alone."""
    paths = [SHARED / one / name[:6] / "anat" / f"{name}.nii.gz" for one, names in ORDINARY.items() for name in names]
    if not all(path.is_file() for path in paths):
        pytest.skip("the scans are not at hand")
    volumes = []
    for path in paths:
        image = nib.as_closest_canonical(nib.load(path))
        values = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))[None]
        volumes.append(ScaleIntensityRobust()(MetaTensor(values, affine=torch.from_numpy(image.affine))))
    for number, volume in enumerate(volumes):
        others = [other[0].as_tensor() for other in volumes if other is not volume]
        save_group_statistics(others, tmp_path / "any.json", ranges={**RANGES, "output_spacing": (0.67, 1.34)})
        mm = spacing(volume)
        for acquisition in ([f"frequency {2 * h}" for h in mm], ["unknown", "unknown", f"slices {4 * mm[2]}"]):
            data = SimulateAcquiredd(acquisition=acquisition)({"image": volume})
            data = ScaleIntensityRobustd(["acquired", "image"], measured_on="acquired")(data)
            assert remarks(data, tmp_path / "any.json") == "", paths[number]
