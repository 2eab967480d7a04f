"""An iteration of the recipe for any acquisition: how much of it is the network, and how long it waits for data.

Usage: python -m experiments.speed.iteration [ITERATIONS]

The training is that of methods/any_acquisition.yaml on two synthetic heads. Seconds are wall time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from ignite.engine import Events

from experiments.speed.common import machine, save, table
from experiments.speed.training import prepare
from experiments.speed.workflows import write_scan

OVERLAY = "methods/any_acquisition.yaml"
WARM_UP = 2
WAIT, FORWARD, BACKWARD, OPTIMISER = "waiting for data", "forward", "backward", "optimiser"
REST = "loss, averaging of weights, records"


def parts_of_iterations(dataset: Path, output: Path, iterations: int, **overrides: Any) -> list[dict[str, float]]:
    """Seconds of each part of every iteration, and of the ``iteration`` as a whole."""
    parser = prepare(dataset, {"batch_size": 4, **overrides}, iterations + WARM_UP, output, OVERLAY)
    trainer, network = parser.get_parsed_content("train::trainer"), parser.get_parsed_content("network")
    parser.get_parsed_content("train::ema").attach(trainer)
    found: list[dict[str, float]] = []
    begun: dict[str, float] = {}

    def start(name: str) -> None:
        begun[name] = time.perf_counter()

    def stop(name: str) -> None:
        found[-1][name] = found[-1].get(name, 0.0) + time.perf_counter() - begun[name]

    @trainer.on(Events.GET_BATCH_STARTED)
    def begin() -> None:
        if found:
            stop("iteration")
        found.append({})
        start("iteration")
        start(WAIT)

    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, stop, WAIT)
    trainer.add_event_handler(Events.COMPLETED, stop, "iteration")
    network.register_forward_pre_hook(lambda *_: start(FORWARD))
    network.register_forward_hook(lambda *_: stop(FORWARD))
    trainer.g_optimizer.register_step_pre_hook(lambda *_: start(OPTIMISER))
    trainer.g_optimizer.register_step_post_hook(lambda *_: stop(OPTIMISER))
    backward = torch.Tensor.backward

    def timed_backward(loss: torch.Tensor, *args: Any, **options: Any) -> None:
        start(BACKWARD)
        backward(loss, *args, **options)
        stop(BACKWARD)

    with mock.patch.object(torch.Tensor, "backward", timed_backward):
        trainer.run()
    return [one for one in found if FORWARD in one][WARM_UP:]


def main(iterations: int = 16) -> None:
    record: dict[str, Any] = {"machine": machine(), "iterations": iterations}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(2):
            write_scan(Path(folder) / "data" / f"sub-{seed}_T1w.nii.gz", (128, 160, 160), spacing=1.0, seed=seed)
        found = parts_of_iterations(Path(folder) / "data", Path(folder) / "output", iterations)
    for one in found:
        one[REST] = one["iteration"] - sum(one.get(name, 0.0) for name in (WAIT, FORWARD, BACKWARD, OPTIMISER))
    total = sum(one["iteration"] for one in found)
    record["parts"] = {
        name: {"seconds": median(one.get(name, 0.0) for one in found), "share": sum(one[name] for one in found) / total}
        for name in (FORWARD, BACKWARD, WAIT, OPTIMISER, REST, "iteration")
    }
    rows = [[n, f"{p['seconds']:.3f}", f"{100 * p['share']:.1f} %"] for n, p in record["parts"].items()]
    save("iteration", record, table(["part of an iteration", "seconds, median", "share of all iterations"], rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
