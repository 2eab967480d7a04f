"""k-space functions: equal to NumPy, and theorems that hold for every parity of the sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.physics.kspace import (
    apodise,
    complex_noise,
    data_consistency,
    fftc,
    ifftc,
    truncate,
    zero_fill,
)

EXACT = {"rtol": 0.0, "atol": 1e-12}
PARITIES = [(8, 4), (8, 3), (9, 4), (9, 5), (18, 9), (12, 12), (7, 1)]
SHAPES = [(8, 12, 10), (7, 9, 11), (8, 9, 5)]
DIM = (0, 1, 2)


def random_volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def band_limited(matrix_size: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """A volume whose spectrum lies strictly inside the central ``matrix_size``."""
    inside = [size - 1 if size % 2 == 0 else size for size in matrix_size]
    return zero_fill(random_volume(*inside), shape, DIM)


# transforms


@pytest.mark.parametrize("shape", SHAPES)
def test_fftc_equals_numpy(shape):
    x = random_volume(*shape)
    expected = np.fft.fftshift(np.fft.fftn(x.numpy()))
    np.testing.assert_allclose(fftc(x, DIM).numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_fftc_leaves_other_axes_as_a_batch(shape):
    x = random_volume(*shape)
    torch.testing.assert_close(fftc(x, (1, 2))[3], fftc(x[3], (0, 1)), **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_ifftc_inverts_fftc(shape):
    x = random_volume(*shape)
    torch.testing.assert_close(ifftc(fftc(x, DIM), DIM).real, x, **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_fftc_fulfils_parseval(shape):
    x = random_volume(*shape)
    energy = fftc(x, DIM).abs().square().sum() / x.numel()
    torch.testing.assert_close(energy, x.square().sum(), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_frequency_is_in_the_centre(shape):
    k = fftc(torch.ones(shape, dtype=torch.float64), DIM)
    assert np.unravel_index(int(k.abs().argmax()), shape) == tuple(size // 2 for size in shape)


# truncation and zero-filling


@pytest.mark.parametrize("shape", SHAPES)
def test_keeping_every_sample_is_the_identity(shape):
    x = random_volume(*shape)
    assert torch.equal(truncate(x, shape, DIM), x)
    assert torch.equal(zero_fill(x, shape, DIM), x)


@pytest.mark.parametrize(("full", "kept"), PARITIES)
def test_a_constant_stays_that_constant(full, kept):
    low_res = truncate(torch.full((full,), 0.7, dtype=torch.float64), [kept], [0])
    torch.testing.assert_close(low_res, torch.full((kept,), 0.7, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(zero_fill(low_res, [full], [0]), torch.full((full,), 0.7, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(("full", "kept"), PARITIES)
def test_truncation_and_zero_filling_keep_the_mean(full, kept):
    x = random_volume(full)
    low_res = truncate(x, [kept], [0])
    torch.testing.assert_close(low_res.mean(), x.mean(), **EXACT)
    torch.testing.assert_close(zero_fill(low_res, [full], [0]).mean(), x.mean(), **EXACT)


@pytest.mark.parametrize(("full", "kept"), PARITIES)
def test_truncation_undoes_zero_filling(full, kept):
    y = random_volume(3, kept)
    torch.testing.assert_close(truncate(zero_fill(y, [full], [1]), [kept], [1]), y, **EXACT)


@pytest.mark.parametrize(("full", "kept"), PARITIES)
def test_zero_filling_after_truncation_is_an_orthogonal_projector(full, kept):
    identity = torch.eye(full, dtype=torch.float64)
    projector = zero_fill(truncate(identity, [kept], [1]), [full], [1])
    torch.testing.assert_close(projector @ projector, projector, **EXACT)
    torch.testing.assert_close(projector, projector.T, **EXACT)
    assert int(torch.linalg.matrix_rank(projector)) == kept


@pytest.mark.parametrize("resize", [truncate, zero_fill])
@pytest.mark.parametrize("at_once", [1, 150, 700])
def test_the_lines_of_a_large_volume_are_resized_some_at_a_time(monkeypatch, resize, at_once):
    """Values and gradients are those of all lines at once, for every axis and however few fit."""
    sizes = [5, 4, 7] if resize is truncate else [13, 10, 14]
    whole, parts = (random_volume(2, 8, 9, 10).requires_grad_() for _ in range(2))
    expected = resize(whole, sizes, (1, 2, 3))
    monkeypatch.setattr("scripts.physics.kspace.VOXELS_AT_ONCE", at_once)
    resized = resize(parts, sizes, (-3, -2, -1))
    torch.testing.assert_close(resized, expected, **EXACT)
    for result in (expected, resized):
        result.square().sum().backward()
    torch.testing.assert_close(parts.grad, whole.grad, **EXACT)
    line = random_volume(10)
    assert resize(line, sizes[2:], [0]).shape == (sizes[2],)  # which nothing divides


def test_the_axes_are_truncated_independently():
    x = random_volume(2, 8, 9, 10)
    jointly = truncate(x, [4, 5, 10], [1, 2, 3])
    one_by_one = truncate(truncate(x, [5], [2]), [4], [1])
    assert jointly.shape == (2, 4, 5, 10)
    torch.testing.assert_close(jointly, one_by_one, **EXACT)
    torch.testing.assert_close(jointly[1], truncate(x[1], [4, 5, 10], DIM), **EXACT)


@pytest.mark.parametrize("shape", [(8, 12, 16), (12, 20, 28), (10, 18, 22)])
def test_a_band_limited_volume_is_recovered_and_its_truncation_is_every_second_voxel(shape):
    half = tuple(size // 2 for size in shape)
    x = band_limited(half, shape)
    low_res = truncate(x, half, DIM)
    torch.testing.assert_close(low_res, x[::2, ::2, ::2], rtol=0.0, atol=1e-14)
    torch.testing.assert_close(zero_fill(low_res, shape, DIM), x, rtol=0.0, atol=1e-14)


def test_real_truncation_averages_the_two_unpaired_planes():
    x = random_volume(8)
    k = torch.fft.fft(x)
    nyquist = (k[2] + k[-2]) / 2
    torch.testing.assert_close(torch.fft.fft(truncate(x, [4], [0]))[2], nyquist / 2, **EXACT)


def test_a_delta_on_an_even_voxel_arrives_at_half_its_position_with_an_eighth_of_its_value():
    x = torch.zeros(16, 16, 8, dtype=torch.float64)
    x[4, 6, 2] = 1
    low_res = truncate(x, [8, 8, 4], DIM)
    assert np.unravel_index(int(low_res.argmax()), low_res.shape) == (2, 3, 1)
    assert float(low_res.max()) == pytest.approx(1 / 8, abs=1e-12)


@pytest.mark.parametrize("full", [16, 18, 20, 22, 30])
def test_low_res_voxel_l_sits_on_voxel_2l_whether_its_matrix_is_odd_or_even(full):
    for position in range(0, full, 2):
        x = torch.zeros(full, dtype=torch.float64)
        x[position] = 1
        assert int(truncate(x, [full // 2], [0]).argmax()) == position // 2


def test_the_centred_phase_of_matlab_would_miss_that_grid_at_18():
    x = torch.zeros(18, dtype=torch.float64)
    x[6] = 1
    centred = torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x)))[4:13]
    assert int(torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(centred))).abs().argmax()) == 2
    assert int(truncate(x, [9], [0]).argmax()) == 3


# symmetries


@pytest.mark.parametrize("full", [16, 18])
def test_flipping_low_res_is_flipping_high_res_and_shifting_it_by_one_voxel(full):
    x = random_volume(full)
    flipped = truncate(x, [full // 2], [0]).flip(0)
    torch.testing.assert_close(truncate(x.flip(0).roll(-1), [full // 2], [0]), flipped, **EXACT)
    assert (truncate(x.flip(0), [full // 2], [0]) - flipped).abs().max() > 0.1


@pytest.mark.parametrize("kept", [8, 9])
def test_a_flip_ensemble_needs_a_roll_by_one_voxel(kept):
    y = random_volume(kept)
    reference = zero_fill(y, [2 * kept], [0])
    unflipped = zero_fill(y.flip(0), [2 * kept], [0]).flip(0)
    torch.testing.assert_close(unflipped.roll(-1), reference, **EXACT)
    assert (unflipped - reference).abs().max() > 0.1


def test_transposes_are_safe():
    x = random_volume(8, 12)
    torch.testing.assert_close(truncate(x.T, [6, 4], [0, 1]), truncate(x, [4, 6], [0, 1]).T, **EXACT)


# data consistency


@pytest.mark.parametrize("shape", [(8, 12, 10), (9, 11, 7), (10, 9, 8)])
def test_data_consistency_is_idempotent_consistent_and_never_increases_the_error(shape):
    acquired = [size // 2 for size in shape]
    for seed in range(5):
        truth, pred = random_volume(*shape, seed=seed), random_volume(*shape, seed=seed + 100)
        image = truncate(truth, acquired, DIM)
        consistent = data_consistency(pred, image, DIM)
        torch.testing.assert_close(data_consistency(consistent, image, DIM), consistent, **EXACT)
        torch.testing.assert_close(truncate(consistent, acquired, DIM), image, **EXACT)
        before, after = (pred - truth).square().sum(), (consistent - truth).square().sum()
        removed = zero_fill(truncate(pred - truth, acquired, DIM), shape, DIM).square().sum()
        torch.testing.assert_close(before - after, removed, rtol=1e-12, atol=0.0)  # Pythagoras
        assert after < before


def test_data_consistency_leaves_the_truth_and_an_unscaled_axis_alone():
    truth = random_volume(8, 10, 5)
    image = truncate(truth, [4, 5], [0, 1])
    torch.testing.assert_close(data_consistency(truth, image, DIM), truth, **EXACT)


# weights and noise


def test_apodise_weights_the_named_axes_in_their_order():
    k = torch.complex(random_volume(2, 4, 5, 6), random_volume(2, 4, 5, 6, seed=1))
    window = random_volume(6, 4)
    expected = k * window.T[None, :, None, :]
    torch.testing.assert_close(apodise(k, window, (3, 1)), expected, **EXACT)
    torch.testing.assert_close(apodise(k, window, (-1, -3)), expected, **EXACT)


@pytest.mark.parametrize("shape", [(32, 32, 32), (16, 64, 33)])
def test_noise_has_the_stated_standard_deviation_in_the_image(shape):
    k = torch.zeros(shape, dtype=torch.complex128)
    noise = ifftc(complex_noise(k, 0.05, DIM, torch.Generator().manual_seed(0)), DIM)
    tolerance = 4 * 0.05 / (2 * noise.numel()) ** 0.5
    assert float(noise.real.std()) == pytest.approx(0.05, abs=tolerance)
    assert float(noise.imag.std()) == pytest.approx(0.05, abs=tolerance)
    assert abs(float(noise.real.mean())) < 4 * 0.05 / noise.numel() ** 0.5
    assert abs(float((noise.real * noise.imag).mean())) < 4 * 0.05**2 / noise.numel() ** 0.5


def test_noise_is_white_and_follows_its_generator():
    k = torch.zeros(24, 24, 24, dtype=torch.complex64)
    noise = complex_noise(k, 1.0, DIM, torch.Generator().manual_seed(3))
    assert torch.equal(noise, complex_noise(k, 1.0, DIM, torch.Generator().manual_seed(3)))
    assert not torch.equal(noise, complex_noise(k, 1.0, DIM, torch.Generator().manual_seed(4)))
    assert noise.dtype == torch.complex64
    inner, outer = noise[8:16, 8:16, 8:16].abs().square().mean(), noise.abs().square().mean()
    assert float(inner / outer) == pytest.approx(1, abs=0.2)


# errors


@pytest.mark.parametrize("size", [0, 9])
def test_truncate_refuses_a_matrix_out_of_range(size):
    with pytest.raises(ValueError, match=rf"in \[1, 8\] along axis 0 to truncate, got {size}"):
        truncate(torch.zeros(8), [size], [0])


def test_zero_fill_refuses_a_smaller_matrix():
    with pytest.raises(ValueError, match="at least 8 along axis 0 to zero-fill, got 7"):
        zero_fill(torch.zeros(8), [7], [0])


def test_apodise_refuses_a_window_of_another_shape():
    with pytest.raises(ValueError, match=r"k-space's shape \(8, 4\) along axes \(0, 1\), got \(4, 8\)"):
        apodise(torch.zeros(8, 4), torch.ones(4, 8), (0, 1))


def test_a_large_volume_is_resized_in_parts_and_onto_another_one(monkeypatch):
    x, pred = random_volume(2, 9, 8, 10), random_volume(2, 9, 8, 10, seed=1)
    y = truncate(x, (4, 5, 10), (1, 2, 3))
    expected = zero_fill(y, x.shape[1:], (1, 2, 3)), data_consistency(pred, y, (1, 2, 3))
    monkeypatch.setattr("scripts.physics.kspace.VOXELS_AT_ONCE", 100)
    torch.testing.assert_close(truncate(x, (4, 5, 10), (1, 2, 3)), y, **EXACT)
    torch.testing.assert_close(zero_fill(y, x.shape[1:], (1, 2, 3)), expected[0], **EXACT)
    assert data_consistency(pred, y, (1, 2, 3), in_place=True) is pred
    torch.testing.assert_close(pred, expected[1], **EXACT)
