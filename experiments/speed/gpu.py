"""What a GPU gains, in at most fifteen minutes: inference of one head and of twenty, and training iterations.

Usage: python -m experiments.speed.gpu [--minutes 15] [--edge 160] [--heads 20] [--iterations 20] [--tiny]

Everything runs on a CPU as well, where --tiny shrinks it to a rehearsal. Each line is saved when it is done. Lines that
the time does not allow are named. The order is that of their importance.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scripts.inferers.slab import SlabInferer

from experiments.speed.common import DEVICE, ON_GPU, PAPERS_TRAIN, machine, peak_gpu_memory, save, table
from experiments.speed.folder import ONE_BY_ONE
from experiments.speed.inference import CHANNELS_FIRST, FLOAT32, HCP, PLAIN
from experiments.speed.training import CHANNELS_FIRST as TRAIN_CHANNELS_FIRST
from experiments.speed.training import train, write_dataset
from experiments.speed.workflows import super_resolve, write_scan

BFLOAT16, FLOAT16 = {"amp_dtype": "bfloat16"}, {"amp_dtype": "float16"}
ANY = ("methods/any_acquisition.yaml",)
TINY = {"architecture::num_features": 8, "architecture::num_groups": 2, "architecture::num_blocks": 1}


class Line(NamedTuple):
    """What one line of the table measures.

    Args:
        title: of the line.
        run: returns the measurements.
        tf32: whether float32 products may have TF32's precision.
    """

    title: str
    run: Callable[[], dict[str, Any]]
    tf32: bool = False


def set_tf32(allowed: bool) -> None:
    """Whether products and convolutions in float32 may use TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def compiled(*arguments: Any) -> dict[str, Any]:
    """As :func:`super_resolve`, with a compiled network. The second of two scans has no compilation in it."""
    call = SlabInferer.__call__
    made: dict[int, Any] = {}

    def with_compiled(self: SlabInferer, inputs: Any, network: Any, *rest: Any, **options: Any) -> Any:
        return call(self, inputs, made.setdefault(id(network), torch.compile(network)), *rest, **options)

    SlabInferer.__call__ = with_compiled
    try:
        return super_resolve(*arguments)
    finally:
        SlabInferer.__call__ = call


def inference_lines(folder: Path, edge: int, heads: int, small: dict[str, Any]) -> Iterator[Line]:
    one, many = folder / "one", folder / "many"
    size = [n * edge // HCP[-1] for n in HCP]
    for seed in range(heads):
        write_scan(many / f"head{seed}.nii.gz", size, seed=seed)
    write_scan(one / "head0.nii.gz", size)
    plain = {name: value for name, value in PLAIN.items() if name != "stock"}

    def line(
        title: str, scans: Path, overrides: dict[str, Any], tf32: bool = False, stock: tuple[str, ...] = ()
    ) -> Line:
        settings = {**small, **overrides}
        return Line(title, lambda: super_resolve(scans, folder / "out", settings, (), stock), tf32)

    yield line("a first head, with the start of the device", one, {})
    yield line("one head: ours", one, {})
    yield line(f"{heads} heads: ours, reading, network and writing at once", many, {})
    yield line(f"{heads} heads: ours, one after the other", many, ONE_BY_ONE)
    yield line("one head: plain, TF32", one, plain, tf32=True, stock=PLAIN["stock"])
    yield line("one head: ours, air as well", one, {"skip_air": False})
    yield line("one head: ours, bfloat16", one, BFLOAT16)
    yield line("one head: ours, float16", one, FLOAT16)
    yield line("one head: ours, TF32", one, FLOAT32, tf32=True)
    yield line("one head: ours, float32", one, FLOAT32)
    yield line("one head: ours, channels first", one, CHANNELS_FIRST)


def compiled_line(folder: Path, small: dict[str, Any]) -> Iterator[Line]:
    settings = {**small, "skip_air": False}
    yield Line("one head: torch.compile, air as well", lambda: compiled(folder / "one", folder / "out", settings))


def training_lines(folder: Path, iterations: int, small: dict[str, Any]) -> Iterator[Line]:
    data = write_dataset(folder / "data")
    kinds = {"any acquisition": ANY, "contrastive": (), "the papers' network": PAPERS_TRAIN}
    ways = {
        "ours": {},
        "float32, TF32": FLOAT32,
        "float32": FLOAT32,
        "float16": FLOAT16,
        "channels first": TRAIN_CHANNELS_FIRST,
        "torch.compile": {},
    }
    for way, overrides in ways.items():
        for kind, overlays in kinds.items():
            settings = {**({} if overlays == PAPERS_TRAIN else small), **overrides}
            settings |= {"batch_size": 4} if overlays == ANY else {}

            def run(settings: dict = settings, overlays: tuple = overlays, way: str = way) -> dict[str, Any]:
                return train(data, settings, iterations, folder / "out", overlays, compiled=way == "torch.compile")

            yield Line(f"iteration, {kind}: {way}", run, tf32="TF32" in way)


def measure(lines: Iterator[Line], ends: float, record: dict[str, Any]) -> None:
    """Run the lines until the time is over, and save after each. A line that fails is recorded with its error."""
    for line in lines:
        if time.monotonic() > ends:
            record["left out"].append(line.title)
            continue
        set_tf32(line.tf32)
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats(DEVICE)
        started = time.perf_counter()
        try:
            result = line.run()
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        record["lines"][line.title] = {**result, "line": time.perf_counter() - started, "GPU memory": peak_gpu_memory()}
        print(line.title, record["lines"][line.title], flush=True)
        save("gpu", record, tables(record))


def seconds(line: dict[str, Any]) -> str:
    """Wall time of an inference, or of an iteration."""
    if "error" in line:
        return line["error"]
    return f"{line['wall seconds']:.2f}" if "wall seconds" in line else f"{line['seconds']['median']:.3f}"


def tables(record: dict[str, Any]) -> str:
    """Markdown."""
    rows = [[title, seconds(line)] for title, line in record["lines"].items()]
    left = "".join(f"- left out: {title}\n" for title in record["left out"])
    return f"{table(['what', 'seconds'], rows)}\n{left}"


def main(minutes: float, edge: int, heads: int, iterations: int, tiny: bool) -> None:
    ends = time.monotonic() + 60 * minutes
    small = {**TINY, "load_pretrain": False} if tiny else {}
    record: dict[str, Any] = {"machine": machine(), "device": str(DEVICE), "edge": edge, "lines": {}, "left out": []}
    with tempfile.TemporaryDirectory() as folder:
        measure(inference_lines(Path(folder), edge, heads, small), ends, record)
        trained = {**TINY, "architecture::discriminator_features": 4} if tiny else {}
        measure(training_lines(Path(folder), iterations, trained), ends, record)
        measure(compiled_line(Path(folder), small), ends, record)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=14.0)
    parser.add_argument("--edge", type=int, default=HCP[-1])
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--tiny", action="store_true")
    main(**vars(parser.parse_args()))
