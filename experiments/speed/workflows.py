"""The bundle's own workflows, set up for measurement, and synthetic scans."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from scripts.handlers.costs import multiply_adds
from scripts.networks import FoldedNet
from torch import Tensor

from experiments.bundle import BUNDLE, CONFIGS
from experiments.speed.common import clock, peak_gpu_memory, peak_memory, seconds_of


def workflow(kind: str, run_id: str, *files: str, **overrides: Any) -> ConfigWorkflow:
    """A workflow of configs below bundle/configs/.

    Args:
        kind: "train" or "infer".
        run_id: the entry that ``run`` executes.
        files: configs, the trunk first.
        overrides: entries to set.
    """
    made = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in files],
        logging_file=False,
        workflow_type=kind,
        run_id=run_id,
        bundle_root=str(BUNDLE),
        **{"report": False, **overrides},
    )
    made.initialize()
    return made


def write_scan(path: Path, size: Sequence[int], spacing: float = 1.4, seed: int = 0) -> Path:
    """Write a bright ellipsoid of random blocks in dim noise; its axes point right, anterior and superior."""
    rng = np.random.default_rng(seed)
    contents = np.kron(rng.uniform(200, 1000, [-(-n // 8) for n in size]), np.ones((8, 8, 8)))
    contents = contents[: size[0], : size[1], : size[2]]
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    volume = np.where(sum(axis**2 for axis in axes) < 1, contents, 0) + rng.uniform(0, 20, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume.astype(np.int16), np.diag([spacing, spacing, spacing, 1.0])), path)
    return path


def super_resolve(
    scans: Path, output: Path, overrides: Mapping[str, Any], overlays: Sequence[str] = ()
) -> dict[str, float]:
    """Run inference.yaml from reading to writing and measure.

    Args:
        scans: a scan or a folder of them.
        output: folder of the results.
        overrides: entries to set.
        overlays: configs behind inference.yaml. With any, the network is untrained.

    Returns:
        ``seconds`` in all by :func:`experiments.speed.common.clock`, ``wall seconds`` in all, seconds in the
        ``network`` and its ``gflop``, and ``set-up`` seconds. In GiB: ``memory before`` the first scan, ``peak memory``
        of the process and ``peak GPU memory``.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    settings = {"load_pretrain": not overlays, "overwrite": True, "inferer::inferer::progress": False, **overrides}
    settings |= {"dataset_dir": str(scans), "output_dir": str(output)}
    started = clock()
    made = workflow("infer", "run", "inference.yaml", *overlays, **settings)
    evaluator = made.parser.get_parsed_content("evaluator")
    network = made.parser.get_parsed_content("network")
    measured = {"set-up": clock() - started, "memory before": peak_memory(), "network": 0.0, "gflop": 0.0}
    slices = 2 if isinstance(network, FoldedNet) else getattr(network, "slab_step", 1)  # that pass at once
    per_voxel = 2 * multiply_adds(network) / 64**2 / slices
    started_at: list[float] = []

    def stop(_: Any, inputs: Sequence[Tensor], __: Any) -> None:
        measured["network"] += clock() - started_at.pop()
        measured["gflop"] += per_voxel * inputs[0].numel() / 1e9

    network.register_forward_pre_hook(lambda *_: started_at.append(clock()))
    network.register_forward_hook(stop)
    begun = time.perf_counter()
    measured["seconds"] = seconds_of(evaluator.run)
    measured["wall seconds"] = time.perf_counter() - begun
    if any(outcome.result != "done" for outcome in evaluator.state.outcomes):
        raise RuntimeError(f"expected every scan to be super-resolved, got {evaluator.state.outcomes}.")
    return {**measured, "peak memory": peak_memory(), "peak GPU memory": peak_gpu_memory()}
