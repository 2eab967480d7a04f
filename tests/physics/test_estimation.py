"""Estimation of the degradation between unpaired groups: known degradations are recovered, and doubts are reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scripts.data.demonstration import make_subject
from scripts.physics.degradation import EMPIRICAL, Degradation, Transfer
from scripts.physics.estimation import estimate_degradation, transfer_from_curve
from scripts.physics.filters import UNFILTERED, Filter
from scripts.physics.kspace import apodise, fftc, ifftc, truncate, zero_fill
from scripts.reports.estimation import remarks_on
from scripts.transforms import KSpaceTruncate, ScaleIntensityRobust
from torch import Tensor

MM = 1.5
AXES = ("a", "b", "c")


@pytest.fixture(scope="module")
def subjects() -> list[Tensor]:
    """Six subjects' high-resolution scans (1, H, W, D) on the common intensity scale."""
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
    """From the first subjects' scans to the degraded ones of the others."""
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
    found = estimate(subjects, lambda v: weighted(KSpaceTruncate(2)(v), Filter(family, (parameter,)).at, (1, 2, 3)))
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


def test_a_group_of_one_has_the_uncertainty_of_subjects(subjects):
    found = estimate(subjects[:2], lambda v: weighted(KSpaceTruncate(2)(v), lambda u: np.exp(-2 * u), [1]), sources=1)
    assert families(found)[0] == EMPIRICAL
    assert found.transfers[0].std[-1] > 0.25
    assert "little more than a guess" in remarks_on(found, AXES)[-1]


def test_a_weak_blur_that_passes_for_a_difference_between_subjects_is_said_to_be_possible(subjects):
    averaged = lambda v: weighted(KSpaceTruncate(2)(v), lambda u: np.sinc(u / 2), (1, 2, 3))  # noqa: E731
    missed = estimate(subjects[:2], averaged, sources=1)
    assert families(missed) == ["box"] * 3
    assert all(transfer.detectable < 2 / np.pi for transfer in missed.transfers)
    assert any("may be hidden where it leaves more than 0." in text for text in remarks_on(missed, AXES))


def test_more_certain_curves_hide_weaker_blurs_alone():
    edges = np.linspace(0, 1, 13)
    found = [transfer_from_curve(edges, np.zeros(12), std * edges[1:], UNFILTERED).detectable for std in (0.3, 0.1, 0)]
    assert found == sorted(found)
    assert found[0] < 0.4
    assert found[2] == 1


# Families beside the curve that was measured


EDGES = np.linspace(0, 0.9, 13)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])


def chosen(one: Filter, std: float, curve: np.ndarray | None = None) -> Transfer:
    """The transfer from a curve, by default that of the family which the fit chose."""
    measured = np.log(one.at(CENTRES)) if curve is None else curve
    return transfer_from_curve(EDGES, measured, std * CENTRES, one)


def test_a_family_without_a_parameter_is_drawn_as_it_is():
    found = chosen(UNFILTERED, std=0.25, curve=0.1 * CENTRES)
    assert (found.family, set(found.amplitude), set(found.std)) == ("box", {1.0}, {0.0})


@pytest.mark.parametrize(("std", "family"), [(0.25, "box"), (0.02, "gaussian")])
def test_a_slight_blur_is_told_from_subjects_only_as_far_as_they_are_known(std, family):
    assert chosen(Filter("gaussian", (0.5,)), std).family == family


def test_a_step_is_no_difference_between_subjects():
    assert chosen(Filter("partial_fourier_hamming", (0.875,)), std=0.25).family == "partial_fourier_hamming"


def test_the_parameter_of_a_family_is_as_uncertain_as_the_curve():
    """A blur of 1 voxel has the log amplitude -(pi u)^2 / (16 ln 2), made a fifth smaller and larger."""
    blur = Filter("gaussian", (1.0,))
    log = np.log(blur.at(CENTRES))
    found = transfer_from_curve(EDGES, log, -0.2 * log, blur)
    expected = -0.2 * np.log(blur.at(np.asarray(found.frequencies)))
    np.testing.assert_allclose(found.std, expected, atol=0.1 * expected.max())


@pytest.mark.parametrize(
    ("low", "message"), [([], "got 0 and 1"), ([torch.rand(4, 40, 40)], r"at least 8 voxels.*\[4,")]
)
def test_what_cannot_be_estimated_is_refused(low, message):
    with pytest.raises(ValueError, match=message):
        estimate_degradation(low, [torch.rand(40, 40, 40)], [[2.0] * 3] * len(low), [[1.0] * 3])
