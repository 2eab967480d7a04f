"""Pages: what they hold is the scan, they fit, nothing in them points elsewhere, and their errors cost no result."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import BUNDLE, head_phantom, write_scan
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Orientation
from scripts.data.names import ScanNames
from scripts.engines.scan_evaluator import Outcome
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.kspace import zero_fill
from scripts.physics.output import ACQUISITION, output_acquisition, record_of
from scripts.reports import dataset
from scripts.reports.pages import Row, write_index
from scripts.reports.scan import INPUT, INTERPOLATION, REFERENCE, RESULT, scan_images, write_scan_page
from scripts.reports.training import TrainingPage
from scripts.reports.volumes import Frames, cube, fitted, frames_of, whole
from torch.utils.tensorboard import SummaryWriter

FACTS = {"name": "scan", "warnings": [], "assumed": "", "numbers": {}, "record": {}, "index": "index.html"}


@pytest.fixture
def item() -> dict[str, MetaTensor]:
    """A restored scan of thick slices: anterior, superior and right of the canonical frame."""
    encodings = [FrequencyEncoding(1.0), SliceSelection(4.0, 3.0), FrequencyEncoding(1.0)]
    grid = output_acquisition(encodings, (40, 10, 36), 1.0)
    affine = np.array([[0, 0, 1.0, -18], [1.0, 0, 0, -20], [0, 1.0, 0, -20], [0, 0, 0, 1]])
    label = head_phantom(0, grid.shape)[None]
    scan = grid.acquire(label)
    meta = {ACQUISITION: json.dumps(record_of(grid)), "intensity_scale": 2.0}
    slices = affine @ np.array([[1, 0, 0, 0], [0, 4.0, 0, grid.start[1]], [0, 0, 1, 0], [0, 0, 0, 1]])
    return {
        "image": MetaTensor(grid.interpolate(scan) / 2, affine=torch.from_numpy(affine), meta=dict(meta)),
        "acquired": MetaTensor(scan / 2, affine=torch.from_numpy(slices), meta=dict(meta)),
        "pred": MetaTensor(label, affine=torch.from_numpy(affine)),
    }


def volumes(page: Path) -> dict[str, dict]:
    """What a page gives its viewer."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="volumes">(.*?)</script>', text, re.S)[1])


def as_nifti(file: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(file)))


# Volumes


def test_a_file_has_the_intensities_at_their_places_in_the_world():
    image = MetaTensor(head_phantom(0, (20, 24, 28))[None], affine=torch.from_numpy(np.diag([1.0, 1.5, 2.0, 1.0])))
    box = (slice(3, 18), slice(2, 22), slice(5, 25))
    frames = frames_of({"a": image, "b": 0.5 * image}, image, box)
    file = as_nifti(frames.nifti())
    np.testing.assert_allclose(file.affine[:3, 3], [3.0, 3.0, 10.0])
    bound = 0.51 * (frames.high - frames.low) / 255
    np.testing.assert_allclose(file.get_fdata()[..., 0], image[0][box].clamp(max=frames.high).numpy(), atol=bound)
    np.testing.assert_allclose(file.get_fdata()[..., 1], 0.5 * image[0][box].numpy(), atol=bound)


