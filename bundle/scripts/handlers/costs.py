"""The costs of a prediction: parameters, operations, time and memory."""

from __future__ import annotations

import resource
import time

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["InferenceCosts", "multiply_adds"]


def multiply_adds(network: nn.Module, in_plane: int = 64) -> int:
    """Count the multiply-adds of convolutions and matrix products for one slab.

    Args:
        network: maps volumes ``(1, 1, H, W, D)``. A volume passes as one slab per slice.
        in_plane: in-plane size of the slab in LR voxels. The papers count 64 x 64.

    Example:
        >>> multiply_adds(nn.Conv3d(1, 1, 1), in_plane=8)
        64
    """
    parameter = next(network.parameters(), torch.zeros(()))
    slab = torch.zeros((1, 1, in_plane, in_plane, 1), device=parameter.device)
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:  # it knows the convolutions of a training
        network(slab)
    return counter.get_total_flops() // 2


class InferenceCosts:
    """Measure the predictions of an evaluator: seconds per volume in the inferer, and peak memory.

    The memory is that of the GPU, or on a CPU that of the whole process.

    Args:
        network: see :func:`multiply_adds`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.seconds: list[float] = []
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)

    def _start(self) -> None:
        self.started = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize(engine.state.device)
        self.seconds.append(time.perf_counter() - self.started)

    def summary(self, engine: Engine) -> dict[str, str]:
        """The costs by title, as notes of a table."""
        if engine.state.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(engine.state.device)
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes on Linux
        return {
            "parameters": f"{sum(p.numel() for p in self.network.parameters()):,}",
            "GMAC per slab of 64 x 64": f"{multiply_adds(self.network) / 1e9:.2f}",
            "seconds per volume": f"{sum(self.seconds) / max(1, len(self.seconds)):.1f}",
            "peak memory (GiB)": f"{memory / 2**30:.1f}",
        }
