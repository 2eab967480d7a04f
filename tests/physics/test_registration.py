from __future__ import annotations

import pytest
import torch
from scripts.physics.kspace import truncate, zero_fill
from scripts.physics.registration import register_shift_and_gain, sub_voxel_shift

SPATIAL = (1, 2, 3)


def head(shape=(32, 36, 28), seed=0):
    """A smooth blob with texture, band-limited to half the Nyquist frequency, inside air."""
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.linspace(-1, 1, n) for n in shape]
    radius = sum(a.square().reshape([-1 if i == j else 1 for j in range(3)]) for i, a in enumerate(axes))
    texture = torch.rand(shape, generator=generator)
    volume = ((0.3 + 0.7 * texture) * torch.sigmoid(20 * (0.5 - radius)))[None]
    return zero_fill(truncate(volume, [n // 2 for n in shape], SPATIAL), shape, SPATIAL)


def fourier_shift(volume, shift):
    spectrum = torch.fft.fftn(volume, dim=SPATIAL)
    for axis, s in zip(SPATIAL, shift, strict=True):
        size = [-1 if a == axis else 1 for a in range(4)]
        spectrum = spectrum * torch.exp(-2j * torch.pi * torch.fft.fftfreq(volume.shape[axis]) * s).reshape(size)
    return torch.fft.ifftn(spectrum, dim=SPATIAL).real


def test_registration_finds_gain_and_shift():
    label = head()
    moved, shift, gain = register_shift_and_gain(1.25 * fourier_shift(label, (0.3, -1.6, 0.45)), label)
    assert shift.tolist() == pytest.approx([-0.3, 1.6, -0.45], abs=1e-4)
    assert gain.item() == pytest.approx(0.8, abs=1e-4)
    torch.testing.assert_close(moved, label, atol=1e-4, rtol=0)


def test_sub_voxel_shift_has_the_sign_of_the_displacement():
    label = head()
    acquired = zero_fill(truncate(label, [16, 18, 14], SPATIAL), label.shape[1:], SPATIAL)
    shift = sub_voxel_shift(fourier_shift(label, (0.1, 0.0, -0.25)), acquired)
    assert shift.tolist() == pytest.approx([0.1, 0.0, -0.25], abs=1e-3)


def test_whole_voxel_shifts_of_any_size_are_found():
    label = head()
    shift = sub_voxel_shift(torch.roll(label, (9, -11, 4), SPATIAL), label)
    assert shift.tolist() == pytest.approx([9, -11, 4], abs=1e-4)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"same shape, got \(1, 8, 8, 8\) and \(1, 8, 8, 9\)"):
        register_shift_and_gain(torch.ones(1, 8, 8, 8), torch.ones(1, 8, 8, 9))
