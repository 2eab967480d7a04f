"""Networks of the methods compared with: exact sizes, the grid, linearity, what an untrained one does."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY_NETWORK
from scripts.networks import (
    CleanedSuperResolutionNet,
    CubicDownsampling,
    FrequencySeparatedDiscriminator,
    LinearDegradation,
    SuperResolutionNet,
    TranslatedDegradation,
    TranslationNet,
)
from scripts.networks.discriminators import haar_details
from scripts.networks.downsampling import low_pass
from scripts.physics.interpolation import interpolate_cubic
from torch import Tensor, nn

DOWNSAMPLINGS = [CubicDownsampling, LinearDegradation]


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shaken(network: nn.Module, std: float = 0.1) -> nn.Module:
    """The network with every parameter drawn anew, as if it were trained."""
    for seed, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (TranslationNet(), 186_432 + 2_121_127),  # the LR encoder and the LR decoder of UDEAN
        (TranslationNet(noise=True), 186_432 + 64 * 9 + 2_121_127),
        (LinearDegradation(), 16 * (343 + 16 * 125 + 16 * 27 + 16 + 16 + 1)),
        (FrequencySeparatedDiscriminator(3), (9 * 25 + 1) * 64 + 64 * 25 * 128 + 128 * 25 * 256 + 256 + 1),
        (FrequencySeparatedDiscriminator(6), (18 * 25 + 1) * 64 + 64 * 25 * 128 + 128 * 25 * 256 + 256 + 1),
        (CubicDownsampling(), 0),
    ],
)
def test_networks_have_exactly_the_parameters_of_their_layers(network, expected):
    assert count(network) == expected


@pytest.mark.parametrize("make", [LinearDegradation, FrequencySeparatedDiscriminator, TranslationNet])
def test_the_start_depends_on_the_seed_alone(make):
    arguments = {"in_channels": 3} if make is FrequencySeparatedDiscriminator else {}
    first = make(**arguments, seed=1)
    torch.rand(1)
    again, other = make(**arguments, seed=1), make(**arguments, seed=2)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


# Translation


def test_an_untrained_translator_with_skip_is_the_identity():
    volume = noise(1, 1, 16, 12, 7)
    for with_noise in (False, True):
        network = TranslationNet(skip=True, noise=with_noise, **TINY_NETWORK)
        assert torch.equal(network(volume), volume)


@pytest.mark.parametrize("slabs_per_pass", [1, 3, 16])
def test_a_volume_passes_as_the_central_slices_of_its_slabs(slabs_per_pass):
    network = TranslationNet(slabs_per_pass=slabs_per_pass, **TINY_NETWORK)
    volume = noise(2, 1, 16, 12, 5)
    made = network(volume)
    slab = volume[:, 0, :, :, 1:4].movedim(-1, 1)
    torch.testing.assert_close(made[:, 0, :, :, 2], network.translate(slab)[:, 1])
    assert made.shape == volume.shape


def test_noise_gives_one_input_many_outputs():
    network, slab = TranslationNet(noise=True, **TINY_NETWORK), noise(1, 3, 16, 16)
    outputs = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        outputs.append(network.translate(slab))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.allclose(outputs[0], outputs[1])


def test_what_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 1, H, W, D\), got \[1, 3, 16, 16\]"):
        TranslationNet(**TINY_NETWORK)(noise(1, 3, 16, 16))


def test_a_slab_without_a_central_slice_is_refused():
    with pytest.raises(ValueError, match=r"slab_size must be odd.*got 4"):
        TranslationNet(slab_size=4)


def test_cleaning_comes_before_super_resolution_and_before_it_is_learned_changes_nothing():
    upscale = SuperResolutionNet((2, 2, 1), skip=True, **TINY_NETWORK)
    cleaner = TranslationNet(skip=True, seed=5, **TINY_NETWORK)
    network, volume = CleanedSuperResolutionNet(cleaner, upscale), noise(1, 1, 16, 12, 5)
    assert torch.equal(network(volume), upscale(volume))
    shaken(cleaner)
    torch.testing.assert_close(network(volume), upscale(cleaner(volume)))


def test_the_cleaned_network_can_be_scripted():
    network = CleanedSuperResolutionNet(
        TranslationNet(**TINY_NETWORK), SuperResolutionNet((2, 2, 2), skip=True, **TINY_NETWORK)
    )
    volume = noise(1, 1, 16, 12, 5)
    torch.testing.assert_close(torch.jit.script(network)(volume), network(volume))


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_a_translated_degradation_says_its_factors_as_others_do(scale_factor):
    network = TranslatedDegradation(CubicDownsampling(scale_factor), TranslationNet(skip=True, **TINY_NETWORK))
    assert network.factors == list(scale_factor)
    volume = noise(1, 1, 16, 12, 8)
    assert torch.equal(network(volume), network.downsampling(volume))


# Down-sampling


@pytest.mark.parametrize("make", DOWNSAMPLINGS)
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1), (3, 3, 2), (1, 1, 2)])
def test_down_sampling_keeps_constants_and_divides_the_sizes(make, scale_factor):
    made = make(scale_factor)(torch.full((2, 1, 24, 12, 6), 0.7))
    assert made.shape == (2, 1, *(n // s for n, s in zip((24, 12, 6), scale_factor, strict=True)))
    torch.testing.assert_close(made, torch.full_like(made, 0.7))


@pytest.mark.parametrize("make", DOWNSAMPLINGS)
def test_low_resolution_voxel_l_sits_on_voxel_2l(make):
    """A ramp has the value of its position; borders are not linear."""
    ramp = torch.arange(48.0).reshape(1, 1, 48, 1, 1).expand(1, 1, 48, 24, 24)
    made = make((2, 2, 2))(ramp)[0, 0, 4:-4, 6, 6]
    torch.testing.assert_close(made, torch.arange(48.0)[::2][4:-4])


def test_the_centred_variant_is_half_a_voxel_off():
    ramp = torch.arange(48.0).reshape(1, 1, 48, 1, 1).expand(1, 1, 48, 24, 24)
    made = CubicDownsampling((2, 2, 2), centred=True)(ramp)[0, 0, 4:-4, 6, 6]
    torch.testing.assert_close(made, torch.arange(48.0)[::2][4:-4] + 0.5)


@pytest.mark.parametrize("make", DOWNSAMPLINGS)
def test_an_unscaled_axis_is_left_alone(make):
    high_res = noise(1, 1, 24, 24, 6)
    made = make((2, 2, 1))(high_res)
    for index in range(6):
        one = high_res[..., index : index + 1].expand(1, 1, 24, 24, 6)
        torch.testing.assert_close(made[..., index], make((2, 2, 1))(one)[..., index])


@pytest.mark.parametrize("make", DOWNSAMPLINGS)
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_a_slab_is_a_volume_whose_slices_are_channels(make, scale_factor):
    network, volume = make(scale_factor), noise(2, 1, 24, 16, 6)
    slab = network.degrade(volume[:, 0].movedim(-1, 1))
    torch.testing.assert_close(slab.movedim(1, -1).unsqueeze(1), network(volume))


@pytest.mark.parametrize("centred", [False, True])
def test_cubic_down_sampling_is_the_transpose_of_cubic_interpolation(centred):
    """<A x, y> = <x, A' y>, where no border is touched."""
    low_res, high_res = torch.zeros(1, 1, 20, 20, 20).double(), torch.zeros(1, 1, 40, 40, 40).double()
    low_res[..., 6:14, 6:14, 6:14] = noise(8, 8, 8, dtype=torch.float64, seed=1)
    high_res[..., 12:28, 12:28, 12:28] = noise(16, 16, 16, dtype=torch.float64, seed=2)
    down = CubicDownsampling((2, 2, 2), centred=centred).double()(high_res)
    up = interpolate_cubic(low_res, 2, (2, 3, 4), centred=centred)
    assert (down * low_res).sum().item() == pytest.approx((high_res * up).sum().item() / 8)


