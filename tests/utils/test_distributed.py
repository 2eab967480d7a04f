"""Several processes: two of them are one with twice the batch."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import BUNDLE, TINY_TRAINING, head_phantom, write_scan
from ignite.engine import Engine
from ignite.handlers import ProgressBar
from monai.handlers import LrScheduleHandler, StatsHandler
from scripts.data.samplers import IterationSampler, RankSampler
from scripts.handlers.checkpoints import AtomicCheckpointSaver
from scripts.handlers.gradients import GradientAveragingHandler
from scripts.handlers.ranks import handlers_of_rank
from scripts.utils.distributed import share_of_rank


class Budget:
    """What samplers know of a dataset."""

    batch_size = 6

    def __len__(self):
        return 5 * self.batch_size


@pytest.fixture
def as_rank(monkeypatch):
    def become(rank: int, world_size: int) -> None:
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)

    return become


@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_share_every_batch(as_rank, world_size, start):
    together = list(IterationSampler(Budget(), start))
    batches = [together[i : i + 6] for i in range(0, len(together), 6)]
    shares = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        sampler = RankSampler(Budget())
        sampler.start = start  # as the engine does when it resumes
        share = list(sampler)
        assert len(share) == len(sampler)
        shares.append([share[i : i + 6 // world_size] for i in range(0, len(share), 6 // world_size)])
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == batches


def test_a_batch_that_the_ranks_cannot_share_is_refused(as_rank):
    as_rank(0, 4)
    with pytest.raises(ValueError, match="multiple of the number of processes, got 6 and 4"):
        RankSampler(Budget())


def test_ranks_other_than_the_first_neither_log_nor_write(as_rank):
    schedule = LrScheduleHandler(SimpleNamespace(), print_lr=False)
    saver = AtomicCheckpointSaver(
        save_dir="unused", save_dict={"a": torch.nn.Identity()}
    )  # writes on the first rank alone
    handlers = [StatsHandler(), schedule, ProgressBar(), saver]
    as_rank(0, 2)
    assert handlers_of_rank(handlers) == handlers
    as_rank(1, 2)
    assert handlers_of_rank(handlers) == [schedule, saver]


@pytest.mark.parametrize("count", [0, 3, 4, 11])
def test_the_ranks_share_scans_in_their_order(as_rank, count):
    shares = []
    for rank in range(3):
        as_rank(rank, 3)
        shares.append(share_of_rank(range(count)))
    assert [*chain(*shares)] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_without_a_scan_is_refused(as_rank):
    as_rank(0, 3)
    with pytest.raises(ValueError, match="every process needs a scan, got 2 scans for 3 processes"):
        share_of_rank(["sub-01", "sub-02"])


def test_scaled_gradients_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    engine = Engine(lambda engine, batch: None)
    engine.grad_scaler = SimpleNamespace(is_enabled=lambda: True)
    with pytest.raises(ValueError, match="amp_dtype must be 'bfloat16' or None with several processes, got 'float16'"):
        GradientAveragingHandler().check(engine)


def train(output: Path, dataset: Path, overlays: list[str], processes: int = 0, **options) -> dict[str, torch.Tensor]:
    """Train by the command, in one process or under torchrun in several, and return the parameters."""
    launcher = ["torch.distributed.run", "--nproc_per_node", str(processes), "--standalone", "-m"] if processes else []
    files = [str(BUNDLE / "configs" / name) for name in ("train.yaml", *overlays)]
    command = [sys.executable, "-m", *launcher, "monai.bundle", "run", "training", "--config_file", str(files)]
    settings = {**TINY_TRAINING, "amp_dtype": "$None", "groups": "$None", "init_weights": "$None"}  # MONAI drops a None
    settings = {name: value for name, value in settings.items() if name != "device"} | options
    settings |= {"dataset_dir": dataset, "output_dir": output, "bundle_root": BUNDLE}
    command += [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (output / "model.pt").is_file()
    (checkpoint,) = (output / "checkpoints").glob("*.pt")
    return torch.load(checkpoint, weights_only=True)["objective"]


def test_two_processes_are_one_with_twice_the_batch(tmp_path, phantom_bids_dataset):
    """For losses that are means over samples and networks without batch statistics: here, supervised training."""
    options = {"degrade_target": True, "max_iterations": 3, "iterations_per_epoch": 3}
    options |= {"objective_def::ssim_form": "abs"}  # linear in the samples, unlike the default
    options |= {
        "train::g_optimizer::eps": 1.0,
        "learning_rate": 0.01,
    }  # Adam does not enlarge rounding where gradients vanish
    stack = ["methods/supervised_shift.yaml"]
    one = train(tmp_path / "one", phantom_bids_dataset, stack, batch_size=2, **options)
    overlay = [*stack, "launch/multi_gpu_train.yaml"]
    two = train(tmp_path / "two", phantom_bids_dataset, overlay, processes=2, batch_size=1, **options)
    start = train(tmp_path / "start", phantom_bids_dataset, stack, batch_size=2, **{**options, "learning_rate": 0.0})
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-5
    assert apart < 1e-3 * moved
    events = sorted(path.parent.name for path in tmp_path.rglob("events.out*"))
    assert events == ["tensorboard"] * 3  # one per training: the second rank wrote none


def test_two_processes_share_a_folder_and_tell_of_all_its_scans(tmp_path):
    for seed in range(3):
        write_scan(tmp_path / "scans" / f"scan{seed}.nii.gz", head_phantom(seed, (12, 16, 20)), (2.0, 2.0, 2.0))
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    names = ("inference.yaml", "launch/multi_gpu_inference.yaml")
    files = [str(BUNDLE / "configs" / name) for name in names]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
    command += ["monai.bundle", "run", "--config_file", str(files), "--bundle_root", str(BUNDLE)]
    command += ["--dataset_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / "output")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert "1 of 4 scans failed" in result.stderr
    assert result.returncode != 0
    with open(tmp_path / "output" / "summary.csv", newline="", encoding="utf-8") as file:
        fates = {Path(row["scan"]).name: row["result"] for row in csv.DictReader(file)}
    assert fates == {"broken.nii.gz": "failed", **{f"scan{seed}.nii.gz": "done" for seed in range(3)}}
    assert len(list((tmp_path / "output").rglob("*_desc-sr.nii.gz"))) == 3
    index = (tmp_path / "output" / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="(.*?)"><img', index) == [f"scan{seed}_desc-sr.html" for seed in range(3)]


def test_two_processes_evaluate_a_folder_as_one_does(tmp_path):
    for seed in range(3):
        write_scan(tmp_path / "scans" / f"scan{seed}.nii.gz", head_phantom(seed, (24, 32, 40)), (1.0, 1.0, 1.0))
    names = ["evaluate.yaml", "launch/multi_gpu_evaluate.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for output, launcher in (
        ("one", []),
        ("two", ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]),
    ):
        command = [sys.executable, "-m", *launcher, "monai.bundle", "run", "evaluating", "--config_file"]
        command += [str([str(BUNDLE / "configs" / name) for name in names]), "--bundle_root", str(BUNDLE)]
        command += ["--dataset_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / output)]
        result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
    one, two = (tmp_path / output for output in ("one", "two"))
    assert (two / "subjects.csv").read_text(encoding="utf-8") == (one / "subjects.csv").read_text(encoding="utf-8")
    summaries = [(output / "summary.md").read_text(encoding="utf-8").partition("- parameters") for output in (one, two)]
    assert summaries[0][0] == summaries[1][0]
    assert "- subjects: 3\n" in summaries[0][0]
    assert sorted(path.name for path in two.rglob("*.png")) == sorted(path.name for path in one.rglob("*.png"))
    indices = [
        (output / "report" / "index.html").read_text(encoding="utf-8").partition("<h2>")[0] for output in (one, two)
    ]
    assert indices[0] == indices[1]


def test_the_contrastive_model_with_both_losses_trains_in_two_processes(tmp_path, phantom_dataset):
    stack = ["methods/patch_contrastive.yaml", "launch/multi_gpu_train.yaml"]
    weights = train(tmp_path, phantom_dataset(), stack, processes=2)
    assert all(torch.isfinite(value).all() for value in weights.values())
