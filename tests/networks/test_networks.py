"""Networks: the papers' sizes, a signal that keeps its scale, and an untrained network that is the physics."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from scripts.networks import DegradationNet, ProjectionHead, SuperResolutionNet, TranslationNet, VGGDiscriminator
from scripts.networks.degradation import truncate_mirrored
from scripts.networks.initialization import initialize
from scripts.networks.interpolation import SlabInterpolation, windowed_sinc
from scripts.networks.slabs import in_passes, per_pass, slabs_to_volume, volume_to_slabs
from scripts.networks.ts_rcan import Residual, SlabEncoder, TSRCANDecoder, residual_block, residual_group
from scripts.physics.kspace import zero_fill
from torch import nn

TINY = {"num_features": 16, "reduction": 4, "num_groups": 1, "num_blocks": 2}


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def smooth_slab(channels: int, size: int, seed: int = 0) -> torch.Tensor:
    """A slab of intensities in [0, 1] as varied as an image, unlike noise, whose neighbours cancel."""
    return F.interpolate(uniform(1, channels, size // 8, size // 8, seed=seed), size=(size, size), mode="bilinear")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomise_last(module: nn.Module) -> nn.Module:
    """Give the zero-initialised last layer of a network with skip something to say."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "last" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.05)
    return module


# Sizes


@pytest.mark.parametrize(
    ("scale_factor", "encoder", "decoder", "total", "extractor"),
    [((2, 2, 2), 186_432, 2_270_570, 2_457_002, 188_160), ((2, 2, 1), 186_432, 2_268_839, 2_455_271, 186_432)],
)
def test_the_generators_have_the_papers_parameters(scale_factor, encoder, decoder, total, extractor):
    network, degradation = SuperResolutionNet(scale_factor), DegradationNet(scale_factor)
    assert [count(network.encoder), count(network.decoder), count(network)] == [encoder, decoder, total]
    assert [count(degradation.extractor), count(degradation.decoder)] == [extractor, 2_121_127]


def test_the_residual_parts_have_the_parameters_of_rcan():
    assert count(residual_block(64, 16)) == 73_856 + 580
    assert count(residual_group(64, 5, 16)) == 409_108


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_the_skip_has_no_parameters_and_leaves_the_state_dict_alone(scale_factor):
    for network in (SuperResolutionNet, DegradationNet):
        with_skip, without = (network(scale_factor, skip=skip, **TINY) for skip in (True, False))
        assert list(with_skip.state_dict()) == list(without.state_dict())


@pytest.mark.parametrize(
    ("in_channels", "feature_size", "parameters"),
    [(6, 4, 10_229_001), (3, 4, 10_227_273), (3, 2, 9_612_873), (64, 2, 9_648_009)],
)
def test_the_discriminators_have_the_papers_parameters(in_channels, feature_size, parameters):
    assert count(VGGDiscriminator(in_channels, feature_size)) == parameters


@pytest.mark.parametrize(("in_channels", "parameters"), [(64, 1_313_920), (6, 1_280_512), (3, 1_278_784)])
def test_the_projection_heads_have_the_parameters_of_dasr_s_encoder(in_channels, parameters):
    assert count(ProjectionHead(in_channels)) == parameters


TEST_CASES = [  # scale factor, slab size, low-resolution in-plane sizes
    [(2, 2, 2), 3, (16, 24)],
    [(2, 2, 1), 3, (16, 24)],
    [(2, 2, 2), 5, (9, 8)],
    [(3, 3, 1), 1, (8, 8)],
    [(1, 1, 2), 3, (7, 8)],
]


@pytest.mark.parametrize(("scale_factor", "slab_size", "size"), TEST_CASES)
@pytest.mark.parametrize("skip", [False, True])
def test_slabs_have_the_shapes_of_the_papers(scale_factor, slab_size, size, skip):
    geometry = {"scale_factor": scale_factor, "slab_size": slab_size, "skip": skip, **TINY}
    network, degradation = SuperResolutionNet(**geometry), DegradationNet(**geometry)
    low_res = uniform(2, slab_size, *size)
    high_res = uniform(2, slab_size * scale_factor[2], scale_factor[0] * size[0], scale_factor[1] * size[1])
    features = network.encode(low_res)
    assert features.shape == degradation.encode(high_res).shape == (2, 16, *size)
    assert network.decode(features, low_res).shape == high_res.shape
    assert degradation.truncate(high_res).shape == low_res.shape
    assert degradation.decode(features, low_res).shape == low_res.shape


