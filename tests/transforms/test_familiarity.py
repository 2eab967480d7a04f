"""Familiarity: a scan unlike the training scans causes a warning, a similar one does not."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import head_phantom
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from reliability_checks import tally
from scripts.transforms import ScaleIntensityRobust, WarnUnfamiliard
from scripts.transforms.familiarity import describe_volume, save_group_statistics

MM = (1.0, 1.0, 1.2)


def scan(seed: int = 0, mm=MM, change=lambda x: x) -> MetaTensor:
    volume = change(head_phantom(seed, (48, 50, 46))[None])
    return ScaleIntensityRobust()(MetaTensor(volume, affine=torch.diag(torch.tensor([*mm, 1.0]))))


@pytest.fixture
def statistics(tmp_path):
    save_group_statistics([scan(seed)[0].as_tensor() for seed in (1, 2, 3)], [MM] * 3, tmp_path / "model.json")
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