def test_the_learned_kernel_is_what_its_layers_do_one_after_the_other():
    network = shaken(LinearDegradation((2, 2, 2), num_features=4)).double()
    volume = noise(1, 1, 40, 36, 32, dtype=torch.float64)
    layers = network.layers(volume[:, 0].movedim(-1, 1).unsqueeze(1))[:, 0, ::2, ::2, ::2]  # from voxel 6 on
    with torch.no_grad():
        start = LinearDegradation((2, 2, 2)).double()(volume)[0, 0].movedim(-1, 0)
        made = network(volume)[0, 0].movedim(-1, 0)
    torch.testing.assert_close((made - start)[3:-3, 3:-3, 3:-3], layers[0].detach())


def test_the_learned_degradation_is_linear():
    network = shaken(LinearDegradation(num_features=4)).double()
    x, y = (noise(1, 1, 16, 16, 16, dtype=torch.float64, seed=seed) for seed in (1, 2))
    torch.testing.assert_close(network(2 * x - y), 2 * network(x) - network(y))


def test_the_kernel_starts_as_a_centred_low_pass_filter():
    kernel = LinearDegradation((2, 2, 1)).kernel()
    taps, impulse = low_pass(2).float(), low_pass(1).float()
    torch.testing.assert_close(impulse, torch.eye(13)[6])
    torch.testing.assert_close(taps, taps.flip(0))
    assert taps.argmax() == 6
    assert taps.sum().item() == pytest.approx(1)
    torch.testing.assert_close(kernel, impulse[:, None, None] * taps[:, None] * taps)


