"""Description: small, centred numbers per axis, in voxels of the output grid."""

from __future__ import annotations

import pytest
import torch
from scripts.physics.description import acquisition_vector, kind_of
from scripts.physics.encoding import FrequencyEncoding, SliceSelection


def test_the_commonest_acquisition_lies_near_the_centre():
    told = acquisition_vector([FrequencyEncoding(2.0)] * 3, voxel=1.0)
    assert torch.equal(told.reshape(3, 3)[:, [0, 2]], torch.zeros(3, 2))
    assert told.abs().max() <= 0.5


def test_only_ratios_to_the_output_voxel_count():
    axes = [FrequencyEncoding(0.8), FrequencyEncoding(1.2), SliceSelection(4.0, 3.0)]
    doubled = [FrequencyEncoding(1.6), FrequencyEncoding(2.4), SliceSelection(8.0, 6.0)]
    assert torch.allclose(acquisition_vector(axes, 0.8), acquisition_vector(doubled, [1.6, 1.6, 1.6]))


def test_gap_and_overlap_have_opposite_signs():
    gap, overlap = (acquisition_vector([SliceSelection(4.0, t)], 1.0)[2] for t in (3.0, 5.0))
    assert gap == -overlap == -0.125


@pytest.mark.parametrize(
    ("spacings", "kind"), [((2, 2, 1), "in_plane"), ((2, 2, 2), "isotropic"), ((1.1, 1.1, 1.1), "isotropic")]
)
def test_in_plane_is_where_some_axes_have_nothing_to_restore(spacings, kind):
    assert kind_of([FrequencyEncoding(float(spacing)) for spacing in spacings], 1.0) == kind
    assert kind_of([SliceSelection(4.0, 4.0), *map(FrequencyEncoding, spacings[1:])], 1.0) == "slices"
