"""The limit that noise sets to any restoration: the noise beyond the low-resolution band of each scan.

Usage: python -m experiments.studies.noise_floor BIDS [SUFFIX], for the scans of a contrast, by default T1w

The program takes noise as white. It measures the power in the corners of k-space, where every axis is within a fifth of
its Nyquist frequency. Detail in the corners counts as noise. No restoration recovers noise beyond the acquired box. A
restoration without any other error reaches ``limit`` (dB PSNR). It hardly surpasses ``ssim_limit``: the SSIM of the
scan with as much such noise again, wherever the scan was not masked. A scanner that samples an ellipsoid or filters
leaves the corners emptier. The limits are then too high.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import torch
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation
from scripts.data.layouts import one_scan_per_subject
from scripts.metrics import foreground_percentile, psnr, ssim
from scripts.physics.kspace import fftc, truncate, zero_fill

from experiments import RESULTS

FOLDER = RESULTS / "noise_floor"
CORNER = 0.8  # share of the Nyquist frequency


def noise_power(volume: torch.Tensor) -> float:
    """Variance of white noise in a volume (H, W, D), from the corners of its k-space."""
    power = fftc(volume, (0, 1, 2)).abs().square() / volume.numel()
    radii = [(torch.arange(n) - n // 2).abs() / (n / 2) >= CORNER for n in volume.shape]
    corner = radii[0][:, None, None] & radii[1][:, None] & radii[2]
    return float(power[corner].mean())


def zero_filled(volume: torch.Tensor) -> torch.Tensor:
    """A volume (H, W, D) of even size after truncation by 2x2x2 and zero-filling."""
    dims, sizes = (0, 1, 2), list(volume.shape)
    return zero_fill(truncate(volume, [n // 2 for n in sizes], dims), sizes, dims)


def noise_beyond(volume: torch.Tensor, power: float, seed: int = 0) -> torch.Tensor:
    """New noise of that power beyond the low-resolution band, wherever the volume was not masked."""
    present = volume != 0
    noise = torch.randn(volume.shape, dtype=volume.dtype, generator=torch.Generator().manual_seed(seed))
    noise *= present * math.sqrt(power / float(present.to(volume.dtype).mean()))
    return noise - zero_filled(noise)


def limits(volume: torch.Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of zero-filling after truncation by 2x2x2, and their limits by noise."""
    volume = volume.double()
    volume = volume[tuple(slice(0, n - n % 4) for n in volume.shape)]
    power, scale = noise_power(volume), foreground_percentile(volume)
    filled, noise = zero_filled(volume), noise_beyond(volume, power)
    return {
        "zero_filling": float(psnr(filled[None], volume[None])),
        "limit": 10 * math.log10(scale**2 / (7 / 8 * power)),
        "ssim_zero_filling": float(ssim(filled[None], volume[None])),
        "ssim_limit": float(ssim((volume + noise)[None], volume[None])),
    }


def main(dataset: Path, suffix: str = "T1w") -> None:
    load = Compose([LoadImage(image_only=True), EnsureChannelFirst(), Orientation("ASR", labels=None)])
    rows = [
        {"subject": subject, **limits(load(path)[0].as_tensor())}
        for subject, path in sorted(one_scan_per_subject(dataset, suffix).items())
    ]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / f"{suffix}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([row["subject"], *(f"{row[name]:.4f}" for name in list(row)[1:])] for row in rows)
    header = "scan | zero-filling (dB) | limit by noise (dB) | zero-filling, SSIM | limit by noise, SSIM"
    lines = [f"| {header} |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = [f"{row['zero_filling']:.2f}", f"{row['limit']:.2f}"]
        cells += [f"{row['ssim_zero_filling']:.4f}", f"{row['ssim_limit']:.4f}"]
        lines.append(f"| {row['subject']} | {' | '.join(cells)} |")
    (FOLDER / f"{suffix}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
