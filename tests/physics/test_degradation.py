"""The degradation between unpaired groups: known ones are recovered, pairs are made with them, and doubts are said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.data.demonstration import make_subject
from scripts.physics.degradation import EMPIRICAL, Degradation, Transfer, known_degradation, read_degradation
from scripts.physics.filters import FAMILIES, acquisition_window
from scripts.physics.kspace import apodise, fftc, ifftc, truncate, zero_fill
from scripts.physics.spectra import measure_group
from scripts.physics.spectral_fit import _transfer, estimate_degradation
from scripts.reports.estimation import remarks_on, save_transfers
from scripts.transforms import KSpaceTruncate, RandDegraded, ScaleIntensityRobust, ScaleIntensityRobustd
from torch import Tensor

MM = 1.5
AXES = ("a", "b", "c")


@pytest.fixture(scope="module")
def subjects() -> list[Tensor]:
    """Six people's high-resolution scans (1, H, W, D) on the common intensity scale."""
    scale = ScaleIntensityRobust(scale_factor=2)
    return [scale(make_subject(np.random.default_rng((5, n)), MM)[None]).as_tensor() for n in range(6)]


def weighted(volume: Tensor, curve: Callable[[np.ndarray], np.ndarray], axes: Sequence[int]) -> Tensor:
    """Multiply k-space along axes by a curve of frequencies in [0, 1]."""
    k = fftc(volume, (1, 2, 3))
    for axis in axes:
        size = volume.shape[axis]
        k = apodise(k, torch.from_numpy(curve(np.abs(np.arange(size) - size // 2) / (size / 2))), [axis])
    return ifftc(k, (1, 2, 3)).real


def estimate(subjects: Sequence[Tensor], degrade: Callable[[Tensor], Tensor], sources: int = 3) -> Degradation:
    """From the first people's scans to the degraded ones of the others."""
    high = [volume[0] for volume in subjects[:sources]]
    low = [torch.as_tensor(ScaleIntensityRobust()(degrade(volume))[0]) for volume in subjects[sources:]]
    return estimate_degradation(low, high, [[2 * MM] * 3] * len(low), [[MM] * 3] * len(high))


def families(found: Degradation) -> list[str]:
    return [transfer.family for transfer in found.transfers]


# Known degradations


def test_plain_truncation_is_recovered(subjects):
    found = estimate(subjects, KSpaceTruncate(2))
    assert families(found) == ["box"] * 3
    assert not found.elliptical
    assert found.noise_std < 0.03
    assert found.gain == pytest.approx(1, abs=0.1)
    for transfer in found.transfers:
        np.testing.assert_allclose(transfer.measured, 1.0, atol=0.12)


def test_a_hamming_filter_over_noise_is_recovered(subjects):
    found = estimate(subjects, KSpaceTruncate(2, hamming=True, noise_std=0.1))
    assert families(found) == ["hamming"] * 3
    assert found.filtered_noise
    assert found.noise_std == pytest.approx(0.1, rel=0.2)
    for transfer in found.transfers:
        frequencies = np.asarray(transfer.frequencies)
        np.testing.assert_allclose(transfer.measured, 0.54 + 0.46 * np.cos(np.pi * frequencies), atol=0.08)


def test_a_decay_outside_the_families_is_used_as_it_was_measured(subjects):
    found = estimate(subjects, lambda v: weighted(KSpaceTruncate(2)(v), lambda u: np.exp(-1.5 * u), [1]))
    assert families(found) == [EMPIRICAL, "box", "box"]
    decay = found.transfers[0]
    assert decay.amplitude == decay.measured
    inside = np.linspace(0.1, 0.9, 9)
    # a steep beginning cannot be told from the gain, but their product is known
    np.testing.assert_allclose(found.gain * decay.at(inside), np.exp(-1.5 * inside), atol=0.06)
    assert any("no family" in text for text in remarks_on(found, AXES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"hamming": True}, ["hamming"] * 3),
        ({"partial_fourier": [1, 0.75, 1]}, ["box", "partial_fourier", "box"]),
        (
            {"partial_fourier": [1, 0.875, 1], "hamming": True, "noise_std": 0.05},
            ["hamming", "partial_fourier_hamming", "hamming"],
        ),
    ],
)
def test_what_scanners_do_is_recovered(subjects, options, expected):
    found = estimate(subjects, KSpaceTruncate(2, **options))
    assert families(found) == expected
    fraction = found.transfers[1].parameter
    assert fraction is None or fraction == options["partial_fourier"][1]


@pytest.mark.slow
def test_white_noise_on_a_truncation_is_recovered(subjects):
    found = estimate(subjects, KSpaceTruncate(2, noise_std=0.05))
    assert families(found) == ["box"] * 3
    assert found.noise_std == pytest.approx(0.05, rel=0.1)


@pytest.mark.slow
def test_elliptical_sampling_is_recognised(subjects):
    found = estimate(subjects, KSpaceTruncate(2, elliptical=True))
    assert found.elliptical
    for transfer in found.transfers:  # along the axes nothing is missing
        np.testing.assert_allclose(transfer.at(np.linspace(0, 0.8, 9)), 1.0, atol=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "parameter"), [("gaussian", 1.5), ("tukey", 0.5)])
def test_a_family_s_parameter_is_recovered(subjects, family, parameter):
    curve = FAMILIES[family][0]
    found = estimate(subjects, lambda v: weighted(KSpaceTruncate(2)(v), lambda u: curve(u, parameter), (1, 2, 3)))
    assert families(found) == [family] * 3
    assert [t.parameter for t in found.transfers] == pytest.approx([parameter] * 3, abs=0.1)


@pytest.mark.slow
def test_a_sharpened_target_is_said_to_be_one(subjects):
    sharpen = lambda v: weighted(KSpaceTruncate(2)(v), lambda u: 1 + np.sin(np.pi * u), (1, 2, 3))  # noqa: E731
    found = estimate(subjects, sharpen)
    assert families(found) == [EMPIRICAL] * 3
    assert sum("was sharpened" in text for text in remarks_on(found, AXES)) == 3


@pytest.mark.slow
def test_one_resampled_scan_among_four_changes_little(subjects):
    size = [n // 4 for n in subjects[-1].shape[1:]]
    empty = zero_fill(truncate(subjects[-1], size, (1, 2, 3)), subjects[-1].shape[1:], (1, 2, 3))  # half of the band
    found = estimate([*subjects[:-1], empty], KSpaceTruncate(2), sources=2)
    for transfer in found.transfers:
        np.testing.assert_allclose(transfer.at(np.linspace(0, 0.9, 10)), 1.0, atol=0.25)


def test_a_group_of_one_has_the_uncertainty_of_people(subjects):
    found = estimate(subjects[:2], lambda v: weighted(KSpaceTruncate(2)(v), lambda u: np.exp(-2 * u), [1]), sources=1)
    assert families(found)[0] == EMPIRICAL
    assert found.transfers[0].std[-1] > 0.25
    assert "little more than a guess" in remarks_on(found, AXES)[-1]


# Families beside the curve that was measured, (name, parameter) as the fit chose


EDGES = np.linspace(0, 0.9, 13)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])