def test_rounding_is_no_degradation():
    for network in (LinearDegradation(num_features=4), CubicDownsampling()):
        volume = noise(1, 1, 16, 16, 16)
        expected = network(volume)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(volume), expected)


# Frequency separation


def test_details_and_means_hold_all_the_energy():
    """Haar's wavelet is orthonormal; its fourth band is twice the mean of four."""
    x = noise(2, 3, 8, 10, dtype=torch.float64)
    energy = haar_details(x).square().sum() + (2 * nn.functional.avg_pool2d(x, 2)).square().sum()
    torch.testing.assert_close(energy, x.square().sum())


def test_a_constant_has_no_details():
    assert not haar_details(torch.full((1, 2, 4, 4), 0.3)).any()


def test_each_output_judges_26_pixels():
    network = FrequencySeparatedDiscriminator(1, num_features=2).eval()
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda x: x  # whose statistics are those of the whole image
    image = noise(1, 1, 64, 64).requires_grad_()
    network(image)[0, 0, 16, 16].backward()
    touched = image.grad[0, 0].nonzero()
    assert touched.min(0).values.tolist() == [2 * 16 - 12, 2 * 16 - 12]
    assert touched.max(0).values.tolist() == [2 * 16 + 13, 2 * 16 + 13]


def test_the_domain_distance_is_the_mean_over_all_patches_that_contain_a_pixel():
    network, image = FrequencySeparatedDiscriminator(2, num_features=2), noise(1, 2, 48, 40)
    probability = torch.sigmoid(network(image))[0, 0]
    distance = network.domain_distance(image)[0, 0]
    assert distance.shape == (48, 40)
    for row, column in ((0, 0), (7, 31), (24, 20), (47, 39)):
        patches = [
            probability[r, c]
            for r in range(24)
            for c in range(20)
            if 2 * r - 12 <= row <= 2 * r + 13 and 2 * c - 12 <= column <= 2 * c + 13
        ]
        torch.testing.assert_close(distance[row, column], torch.stack(patches).mean())
