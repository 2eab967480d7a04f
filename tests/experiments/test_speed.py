"""The measurements of speed compute what the bundle computes; no test here looks at a time."""

from __future__ import annotations

import importlib
import json
import time

import pytest
from scripts.networks import FoldedNet
from torch import nn

from experiments.speed import common, folder, gpu, growth, inference, iteration, training
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
    run = super_resolve(scan, tmp_path / "output", {"load_pretrain": False, "skip_air": False})
    weights = sum(layer.weight.numel() for layer in FoldedNet().modules() if isinstance(layer, nn.Conv3d))
    assert run["gflop"] == pytest.approx(2 * 9 * 16 * 32 * weights / 1e9)
    assert 0 < run["network"] < run["seconds"]


def test_the_ways_are_compared_with_the_plain_one_and_with_the_matrix_rate():
    ways = {
        title: {"network": 2.0 / times, "gflop": 400 / times, "wall seconds": walls}
        for title, times, walls in (
            ("plain", 1, {"quiet": common.spread([4.0]), "busy": common.spread([6.0])}),
            ("ours", 2, {"quiet": common.spread([0.5, 1.0, 2.0]), "busy": common.spread([1.5])}),
        )
    }
    inference.rates({"matrix product (GFLOP/s)": {"float32": 100, "bfloat16": 500}, "ways": ways})
    assert [way["times as fast as plain"] for way in ways.values()] == [
        {"quiet": 1, "busy": 1},
        {"quiet": 4, "busy": 4},
    ]
    assert [way["busy over quiet"] for way in ways.values()] == [1.5, 1.5]
    assert [way["share of the matrix rate"] for way in ways.values()] == [0.4, 0.4]


def test_a_tiny_scan_is_measured_under_every_condition(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(inference, "matmul_rates", lambda: {"float32": 100})
    monkeypatch.setattr(inference, "in_child", lambda function, *rest: function(*rest))
    monkeypatch.setattr(inference, "WAYS", dict(list(inference.WAYS.items())[-2:]))
    inference.main(16, 1)
    saved = json.loads((tmp_path / "inference.json").read_text(encoding="utf-8"))
    assert saved["size"] == [12, 16, 16]
    for way in saved["ways"].values():
        assert way["wall seconds"].keys() == common.conditions().keys()
        assert way["gflop"] > 0


def test_a_tiny_folder_of_heads_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(folder, "in_child", lambda function, *rest: function(*rest))
    folder.main(2, 16, "quiet")
    saved = json.loads((tmp_path / "folder.json").read_text(encoding="utf-8"))
    assert {way["wall seconds"].keys() == {"quiet"} for way in saved["ways"].values()} == {True}
    assert saved["ways"]["ours"]["gflop"] == pytest.approx(saved["ways"]["ours, one after the other"]["gflop"])


def test_the_run_for_a_gpu_is_rehearsed_line_by_line_and_names_what_its_time_does_not_allow(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    small = {**gpu.TINY, "load_pretrain": False}
    lines = [line for line in gpu.inference_lines(tmp_path, 16, 2, small) if "compile" not in line.title]
    small = {**gpu.TINY, "architecture::discriminator_features": 4}
    lines += [line for line in gpu.training_lines(tmp_path, 1, small) if line.title.endswith("any acquisition: ours")]
    record = {"machine": common.machine(), "lines": {}, "left out": []}
    gpu.measure(iter(lines), time.monotonic() + 600, record)
    assert [title for title, line in record["lines"].items() if "error" in line] == []
    assert list(record["lines"]) == [line.title for line in lines]
    gpu.measure(iter(lines[:1]), time.monotonic() - 1, record)
    assert f"- left out: {lines[0].title}" in gpu.tables(record)


def test_the_parts_of_an_iteration_are_less_than_the_whole(phantom_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = iteration.parts_of_iterations(phantom_dataset() / "source", tmp_path, 2, **gpu.TINY, copies_per_scan=1)
    assert len(found) == 2
    for one in found:
        parts = [one[name] for name in (iteration.FORWARD, iteration.BACKWARD, iteration.WAIT, iteration.OPTIMISER)]
        assert min(parts) > 0
        assert sum(parts) < one["iteration"]


def test_a_cube_of_twice_the_edge_is_extrapolated_by_its_voxels():
    run = {
        "seconds": 2.0,
        "wall seconds": 1.5,
        "network": 1.0,
        "voxels": 1000,
        "output (GiB)": 0.5,
        "memory before": 1.0,
        "peak memory": 1.5,
        "peak GPU memory": None,
    }
    larger = growth.extrapolated(run, 20)
    assert (larger["wall seconds"], larger["peak memory"], larger["output (GiB)"]) == (12.0, 5.0, 4.0)


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


@pytest.mark.parametrize("name", ["head", "interpolation", "limits", "plots", "slices", "startup"])
def test_the_other_programs_can_be_imported(name):
    assert callable(importlib.import_module(f"experiments.speed.{name}").main)