@pytest.mark.parametrize(("scale_factor", "slab_size", "size"), TEST_CASES)
def test_volumes_have_the_shape_of_the_scale_factor(scale_factor, slab_size, size):
    geometry = {"scale_factor": scale_factor, "slab_size": slab_size, "skip": True, **TINY}
    low_res = uniform(2, 1, *size, 6)
    high_res = SuperResolutionNet(**geometry)(low_res)
    assert high_res.shape == (2, 1, *(n * s for n, s in zip((*size, 6), scale_factor, strict=True)))
    assert DegradationNet(**geometry)(high_res).shape == low_res.shape


def test_the_head_embeds_and_the_discriminator_judges_each_sample():
    assert ProjectionHead(6, embedding_dim=10, num_features=4)(uniform(3, 6, 20, 24)).shape == (3, 10)
    assert VGGDiscriminator(6, feature_size=2, num_features=4)(uniform(3, 6, 64, 64)).shape == (3, 1)


# The start


def stages(root: nn.Module) -> dict[str, nn.Module]:
    """What the signal passes one after the other: layers of an encoder; head, residual parts and tail of a decoder."""
    if isinstance(root, SlabEncoder):
        return dict(root.named_children())
    tail = ("head", "upsample", "last")
    return {name: part for name, part in root.named_modules() if name in tail or isinstance(part, Residual)}


def rms(x: torch.Tensor) -> float:
    return x.detach().square().mean().sqrt().item()


def record_rms(root: nn.Module, gains: dict[str, float], label: str, reference: float) -> None:
    for name, part in stages(root).items():
        part.register_forward_hook(lambda _m, _i, out, key=f"{label}.{name}": gains.update({key: rms(out) / reference}))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scale_factor", "slab_size"), [((2, 2, 2), 3), ((2, 2, 1), 3), ((2, 2, 2), 5)])
def test_every_stage_keeps_the_scale_of_the_signal(scale_factor, slab_size, seed):
    network = SuperResolutionNet(scale_factor, slab_size, seed=seed)
    degradation = DegradationNet(scale_factor, slab_size, seed=seed + 10)
    low_res, high_res = smooth_slab(slab_size, 32, seed), smooth_slab(slab_size * scale_factor[2], 64, seed + 1)
    gains: dict[str, float] = {}
    record_rms(network.encoder, gains, "encoder", rms(low_res))
    record_rms(network.decoder, gains, "high_res_decoder", rms(low_res))
    record_rms(degradation.decoder, gains, "low_res_decoder", rms(low_res))
    record_rms(degradation.extractor, gains, "extractor", rms(high_res))
    with torch.no_grad():
        target_features = network.encode(low_res)
        network.decode(target_features, low_res)
        degradation.decode(target_features, low_res)
        source_features = degradation.encode(high_res)
    assert len(gains) == 2 * 11 + 2 * 34
    assert {name: gain for name, gain in gains.items() if not 1 / 3 <= gain <= 3} == {}
    assert 0.1 < source_features.std() / target_features.std() < 10


def test_he_initialisation_has_the_variance_of_its_activation():
    layers = nn.Sequential(nn.Conv2d(32, 400, 3), nn.Linear(288, 400))
    initialize(layers, seed=0, negative_slope=0.2)
    expected = math.sqrt(2 / (1 + 0.2**2) / 288)
    for layer in layers:
        torch.testing.assert_close(layer.weight.std().item(), expected, rtol=0.01, atol=0)
        assert not layer.bias.any()


