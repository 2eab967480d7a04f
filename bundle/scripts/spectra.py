"""Spectra: how fine a scan really is, whatever its header says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from monai.config import PathLike
from torch import Tensor

__all__ = ["Spectrum", "axis_spectrum", "save_spectra"]

ANCHOR = (0.03, 0.09)  # cycles per voxel: below lies the field of view, above what a resampled scan may lack
DECADE = 20.0  # dB by which the power of a head falls per decade of frequency, along an axis
DEFICIT = 10.0  # dB below that law; unfiltered scans stay within about 8
SMALLEST_SIZE = 64  # voxels; shorter spectra have too few frequencies between the anchor and the end
COLOURS = ("#1f5fa8", "#c04a1a")


class Spectrum(NamedTuple):
    """The power of a scan along one axis.

    Args:
        frequencies: in cycles per mm, up to the Nyquist frequency of the spacing.
        levels: power in dB, the law of a head being 0 dB at 0.5 cycles per mm.
        cutoff: frequency in cycles per mm from which on the power is missing; the Nyquist frequency when none is.
    """

    frequencies: Tensor
    levels: Tensor
    cutoff: float

    @property
    def nyquist(self) -> float:
        return float(self.frequencies[-1])


def axis_spectrum(volume: Tensor, axis: int, spacing: float) -> Spectrum | None:
    r"""Measure the power along an axis, and where it ends.

    The mean power of all lines of a head falls about as $1 / f^2$ down to a floor of noise, which lies above. A scan
    that was resampled, by zero-filling as by interpolation, or strongly filtered, falls far below this law from where
    its acquisition ended. The law is fixed at low frequencies; the cut-off is where the power stays 10 dB under it.

    Args:
        volume: ``(H, W, D)``, any units.
        axis: in [0, 2].
        spacing: mm per voxel along it.

    Returns:
        None when the axis has less than 64 voxels, or the volume no content along it.
    """
    size = volume.shape[axis]
    if size < SMALLEST_SIZE:
        return None
    window = torch.hann_window(size, dtype=torch.float32)
    lines = torch.fft.rfft(volume.float().movedim(axis, -1) * window, dim=-1)
    power = lines.abs().square().flatten(0, -2).mean(0)[1:]
    if not power[0] > 0:
        return None
    smooth = F.avg_pool1d(power[None], 5, stride=1, padding=2, count_include_pad=False)[0]
    frequencies = torch.arange(1, len(power) + 1) / size
    law = head_law(frequencies / spacing)
    levels = 10 * torch.log10(smooth.clamp(min=float(smooth.max()) * 1e-20))
    anchor = (frequencies >= ANCHOR[0]) & (frequencies <= ANCHOR[1])
    levels = levels - (levels - law)[anchor].mean()
    present = torch.nonzero(law - levels < DEFICIT)
    end = int(present[-1]) if len(present) else 0
    return Spectrum(frequencies / spacing, levels, float(frequencies[end]) / spacing)


def head_law(frequencies: Tensor) -> Tensor:
    """The power of a head in dB at frequencies in cycles per mm, 0 dB at 0.5 cycles per mm."""
    return -DECADE * torch.log10(frequencies / 0.5)


def save_spectra(
    path: PathLike, groups: Mapping[str, Sequence[Sequence[Spectrum | None]]], axes: Sequence[str]
) -> None:
    """Draw the spectra of groups of scans, a panel per axis, with the cut-offs of each group and the law of a head.

    Args:
        path: the PNG file to write.
        groups: for each group, by title, the spectra of each scan along the axes.
        axes: names of the axes.
    """
    figure = Figure(figsize=(4.2 * len(axes), 3.6), layout="constrained")
    for axis, (panel, name) in enumerate(zip(figure.subplots(1, len(axes), sharey=True), axes, strict=True)):
        for colour, (title, scans) in zip(COLOURS, groups.items(), strict=False):
            measured = [scan[axis] for scan in scans if scan[axis] is not None]
            for number, one in enumerate(measured):
                label = title if number == 0 else None
                panel.plot(one.frequencies, one.levels, color=colour, linewidth=0.9, alpha=0.7, label=label)
            for cutoff in {round(one.cutoff, 2) for one in measured if one.cutoff < 0.95 * one.nyquist}:
                panel.axvline(cutoff, color=colour, linestyle="--", linewidth=1)
        frequencies = torch.linspace(0.01, panel.get_xlim()[1], 200)
        panel.plot(frequencies, head_law(frequencies), color="black", linestyle=":", linewidth=1, label="a head")
        panel.set_title(name)
        panel.set_xlabel("spatial frequency (cycles per mm)")
        panel.set_ylim(-50, 40)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel("power (dB)")
    figure.axes[0].legend(loc="lower left", title="dashed: content ends", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=130)


def effective_spacing(spectrum: Spectrum) -> float:
    """The spacing (mm) whose Nyquist frequency is the cut-off."""
    return 0.5 / spectrum.cutoff if spectrum.cutoff > 0 else math.inf
