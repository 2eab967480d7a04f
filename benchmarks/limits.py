"""What the machine can do: matrix products and the networks' own convolution, by type and memory format.

Usage: python -m benchmarks.limits
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.common import interleaved, machine, matmul_rates, save, spread, table

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def convolution_rates(num_features: int, slabs: int, plane: int, repeats: int) -> dict[str, dict[str, float]]:
    """GFLOP/s of a 3 x 3 convolution by type and memory format."""
    layer = nn.Conv2d(num_features, num_features, 3, padding=1)
    operations = 2 * sum(p.numel() for p in (layer.weight,)) * slabs * plane**2
    functions = {}
    for dtype in (torch.float32, torch.bfloat16):
        for name, memory_format in FORMATS.items():
            x = torch.randn(slabs, num_features, plane, plane).to(dtype).to(memory_format=memory_format)
            copy = nn.Conv2d(num_features, num_features, 3, padding=1).to(dtype).to(memory_format=memory_format)
            functions[f"{str(dtype).removeprefix('torch.')}, {name}"] = lambda copy=copy, x=x: copy(x)
    with torch.inference_mode():
        times = interleaved(functions, repeats)
    return {name: spread([operations / t / 1e9 for t in values], 3) for name, values in times.items()}


def main() -> None:
    record = {"machine": machine(), "matrix product of 2048 x 2048": matmul_rates(repeats=10)}
    rows = [[f"matrix product, {dtype}", rate] for dtype, rate in record["matrix product of 2048 x 2048"].items()]
    for features, slabs, plane in ((64, 8, 64), (64, 1, 160), (32, 8, 64)):
        title = f"convolution 3 x 3, {features} features, {slabs} x {plane} x {plane}"
        record[title] = convolution_rates(features, slabs, plane, repeats=15)
        rows += [[f"{title}, {name}", f"{rate['median']:.0f}"] for name, rate in record[title].items()]
    save("limits", record, table(["operation", "GFLOP/s"], rows))


if __name__ == "__main__":
    main()
