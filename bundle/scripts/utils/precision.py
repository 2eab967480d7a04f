"""How networks compute: the floating-point type, and the layout of their weights in memory."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["on_device", "resolve_amp_dtype"]


CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions of a weight
TYPES = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _computes_bfloat16_fast(device: torch.device) -> bool:
    """Whether a device has units for bfloat16 products: Ampere GPUs and later, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell
    return device.type == "cpu" and any(capabilities.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))


def resolve_amp_dtype(amp_dtype: str | None, device: torch.device) -> torch.dtype | None:
    """The autocast type for a device; ``None`` means float32 throughout.

    Args:
        amp_dtype: "bfloat16", "float16", None, or "auto": bfloat16 where the device has units for it, else float32.
        device: where the network runs.

    Raises:
        ValueError: when the name is unknown.
    """
    if amp_dtype == "auto":
        return torch.bfloat16 if _computes_bfloat16_fast(device) else None
    if amp_dtype not in TYPES:
        raise ValueError(f"amp_dtype must be 'auto', 'bfloat16', 'float16' or None, got {amp_dtype!r}.")
    return TYPES[amp_dtype]


def on_device(module: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a module, the weights of its 2-D and 3-D convolutions channels last, the layout in which these are fast."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim in CHANNELS_LAST:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.ndim])
    return module