FACTORIES = {
    "SuperResolutionNet": lambda seed: SuperResolutionNet(seed=seed, **TINY),
    "DegradationNet": lambda seed: DegradationNet(seed=seed, **TINY),
    "VGGDiscriminator": lambda seed: VGGDiscriminator(6, 2, num_features=4, seed=seed),
    "ProjectionHead": lambda seed: ProjectionHead(6, embedding_dim=8, num_features=4, seed=seed),
}


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_a_network_is_a_function_of_its_seed_alone(factory):
    torch.manual_seed(0)
    first = factory(7)
    torch.manual_seed(1)
    nn.Linear(10, 10)
    again, other = factory(7), factory(8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    weights = [name for name, p in first.named_parameters() if p.dim() > 1]
    assert not any(torch.equal(first.get_parameter(name), other.get_parameter(name)) for name in weights)


def test_the_two_halves_of_a_network_start_differently():
    network = SuperResolutionNet(**TINY)
    assert not torch.equal(network.encoder[2].weight, network.decoder.head.weight)


# The skip: untrained, the networks are the physics


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1), (3, 3, 2)])
def test_the_untrained_network_is_its_interpolation(scale_factor):
    network = SuperResolutionNet(scale_factor, skip=True, **TINY)
    low_res = uniform(2, 3, 12, 10)
    interpolated = network.interpolation(low_res)
    assert torch.equal(network.decode(network.encode(low_res), low_res), interpolated)
    assert torch.equal(interpolated[:, :: scale_factor[2], :: scale_factor[0], :: scale_factor[1]], low_res)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("size", [(12, 10, 6), (9, 11, 5)])
def test_the_untrained_network_keeps_every_voxel_of_a_volume_where_it_is(scale_factor, size):
    low_res = uniform(1, 1, *size)
    high_res = SuperResolutionNet(scale_factor, slab_size=5, skip=True, **TINY)(low_res)
    assert torch.equal(high_res[..., :: scale_factor[0], :: scale_factor[1], :: scale_factor[2]], low_res)


@pytest.mark.parametrize("num_taps", [8, 16])
@pytest.mark.parametrize("scale_factor", [1, 2, 3])
def test_interpolation_weights_sum_to_one_and_mirror_each_other(scale_factor, num_taps):
    weights = windowed_sinc(scale_factor, num_taps)
    torch.testing.assert_close(weights.sum(1), torch.ones(scale_factor))
    unit = torch.zeros(num_taps)
    unit[num_taps // 2 - 1] = 1
    torch.testing.assert_close(weights[0], unit, atol=1e-7, rtol=0)
    if scale_factor == 2:
        torch.testing.assert_close(weights[1], weights[1].flip(0))
        assert weights[1].argmax() in (num_taps // 2 - 1, num_taps // 2)


def test_interpolation_follows_zero_filling_of_what_is_smooth():
    inside = zero_fill(uniform(1, 1, 17, 19), [64, 64], (2, 3))  # nothing above half the Nyquist frequency
    interpolated = SlabInterpolation((2, 2, 1))(inside)
    expected = zero_fill(inside, [128, 128], (2, 3))
    away_from_borders = (..., slice(16, -16), slice(16, -16))
    error = (interpolated - expected)[away_from_borders]
    assert rms(error) < 0.02 * rms(expected - expected.mean())


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (3, 3, 1)])
@pytest.mark.parametrize(("start", "end"), [(0, 11), (0, 1), (4, 9), (10, 11)])
def test_a_part_of_the_interpolation_is_as_in_the_whole(scale_factor, start, end):
    interpolation, slab = SlabInterpolation(scale_factor), uniform(2, 5, 11, 6)
    expected = interpolation(slab)[:, :, scale_factor[0] * start : scale_factor[0] * end]
    assert torch.equal(interpolation(slab, start, end), expected)


