"""Soft data consistency: the hard one is its limit, and the error that it leaves is never expected to be larger."""

from __future__ import annotations

import pytest
import torch
from scripts.physics.consistency import (
    consistency_weight,
    gain_and_shift,
    in_band,
    smoothed_noise,
    soft_data_consistency,
)
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.filters import acquisition_window
from scripts.physics.kspace import apodise, data_consistency, fftc, ifftc, truncate, zero_fill
from scripts.physics.separable import SeparableAcquisition

DIM = (0, 1, 2)
SHAPE, SIZE = (32, 28, 36), (64, 56, 72)
EVERYWHERE = torch.ones(SHAPE, dtype=torch.bool)


def white(shape, seed, std=1.0):
    return std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(error=0.1, seed=0):
    """A truth, and a prediction with white, independent errors."""
    truth = white(SIZE, seed)
    return truth, truth + white(SIZE, seed + 1, error)


def noise_power(std):
    return torch.full(SHAPE, std**2 * EVERYWHERE.numel(), dtype=torch.float64)


def mse(a, b):
    return float((a - b).square().mean())


def test_hard_is_the_limit_of_no_noise():
    truth, pred = pair()
    scan = truncate(truth, SHAPE, DIM)
    out, share = soft_data_consistency(pred, scan, noise=noise_power(0.0))
    torch.testing.assert_close(out, data_consistency(pred, scan, DIM), rtol=0, atol=1e-12)
    assert share == pytest.approx(1.0)


def test_float32_stays_float32():
    """Also where the noise is a bound by shells, whose sums are of double precision."""
    truth, pred = (volume.float() for volume in pair())
    scan = truncate(truth, SHAPE, DIM)
    window = acquisition_window(SHAPE, hamming=True)
    assert {soft_data_consistency(pred, scan, *options)[0].dtype for options in ((), (window,))} == {torch.float32}


def test_a_hopeless_scan_changes_nothing():
    truth, pred = pair()
    out, share = soft_data_consistency(pred, truncate(truth, SHAPE, DIM), noise=noise_power(1e3))
    assert torch.equal(out, pred)
    assert share == 0.0


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("hamming", [False, True])
def test_the_expected_error_is_never_larger_than_off_or_hard(noise, hamming):
    truth, pred = pair()
    window = acquisition_window(SHAPE, hamming=hamming)
    filtered = ifftc(apodise(fftc(truncate(truth, SHAPE, DIM), DIM), window, DIM), DIM).real
    scan = filtered + white(SHAPE, 7, noise)
    soft, share = soft_data_consistency(pred, scan, window, noise_power(noise))
    hard = data_consistency(pred, scan, DIM)
    assert mse(soft, truth) < min(mse(pred, truth), mse(hard, truth)) * 1.002
    assert 0 <= share < 1


def test_the_weight_is_the_wiener_filter_s_of_the_powers_that_it_sees():
    truth, pred = pair(error=0.2)
    scan = truncate(truth, SHAPE, DIM) + white(SHAPE, 7, 0.1)
    weight = consistency_weight(*in_band(pred, scan), torch.ones(SHAPE), noise_power(0.1))
    error = 0.2**2 / 8  # truncation by two along each axis keeps an eighth of white power
    assert float(weight.mean()) == pytest.approx(error / (error + 0.1**2), rel=0.2)


def test_an_unsure_transfer_is_trusted_less_and_what_was_not_acquired_not_at_all():
    truth, pred = pair()
    transfer = acquisition_window(SHAPE, elliptical=True, hamming=True)
    both = in_band(pred, truncate(truth, SHAPE, DIM))
    sure, unsure = (consistency_weight(*both, transfer, noise_power(0.0), error) for error in (0.0, 0.1))
    inside = transfer > 0
    torch.testing.assert_close(sure[inside], 1 / transfer[inside])
    torch.testing.assert_close(unsure[inside], (transfer / (transfer**2 + 0.01))[inside])
    assert not sure[~inside].any()


