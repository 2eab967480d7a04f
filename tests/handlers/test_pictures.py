from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from monai.data import MetaTensor
from monai.transforms import Orientation
from scripts.data.names import ScanNames
from scripts.handlers import pictures
from scripts.handlers.pictures import ComparisonPictureHandler, save_comparison

NAMES = ScanNames([{"label": "in/sub-01_T1w.nii.gz", "image": "in/sub-01_T1w.nii.gz"}])


def ball(shape=(40, 48, 44)):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.clip(1.2 - 1.5 * sum(a**2 for a in axes), 0, None).astype(np.float32)


@pytest.fixture
def saved(monkeypatch):
    """The figures that were saved, instead of files."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: figures.append(self))
    return figures


def images_of(figure, cmap):
    return [image for axes in figure.axes for image in axes.get_images() if image.get_cmap().name == cmap]


def test_a_page_is_written(tmp_path):
    label = ball()
    save_comparison(tmp_path / "page.png", {"low": label, "a": 0.9 * label, "b": label}, label, (1.0, 1.0, 1.0))
    height, width, _ = imread(tmp_path / "page.png").shape
    assert width > 1200
    assert height > width


def test_all_errors_share_one_colour_scale_and_all_images_one_grey_scale(saved):
    label = ball()
    save_comparison("", {"low": label, "a": 0.8 * label, "b": 0.9 * label}, label, (1.0, 1.0, 1.0))
    errors, images = images_of(saved[0], "inferno"), images_of(saved[0], "gray")
    assert len(errors) == 3 * 2
    assert len(images) == 4 * 4
    assert len({image.get_clim() for image in errors}) == 1
    assert len({image.get_clim() for image in images}) == 1
    # 20 % less everywhere: the largest error is 20 % of the reference's maximum
    assert max(image.get_array().max() for image in errors) == pytest.approx(20, abs=0.1)


def test_the_patients_right_and_the_front_lie_on_the_left():
    volume = np.zeros((5, 7, 9))
    volume[4, :, :] = 1  # right
    assert pictures.plane(volume, axis=1)[:, 0].all()
    assert pictures.plane(volume, axis=2)[:, 0].all()
    volume[:] = 0
    volume[:, 6, :] = 1  # anterior
    assert pictures.plane(volume, axis=0)[:, 0].all()
    assert pictures.plane(volume, axis=2)[-1].all()  # the last row is drawn on top
    volume[:] = 0
    volume[:, :, 8] = 1  # superior
    assert pictures.plane(volume, axis=0)[-1].all()


def test_columns_are_headed_by_method_and_psnr(saved):
    label = ball()
    label[20, 24, 22] = label.max()
    save_comparison(
        "", {"low": label, "a": label - 0.01 * label.max(), "b": label}, label, (0.7, 0.7, 0.7), title="sub"
    )
    headings = [axes.get_title() for axes in saved[0].axes[:4]]
    assert headings[0] == "low"
    assert headings[2] == "b\n120.00 dB"
    assert headings[3] == "high resolution\n0.7 × 0.7 × 0.7 mm"
    assert "sub" in [text.get_text() for text in saved[0].texts]


def test_pixels_have_the_proportions_of_voxels(saved):
    label = ball((40, 48, 22))
    save_comparison("", {"low": label, "a": label * 0.9}, label, (1.0, 1.0, 2.0))
    sagittal, axial = saved[0].axes[0], saved[0].axes[4 * 3]
    assert (sagittal.get_aspect(), axial.get_aspect()) == (2.0, 1.0)


def test_the_detail_is_where_the_first_method_errs_most(saved):
    label = ball((100, 120, 110))
    wrong = label.copy()
    wrong[70:75, 40:45] += 0.3
    save_comparison("", {"low": label, "a": wrong, "b": label}, label, (1.0, 1.0, 1.0))
    frame = saved[0].axes[4 * 4].patches[0]
    box = pictures.foreground(label)
    horizontal, vertical = (box[0].stop - 1 - 72, 42 - box[1].start)
    assert frame.get_x() < horizontal < frame.get_x() + frame.get_width() == frame.get_x() + 40
    assert frame.get_y() < vertical < frame.get_y() + frame.get_height()


def test_the_handler_turns_volumes_upright_and_names_pages_by_subject(saved, tmp_path):
    asr = torch.tensor([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    label = torch.from_numpy(ball().transpose(1, 2, 0).copy())[None]  # anterior, superior, right
    meta = {"filename_or_obj": "in/sub-01_T1w.nii.gz"}
    item = {
        "image": MetaTensor(
            label[:, ::2, ::2, ::2],
            affine=asr,
            meta={**meta, "low_res_affine": asr @ torch.diag(torch.tensor([2.0, 2, 2, 1]).double())},
        ),
        "label": MetaTensor(label, affine=asr, meta=meta),
        "pred": MetaTensor(label, affine=asr),
    }
    handler = ComparisonPictureHandler(tmp_path, {"pred": "super-resolution"}, NAMES)
    handler(SimpleNamespace(state=SimpleNamespace(output=[item])))
    titles = [axes.get_title() for axes in saved[0].axes[:3]]
    assert titles[0] == "low resolution\n2 × 2 × 2 mm"
    assert titles[1] == "super-resolution\n120.00 dB"
    expected = pictures.plane(ball()[pictures.foreground(ball())], axis=0)
    np.testing.assert_array_equal(saved[0].axes[1].get_images()[0].get_array(), expected)


@pytest.mark.parametrize(("spacing", "start"), [(2, 0), (5, 3), (3.3, 2)])
def test_thick_slices_are_drawn_at_their_places(saved, tmp_path, spacing, start):
    label = torch.from_numpy(ball())[None]
    places = start + spacing * torch.arange(int((44 - start - 1) / spacing) + 1)
    affine = torch.diag(torch.tensor([1.0, 1.0, spacing, 1.0]).double())
    affine[2, 3] = start
    scan = MetaTensor(places.float().expand(1, 40, 48, -1).clone(), affine=affine)
    blocks = pictures.as_blocks(scan, MetaTensor(label, affine=torch.eye(4).double()))
    inside = torch.arange(start, int(places[-1]) + 1)
    assert (blocks[0, 0, 0, inside] - inside).abs().max() <= spacing / 2 + 1e-5  # its value is its place
    item = {
        "image": MetaTensor(label, affine=torch.eye(4).double(), meta={"filename_or_obj": "in/sub-01_T1w.nii.gz"}),
        "acquired_scan": scan,
        "label": MetaTensor(label, affine=torch.eye(4).double(), meta={"filename_or_obj": "in/sub-01_T1w.nii.gz"}),
        "pred": MetaTensor(label, affine=torch.eye(4).double()),
    }
    ComparisonPictureHandler(tmp_path, {"pred": "super-resolution"}, NAMES)(
        SimpleNamespace(state=SimpleNamespace(output=[item]))
    )
    assert saved[0].axes[0].get_title() == f"low resolution\n1 × 1 × {spacing:g} mm"


@pytest.mark.parametrize("codes", ["RAS", "ASR", "LPI", "SLA"])
def test_a_volume_is_turned_upright_and_copied_only_to_flip_an_axis(codes):
    affine = torch.tensor([[0.0, 0, 2, 5], [1, 0, 0, -7], [0, 3, 0, 1], [0, 0, 0, 1]], dtype=torch.float64)
    expected = Orientation("RAS", labels=None)(MetaTensor(torch.rand(1, 3, 4, 5), affine=affine))
    volume = Orientation(codes, labels=None)(expected)
    made, own = pictures.upright(volume.as_tensor(), volume.affine), volume.affine.clone()
    torch.testing.assert_close(made.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(made.affine.double(), expected.affine.double())
    torch.testing.assert_close(volume.affine, own)
    shared = made.untyped_storage().data_ptr() == volume.untyped_storage().data_ptr()
    assert shared == (codes in ("RAS", "ASR"))


def test_scans_of_one_name_have_a_picture_each(saved, tmp_path):
    files = [f"in/{patient}/T1w.nii.gz" for patient in (1, 2)]
    handler = ComparisonPictureHandler(
        tmp_path, {"pred": "ours"}, ScanNames([{"label": file, "image": file} for file in files])
    )
    eye = torch.eye(4).double()
    for file in files:
        meta = {"filename_or_obj": file, "low_res_affine": eye}
        volume = MetaTensor(torch.from_numpy(ball())[None], affine=eye, meta=meta)
        item = {"image": volume, "label": volume, "pred": volume}
        handler(SimpleNamespace(state=SimpleNamespace(output=[item])))
    assert [figure.texts[0].get_text() for figure in saved] == ["1/T1w", "2/T1w"]