def test_the_skip_stays_in_float32_under_autocast():
    network = SuperResolutionNet(skip=True, **TINY)
    low_res = uniform(1, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        high_res = network.decode(network.encode(low_res), low_res)
    assert high_res.dtype == torch.float32
    assert torch.equal(high_res[:, ::2, ::2, ::2], low_res)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_the_untrained_degradation_is_the_mirrored_truncation(scale_factor):
    degradation = DegradationNet(scale_factor, skip=True, **TINY)
    high_res = uniform(2, 3 * scale_factor[2], 16, 20)
    truncated = truncate_mirrored(high_res, scale_factor, (2, 3, 1))
    assert torch.equal(degradation.truncate(high_res), truncated)
    assert torch.equal(degradation.decode(degradation.encode(high_res), truncated), truncated)


@pytest.mark.parametrize("frequency", range(12))
def test_mirrored_truncation_samples_the_cosines_below_its_nyquist_frequency_and_no_others(frequency):
    position = torch.arange(12, dtype=torch.float64)
    cosine = torch.cos(torch.pi * frequency * (position + 0.5) / 12)
    share = 1.0 if frequency < 6 else 0.5 if frequency == 6 else 0.0  # of Nyquist's own pair one plane is kept
    torch.testing.assert_close(truncate_mirrored(cosine, [2], [0]), share * cosine[::2], atol=1e-12, rtol=0)


def test_a_constant_keeps_its_value_up_to_the_borders_of_a_crop():
    truncated = truncate_mirrored(torch.full((1, 6, 16, 16), 0.7, dtype=torch.float64), (2, 2, 2), (1, 2, 3))
    torch.testing.assert_close(truncated, torch.full((1, 3, 8, 8), 0.7, dtype=torch.float64), atol=1e-12, rtol=0)


# Volumes


def test_slabs_are_centred_on_their_slices_and_stacked_back_in_order():
    volume = torch.arange(2 * 5).reshape(2, 1, 1, 1, 5).float()
    slabs = volume_to_slabs(volume, size=3, step=1)
    assert slabs[:5, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert torch.equal(slabs_to_volume(slabs[:, 1:2], 2), volume)
    pairs = volume_to_slabs(volume[..., :4], size=6, step=2)
    assert pairs[:2, :, 0, 0].tolist() == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 3, 3]]
    assert torch.equal(slabs_to_volume(pairs[:, 2:4], 2), volume[..., :4])


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_a_volume_is_the_central_slices_of_its_slabs(scale_factor):
    network = randomise_last(SuperResolutionNet(scale_factor, **TINY))
    volume = uniform(1, 1, 8, 10, 7)
    s = scale_factor[2]
    with torch.no_grad():
        high_res = network(volume)
        for slice_index in range(1, 6):
            expected = network.restore(volume[0, ..., slice_index - 1 : slice_index + 2].movedim(-1, 1))[0, s : 2 * s]
            pair = high_res[0, 0, ..., s * slice_index : s * (slice_index + 1)]
            torch.testing.assert_close(pair, expected.movedim(0, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_the_centre_of_a_slab_with_context_is_that_of_the_volume(scale_factor):
    network = randomise_last(SuperResolutionNet(scale_factor, skip=True, **TINY))
    degradation = randomise_last(DegradationNet(scale_factor, skip=True, **TINY))
    low_res, high_res = uniform(1, 1, 8, 10, 7), uniform(1, 1, 16, 20, 7 * scale_factor[2])
    with torch.no_grad():
        for make, net, volume, size in (
            (network.restore, network, low_res, scale_factor[2]),
            (degradation.degrade, degradation, high_res, 1),
        ):
            centre = slice(3 * size, 4 * size)
            slab = make(volume[:, 0].movedim(-1, 1))[:, centre].movedim(1, -1)
            torch.testing.assert_close(slab, net(volume)[:, 0, ..., centre], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_context_passes_the_networks_by(scale_factor):
    """Around the slices that they learn, the networks return their skips and see nothing."""
    network = randomise_last(SuperResolutionNet(scale_factor, skip=True, **TINY))
    degradation = randomise_last(DegradationNet(scale_factor, skip=True, **TINY))
    translation = randomise_last(TranslationNet(skip=True, **TINY))
    low_res, high_res = uniform(2, 7, 8, 10), uniform(2, 7 * scale_factor[2], 16, 20)
    for make, slab, skip in (
        (network.restore, low_res, network.interpolation(low_res)),
        (degradation.degrade, high_res, degradation.truncate(high_res)),
        (translation.translate, low_res, low_res),
    ):
        learned = make(slab).detach() - skip
        size = learned.shape[1] // 7
        assert torch.equal(learned[:, : 2 * size], torch.zeros_like(learned[:, : 2 * size]))
        assert torch.equal(learned[:, 5 * size :], torch.zeros_like(learned[:, 5 * size :]))
        assert (learned[:, 2 * size : 5 * size].abs().amax((0, 2, 3)) > 0).all()
    changed = low_res.clone()
    changed[:, [0, 1, 5, 6]] += 1
    assert torch.equal(network.encode(changed), network.encode(low_res))


@pytest.mark.parametrize("network", [SuperResolutionNet, DegradationNet])
def test_how_many_slabs_pass_at_once_changes_nothing(network):
    volume = uniform(2, 1, 8, 8, 6)
    with torch.no_grad():
        outputs = [randomise_last(network(slabs_per_pass=n, skip=True, **TINY))(volume) for n in (1, 5, 100)]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("device", "wanted", "expected"), [("cpu", None, 8), ("meta", None, 256), ("meta", 5, 5)])
def test_more_passes_at_once_where_calls_cost_time_than_where_a_cache_is_filled(device, wanted, expected):
    assert per_pass(torch.empty(1, device=device), wanted, cached=8, launched=256) == expected


@pytest.mark.parametrize(("size", "expected"), [((8, 8), [3, 3, 1]), ((64, 64), [3, 3, 1]), ((100, 80), [1] * 7)])
def test_fewer_large_slabs_pass_at_once(size, expected):
    slabs = torch.arange(7.0)[:, None, None, None].expand(7, 3, *size)
    parts = in_passes(slabs, slabs_per_pass=3)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), slabs)


