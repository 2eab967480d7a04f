"""Precision: which type the networks compute in, by name and by device."""

from __future__ import annotations

import pytest
import torch
from scripts.utils.precision import on_device, resolve_amp_dtype
from torch import nn

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("name", "dtype"), [(None, None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_name_means_its_type_on_any_device(name, dtype, device):
    assert resolve_amp_dtype(name, device) is dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({}, None), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, None)],
)
def test_auto_takes_bfloat16_on_a_cpu_that_computes_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_amp_dtype("auto", CPU) is dtype


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), None), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)])
def test_auto_takes_bfloat16_on_a_gpu_from_ampere_on(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert resolve_amp_dtype("auto", GPU) is dtype


@pytest.mark.parametrize("name", ["half", "bf16", ""])
def test_an_unknown_type_is_refused(name):
    with pytest.raises(ValueError, match=f"amp_dtype must be 'auto', 'bfloat16', 'float16' or None, got '{name}'"):
        resolve_amp_dtype(name, CPU)


def test_convolutions_move_with_their_weights_channels_last_and_their_values_unchanged():
    layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Linear(3, 4)])
    values = {key: value.clone() for key, value in layers.state_dict().items()}
    assert on_device(layers, CPU) is layers
    assert layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert layers[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(torch.equal(value, values[key]) for key, value in layers.state_dict().items())
