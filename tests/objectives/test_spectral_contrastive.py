"""The degradation network that starts from an estimate: untrained, it is the estimate, noise included."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_NETWORK
from monai.data import MetaTensor
from scripts.networks import DegradationNet, FoldedDegradationNet
from scripts.networks.degradation import truncate_mirrored
from scripts.physics.degradation import Degradation, Transfer
from scripts.physics.filters import Filter
from scripts.physics.kspace import truncate
from scripts.transforms import KSpaceTruncate, RandDegraded, ScaleIntensityRobustd
from torch import Tensor, nn

FILTERS = {"box": Filter("box"), "hamming": Filter("hamming"), "tukey": Filter("tukey", (1.0,))}


def transfer(family: str) -> Transfer:
    u = np.linspace(0, 1, 65)
    curves = [tuple(values.tolist()) for values in (u, FILTERS[family].at(u), 0 * u, u)]
    return Transfer(*curves, family=family, parameter=None, misfit=0.0)


def estimate(*families: str, **settings) -> Degradation:
    """One family for all axes, or one for each."""
    transfers = tuple(transfer(name) for name in families) * (3 // len(families))
    values = {"elliptical": False, "gain": 1.0, "gain_std": 0.0, "noise_std": 0.0, "noise_spread": 0.0}
    values |= {"filtered_noise": False, "misfit": 0.5, "subjects": (3, 3), **settings}
    return Degradation(spacing=(2.0, 2.0, 2.0), transfers=transfers, **values)


def slab_degradation(scale_factor: Sequence[int] = (2, 2, 2), **settings) -> nn.Module:
    return DegradationNet(scale_factor, slab_size=3, skip=True, **TINY_NETWORK, **settings).eval()


class Sampled(nn.Module):
    """The degradation on the output grid, with its results and slabs as the network of slabs has them."""

    def __init__(self, scale_factor: Sequence[int] = (2, 2, 2), **settings) -> None:
        super().__init__()
        small = {"num_features": 8, "num_groups": 1, "num_blocks": 1}
        self.network = FoldedDegradationNet(scale_factor, **small, **settings).eval()

    def forward(self, volume: Tensor) -> Tensor:
        steps = [slice(None, None, factor) for factor in self.network.factors]
        return self.network(volume)[(..., *steps)]

    def add_noise(self, low_res: Tensor) -> Tensor:
        return self.network.add_noise(low_res)

    def degrade(self, slab: Tensor) -> Tensor:
        return self(slab.movedim(1, -1)[:, None])[:, 0].movedim(-1, 1)


BOTH = pytest.mark.parametrize("network", [slab_degradation, Sampled])


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def head_in_air(*shape: int) -> Tensor:
    """A volume (1, 1, H, W, D) of random detail that ends well before its borders."""
    inner = uniform(1, 1, *(n // 2 for n in shape))
    for dim in (2, 3, 4):
        size = inner.shape[dim]
        inner = inner * torch.hann_window(size + 1)[1:].reshape([-1 if d == dim else 1 for d in range(5)])
    margins = [m for n in reversed(shape) for m in (n // 4, n - n // 2 - n // 4)]
    return F.pad(inner, margins)


# What the untrained network is


@BOTH
@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
@torch.no_grad()
def test_a_flat_estimate_is_the_plain_truncation(network, scale_factor):
    plain, flat = network(scale_factor), network(scale_factor, estimate=estimate("box"))
    slab, volume = uniform(2, 3 * scale_factor[2], 16, 20), uniform(1, 1, 16, 20, 6 * scale_factor[2])
    torch.testing.assert_close(flat.degrade(slab), plain.degrade(slab), atol=2e-6, rtol=0)
    torch.testing.assert_close(flat(volume), plain(volume), atol=2e-6, rtol=0)
    assert list(flat.state_dict()) == list(plain.state_dict())


@BOTH
@pytest.mark.parametrize(("options", "accuracy"), [({"hamming": True}, 2e-3), ({"elliptical": True}, 1e-2)])
@torch.no_grad()
def test_untrained_it_is_the_degradation_that_was_estimated(network, options, accuracy):
    """Up to what the other continuation beyond the borders does: little, unless the edge of k-space is sharp."""
    found = estimate("hamming" if "hamming" in options else "box", elliptical="elliptical" in options)
    volume = head_in_air(64, 48, 56)
    made = network(estimate=found)(volume)[0]
    expected = KSpaceTruncate(2, **options)(volume[0])
    plain = KSpaceTruncate(2)(volume[0])
    assert (plain - expected).abs().max() > 3 * accuracy * expected.max()
    torch.testing.assert_close(made, expected, atol=accuracy * float(expected.max()), rtol=0)


@pytest.mark.parametrize("frequency", range(12))
def test_cosines_are_weighted_by_the_transfer_at_their_frequency(frequency):
    position = torch.arange(12, dtype=torch.float64)
    cosine = torch.cos(torch.pi * frequency * (position + 0.5) / 12).reshape(12, 1, 1).expand(12, 4, 4)
    share = 1.0 if frequency < 6 else 0.5 if frequency == 6 else 0.0  # of Nyquist's own pair one plane is kept
    amplitude = 0.54 + 0.46 * math.cos(math.pi * min(frequency / 6, 1))
    made = truncate_mirrored(cosine, (2, 2, 2), (0, 1, 2), estimate("hamming"))
    torch.testing.assert_close(made, share * amplitude * cosine[::2, ::2, ::2], atol=2e-3, rtol=0)


@BOTH
@pytest.mark.parametrize("axis", range(3))
@torch.no_grad()
def test_each_axis_of_a_volume_and_of_a_slab_has_its_own_transfer(network, axis):
    """Of a wave along one axis each family leaves its own share."""
    net = network(estimate=estimate("box", "hamming", "tukey"))
    size = (32, 24, 18)
    wave = torch.cos(torch.pi * 6 * (torch.arange(size[axis]) + 0.5) / size[axis])  # mirrored, it goes on
    volume = wave.reshape([-1 if a == axis else 1 for a in range(3)]).expand(size)
    left = ("box", "hamming", "tukey")[axis]
    expected = FILTERS[left].at(np.array([12 / size[axis]]))[0] * volume[::2, ::2, ::2]
    torch.testing.assert_close(net(volume[None, None])[0, 0], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(net.degrade(volume.movedim(-1, 0)[None])[0].movedim(0, -1), expected, atol=2e-3, rtol=0)


def test_an_estimate_without_a_skip_is_refused():
    with pytest.raises(ValueError, match="skip must be true for a degradation network that starts from an estimate"):
        DegradationNet(skip=False, estimate=estimate("box"))


# Noise


@BOTH
@pytest.mark.parametrize(("filtered", "share"), [(False, 1.0), (True, (0.54**2 + 0.46**2 / 2) ** 1.5)])
@torch.no_grad()
def test_the_noise_is_as_strong_as_was_estimated_and_new_each_time(network, filtered, share):
    net = network(estimate=estimate("hamming", noise_std=0.2, filtered_noise=filtered))
    slab = torch.zeros(2, 42, 64, 64)
    torch.manual_seed(0)
    first, second = net.degrade(slab), net.degrade(slab)
    assert float(first.std()) == pytest.approx(0.2 * share, rel=0.03)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05
    torch.manual_seed(0)
    assert torch.equal(net.degrade(slab), first)
    assert float(net(torch.zeros(1, 1, 64, 64, 48)).std()) == pytest.approx(0.2 * share, rel=0.1)


@BOTH
def test_without_estimated_noise_there_is_none(network):
    low_res = uniform(2, 3, 8, 8)
    for found in (None, estimate("hamming")):
        assert network(estimate=found).add_noise(low_res) is low_res


def test_the_made_scan_is_noisy_and_what_features_are_the_rest_of_is_not(tiny_udean, unpaired_batch):
    udean, batch = tiny_udean(skip=True), unpaired_batch()
    udean.degradation.estimate = estimate("hamming", noise_std=0.1)
    with torch.no_grad():
        images = udean(batch)
    clean = udean.degradation.truncate(batch["reals"])
    assert torch.equal(images["truncated"], clean)
    assert float((images["degraded"] - clean).std()) == pytest.approx(0.1, rel=0.1)
    torch.testing.assert_close(images["reconstructed"], udean.network.decode(images["features"], clean))


# Where axes cannot be told apart


def test_along_any_axis_the_transfer_is_the_geometric_mean():
    mean = estimate("box", "hamming", "hamming").along_any_axis()
    expected = transfer("hamming").at(np.array([0.0, 0.5, 1.0])) ** (2 / 3)
    for one in mean.transfers:
        np.testing.assert_allclose(one.at(np.array([0.0, 0.5, 1.0])), expected, atol=1e-6)
    same = estimate("hamming").along_any_axis()
    torch.testing.assert_close(same.window((8, 8, 8)), estimate("hamming").window((8, 8, 8)))


# The overlay


@pytest.mark.parametrize("last_axes", [[2], [0, 1, 2]])
def test_the_model_starts_from_the_estimate_of_its_own_groups(train_stack, tmp_path, last_axes):
    workflow = train_stack("methods/spectral_contrastive.yaml", last_axes=last_axes)
    found = workflow.parser.get_parsed_content("degradation_estimate")
    start = workflow.parser.get_parsed_content("objective").degradation.estimate
    assert start == (found if last_axes == [2] else found.along_any_axis())
    assert (tmp_path / "degradation" / "report.md").is_file()


def test_features_of_an_extractor_that_has_learned_nothing_are_not_compared(train_stack):
    parser = train_stack("methods/spectral_contrastive.yaml").parser
    objective = parser.get_parsed_content("objective")
    assert objective.feature_discriminator is None
    assert objective.weights["feature_cycle_l1"] == 0
    compared = {image for _, *images in parser["contrastive_terms::pairs"].values() for image in images}
    assert compared == {"reconstructed", "cycled", "reals"}
    assert list(parser.get_parsed_content("contrastive_terms::network")) == ["image"]


def test_a_source_scan_has_the_scale_of_what_is_made_of_it(train_stack):
    workflow = train_stack("methods/spectral_contrastive.yaml")
    found = workflow.parser.get_parsed_content("degradation_estimate")
    dataset = workflow.parser.get_parsed_content("train::dataset")
    for volume in dataset.high_res_volumes:
        degrade = RandDegraded("image", found, (2, 2, 2), strength=0)
        made = degrade({"image": MetaTensor(volume[None], affine=np.eye(4))})
        scale = ScaleIntensityRobustd("image")(made)["image"].meta["intensity_scale"]
        assert scale == pytest.approx(1, abs=0.02)


def test_a_training_that_goes_on_has_the_scale_that_it_had(train_stack):
    """The intensity scale of a source scan is measured on a degraded copy, whose noise depends on the seed alone."""
    first, again = (
        train_stack("methods/spectral_contrastive.yaml").parser.get_parsed_content("train::dataset") for _ in range(2)
    )
    for volume, same in zip(first.high_res_volumes, again.high_res_volumes, strict=True):
        assert torch.equal(volume, same)


def test_what_is_not_there_is_not_measured():
    scale = ScaleIntensityRobustd("reals", measured_on="degraded", allow_missing_keys=True)
    item = {"image": uniform(1, 4, 4, 4)}
    assert scale(item)["image"] is item["image"]


def test_the_estimate_s_window_does_not_depend_on_the_crop():
    """A smooth slab in the middle of a scan is made as the whole scan is."""
    found, volume = estimate("hamming"), head_in_air(64, 64, 64)
    smooth = truncate(volume, [16] * 3, (2, 3, 4))
    smooth = F.interpolate(smooth, scale_factor=4, mode="trilinear")
    whole = truncate_mirrored(smooth, (2, 2, 2), (2, 3, 4), found)
    crop = truncate_mirrored(smooth[:, :, 8:56, 8:56, 8:56], (2, 2, 2), (2, 3, 4), found)
    inside = (slice(None), slice(None), *[slice(4, 20)] * 3)
    torch.testing.assert_close(crop[inside], whole[:, :, 4:28, 4:28, 4:28][inside], atol=2e-3, rtol=0)