def test_what_does_not_fit_becomes_coarser_and_stays_in_its_place():
    axes = np.meshgrid(*(np.linspace(-1, 1, 48),) * 3, indexing="ij")
    blob = 255 * np.exp(-20 * sum((a - 0.3) ** 2 for a in axes))
    noisy = np.clip(blob + np.random.default_rng(0).normal(0, 8, blob.shape), 0, 255).astype(np.uint8)
    frames = Frames(("a",), noisy[None], np.diag([0.5, 0.5, 0.5, 1.0]), 0.0, 255.0)
    (coarse,), (file,) = fitted([frames], limit=len(frames.nifti()) // 3)
    assert len(file) <= len(frames.nifti()) // 3
    assert coarse.spacing[0] > 0.55

    def centre(one: Frames) -> np.ndarray:
        values = np.where(one.values[0] > 100, one.values[0], 0).astype(float)
        return one.affine[:3, :3] @ [np.average(place, weights=values) for place in np.indices(values.shape)]

    np.testing.assert_allclose(centre(coarse), centre(frames), atol=0.1)


def test_the_detail_is_at_full_resolution_around_its_place():
    image = MetaTensor(torch.rand(1, 99, 99, 99), affine=torch.from_numpy(np.diag([0.5, 0.5, 0.5, 1.0])))
    box = cube(image, (25, 20, 5), side=10)
    assert box == (slice(40, 61), slice(30, 51), slice(0, 21))
    with pytest.raises(ValueError, match=r"a place inside the scan, x, y, z in mm, got \[25, 60, 5\]"):
        cube(image, (25, 60, 5))


def test_a_page_shows_the_foreground_with_a_margin():
    image = MetaTensor(torch.zeros(1, 60, 60, 60), affine=torch.from_numpy(np.diag([2.0, 2.0, 2.0, 1.0])))
    image[:, 20:40, 25:35, 30:32] = 100
    box = whole(image)
    assert [part.start for part in box] == [16, 22, 26]
    assert [part.stop for part in box] == [44, 40, 36]


# A scan


def test_input_interpolation_and_result_are_in_the_units_of_the_scan(item):
    images = scan_images(item, scale=2.0)
    assert float(images[INPUT].max()) == pytest.approx(2 * float(item["acquired"].max()))
    assert float(images[INTERPOLATION].max()) == pytest.approx(2 * float(item["image"].max()))
    assert images[RESULT].shape == images[INTERPOLATION].shape
    assert item["image"].affine[0, 2] == 1.0  # the item stays as it is


def test_a_prediction_in_the_orientation_of_the_user_is_turned_back(item):
    turned = {**item, "pred": Orientation("LPI", labels=None)(item["pred"])}
    torch.testing.assert_close(scan_images(turned)[RESULT].as_tensor(), scan_images(item)[RESULT].as_tensor())


def test_a_network_of_one_factor_has_a_zero_filled_interpolation():
    image = MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.eye(4), meta={"low_res_affine": torch.eye(4) * 2})
    images = scan_images({"image": image, "pred": torch.rand(1, 16, 16, 16)})
    torch.testing.assert_close(images[INTERPOLATION].as_tensor(), zero_fill(image.as_tensor(), (16, 16, 16), (1, 2, 3)))


@pytest.fixture
def page(item, tmp_path) -> Path:
    images = scan_images(item, 2.0)
    images[REFERENCE] = MetaTensor(item["pred"].as_tensor(), affine=item["pred"].affine)
    assumed = "assumed: 1 x 1 mm in plane (spectrum), slices of 3 mm every 4 mm along S (sidecar); output 1 mm"
    facts = {**FACTS, "name": '<b>"scan</b>', "warnings": ["Its spacing is <new>."], "assumed": assumed}
    write_scan_page(tmp_path / "scan.html", images, facts)
    return tmp_path / "scan.html"


def test_a_page_is_small_and_points_nowhere_else(page):
    assert page.stat().st_size < 15_000_000
    text = page.read_text(encoding="utf-8")
    own = text.replace((BUNDLE / "scripts/reports/viewer/niivue.js").read_text(encoding="utf-8"), "")
    assert "</script" not in (BUNDLE / "scripts/reports/viewer/niivue.js").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#|index\.html)', own) == []
    assert "default-src 'none'" in own
    assert page.with_suffix(".jpg").stat().st_size > 1000


def test_a_page_says_warnings_first_and_where_the_acquisition_is_known_from(page):
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;&#34;scan&lt;/b&gt;" in text
    assert "<b>" not in text.replace((BUNDLE / "scripts/reports/viewer/niivue.js").read_text(encoding="utf-8"), "")
    assert text.index("Its spacing is &lt;new&gt;.") < text.index('id="viewer"')
    assert "slices of 3 mm every 4 mm, a gap of 1 mm; gaussian profile" in text
    assert "BIDS sidecar" in text
    assert "own spectrum" in text
    assert "the DICOM header" not in text


def test_a_result_that_equals_the_reference_has_no_error_and_no_contradiction(page):
    (shown,) = volumes(page).values()
    assert shown["titles"] == [INPUT, INTERPOLATION, RESULT, REFERENCE]
    images, maps = as_nifti(shown["images"]), as_nifti(shown["maps"])
    np.testing.assert_allclose(images.affine, maps.affine)
    assert (np.asarray(images.dataobj)[..., 2] == np.asarray(images.dataobj)[..., 3]).all()
    titles = [one["title"] for one in shown["legend"]]
    assert titles == ["error", "change by the network", "contradiction of the scan"]
    assert maps.shape[3] == 1 + sum(len(one["minus"]) for one in shown["legend"])
    assert np.asarray(maps.dataobj)[..., 0].max() == 1  # nothing; the viewer leaves out 0