@pytest.mark.parametrize("depth", [1, 3, 4, 5])
def test_a_larger_step_keeps_the_middle_slices_of_each_slab(depth):
    volume = uniform(2, 1, 8, 8, depth)
    network = SuperResolutionNet(slab_size=5, slab_step=3, **TINY)
    padded = F.pad(volume, [1, 4, 0, 0, 0, 0], mode="replicate")[:, 0].movedim(-1, 1)  # one slice of margin
    with torch.no_grad():
        made = network(volume)[:, 0].movedim(-1, 1)
        slabs = [network.restore(padded[:, start : start + 5])[:, 2:8] for start in range(0, depth, 3)]
    torch.testing.assert_close(made, torch.cat(slabs, 1)[:, : 2 * depth], atol=1e-5, rtol=0)


def test_a_step_without_a_middle_is_refused():
    for step in (0, 2, 5):
        with pytest.raises(ValueError, match=rf"odd and at most slab_size \(3\), got {step}"):
            SuperResolutionNet(slab_step=step, **TINY)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_volume_may_have_fewer_slices_than_a_slab(depth):
    volume = uniform(1, 1, 8, 8, depth)
    high_res = SuperResolutionNet(slab_size=5, skip=True, **TINY)(volume)
    assert high_res.shape == (1, 1, 16, 16, 2 * depth)
    assert torch.isfinite(high_res).all()
    assert torch.equal(high_res[..., ::2, ::2, ::2], volume)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("skip", [False, True])