def falling(std_of_noise=0.05):
    """A scan whose power falls with frequency, over white noise; its shells at least as bright as the noise."""
    radius = sum(
        ((torch.arange(n) - n // 2) / (n / 2)).reshape([-1 if a == b else 1 for b in DIM]) ** 2
        for a, n in enumerate(SHAPE)
    )
    signal = ifftc(fftc(white(SHAPE, 3), DIM) / (0.02 + radius), DIM).real
    return signal, signal + white(SHAPE, 4, std_of_noise * float(signal.std()))


def test_what_a_wiener_filter_removed_is_put_back_nowhere():
    _, scan = falling()
    k = fftc(scan, DIM)
    power = k.abs().square()
    smooth = ifftc(k * power / (power + power.median()), DIM).real
    bound = smoothed_noise(k, fftc(smooth, DIM), EVERYWHERE)
    weight = consistency_weight(k, fftc(smooth, DIM), torch.ones(SHAPE), bound)
    assert float(weight.max()) < 0.05


def test_an_error_that_does_not_resemble_the_scan_is_no_noise():
    _, scan = falling()
    pred = scan + white(SHAPE, 9, 0.02)
    out, share = soft_data_consistency(zero_fill(pred, SIZE, DIM), scan)
    assert share > 0.3
    assert mse(truncate(out, SHAPE, DIM), scan) < 0.7 * mse(pred, scan)


@pytest.mark.parametrize("undone", [True, False])
def test_what_the_network_removed_is_told_from_the_filter_that_it_undid(undone):
    """A network that has learned filter and noise gives the clean scan; one that has learned neither, the scan."""
    signal, noisy = falling(0.3)
    window = acquisition_window(SHAPE, hamming=True)
    scan = ifftc(apodise(fftc(noisy, DIM), window, DIM), DIM).real
    out, share = soft_data_consistency(zero_fill(signal if undone else scan, SIZE, DIM), scan, window)
    error = mse(truncate(out, SHAPE, DIM), signal)
    if undone:
        assert error < 0.05 * mse(noisy, signal)
        assert share < 0.2
    else:
        assert error < 0.8 * mse(scan, signal)
        assert share > 0.2


def test_gain_and_shift_are_those_of_the_prediction():
    signal, _ = falling(0.0)
    moved = zero_fill(signal, SIZE, DIM).roll((0, 1, -1), DIM)  # half a voxel of the scan
    gain, shift = gain_and_shift(*in_band(1.03 * moved, signal))
    assert gain == pytest.approx(1.03, abs=0.03)
    assert shift == pytest.approx([0.0, 0.5, -0.5], abs=0.03)
    gain, shift = gain_and_shift(*in_band(0.95 * zero_fill(signal, SIZE, DIM), signal))
    assert (gain, shift) == (pytest.approx(0.95), pytest.approx([0.0, 0.0, 0.0], abs=1e-9))


# any acquisition


@pytest.mark.parametrize("hamming", [False, True])
def test_a_plain_truncation_may_also_be_given_as_an_acquisition(hamming):
    truth, pred = pair()
    scan = truncate(truth, SHAPE, DIM) + white(SHAPE, 7, 0.1)
    window = acquisition_window(SHAPE, hamming=hamming)
    acquisition = SeparableAcquisition.of_volume([FrequencyEncoding(2.0)] * 3, SIZE, 1.0)
    expected, expected_share = soft_data_consistency(pred, scan, window)
    out, share = soft_data_consistency(pred, scan, window, acquisition=acquisition)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    assert share == pytest.approx(expected_share)


def smooth(seed):
    """A volume of large structures, in which a slice shows what lies beside it."""
    return zero_fill(white((20, 20, 24), seed), (40, 40, 64), DIM)


def test_slices_are_put_back_in_part_so_that_another_profile_does_little_harm():
    axes = FrequencyEncoding(1.0), FrequencyEncoding(1.0)
    assumed, true = (
        SeparableAcquisition.of_volume((*axes, SliceSelection(4.0, 4.0, profile)), (40, 40, 64), 1.0)
        for profile in ("gaussian", "box")
    )
    truth = smooth(0)
    pred = truth + 0.3 * smooth(1)
    silent = torch.zeros(1, 1, 1, dtype=torch.float64)
    for scanner, largest in (assumed, 0.97), (true, 1.0):
        scan = scanner.acquire(truth)
        out, _ = soft_data_consistency(pred, scan, noise=silent, acquisition=assumed)
        assert mse(assumed.acquire(out), scan) < mse(assumed.acquire(pred), scan)
        assert mse(out, truth) < largest * mse(pred, truth)


@pytest.mark.parametrize("noise", [None, noise_power(0.1)])
def test_a_large_scan_is_weighted_in_parts_and_in_place_with_the_same_result(noise, monkeypatch):
    truth, pred = pair()
    scan, window = truncate(truth, SHAPE, DIM), acquisition_window(SHAPE, hamming=True).double()
    expected, share = soft_data_consistency(pred, scan, window, noise)
    monkeypatch.setattr("scripts.physics.consistency.VOXELS_AT_ONCE", 5000)
    out, in_parts = soft_data_consistency(pred, scan, window, noise, in_place=True)
    assert out is pred
    assert in_parts == pytest.approx(share)
    torch.testing.assert_close(out, expected)
