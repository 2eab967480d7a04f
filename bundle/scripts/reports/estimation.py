"""Estimation of the degradation between two unpaired groups, with a report and a figure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.config import PathLike
from torch import Tensor

from scripts.data.scans import Scan, common_spacing, load_scans, match_spacing
from scripts.physics.degradation import EMPIRICAL, Degradation
from scripts.physics.estimation import estimate_degradation
from scripts.physics.spectral_fit import ESTIMATOR
from scripts.reports.figures import axis_name, save_transfers
from scripts.utils.atomic import write_text_atomically

__all__ = ["estimate_groups", "remarks_on"]

logger = logging.getLogger(__name__)

GROUPS = {"image": "low-resolution target", "reals": "high-resolution source"}
SPACING_TOLERANCE = 0.1  # relative deviation within which two spacings count as the same, as in training
SHARPER = 1.15  # amplitude above which the target has more detail than the source
POOR_FIT = 2.0  # dB; the groups of one contrast stay below about 1.2
VOXEL_AVERAGE = 2 / np.pi  # of the amplitude at the Nyquist frequency
CANNOT_TELL = f"""No estimate from power can tell these: a shift or a distortion, aliasing, a difference between two
scanners, and what a transfer loses steeply below {ESTIMATOR.flat_share:g} of the band, as in an exponential decay. The
latter counts as gain. The stated errors cover differences between subjects alone."""
FEW = 3  # subjects of a group, below which the uncertainty is little more than a guess


def estimate_groups(
    data: Sequence[Mapping],
    transform: Callable,
    intensity_transform: Callable,
    scale_factor: Sequence[int],
    output_dir: PathLike,
    axcodes: str = "ASR",
) -> Degradation:
    """Estimate the degradation between the two groups that a training would read, and report it.

    Writes ``degradation.json``, ``report.md`` and ``transfer.png``, and logs the report.

    Args:
        data: items with the file of a target scan under ``image``, or of a source scan under ``reals``.
        transform: see :class:`scripts.data.datasets.UnpairedDataset`.
        intensity_transform: see there.
        scale_factor: see there.
        output_dir: where to write.
        axcodes: of the canonical frame.

    Raises:
        ValueError: when a group is empty, a source spacing is too coarse, or a scan is too small for a spectrum.
    """
    scans = load_scans(data, transform, GROUPS, progress=True)
    spacing = common_spacing(scans["image"], SPACING_TOLERANCE) / scale_factor
    scans["reals"] = match_spacing(scans["reals"], spacing, SPACING_TOLERANCE)
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
    logger.info("%s\nReport, figure and estimate are in %s", report, folder)
    return found


def _scaled(scan: Scan, key: str, intensity_transform: Callable) -> Tensor:
    return intensity_transform({key: scan.volume})[key][0].as_tensor()


def remarks_on(degradation: Degradation, axes: Sequence[str]) -> list[str]:
    """Warnings for the user of an estimate: where its assumptions fail."""
    remarks = []
    for name, transfer in zip(axes, degradation.transfers, strict=True):
        if max(transfer.measured) > SHARPER:
            remarks.append(
                f"Along the {name} axis the target has up to {max(transfer.measured):.2f} times the source's detail. "
                "The target was sharpened, or the source is softer than its spacing says. Run `inspecting` on both."
            )
        if transfer.family == EMPIRICAL:
            remarks.append(f"Along the {name} axis no family of a scanner fits, and the measured curve is used.")
    hidden = {name: one.detectable for name, one in zip(axes, degradation.transfers, strict=True) if one.detectable < 1}
    if hidden:
        limits = ", ".join(f"{amplitude:.2f} along the {name} axis" for name, amplitude in hidden.items())
        remarks.append(
            f"A further smooth blur may be hidden where it leaves more than {limits}, as a share of the amplitude at "
            f"the edge of the band. Subjects differ as much. Averaging over a voxel leaves {VOXEL_AVERAGE:.2f}."
        )
    if degradation.misfit > POOR_FIT:
        remarks.append(
            f"The groups' spectra differ by {degradation.misfit:.1f} dB from any degradation of this kind. The groups "
            "differ in contrast, region or masking. Pairs made with this estimate may teach the wrong thing."
        )
    if min(degradation.subjects) < FEW:
        remarks.append(
            f"With {degradation.subjects[0]} source and {degradation.subjects[1]} target scans the stated uncertainty "
            "is little more than a guess."
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
        + f"\n\nNoise beyond the source's, relative to bright tissue: {noise}"
        + (", before the filter" if found.filtered_noise and found.noise_std else "")
        + f". Corners of k-space: {'empty' if found.elliptical else 'acquired'}."
        + f" Gain of the target: {found.gain:.2f} ± {found.gain * found.gain_std:.2f}, subjects included."
        + f" Residual: {found.misfit:.1f} dB.\n\nRemarks\n\n{notes}\n\n{CANNOT_TELL}\n"
    )