def test_a_contradiction_is_shown_at_its_place(item, tmp_path):
    item["pred"][:, 18:22, 20:24, 16:20] += 300
    write_scan_page(tmp_path / "scan.html", scan_images(item, 2.0), FACTS)
    shown = volumes(tmp_path / "scan.html")["whole"]
    maps = as_nifti(shown["maps"])
    found = np.unravel_index(np.asarray(maps.dataobj)[..., 0].argmax(), maps.shape[:3])
    world = maps.affine @ [*found, 1]
    expected = item["pred"].affine.numpy() @ [19.5, 21.5, 17.5, 1]
    assert np.abs(world - expected).max() < 5


def test_a_page_shows_the_whole_first_and_a_detail_at_full_resolution(item, tmp_path):
    write_scan_page(tmp_path / "scan.html", scan_images(item, 2.0), FACTS, detail=[0, 0, 0])
    shown = volumes(tmp_path / "scan.html")
    assert list(shown) == ["whole", "detail"]
    np.testing.assert_allclose(as_nifti(shown["detail"]["images"]).header.get_zooms()[:3], 1.0)


def test_a_detail_outside_a_scan_is_said_on_its_page(item, tmp_path):
    write_scan_page(tmp_path / "scan.html", scan_images(item, 2.0), FACTS, detail=[500, 0, 0])
    text = (tmp_path / "scan.html").read_text(encoding="utf-8")
    assert "detail must be a place inside the scan, x, y, z in mm, got [500, 0, 0]." in text
    assert list(volumes(tmp_path / "scan.html")) == ["whole"]


# A data set


def test_the_index_shows_warnings_first_and_links_only_pages_that_exist(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "one.html").touch()
    rows = [
        Row("one", tmp_path / "a b" / "one.html", {"result": "done"}),
        Row("two", tmp_path / "two.html", {}, "broken <x>"),
    ]
    text = write_index(tmp_path, "Scans", rows, summary="| m | a |\n| --- | --- |\n| x | 1 ± 2 |\n").read_text("utf-8")
    assert text.index("broken &lt;x&gt;") < text.index("one</a>")
    assert 'href="a%20b/one.html"' in text
    assert "two.html" not in text
    assert "<td>1 ± 2</td>" in text


def infer(folder: Path, **options) -> None:
    settings = {"bundle_root": str(BUNDLE), "dataset_dir": str(folder / "in"), "output_dir": str(folder / "out")}
    settings |= {"architecture::num_groups": 1, "architecture::num_blocks": 1, "load_pretrain": False, **options}
    files = [str(BUNDLE / "configs" / "inference.yaml")]
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **settings)
    workflow.initialize()
    workflow.run()


@pytest.fixture
def scans(tmp_path) -> Path:
    write_scan(tmp_path / "in" / "iso.nii.gz", head_phantom(0, (20, 22, 24)), (2.0, 2.0, 2.0))
    write_scan(tmp_path / "in" / "inner" / "thick.nii.gz", head_phantom(1, (40, 44, 9)), (1.0, 1.0, 5.0))
    return tmp_path


