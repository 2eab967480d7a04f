"""Steps side by side: each takes what the previous one hands on, and an error of one stops all."""

from __future__ import annotations

import time

import pytest
import torch
from scripts.utils.threads import in_turn


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_steps_take_in_order_what_the_previous_one_hands_on(threads):
    taken = {}

    def step(start, before, after):
        taken[start] = [before.pop(0) for _ in range(3)] if len(before) > 0 else []
        for layer in range(3):
            after.append(torch.tensor([start, layer]))

    in_turn(step, [0, 5, 10, 15], threads)
    assert taken[0] == []
    for start in (5, 10, 15):
        assert [one.tolist() for one in taken[start]] == [[start - 5, layer] for layer in range(3)]


def test_a_step_waits_only_for_what_it_takes():
    order = []

    def step(start, before, after):
        if start == 0:
            after.append(torch.zeros(1))
            time.sleep(0.2)
        else:
            before.pop(0)
        order.append(start)

    in_turn(step, [0, 1], threads=2)
    assert order == [1, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_reaches_the_caller_and_no_step_waits_for_ever(threads):
    def step(start, before, after):
        if len(before) > 0:
            before.pop(0)
        if start == 2:
            raise MemoryError("too large")
        after.append(torch.zeros(1))

    with pytest.raises(MemoryError, match="too large"):
        in_turn(step, list(range(20)), threads)


def test_steps_have_the_modes_of_the_caller_and_one_thread_inside():
    found, own = [], torch.get_num_threads()

    def step(start, before, after):
        modes = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()
        found.append((*modes, torch.get_num_threads()))

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        in_turn(step, [0, 1], threads=2)
    in_turn(step, [0], threads=1)
    assert found == [(True, True, False, 1)] * 2 + [(False, False, False, 1)]
    assert torch.get_num_threads() == own
