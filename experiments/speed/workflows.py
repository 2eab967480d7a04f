"""The bundle's own workflows, set up for measurement, and synthetic scans."""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigWorkflow
from scripts.networks import streaming
from scripts.transforms import formats, saving
from torch import Tensor, nn

from experiments.bundle import BUNDLE, CONFIGS
from experiments.speed.common import clock, own_threads, peak_gpu_memory, peak_memory, seconds_of


def _stock_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    return F.conv3d(x, weight, bias, padding=padding)


STOCK = {  # what replaces ours
    "convolutions": [(streaming, "convolve", _stock_convolution)],
    "gzip": [(saving, "GzipFile", gzip.GzipFile), (formats, "decompress", gzip.decompress)],  # nibabel's
}


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
    """Write a head: a brain of random blocks in a dark skull and a bright scalp, with a neck, in Rician noise.

    Its axes point right, anterior and superior. It fills about 45 % of its box, as heads do.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    radius = (x / 0.86) ** 2 + (y / 0.88) ** 2 + ((z - 0.15) / 0.78) ** 2
    neck = ((x / 0.6) ** 2 + (y / 0.7) ** 2 < 1) & (z < 0)
    tissue = rng.uniform(300, 1000, [-(-n // 8) for n in size]).astype(np.float32)
    for axis, n in enumerate(size):
        tissue = tissue.repeat(8, axis).take(range(n), axis)
    head = np.select([radius < 0.75, radius < 0.85, (radius < 1) | neck], [tissue, np.float32(40), np.float32(800)])
    real, imaginary = (10 * rng.standard_normal(size, dtype=np.float32) for _ in range(2))
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.hypot(head + real, imaginary).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([spacing, spacing, spacing, 1.0])), path)
    return path


def super_resolve(
    scans: Path, output: Path, overrides: Mapping[str, Any], overlays: Sequence[str] = (), stock: Sequence[str] = ()
) -> dict[str, float]:
    """Run inference.yaml from reading to writing and measure.

    Args:
        scans: a scan or a folder of them.
        output: folder of the results.
        overrides: entries to set.
        overlays: configs behind inference.yaml. With any, the network is untrained.
        stock: what is left to PyTorch and nibabel as they are: "convolutions", "gzip" or both.

    Returns:
        ``seconds`` in all by :func:`experiments.speed.common.clock`, ``wall seconds`` in all, seconds in the
        ``network`` and the ``gflop`` of its convolutions, and ``set-up`` seconds. In GiB: ``memory before`` the first
        scan, ``peak memory`` of the process and ``peak GPU memory``.
    """
    torch.set_num_threads(own_threads())
    settings = {"load_pretrain": not overlays, "overwrite": True, "inferer::inferer::progress": False, **overrides}
    settings |= {"dataset_dir": str(scans), "output_dir": str(output)}
    started = clock()
    made = workflow("infer", "run", "inference.yaml", *overlays, **settings)
    evaluator = made.parser.get_parsed_content("evaluator")
    network = made.parser.get_parsed_content("network")
    measured = {"set-up": clock() - started, "memory before": peak_memory()}
    started_at: list[float] = []
    times: list[float] = []
    operations: list[float] = []  # of each convolution; its threads append

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        operations.append(2 * layer.weight.numel() * output.numel() / output.shape[1])

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            layer.register_forward_hook(count)
    network.register_forward_pre_hook(lambda *_: started_at.append(clock()))
    network.register_forward_hook(lambda *_: times.append(clock() - started_at.pop()))
    begun = time.perf_counter()
    with ExitStack() as stack:
        for place in (place for name in stock for place in STOCK[name]):
            stack.enter_context(mock.patch.object(*place))
        measured["seconds"] = seconds_of(evaluator.run)
    measured["wall seconds"] = time.perf_counter() - begun
    if any(outcome.result != "done" for outcome in evaluator.state.outcomes):
        raise RuntimeError(f"expected every scan to be super-resolved, got {evaluator.state.outcomes}.")
    measured |= {"network": sum(times), "gflop": sum(operations) / 1e9}
    return {**measured, "peak memory": peak_memory(), "peak GPU memory": peak_gpu_memory()}
