"""Estimation of the degradation between two unpaired groups: the scans' files, a report in words, and a picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from monai.config import PathLike
from torch import Tensor

from scripts.data.scans import Scan, common_spacing, load_scans, match_spacing
from scripts.physics.degradation import EMPIRICAL, Degradation
from scripts.physics.spectral_fit import estimate_degradation
from scripts.reports.inspection import axis_name
from scripts.utils.atomic import write_text_atomically

__all__ = ["estimate_groups", "remarks_on", "save_transfers"]

logger = logging.getLogger(__name__)


GROUPS = {"image": "low-resolution target", "reals": "high-resolution source"}
SHARPER = 1.15  # amplitude from which on the target has more detail than the source
POOR_FIT = 2.0  # dB; the groups of one contrast stay below about 1.2
FEW = 3  # subjects of a group, below which the uncertainty is little more than a guess


def estimate_groups(
    data: Sequence[Mapping],
    transform: Callable,
    intensity_transform: Callable,
    scale_factor: Sequence[int],
    output_dir: PathLike,
    axcodes: str = "ASR",
    spacing_tolerance: float = 0.1,
    progress: bool = True,
) -> Degradation:
    """Estimate the degradation between the groups that a training would read, and report it.

    Writes ``degradation.json``, ``report.md`` and ``transfer.png``; logs the report.

    Args:
        data: items with the file of a target scan under ``image`` or of a source scan under ``reals``.
        transform: see :class:`scripts.data.datasets.UnpairedSlabDataset`.
        intensity_transform: see there.
        scale_factor: see there.
        output_dir: where to write.
        axcodes: of the canonical frame.
        spacing_tolerance: see there.
        progress: whether to show a progress bar while loading.

    Raises:
        ValueError: when a group is empty, a source spacing is too coarse, or a scan too small for a spectrum.
    """
    scans = load_scans(data, transform, GROUPS, progress)
    spacing = common_spacing(scans["image"], spacing_tolerance) / scale_factor
    scans["reals"] = match_spacing(scans["reals"], spacing, spacing_tolerance)
    volumes, spacings = {}, {}
    for key, group in scans.items():
        volumes[key] = [_scaled(scan, key, intensity_transform) for scan in group]
        spacings[key] = [scan.volume.pixdim.tolist() for scan in group]
    found = estimate_degradation(volumes["image"], volumes["reals"], spacings["image"], spacings["reals"])
    folder, axes = Path(output_dir), [axis_name(code) for code in axcodes]
    folder.mkdir(parents=True, exist_ok=True)
    report = _report(found, axes)
    found.save(folder / "degradation.json")
    write_text_atomically(folder / "report.md", report)
    save_transfers(folder / "transfer.png", found, axes)
    logger.info("%s\nReport, picture and estimate in %s", report, folder)
    return found


def _scaled(scan: Scan, key: str, intensity_transform: Callable) -> Tensor:
    return intensity_transform({key: scan.volume})[key][0].as_tensor()


def remarks_on(degradation: Degradation, axes: Sequence[str]) -> list[str]:
    """What the user of an estimate should know, and where its assumptions fail."""
    remarks = []
    for name, transfer in zip(axes, degradation.transfers, strict=True):
        if max(transfer.measured) > SHARPER:
            remarks.append(
                f"Along the {name} axis the target has up to {max(transfer.measured):.2f} times the source's detail: "
                "it was sharpened, or the source is softer than its spacing says. Inspect both (`run inspecting`)."
            )
        if transfer.family == EMPIRICAL:
            remarks.append(f"Along the {name} axis no family of a scanner fits: the measured curve is used.")
    if degradation.misfit > POOR_FIT:
        remarks.append(
            f"The groups' spectra differ by {degradation.misfit:.1f} dB from any degradation of this kind: contrast, "
            "region or masking differ between the groups, and pairs made with this estimate may teach the wrong thing."
        )
    if min(degradation.subjects) < FEW:
        remarks.append(
            f"With {degradation.subjects[0]} source and {degradation.subjects[1]} target scans the uncertainty is "
            "little more than a guess."
        )
    return remarks


def _report(found: Degradation, axes: Sequence[str]) -> str:
    rows = ["| axis | family | parameter | amplitude at 0.5 and 0.9 of the band | misfit |", "|---|---|---|---|---|"]
    for name, transfer in zip(axes, found.transfers, strict=True):
        at, std = (np.interp([0.5, 0.9], transfer.frequencies, v) for v in (transfer.amplitude, transfer.std))
        values = ", ".join(f"{a:.2f} ± {a * s:.2f}" for a, s in zip(at, std, strict=True))
        parameter = "" if transfer.parameter is None else f"{transfer.parameter:g}"
        rows.append(f"| {name} | {transfer.family} | {parameter} | {values} | {transfer.misfit:.2f} |")
    noise = f"{found.noise_std:.4f}, within a factor of {np.exp(found.noise_spread):.2f}" if found.noise_std else "none"
    notes = "\n".join(f"- {remark}" for remark in remarks_on(found, axes)) or "- none"
    return (
        f"# Degradation from {found.subjects[0]} source to {found.subjects[1]} target scans\n\n"
        + "\n".join(rows)
        + f"\n\nNoise beyond the source's, of 1 for bright tissue: {noise}"
        + (", before the filter" if found.filtered_noise and found.noise_std else "")
        + f". Corners of k-space: {'empty' if found.elliptical else 'acquired'}."
        + f" Gain of the target: {found.gain:.2f} ± {found.gain * found.gain_std:.2f}, people included."
        + f" Residual: {found.misfit:.1f} dB.\n\nRemarks\n\n{notes}\n"
    )


def save_transfers(path: PathLike, degradation: Degradation, axes: Sequence[str]) -> None:
    """Draw the transfer along each axis: what was measured, what is used, and its standard error.

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
        panel.fill_between(frequencies, used * np.exp(-std), used * np.exp(std), color="#1f5fa8", alpha=0.2)
        panel.plot(frequencies, transfer.measured, color="#c04a1a", linewidth=1, label="measured")
        panel.plot(frequencies, used, color="#1f5fa8", label=f"used: {transfer.family.replace('_', ' ')}")
        panel.set_title(name)
        panel.set_xlabel("spatial frequency (cycles per mm)")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.25)
        panel.legend(loc="lower left", fontsize=8)
    panels[0].set_ylabel("amplitude, target over source")
    figure.savefig(path, dpi=130)
