"""The benchmarks measure what the bundle computes; no test here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import common, devices, training
from benchmarks.workflows import super_resolve, write_scan


def test_the_timed_terms_are_udean_s(tiny_udean, unpaired_batch):
    objective = tiny_udean().eval()
    images = objective(unpaired_batch())
    for timed, terms in [
        (training.GENERATOR_TERMS, objective.generator_loss(images)),
        (training.DISCRIMINATOR_TERMS, objective.discriminator_loss(images)),
    ]:
        assert list(timed) == list(terms)
        for name, term in timed.items():
            torch.testing.assert_close(term(objective, images), terms[name])


def test_operations_are_counted_as_the_volume_has_slabs(tmp_path, monkeypatch):
    """The papers' network takes 10.0 GMAC, 20 GFLOP, for a slab of 64 x 64."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 16, 32))  # 9 slices of an eighth of 64 x 64
    every, third = (
        super_resolve(scan, tmp_path / "output", {**common.PAPERS, "network_def#slab_step": step}) for step in (1, 3)
    )
    assert every["gflop"] == pytest.approx(9 * 20 / 8, rel=0.01)
    assert third["gflop"] == pytest.approx(3 * 20 / 8, rel=0.01)
    assert 0 < every["network"] < every["seconds"]


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


def test_the_benchmarks_start_from_the_repository_s_root():
    command = [sys.executable, "-c", "import benchmarks.inference, benchmarks.choices, benchmarks.startup"]
    assert subprocess.run(command, cwd=common.ROOT, check=False).returncode == 0
