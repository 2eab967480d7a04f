"""Threads: steps that depend on each other side by side, each with one thread inside of PyTorch's operations.

PyTorch splits each operation over all cores, and its threads wait for each other at the end of each. Beside another
busy process one of them comes late every time, and the others wait. A network of hundreds of small convolutions is then
several times slower. Threads that work on different parts have no such ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor

__all__ = ["Handoff", "in_turn"]


class Handoff:
    """What one step keeps for the next, as a list whose ``pop`` waits until another thread appends.

    Example:
        >>> handoff = Handoff()
        >>> handoff.append(torch.ones(1))
        >>> handoff.pop(0)
        tensor([1.])
    """

    def __init__(self) -> None:
        self._kept: SimpleQueue[Tensor | BaseException] = SimpleQueue()

    def __len__(self) -> int:
        return 1  # something comes, sooner or later

    def append(self, kept: Tensor | BaseException) -> None:
        """Hand on a tensor. An exception is raised where it would be taken."""
        self._kept.put(kept)

    def pop(self, index: int = 0) -> Tensor:
        """Take the tensor that came first. ``index`` is there as in a list."""
        kept = self._kept.get()
        if isinstance(kept, BaseException):
            raise kept
        return kept


def in_turn(step: Callable[..., None], starts: Sequence[int], threads: int) -> None:
    """Run a step from each start. A step takes tensors of the previous one, and hands its own to the next.

    Several threads begin the steps in their order. A step waits only where the previous one has not handed on what it
    takes. Gradients are not recorded. Inference mode and autocast are those of the caller.

    Args:
        step: takes a start, a list to take from (``pop(0)``), which is empty for the first step, and one to append to.
        starts: what distinguishes the steps.
        threads: how many steps run at a time.

    Raises:
        BaseException: what the first failing step raised. It ends the steps after it.

    Example:
        >>> sums = []
        >>> def add(start, before, after):
        ...     sums.append(start + (before.pop(0) if len(before) else 0))
        ...     after.append(sums[-1])
        >>> in_turn(add, [1, 2, 3], threads=2)
        >>> sums
        [1, 3, 6]
    """
    threads = min(threads, len(starts))
    handoffs: list[list[Tensor] | Handoff] = [[], *(Handoff() for _ in starts)]
    begun, own = threading.Barrier(threads + 1), torch.get_num_threads()
    inference, autocast, dtype = (
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )

    def begin() -> None:
        torch.set_num_threads(1)  # of this thread; and of all that begin later, until the caller sets its own again
        begun.wait()

    def run(index: int) -> None:
        try:  # a thread has its own modes
            with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
                step(starts[index], handoffs[index], handoffs[index + 1])
        except BaseException as error:
            handoffs[index + 1].append(error)  # the next step must not wait for ever
            raise

    with ThreadPoolExecutor(threads, thread_name_prefix="part", initializer=begin) as pool:
        running = [pool.submit(run, index) for index in range(len(starts))]
        begun.wait()
        torch.set_num_threads(own)
        try:
            for one in running:
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