def results(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_inference_writes_a_page_per_scan_and_an_index(scans):
    (scans / "in" / "broken.nii.gz").write_bytes(b"not an image")
    with pytest.raises(RuntimeError):
        infer(scans)
    pages = ["index.html", "inner/thick_desc-sr.html", "inner/thick_desc-sr.jpg", "iso_desc-sr.html", "iso_desc-sr.jpg"]
    assert results(scans / "out" / "report") == pages
    index = (scans / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert index.index("broken_desc-sr") < index.index("iso_desc-sr")
    assert str(scans) not in index  # folders may name the subject
    assert "None" not in index
    thick = (scans / "out" / "report" / "inner" / "thick_desc-sr.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in thick
    assert "slices of 5 mm every 5 mm" in thick
    assert "SourceSHA256" in thick


def test_the_index_links_only_pages_of_the_results_beside_them(scans, caplog):
    infer(scans)
    infer(scans)  # both results are kept, and so are their pages
    assert all("href" in card for card in cards(scans / "out").values())
    infer(scans, skip_air=False, report=False)
    infer(scans, skip_air=False)
    shown = cards(scans / "out")
    assert len(shown) == 2
    for card in shown.values():
        assert "href" not in card
        assert "none of this result; --overwrite True" in card
    (scans / "in" / "iso.nii.gz").write_bytes(b"not an image")
    with pytest.raises(RuntimeError):
        infer(scans, skip_air=False, overwrite=True)
    shown = cards(scans / "out")
    assert "href" not in shown["iso_desc-sr"]
    assert "href" in shown["thick_desc-sr"]


def test_scans_of_one_name_are_told_apart_by_their_folders(tmp_path):
    outcomes = [Outcome(str(tmp_path / "in" / name / "T1w.nii.gz"), "failed", remarks="broken") for name in "ab"]
    dataset.ScanPages(tmp_path, tmp_path / "in").write_index(outcomes)
    assert list(cards(tmp_path)) == ["a/T1w_desc-sr", "b/T1w_desc-sr"]


def test_report_false_leaves_the_pages_out(scans):
    infer(scans, report=False)
    assert not (scans / "out" / "report").exists()


def test_an_error_of_a_page_costs_no_result(scans, monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(dataset, "write_scan_page", fail)
    infer(scans)
    assert "iso_desc-sr.nii.gz" in results(scans / "out")
    with open(scans / "out" / "summary.csv", newline="", encoding="utf-8") as file:
        assert [row["result"] for row in csv.DictReader(file)] == ["done", "done"]
    assert "the page could not be written, the result is complete" in caplog.text


def evaluate(
    item, folder: Path, files: list[tuple[str, str]], gains: list[float], write=None
) -> dataset.EvaluationPages:
    """Pages of an evaluation of equal scans, whose predictions are multiplied by a gain."""
    (folder / "summary.md").write_text(
        "| method | PSNR (dB) |\n| --- | --- |\n| super-\\|resolution | 30.12 |\n\n- subjects: 1\n"
    )
    scans = [dict(zip(("label", "image"), pair, strict=True)) for pair in files]
    pages = dataset.EvaluationPages(folder, {"pred": "super-|resolution"}, ScanNames(scans), {"network": "<FoldedNet>"})
    for (label, image), gain in zip(files, gains, strict=True):
        own = {**item, "acquired_scan": item["acquired"], "pred": item["pred"] * gain}
        own["image"] = MetaTensor(item["image"], meta={**item["image"].meta, "filename_or_obj": image})
        own["label"] = MetaTensor(item["pred"].as_tensor(), affine=item["pred"].affine, meta={"filename_or_obj": label})
        own["deep_label"] = torch.cat([own["label"].as_tensor(), torch.ones_like(own["label"].as_tensor())])
        pages(SimpleNamespace(state=SimpleNamespace(output=[own])))
    pages.write_index()
    return pages


def cards(folder: Path) -> dict[str, str]:
    """The cards of an index by their titles."""
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    return {re.search(r"<h3>(?:<a[^>]*>)?([^<]*)<", card)[1]: card for card in text.split('<div class="card">')[1:]}


def test_evaluation_writes_a_page_per_subject_and_an_index_of_scores(item, tmp_path):
    evaluate(item, tmp_path, [("in/sub-1_T1w.nii.gz",) * 2], [0.9])
    index = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"super-\|resolution</th><td>\d+\.\d\d dB", index)
    assert "<th>super-|resolution</th><td>30.12</td>" in index
    assert 'href="sub-1_T1w.html"' in index
    page = (tmp_path / "report" / "sub-1_T1w.html").read_text(encoding="utf-8")
    assert "PSNR of the super-resolution" in page
    assert "&lt;FoldedNet&gt;" in page


def test_each_card_of_an_evaluation_has_the_scores_and_the_page_of_its_own_scan(item, tmp_path):
    files = [(f"in/{name}.nii.gz",) * 2 for name in ("1/T1w", "2/T1w", "1_T1w", "index")]
    evaluate(item, tmp_path, files, [0.99, 0.9, 0.5, 0.1])
    shown = cards(tmp_path)
    names = ["1/T1w", "2/T1w", "1_T1w", "index.nii.gz"]
    assert set(shown) == set(names)
    found = [float(re.search(r"<td>(-?[\d.]+) dB", shown[name])[1]) for name in names]
    assert found[0] > found[1] > found[2] > found[3]
    for name in names:
        assert f"<h1>{name}</h1>" in (tmp_path / "report" / f"{name}.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in (tmp_path / "report" / "1" / "T1w.html").read_text(encoding="utf-8")


def test_an_evaluation_does_not_link_a_page_of_an_earlier_one(item, tmp_path, monkeypatch):
    files = [("in/a.nii.gz", "in/a.nii.gz")]
    evaluate(item, tmp_path, files, [0.9])
    monkeypatch.setattr(dataset, "write_scan_page", lambda *_: 1 / 0)
    evaluate(item, tmp_path, files, [0.5])
    assert "href" not in cards(tmp_path)["a"]


# What a page must not hide


@pytest.mark.parametrize("detail", [[1, 2], 5, ["a", 0, 0]])
def test_a_detail_that_is_no_place_is_refused_at_once(tmp_path, detail):
    with pytest.raises(ValueError, match=r"detail must be x, y, z in mm.*Correct --detail"):
        dataset.ScanPages(tmp_path, detail=detail)


@pytest.mark.parametrize("offset", [-300.0, -3000.0])
def test_negative_tissue_is_not_black(item, tmp_path, offset):
    moved = {title: image + offset for title, image in scan_images(item, 2.0).items()}
    write_scan_page(tmp_path / "scan.html", moved, FACTS)
    shown = volumes(tmp_path / "scan.html")["whole"]
    low, high = shown["window"]
    assert low == pytest.approx(offset, abs=60)
    assert high > float(torch.quantile(moved[RESULT].as_tensor(), 0.99))
    assert shown["range"][1] > float(torch.quantile(moved[RESULT].as_tensor(), 0.999))
    assert all(one["high"] > 0 for one in shown["legend"])


def test_an_empty_result_is_said_in_words(item, tmp_path):
    images = scan_images({**item, "pred": item["pred"] * 0})
    with pytest.raises(ValueError, match=r"expected an image with something to show, got 0 everywhere"):
        write_scan_page(tmp_path / "scan.html", images, FACTS)


# A training


def test_the_page_of_a_training_has_curves_pictures_and_what_is_wrong(tmp_path):
    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    for epoch, gain in enumerate([0.0, 0.3, -0.1]):
        writer.add_scalar("psnr_gain", gain, epoch)
        writer.add_scalar("restoration_l1", 1 / (epoch + 1), 20 * (epoch + 1))
        writer.add_image("output_HW_0", np.full((1, 8, 8), 60 * epoch, np.uint8), epoch)
    rows = [[axis, f, 1 - f, 1.0] for axis in range(3) for f in (0.1, 0.4)]
    with open(tmp_path / "degradation_mtf.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["axis", "frequency", "learned", "true"], *rows])
    page = TrainingPage(tmp_path, writer)
    page(SimpleNamespace(state=SimpleNamespace(output={"terms": {"restoration_l1": None}}, iteration=60)))
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "psnr_gain is -0.10 dB: the result is no better than its interpolation." in text
    assert "epoch 1 (+0.30 dB), which best_model.pt holds" in text
    for title in ("Terms by iteration", "Validation by epoch", "Learned degradation"):
        assert title in text
    assert text.count("data:image/png") == 3
    before = (tmp_path / "report" / "index.html").stat().st_mtime_ns
    page(SimpleNamespace(state=SimpleNamespace(output={"terms": {}}, iteration=60)))  # too early for another one
    assert (tmp_path / "report" / "index.html").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("overlays", "expected"),
    [
        ([], ["Learned degradation", "psnr gain"]),
        (["methods/any_acquisition.yaml"], ["psnr gain slices 4 4", "psnr gain 2x2x2"]),
    ],
)
def test_a_training_writes_its_page(train_stack, tmp_path, overlays, expected):
    workflow = train_stack(*overlays, report=True)
    workflow.initialize()
    workflow.run()
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    figures = "".join(base64.b64decode(one).decode() for one in re.findall(r"image/svg\+xml;base64,([^\"]*)", text))
    for title in ["Validation by epoch", *expected]:
        assert title in text + figures
    assert text.count("data:image/png") >= 3  # input, result and reference
