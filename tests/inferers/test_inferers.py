from __future__ import annotations

import monai.inferers.inferer
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from scripts.inferers import SlabInferer
from scripts.physics.kspace import zero_fill

ORIENTATIONS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def repeat(x, scale_factor=(2, 2, 2)):
    """Nearest-neighbour super-resolution: local, so that tiling must not change it."""
    for axis, s in enumerate(scale_factor):
        x = x.repeat_interleave(s, dim=axis + 2)
    return x


def volume(*shape):
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0))


def tiles(**kwargs):
    return SlidingWindowInferer(roi_size=[16, 16, -1], overlap=0.25, mode="gaussian", **kwargs)


def test_tiling_in_plane_is_a_partition_of_unity():
    x = volume(37, 29, 5)
    torch.testing.assert_close(SlabInferer(tiles())(x, torch.clone), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_tiles_of_an_up_sampling_network_leave_no_seams(scale_factor):
    x = volume(37, 29, 5)
    pred = SlabInferer(tiles())(x, lambda y: repeat(y, scale_factor))
    torch.testing.assert_close(pred, repeat(x, scale_factor), atol=1e-5, rtol=0)


def test_volumes_smaller_than_a_tile_keep_their_size():
    x = volume(9, 20, 8)
    torch.testing.assert_close(SlabInferer(tiles(padding_mode="replicate"))(x, repeat), repeat(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 0), ({"sw_device": "cpu"}, 1), ({"device": "cpu"}, 1), ({"cpu_thresh": 100}, 1), ({"with_coord": True}, 1)],
)
def test_a_window_is_left_out_only_where_it_does_nothing(monkeypatch, options, expected):
    slid = []
    window = monai.inferers.inferer.sliding_window_inference
    monkeypatch.setattr(
        monai.inferers.inferer, "sliding_window_inference", lambda *args: slid.append(1) or window(*args)
    )
    x = volume(9, 8, 7)
    pred = SlabInferer(SlidingWindowInferer(roi_size=[-1, 8, -1], **options))(x, lambda x, *coordinates: repeat(x))
    torch.testing.assert_close(pred, repeat(x))
    assert len(slid) == expected


def test_orientations_are_turned_back():
    x = volume(18, 21, 9)
    pred = SlabInferer(tiles(), orientations=ORIENTATIONS)(x, repeat)
    torch.testing.assert_close(pred, repeat(x), atol=1e-5, rtol=0)


def test_each_orientation_presents_another_axis_last():
    sizes = []

    def network(x):
        sizes.append(tuple(x.shape[2:]))
        return repeat(x)

    SlabInferer(SimpleInferer(), orientations=ORIENTATIONS)(volume(4, 5, 6), network)
    assert sizes == [(4, 5, 6), (5, 6, 4), (6, 4, 5)]


def test_the_average_of_orientations_is_the_mean_of_their_predictions():
    x = volume(6, 6, 6)

    def blur_slabs(y):
        return torch.cumsum(y, dim=-1)

    expected = (x.cumsum(-1) + x.cumsum(-3) + x.cumsum(-2)) / 3
    pred = SlabInferer(SimpleInferer(), orientations=ORIENTATIONS)(x, blur_slabs)
    torch.testing.assert_close(pred, expected)


def test_metadata_of_the_input_stay_with_the_prediction():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    x = MetaTensor(volume(8, 8, 8), affine=affine, meta={"intensity_scale": 7.0})
    pred = SlabInferer(tiles(), orientations=ORIENTATIONS)(x, repeat)
    assert isinstance(pred, MetaTensor)
    assert pred.meta["intensity_scale"] == 7.0
    torch.testing.assert_close(pred.affine, affine)
    assert pred.shape == (1, 1, 16, 16, 16)


@pytest.mark.parametrize("amp_dtype", [None, "auto", "bfloat16"])
def test_the_prediction_is_float32_in_any_precision(amp_dtype):
    network = torch.nn.Conv3d(1, 1, 3, padding=1)
    x = volume(16, 16, 6)
    with torch.no_grad():
        pred = SlabInferer(tiles(), amp_dtype=amp_dtype)(x.double(), network)
        expected = network(x)
    assert pred.dtype == torch.float32
    torch.testing.assert_close(pred, expected, atol=1e-2 if amp_dtype else 1e-6, rtol=0)


def test_reduced_precision_reaches_the_network_only():
    seen = []

    def network(x):
        seen.extend([x.dtype, torch.mm(x[0, 0, 0], x[0, 0, 0]).dtype])
        return x

    SlabInferer(SimpleInferer(), amp_dtype="bfloat16")(volume(4, 4, 4), network)
    assert seen == [torch.float32, torch.bfloat16]


def test_a_smooth_volume_is_super_resolved_by_zero_filling_in_every_orientation():
    x = volume(8, 10, 6)
    pred = SlabInferer(SimpleInferer(), orientations=ORIENTATIONS)(
        x, lambda y: zero_fill(y, [2 * n for n in y.shape[2:]], (2, 3, 4))
    )
    torch.testing.assert_close(pred, zero_fill(x, [16, 20, 12], (2, 3, 4)), atol=1e-5, rtol=0)


def test_orientations_with_an_anisotropic_scale_factor_are_refused():
    inferer = SlabInferer(SimpleInferer(), orientations=ORIENTATIONS)
    with pytest.raises(ValueError, match="only with an isotropic scale factor"):
        inferer(volume(4, 5, 6), lambda x: repeat(x, (2, 2, 1)))


@pytest.mark.parametrize("orientations", [(), ((0, 1),), ((0, 1, 3),)])
def test_orientations_that_are_no_permutations_are_refused(orientations):
    with pytest.raises(ValueError, match="must be permutations of"):
        SlabInferer(SimpleInferer(), orientations=orientations)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="got 'bf16'"):
        SlabInferer(SimpleInferer(), amp_dtype="bf16")