def chosen(curve: Callable[[np.ndarray], np.ndarray], family: tuple[str, float], std: float) -> Transfer:
    return _transfer(EDGES, np.log(curve(CENTRES)), std * CENTRES, family)


def test_a_family_without_a_parameter_is_drawn_as_it_is():
    found = chosen(lambda u: np.exp(0.1 * u), ("box", math.nan), std=0.25)
    assert (found.family, set(found.amplitude), set(found.std)) == ("box", {1.0}, {0.0})


@pytest.mark.parametrize(("std", "family"), [(0.25, "box"), (0.02, "gaussian")])
def test_a_slight_blur_is_told_from_people_only_as_far_as_they_are_known(std, family):
    blur = lambda u: FAMILIES["gaussian"][0](u, 0.5)  # noqa: E731
    assert chosen(blur, ("gaussian", 0.5), std).family == family


def test_a_step_is_no_difference_between_people():
    cut = lambda u: FAMILIES["partial_fourier_hamming"][0](u, 0.875)  # noqa: E731
    assert chosen(cut, ("partial_fourier_hamming", 0.875), std=0.25).family == "partial_fourier_hamming"


def test_the_parameter_of_a_family_is_as_uncertain_as_the_curve():
    """A blur of 1 voxel has the log amplitude -(pi u)^2 / (16 ln 2), made a fifth smaller and larger."""
    blur = lambda u: FAMILIES["gaussian"][0](u, 1.0)  # noqa: E731
    log = np.log(blur(CENTRES))
    found = _transfer(EDGES, log, -0.2 * log, ("gaussian", 1.0))
    expected = -0.2 * np.log(blur(np.asarray(found.frequencies)))
    np.testing.assert_allclose(found.std, expected, atol=0.1 * expected.max())


# Spectra


@pytest.mark.parametrize(("shape", "mm"), [((32, 40, 36), 2.0), ((64, 72, 80), 1.0)])
def test_white_noise_has_the_level_of_noise_whatever_the_grid(shape, mm):
    noise = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    group = measure_group([noise], [[mm] * 3], [2.0] * 3, np.stack([np.linspace(0, 0.8, 5)] * 3))
    variance = 0.3**2 * (mm / 2) ** 3  # of its share in a low-resolution voxel
    np.testing.assert_allclose((group.levels[0] - group.noise).mean(), math.log(variance), atol=0.05)


def test_a_volume_and_its_truncation_have_one_spectrum():
    volume = torch.rand((48, 48, 48), generator=torch.Generator().manual_seed(0))
    low_res = KSpaceTruncate(2)(volume[None])[0]
    edges = np.stack([np.linspace(0, 0.8, 5)] * 3)
    high, low = (measure_group([v], [[h] * 3], [2.0] * 3, edges).levels for v, h in ((volume, 1.0), (low_res, 2.0)))
    np.testing.assert_allclose(np.median(low - high), 0, atol=0.1)


@pytest.mark.parametrize(
    ("low", "message"), [([], "got 0 and 1"), ([torch.rand(4, 40, 40)], r"at least 8 voxels.*\[4,")]
)
def test_what_cannot_be_estimated_is_refused(low, message):
    with pytest.raises(ValueError, match=message):
        estimate_degradation(low, [torch.rand(40, 40, 40)], [[2.0] * 3] * len(low), [[1.0] * 3])


# Pairs


def known(family: str = "box", noise_std: float = 0.0, std: float = 0.0, **settings) -> Degradation:
    u = np.linspace(0, 1, 65)
    amplitude = FAMILIES[family][0](u, math.nan)
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
