"""Figures of reports: the spectra of scans, and the transfers of an estimated degradation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.config import PathLike

from scripts.physics.degradation import Degradation
from scripts.physics.spectra import Spectrum, power_law

__all__ = ["axis_name", "save_spectra", "save_transfers"]

AXES = {"A": "anterior-posterior", "S": "superior-inferior", "R": "left-right"}
OPPOSITE = dict(zip("PIL", "ASR", strict=True))
BLUE, ORANGE = "#1f5fa8", "#c04a1a"


def axis_name(code: str) -> str:
    """The name of an axis of the canonical frame.

    Example:
        >>> axis_name("L")
        'left-right'
    """
    return AXES[OPPOSITE.get(code, code)]


def save_spectra(
    path: PathLike, groups: Mapping[str, Sequence[Sequence[Spectrum | None]]], axes: Sequence[str]
) -> None:
    """Draw the spectra of two groups of scans, with their cut-offs and the usual law. Each axis has a panel.

    Args:
        path: the PNG file to write.
        groups: for each group, by title, the spectra of each scan along the axes.
        axes: names of the axes.
    """
    figure = Figure(figsize=(4.2 * len(axes), 3.6), layout="constrained")
    for axis, (panel, name) in enumerate(zip(figure.subplots(1, len(axes), sharey=True), axes, strict=True)):
        for colour, (title, scans) in zip((BLUE, ORANGE), groups.items(), strict=True):
            measured = [scan[axis] for scan in scans if scan[axis] is not None]
            for number, one in enumerate(measured):
                label = title if number == 0 else None
                panel.plot(one.frequencies, one.levels, color=colour, linewidth=0.9, alpha=0.7, label=label)
            for cutoff in {round(one.cutoff, 2) for one in measured if one.cutoff < 0.95 * one.nyquist}:
                panel.axvline(cutoff, color=colour, linestyle="--", linewidth=1)
        frequencies = torch.linspace(0.01, panel.get_xlim()[1], 200)
        panel.plot(frequencies, power_law(frequencies), color="black", linestyle=":", linewidth=1, label="usual law")
        panel.set_title(name)
        panel.set_xlabel("spatial frequency (cycles per mm)")
        panel.set_ylim(-50, 40)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel("power (dB)")
    figure.axes[0].legend(loc="lower left", title="dashed: content ends", fontsize=8, title_fontsize=8)
    figure.savefig(path, dpi=130)


def save_transfers(path: PathLike, degradation: Degradation, axes: Sequence[str]) -> None:
    """Draw the measured transfer, the used transfer and its standard error. Each axis has a panel.

    Args:
        path: the PNG file to write.
        degradation: the estimate.
        axes: names of the axes.
    """
    figure = Figure(figsize=(4.2 * len(axes), 3.4), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True)
    for panel, name, transfer, mm in zip(panels, axes, degradation.transfers, degradation.spacing, strict=True):
        used, std = np.asarray(transfer.amplitude), np.asarray(transfer.std)
        frequencies = np.asarray(transfer.frequencies) / (2 * mm)
        panel.fill_between(frequencies, used * np.exp(-std), used * np.exp(std), color=BLUE, alpha=0.2)
        panel.plot(frequencies, transfer.measured, color=ORANGE, linewidth=1, label="measured")
        panel.plot(frequencies, used, color=BLUE, label=f"used: {transfer.family.replace('_', ' ')}")
        panel.set_title(name)
        panel.set_xlabel("spatial frequency (cycles per mm)")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
        panel.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("amplitude, target over source")
    figure.savefig(path, dpi=130)
