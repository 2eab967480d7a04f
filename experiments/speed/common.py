"""Shared by the measurements: the machine, its limits, repeated timings, results as JSON and Markdown."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scripts.utils.precision import resolve_amp_dtype
from torch import nn

from experiments import RESULTS as ALL_RESULTS
from experiments.benchmark.stacks import SLABS
from experiments.bundle import FIXED_FACTOR

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as in the configs
ON_GPU = DEVICE.type == "cuda"
RESULTS = ALL_RESULTS / ("speed_gpu" if ON_GPU else "speed")
MATRIX = 8192 if ON_GPU else 2048  # rows and columns, enough to occupy the device
SHIPPED: tuple[str, ...] = ()  # the overlays of a network
PAPERS_TRAIN, PAPERS_INFER = ((grid, "networks/paper_network.yaml") for grid in (SLABS, FIXED_FACTOR))


def machine() -> dict[str, Any]:
    """The machine in words, with its load from other work before the measurement."""
    units = [name for name, present in getattr(torch.cpu, "get_capabilities", dict)().items() if present is True]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "matrix units": sorted(unit for unit in units if unit in ("avx512_bf16", "amx_bf16", "avx512_f", "avx2")),
        "GPU": torch.cuda.get_device_name(DEVICE) if ON_GPU else None,
        "torch": torch.__version__,
        "load average before": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """The name of the processor."""
    path = Path("/proc/cpuinfo")
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return next((value.strip() for key, _, value in pairs if key.strip() == "model name"), platform.processor())


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median and range of repeated measurements."""
    rounded = [float(f"{value:.{digits}g}") for value in (median(values), min(values), max(values))]
    return {**dict(zip(("median", "least", "most"), rounded, strict=True)), "repeats": len(values)}


def clock() -> float:
    """Processor time of this process, which other work on the machine does not change.

    With a GPU it is wall time, read when the GPU has finished.
    """
    if ON_GPU:
        torch.cuda.synchronize(DEVICE)
        return time.perf_counter()
    return time.process_time()


def seconds_of(function: Callable[[], Any]) -> float:
    """Time of one call, see :func:`clock`."""
    started = clock()
    function()
    return clock() - started


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Times of several functions, called in turn so that all meet the same load of the machine."""
    if warm:
        for function in functions.values():
            function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds_of(function))
    return times


def matmul_rates(repeats: int = 5) -> dict[str, float]:
    """Highest GFLOP/s of a large matrix product by type: the limit of a core or of the GPU.

    bfloat16 is there only where the device has units for it. Elsewhere one product takes minutes.
    """
    rates = {}
    for dtype in dict.fromkeys((torch.float32, resolve_amp_dtype("auto", DEVICE) or torch.float32)):
        a, b = (torch.randn((MATRIX, MATRIX), device=DEVICE).to(dtype) for _ in range(2))
        a @ b
        rates[str(dtype).removeprefix("torch.")] = round(
            2 * MATRIX**3 / min(seconds_of(lambda a=a, b=b: a @ b) for _ in range(repeats)) / 1e9
        )
    return rates


def _train() -> None:
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv3d(1, 16, 3), nn.ReLU(), nn.Conv3d(16, 16, 3), nn.ReLU(), nn.Conv3d(16, 1, 3))
    optimiser = torch.optim.Adam(network.parameters())
    while True:
        optimiser.zero_grad()
        network(torch.randn(2, 1, 48, 48, 48)).square().mean().backward()
        optimiser.step()


@contextmanager
def neighbour(core: int | None) -> Iterator[None]:
    """Beside a process that trains a small network on a core; on a quiet machine for None."""
    if core is None:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_train, daemon=True)
    process.start()
    os.sched_setaffinity(process.pid, {core})
    try:
        yield
    finally:
        process.terminate()
        process.join()


@contextmanager
def on_cores(cores: Collection[int]) -> Iterator[None]:
    """This process, and the children that it starts, on some cores alone."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def conditions(names: Collection[str] = ()) -> dict[str, tuple[set[int], int | None]]:
    """Cores of a run and core of a busy neighbour, by condition: quiet, busy, one_core.

    Args:
        names: which of them; empty for all.
    """
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, tuple[set[int], int | None]] = {"quiet": (set(cores), None)}
    if not ON_GPU and len(cores) > 1:
        found |= {"busy": (set(cores), cores[-1]), "one_core": ({cores[0]}, None)}
    return {name: places for name, places in found.items() if not names or name in names}


def own_threads() -> int:
    """How many threads PyTorch has: ``OMP_NUM_THREADS``, or one for each core that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def in_child(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process, which measures its own peak memory and start-up costs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def peak_gpu_memory() -> float | None:
    """Peak memory of this process's tensors on the GPU in GiB; None without a GPU."""
    return round(torch.cuda.max_memory_allocated(DEVICE) / 2**30, 3) if ON_GPU else None


def peak_memory() -> float:
    """Peak memory of this process in GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)  # kibibytes on Linux


def memory(run: Mapping[str, Any]) -> str:
    """The peak memory of a run for a table."""
    gpu = run["peak GPU memory"]
    return f"{run['peak memory']:.2f}" + ("" if gpu is None else f", and {gpu:.2f} on the GPU")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def save(name: str, record: Mapping[str, Any], text: str) -> None:
    """Write ``NAME.json`` and, for the page, ``NAME.md`` under experiments/results/speed/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(f"{text}\n{measured_on(record['machine'])}\n", encoding="utf-8")
    print(text)


def measured_on(machine: Mapping[str, Any]) -> str:
    gpu = f"{machine['GPU']}, beside " if machine["GPU"] else ""
    return (
        f"- on {gpu}{machine['processor']}, {machine['threads']} of {machine['cores']} cores "
        f"({', '.join(machine['matrix units'])}), "
        f"PyTorch {machine['torch']}; load average before: {machine['load average before']}"
    )
