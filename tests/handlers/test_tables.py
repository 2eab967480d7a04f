from __future__ import annotations

import csv
import hashlib

import pytest
import torch
from conftest import BUNDLE
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.data.names import ScanNames
from scripts.handlers.tables import METRICS, ComparisonTableHandler, comparison_metrics
from scripts.metrics import psnr
from scripts.physics.kspace import truncate
from scripts.transforms import saving

METHODS = {"tricubic": "tricubic interpolation", "pred": "ours"}
NAMES = ScanNames([{"label": f"in/sub-{seed}.nii.gz", "image": f"in/sub-{seed}.nii.gz"} for seed in (1, 2)])


def evaluate(output_dir, volumes):
    """Run the metrics and the table over one volume per subject."""
    engine = Engine(lambda _, batch: batch)
    engine.state.metric_details = {}
    for name, metric in comparison_metrics(METHODS).items():
        metric.attach(engine, name)
    ComparisonTableHandler(output_dir, METHODS, NAMES, notes={"weights": "model.pt"}).attach(engine)
    engine.run([[item] for item in volumes])


def subject(seed):
    label = torch.rand(1, 16, 18, 20, generator=torch.Generator().manual_seed(seed))
    return {
        "image": MetaTensor(truncate(label, [8, 9, 10], (1, 2, 3)), meta={"filename_or_obj": f"in/sub-{seed}.nii.gz"}),
        "label": MetaTensor(label, meta={"filename_or_obj": f"in/sub-{seed}.nii.gz"}),
        "pred": 0.9 * label,
        "tricubic": 0.8 * label,
        "deep_label": torch.cat([label, torch.ones_like(label)]),
        "lesion_label": label,  # without a mask
    }


def test_every_method_has_every_metric_and_the_first_is_the_key():
    names = list(comparison_metrics(["pred", "tricubic"]))
    assert names[0] == "pred_psnr_deep"
    assert len(names) == 2 * len(METRICS)


def test_the_csv_has_a_row_per_subject_and_method(tmp_path):
    volumes = [subject(1), subject(2)]
    evaluate(tmp_path, volumes)
    rows = list(csv.DictReader((tmp_path / "subjects.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["subject"], row["method"]) for row in rows] == [
        ("sub-1", "tricubic"),
        ("sub-1", "pred"),
        ("sub-2", "tricubic"),
        ("sub-2", "pred"),
    ]
    expected = psnr(volumes[1]["pred"], volumes[1]["label"].as_tensor()).item()
    assert float(rows[3]["psnr"]) == pytest.approx(expected, abs=1e-3)


def test_the_summary_is_mean_and_standard_deviation(tmp_path):
    volumes = [subject(1), subject(2)]
    evaluate(tmp_path, volumes)
    values = torch.stack([psnr(item["pred"], item["label"].as_tensor()) for item in volumes])
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert f"| ours | {values.mean():.2f} ± {values.std():.2f} |" in summary  # here all tissue is deep
    assert "- subjects: 2\n- weights: model.pt\n" in summary


def test_a_metric_that_no_subject_has_is_left_out_of_the_summary_and_empty_in_the_csv(tmp_path):
    with_lesion = {**subject(1), "lesion_label": subject(1)["deep_label"]}
    evaluate(tmp_path / "none", [subject(1), subject(2)])
    evaluate(tmp_path / "one", [with_lesion, subject(2)])
    title, other = METRICS["psnr_lesion"][2], METRICS["psnr_deep"][2]
    header, *_ = (tmp_path / "none" / "summary.md").read_text(encoding="utf-8").splitlines()
    assert title not in header
    assert other in header
    assert title in (tmp_path / "one" / "summary.md").read_text(encoding="utf-8")
    for folder, filled in (("none", [False] * 4), ("one", [True, True, False, False])):
        lines = csv.DictReader((tmp_path / folder / "subjects.csv").read_text(encoding="utf-8").splitlines())
        assert [line["psnr_lesion"] != "" for line in lines] == filled


def test_a_single_subject_has_no_deviation(tmp_path):
    evaluate(tmp_path, [subject(1)])
    assert "±" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_subjects_of_an_earlier_evaluation_are_forgotten(tmp_path):
    handler = ComparisonTableHandler(tmp_path, METHODS, NAMES)
    engine = Engine(lambda _, batch: batch)
    engine.state.metric_details = {}
    for name, metric in comparison_metrics(METHODS).items():
        metric.attach(engine, name)
    handler.attach(engine)
    for _ in range(2):
        engine.run([[subject(1)]])
    assert handler.subjects == ["sub-1"]


def test_weights_are_named_by_their_place_and_hash(tmp_path):
    shipped = BUNDLE / "models" / "model.pt"
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert saving.describe_weights(shipped) == f"models/model.pt, SHA-256 {digest[:12]}"
    (tmp_path / "row").mkdir()
    (tmp_path / "row" / "model.pt").write_bytes(b"abc")
    assert saving.describe_weights(tmp_path / "row" / "model.pt") == "row/model.pt, SHA-256 ba7816bf8f01"
    assert saving.describe_weights(tmp_path / "row" / "none.pt") == "row/none.pt"
    assert saving.describe_weights(None) == "none"


def test_deep_tissue_comes_first_and_the_papers_convention_last():
    assert list(METRICS) == [
        "psnr_deep",
        "ssim_deep",
        "psnr",
        "ssim",
        "psnr_corrected_deep",
        "psnr_corrected",
        "hfen",
        "psnr_consistency",
        "psnr_lesion",
        "psnr_own_maximum",
        "ssim_own_maximum",
    ]
