"""Tissue: no voxel above the noise floor is left out, whatever the volume, and air is left out where it is noise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.physics.tissue import BLOCK, FAINTEST, LOUDEST, block_maxima, noise_floor, tissue_blocks
from torch import Tensor


def head(shape: tuple[int, int, int], noise: float, seed: int, faintest: float = 0.3) -> tuple[Tensor, Tensor]:
    """An ellipsoid of random tissue in Rician noise, and where it is."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1.4, 1.4, n) for n in shape), indexing="ij")
    inside = sum(axis.square() for axis in axes) < 1
    tissue = faintest + (1 - faintest) * torch.rand(shape, generator=generator)
    real, imaginary = noise * torch.randn(2, *shape, generator=generator)
    return torch.hypot(inside * tissue + real, imaginary), inside


def covered(blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The voxels in marked blocks."""
    for axis, size in enumerate(shape):
        blocks = blocks.repeat_interleave(BLOCK, axis).narrow(axis, 0, size)
    return blocks


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 50)] * 3),
    noise=st.floats(0, 0.5),
    scale=st.floats(1e-3, 10),
    seed=st.integers(0, 1000),
)
def test_every_voxel_above_the_noise_floor_is_marked_with_a_block_around_it(shape, noise, scale, seed):
    volume = scale * head(shape, noise, seed)[0]
    marks = covered(tissue_blocks(volume), shape)
    floor = noise_floor(block_maxima(volume))
    assert FAINTEST <= floor <= LOUDEST
    for place in (volume > floor).nonzero()[::97]:
        assert marks[tuple(slice(max(0, int(i) - BLOCK), int(i) + BLOCK + 1) for i in place)].all()


@pytest.mark.parametrize("noise", [0.0, 0.005, 0.01, 0.02])
def test_a_head_is_marked_and_its_air_is_not(noise):
    volume, inside = head((96, 88, 80), noise, seed=0)
    marks = covered(tissue_blocks(volume), volume.shape)
    assert marks[inside].all()
    reach = 2 * BLOCK - 1  # voxels from a corner of a block to the far side of the next
    near = F.max_pool3d(inside[None].float(), 2 * reach + 1, stride=1, padding=reach)[0] > 0
    assert not marks[~near].any()


def test_air_as_loud_as_tissue_counts_as_tissue():
    assert tissue_blocks(head((64, 64, 64), noise=0.2, seed=0)[0]).all()


def test_a_volume_without_air_is_marked_throughout():
    assert tissue_blocks(0.3 + torch.rand(40, 40, 40)).all()


def test_nothing_is_marked_where_nothing_is():
    assert not tissue_blocks(torch.zeros(9, 9, 9)).any()
