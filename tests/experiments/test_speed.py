"""The measurements of speed compute what the bundle computes; no test here looks at a time."""

from __future__ import annotations

import importlib
import json

import pytest
from scripts.networks import FoldedNet
from torch import nn

from experiments.speed import common, devices, growth, inference, precision, training
from experiments.speed.workflows import super_resolve, write_scan


def test_the_parts_of_an_iteration_are_timed_through_the_objective(phantom_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = {"num_features": 16, "num_groups": 1, "num_blocks": 1, "discriminator_features": 4}
    small = {f"architecture::{name}": value for name, value in names.items()} | {
        "batch_size": 2,
        "crop_size": [64, 64, 10],
    }
    prepare = training.prepare
    monkeypatch.setattr(training, "prepare", lambda data, _, *rest: prepare(data, small, *rest))
    parts = training.cost_by_part(phantom_dataset(), (), 1, tmp_path)
    assert list(parts) == [
        "images: forward of the generators",
        "discriminators' terms",
        "discriminators' optimiser",
        "generators' terms",
        "contrastive terms",
        "images: back through the generators",
        "generators' optimiser",
    ]


def test_operations_are_counted_as_the_volume_has_slabs(tmp_path, monkeypatch):
    """The papers' network takes 10.0 GMAC, 20 GFLOP, for a slab of 64 x 64."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 16, 32))  # 9 slices of an eighth of 64 x 64
    every, third = (
        super_resolve(scan, tmp_path / "output", {"network_def::slab_step": step}, common.PAPERS_INFER)
        for step in (1, 3)
    )
    assert every["gflop"] == pytest.approx(9 * 20 / 8, rel=0.01)
    assert third["gflop"] == pytest.approx(3 * 20 / 8, rel=0.01)
    assert 0 < every["network"] < every["seconds"]


def test_operations_of_the_shipped_network_are_those_of_its_convolutions(tmp_path, monkeypatch):
    """Each weight is used once per block of 2 x 2 x 2 voxels of the output grid, which has twice the scan's edges."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 16, 32))
    run = super_resolve(scan, tmp_path / "output", {"load_pretrain": False})
    weights = sum(layer.weight.numel() for layer in FoldedNet().modules() if isinstance(layer, nn.Conv3d))
    assert run["gflop"] == pytest.approx(2 * 9 * 16 * 32 * weights / 1e9)
    assert 0 < run["network"] < run["seconds"]


def test_the_ways_are_compared_with_the_plain_one_and_with_the_matrix_rate():
    ways = {
        "plain": {"seconds": 4.0, "network": 2.0, "gflop": 400},
        "ours": {"seconds": 1.0, "network": 0.5, "gflop": 200},
    }
    inference.rates({"matrix product (GFLOP/s)": {"bfloat16": 500}, "ways": ways})
    assert [way["times as fast as plain"] for way in ways.values()] == [1, 4]
    assert [way["share of the bfloat16 matrix rate"] for way in ways.values()] == [0.4, 0.8]


def test_float32_gets_as_many_iterations_as_bfloat16_has_time_for():
    def train(amp_dtype: str, iterations: int) -> dict[str, float]:
        seconds = iterations * (0.1 if amp_dtype == precision.BFLOAT16 else 0.25)
        return {"iterations": iterations, "seconds": seconds, "gain": 0.0}

    compared = precision.compare(train, 100)
    assert [run["iterations"] for run in compared.values()] == [100, 100, 40]
    assert [run["seconds"] for run in compared.values()] == pytest.approx([10, 25, 10])


def test_a_cube_of_twice_the_edge_is_extrapolated_by_its_voxels():
    run = {
        "seconds": 2.0,
        "network": 1.0,
        "voxels": 1000,
        "output (GiB)": 0.5,
        "memory before": 1.0,
        "peak memory": 1.5,
        "peak GPU memory": None,
    }
    larger = growth.extrapolated(run, 20)
    assert (larger["seconds"], larger["peak memory"], larger["output (GiB)"]) == (16.0, 5.0, 4.0)


def test_on_paper_one_gpu_sends_nothing_and_more_send_two_copies_of_the_gradients():
    paper = devices.on_paper({"tflop": 1.0, "gradients (MB)": 100.0, "embeddings (MB)": 0.0})
    assert paper[0]["communicating (MB)"] == 0
    assert paper[0]["efficiency"] == 1
    assert [row["communicating (MB)"] for row in paper[1:3]] == [100, 175]
    assert paper[-1]["communicating (MB)"] == pytest.approx(200, rel=0.02)


def test_results_are_saved_for_programs_and_for_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    record = {"machine": common.machine(), "seconds": common.spread([3.0, 1.0, 2.0])}
    common.save("trial", record, common.table(["a", "b"], [["c", 1]]))
    saved = json.loads((tmp_path / "trial.json").read_text(encoding="utf-8"))
    assert saved["seconds"] == {"median": 2.0, "least": 1.0, "most": 3.0, "repeats": 3}
    assert (tmp_path / "trial.md").read_text(encoding="utf-8").startswith("| a | b |\n| --- | --- |\n| c | 1 |\n\n- ")


def test_functions_are_timed_in_turn():
    called = []
    times = common.interleaved({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, warm=False)
    assert called == ["a", "b"] * 2
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("name", ["choices", "folder", "interpolation", "limits", "plots", "startup"])
def test_the_other_programs_can_be_imported(name):
    assert callable(importlib.import_module(f"experiments.speed.{name}").main)
