"""A degradation: it is saved and read, pairs are made with it, and doubts about it are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.physics.degradation import Degradation, Transfer, known_degradation, read_degradation
from scripts.physics.filters import Filter, acquisition_window
from scripts.physics.kspace import fftc
from scripts.reports.estimation import remarks_on, save_transfers
from scripts.transforms import KSpaceTruncate, RandDegraded, ScaleIntensityRobustd

AXES = ("a", "b", "c")


# Pairs


def known(family: str = "box", noise_std: float = 0.0, std: float = 0.0, **settings) -> Degradation:
    u = np.linspace(0, 1, 65)
    amplitude = Filter(family).at(u)
    curves = [tuple(values.tolist()) for values in (u, amplitude, std * u, amplitude)]
    transfer = Transfer(*curves, family=family, parameter=None, misfit=0.0)
    values = {"elliptical": False, "gain": 1.0, "gain_std": 0.0, "noise_spread": 0.0, "filtered_noise": False}
    values |= {"misfit": 0.5, "subjects": (3, 3), "noise_std": noise_std, **settings}
    return Degradation(spacing=(2.0, 2.0, 2.0), transfers=(transfer,) * 3, **values)


VOLUME = MetaTensor(torch.rand((1, 32, 36, 28), generator=torch.Generator().manual_seed(0)), affine=np.eye(4))


@pytest.mark.parametrize("options", [{}, {"hamming": True}, {"elliptical": True}])
def test_without_variation_it_is_the_truncation_of_that_family(options):
    estimate = known("hamming" if "hamming" in options else "box", elliptical="elliptical" in options)
    result = RandDegraded("image", estimate, (2, 2, 2), strength=0)({"image": VOLUME})["image"]
    expected = KSpaceTruncate(2, **options)(VOLUME)
    torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), rtol=0, atol=2e-4)
    torch.testing.assert_close(result.affine, expected.affine)


@pytest.mark.parametrize("filtered", [False, True])
def test_the_noise_is_as_strong_as_was_estimated(filtered):
    result = RandDegraded("image", known(noise_std=0.2, filtered_noise=filtered), (2, 2, 2), strength=0)
    noise = result({"image": VOLUME})["image"] - KSpaceTruncate(2)(VOLUME)
    assert float(noise.std()) == pytest.approx(0.2, rel=0.05)


def test_draws_differ_as_much_as_the_uncertainty_and_follow_from_the_seed():
    def detail(seed: int) -> list[float]:
        degrade = RandDegraded("image", known(std=0.2), (2, 2, 2), seed=seed)
        return [float(fftc(degrade({"image": VOLUME})["image"], (1, 2, 3))[0, 1, 9, 7].abs()) for _ in range(40)]

    first = detail(0)
    assert first == detail(0)
    assert first[:5] != detail(1)[:5]
    assert float(np.std(np.log(first))) == pytest.approx(0.2 * 7 / 8, rel=0.4)


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match=r"must not be negative, got -1"):
        RandDegraded("image", known(), (2, 2, 2), strength=-1)


def test_an_estimate_is_what_was_saved(tmp_path):
    estimate = known("hamming", noise_std=0.1, std=0.2)
    estimate.save(tmp_path / "degradation.json")
    loaded = read_degradation(tmp_path / "degradation.json")
    transform = [RandDegraded("image", e, (2, 2, 2)) for e in (estimate, tmp_path / "degradation.json")]
    one, other = (t({"image": VOLUME})["image"] for t in transform)
    assert torch.equal(one, other)
    assert loaded == estimate
    assert loaded.window((8, 8, 8)).equal(estimate.window((8, 8, 8)))


def test_a_poor_fit_is_said_to_be_one():
    assert "differ by 3.0 dB" in remarks_on(known(misfit=3.0), AXES)[0]
    assert remarks_on(known(), AXES) == []


def test_a_pair_can_have_the_scale_of_one_of_them():
    scale = ScaleIntensityRobustd(["image", "label"], measured_on="image")
    pair = scale({"image": 2 * VOLUME, "label": 5 * VOLUME})
    torch.testing.assert_close(pair["label"].as_tensor(), 2.5 * pair["image"].as_tensor())
    assert pair["label"].meta["intensity_scale"] == pair["image"].meta["intensity_scale"]


# The overlay


def test_estimating_reports_and_draws(train_stack, tmp_path):
    workflow = train_stack("methods/kspace_pairs.yaml", "methods/spectral.yaml")
    workflow.initialize()
    estimate = workflow.parser.get_parsed_content("degradation_estimate")
    folder = Path(tmp_path / "degradation")
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "No estimate from power can tell these: a shift or a distortion" in report
    assert "# Degradation from 2 source to 2 target scans" in report
    assert "| left-right |" in report
    assert (folder / "transfer.png").stat().st_size > 10_000
    assert read_degradation(folder / "degradation.json").spacing == estimate.spacing == (2.0, 2.0, 2.0)
    save_transfers(tmp_path / "again.png", estimate, AXES)


def test_synthetic_pairs_are_source_scans_several_times_and_never_target_scans(train_stack):
    dataset = train_stack(
        "methods/kspace_pairs.yaml", "methods/spectral.yaml", copies_per_scan=3
    ).parser.get_parsed_content("train::dataset")
    assert {subject: len(pairs) for subject, pairs in dataset.volumes["image"].items()} == {
        subject: 3 for subject in ("sub-00", "sub-01")
    }
    first, second = dataset.volumes["image"]["sub-00"][:2]
    assert not torch.equal(first, second)
    assert all(
        low.shape == tuple(n // 2 for n in high.shape)
        for low, high in zip(dataset.low_res_volumes, dataset.high_res_volumes, strict=True)
    )


# A known degradation


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hamming": True, "elliptical": True},
        {"exponential": [0.9, 0, 0], "fermi": [None, [0.9, 0.05], None]},
        {"partial_fourier": [1.0, 0.75, 1.0]},
    ],
)
def test_a_known_degradation_is_the_window_that_the_scanner_s_image_shows(options):
    """Of a real image: the mean of the window at opposite frequencies."""
    size = (32, 24, 27)
    window = acquisition_window(size, **options)
    odd = [slice(1 - n % 2, None) for n in size]  # without the unpaired planes
    paired = window[tuple(odd)]
    expected = (paired + paired.flip((0, 1, 2))) / 2
    found = known_degradation(**options).window(size)[tuple(odd)]
    edge = 0.5 if "partial_fourier" in options else 0.0  # a step lies between two frequencies
    assert float((found - expected).abs().max()) <= edge + 2e-3
    assert float((found - expected).abs().mean()) < 0.02
