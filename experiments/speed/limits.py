"""The speed of the machine: matrix products and the networks' own convolution, by type and memory format.

Usage: python -m experiments.speed.limits
"""

from __future__ import annotations

from math import prod

import torch
from scripts.utils.precision import resolve_amp_dtype
from torch import nn

from experiments.speed.common import DEVICE, MATRIX, interleaved, machine, matmul_rates, save, spread, table

FORMATS = {
    2: {"channels first": torch.contiguous_format, "channels_last": torch.channels_last},
    3: {"channels first": torch.contiguous_format, "channels_last": torch.channels_last_3d},
}
LAYERS = {2: nn.Conv2d, 3: nn.Conv3d}
INPUTS = (  # batch, features, size: a slab of the papers' networks, a training batch, a window, a part of a volume
    (8, 64, 64, 64),
    (4, 32, 24, 24, 24),
    (1, 32, 64, 64, 64),
    (1, 32, 7, 160, 128),
)


def convolution_rates(batch: int, num_features: int, *size: int, repeats: int) -> dict[str, dict[str, float]]:
    """GFLOP/s of a convolution with a kernel size of 3 by type and memory format."""
    dims = len(size)
    operations = 2 * 3**dims * num_features**2 * batch * prod(size)
    functions = {}
    for dtype in dict.fromkeys((torch.float32, resolve_amp_dtype("auto", DEVICE) or torch.float32)):
        for name, memory_format in FORMATS[dims].items():
            form = {"device": DEVICE, "dtype": dtype, "memory_format": memory_format}
            x = torch.randn(batch, num_features, *size).to(**form)
            layer = LAYERS[dims](num_features, num_features, 3, padding=1).to(**form)
            functions[f"{str(dtype).removeprefix('torch.')}, {name}"] = lambda layer=layer, x=x: layer(x)
    with torch.inference_mode():
        times = interleaved(functions, repeats)
    return {name: spread([operations / t / 1e9 for t in values], 3) for name, values in times.items()}


def main() -> None:
    rates = matmul_rates(repeats=10)
    record = {"machine": machine(), f"matrix product of {MATRIX} x {MATRIX}": rates}
    rows = [[f"matrix product, {dtype}", rate] for dtype, rate in rates.items()]
    for batch, features, *size in INPUTS:
        title = f"{len(size)}-D convolution, {features} features, {batch} x {' x '.join(map(str, size))}"
        record[title] = convolution_rates(batch, features, *size, repeats=9)
        rows += [[f"{title}, {name}", f"{rate['median']:.0f}"] for name, rate in record[title].items()]
    save("limits", record, table(["operation", "GFLOP/s"], rows))


if __name__ == "__main__":
    main()