def test_the_scripted_network_computes_the_same_after_saving(scale_factor, skip):
    network = randomise_last(SuperResolutionNet(scale_factor, skip=skip, slabs_per_pass=2, slab_step=3, **TINY)).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    with torch.no_grad():
        for shape in [(1, 1, 8, 10, 5), (2, 1, 7, 9, 3)]:
            volume = uniform(*shape)
            torch.testing.assert_close(scripted(volume), network(volume), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_every_slice_of_a_slab_matters_to_every_output_slice(scale_factor):
    network = SuperResolutionNet(scale_factor, **TINY)
    low_res = uniform(1, 3, 8, 8)
    with torch.no_grad():
        before = network.decode(network.encode(low_res), low_res)
        for index in range(3):
            changed = low_res.clone()
            changed[:, index] += 0.5
            after = network.decode(network.encode(changed), changed)
            assert (after - before).abs().amax((0, 2, 3)).min() > 1e-3


def test_slices_come_out_in_the_order_they_went_in():
    low_res = torch.arange(3.0)[None, :, None, None].expand(1, 3, 8, 8)
    network = SuperResolutionNet(skip=True, **TINY)
    brightness = network.decode(network.encode(low_res), low_res).mean((0, 2, 3))
    assert brightness[::2].tolist() == [0, 1, 2]
    assert (brightness.diff() > -0.2).all()
    degraded = DegradationNet(skip=True, **TINY).truncate(torch.arange(6.0)[None, :, None, None].expand(1, 6, 8, 8))
    assert (degraded.mean((0, 2, 3)).diff() > 1).all()


def test_a_decoder_learns_each_slice_in_its_place():
    torch.manual_seed(0)
    decoder = TSRCANDecoder(out_channels=6, upsample_factor=2, **TINY)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    features, target = uniform(1, 16, 8, 8), smooth_slab(6, 16)
    for _ in range(150):
        optimizer.zero_grad()
        output = decoder(features)
        F.mse_loss(output, target).backward()
        optimizer.step()
    errors = (decoder(features).detach()[0, :, None] - target[0, None]).square().mean((2, 3))
    assert errors.argmin(1).tolist() == [0, 1, 2, 3, 4, 5]


# Discriminators and heads


def test_the_discriminator_is_linear_at_its_end():
    discriminator = VGGDiscriminator(3, feature_size=1, num_features=4)
    x = uniform(4, 3, 32, 32)
    logits = discriminator(x)
    with torch.no_grad():
        discriminator.classifier[-1].bias += 5
        torch.testing.assert_close(discriminator(x), logits + 5)
        discriminator.classifier[-1].bias -= 10
        torch.testing.assert_close(discriminator(x), logits - 5)


def test_normalisation_stands_after_every_convolution_but_the_first():
    features = VGGDiscriminator(3, feature_size=1, num_features=4).features
    convolutions = [index for index, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 10
    assert [isinstance(features[index + 1], nn.BatchNorm2d) for index in convolutions] == [False] + 9 * [True]
    assert [features[index].bias is not None for index in convolutions] == [True] + 9 * [False]
    assert [features[index].stride[0] for index in convolutions] == 5 * [1, 2]


@pytest.mark.parametrize(
    ("norm", "kind", "biased"),
    [
        ("instance", nn.InstanceNorm2d, [True] + 9 * [False]),
        (("group", {"num_groups": 4}), nn.GroupNorm, [True] + 9 * [False]),
        (None, nn.LeakyReLU, 10 * [True]),
    ],
)
def test_the_discriminator_s_normalisation_is_an_argument(norm, kind, biased):
    features = VGGDiscriminator(3, feature_size=1, num_features=4, norm=norm).features
    convolutions = [index for index, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
    assert all(isinstance(features[index + 1], kind) for index in convolutions[1:])
    assert [features[index].bias is not None for index in convolutions] == biased


def test_groups_of_channels_are_normalised_image_by_image():
    discriminator, x = VGGDiscriminator(3, 1, num_features=4, norm=("group", {"num_groups": 4})), uniform(4, 3, 32, 32)
    torch.testing.assert_close(discriminator(x)[:1], discriminator(x[:1]))


# What is refused


@pytest.mark.parametrize("network", [SuperResolutionNet, DegradationNet])
@pytest.mark.parametrize("scale_factor", [(2, 2), (2, 3, 1), (2.5, 2.5, 1), (0, 0, 1)])
def test_scale_factors_that_are_no_geometry_are_refused(network, scale_factor):
    with pytest.raises(ValueError, match=r"scale_factor must be integers \(s, s, s_z\).*got \(" + f"{scale_factor[0]}"):
        network(scale_factor, **TINY)


@pytest.mark.parametrize("network", [SuperResolutionNet, DegradationNet])
@pytest.mark.parametrize("slab_size", [0, 2, -3])
def test_slabs_without_a_central_slice_are_refused(network, slab_size):
    with pytest.raises(ValueError, match=f"slab_size must be odd.*got {slab_size}"):
        network(slab_size=slab_size, **TINY)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 2, 8, 8, 8)])
def test_inputs_that_are_no_volumes_are_refused(shape):
    with pytest.raises(ValueError, match=r"SuperResolutionNet expects volumes of shape \(B, 1, H, W, D\), got \[1"):
        SuperResolutionNet(**TINY)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (1, 2, 8, 8, 8), (1, 1, 9, 8, 8), (1, 1, 8, 8, 7)])
def test_volumes_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(ValueError, match=r"DegradationNet expects volumes .* in multiples of \[2, 2, 2\], got \[1"):
        DegradationNet(**TINY)(torch.zeros(shape))


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (48, 48)])
def test_patches_of_another_size_are_refused(size):
    message = f"takes patches of 32 x 32, got \\[{size[0]}, {size[1]}\\]. Set feature_size"
    with pytest.raises(ValueError, match=message):
        VGGDiscriminator(3, feature_size=1, num_features=4)(torch.zeros(1, 3, *size))
