"""Figures of reports: planes and spectra of scans, and the transfers of an estimated degradation."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.config import PathLike
from monai.data import MetaTensor
from PIL import Image, ImageDraw, ImageFont

from scripts.handlers.pictures import PLANES, plane
from scripts.physics.degradation import Degradation
from scripts.physics.spectra import Spectrum, axis_power, cycles_per_voxel, power_law, smooth
from scripts.reports.volumes import Frames

__all__ = ["as_uri", "axis_name", "save_transfers", "spectra", "spectra_of_groups", "stills"]

AXES = {"A": "anterior-posterior", "S": "superior-inferior", "R": "left-right"}
OPPOSITE = dict(zip("PIL", "ASR", strict=True))
BLUE, ORANGE = "#1f5fa8", "#c04a1a"
COLOURS = ("#7a7a7a", BLUE, ORANGE, "#2a8a57")  # of an input, its interpolation, its result and its reference
ROWS = (2, 1, 0)  # axial, coronal, sagittal: axes that the planes cut
HEADER = 22  # pixels
QUALITY = 85  # of JPEG


def axis_name(code: str) -> str:
    """The name of an axis of the canonical frame.

    Example:
        >>> axis_name("L")
        'left-right'
    """
    return AXES[OPPOSITE.get(code, code)]


def spectra_of_groups(groups: Mapping[str, Sequence[Sequence[Spectrum | None]]], axes: Sequence[str]) -> Figure:
    """Draw the spectra of two groups of scans, with their cut-offs and the usual law. Each axis has a panel.

    Args:
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
    return figure


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


def as_uri(picture: Figure | Image.Image) -> str:
    """A figure as SVG, or an image as JPEG, in an address that holds its content: a page then needs no further file.

    Example:
        >>> as_uri(Figure(figsize=(1, 1)))[:26]
        'data:image/svg+xml;base64,'
    """
    content, figure = io.BytesIO(), isinstance(picture, Figure)
    picture.savefig(content, format="svg") if figure else picture.save(content, "JPEG", quality=QUALITY)
    media = "svg+xml" if figure else "jpeg"
    return f"data:image/{media};base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def stills(frames: Frames, window: Sequence[float], rows: Sequence[int] = ROWS, width: int = 340) -> Image.Image:
    """Draw a plane of each image in radiological orientation. Each row has another plane, each column an image.

    Args:
        frames: the images.
        window: the intensities of black and white.
        rows: the axes that the planes cut.
        width: of a column in pixels.

    Example:
        >>> frames = Frames(("a", "b"), np.zeros((2, 8, 8, 8), np.uint8), np.eye(4), 0.0, 1.0)
        >>> stills(frames, (0.0, 1.0), width=100).size
        (200, 322)
    """
    black, white = (255 * (end - frames.low) / (frames.high - frames.low) for end in window)
    levels = (255 * (np.arange(256) - black) / max(white - black, 1)).clip(0, 255).astype(np.uint8)
    sides = np.multiply(frames.values.shape[1:], frames.spacing)
    heights = [round(width * sides[1 if axis == 2 else 2] / sides[1 if axis == 0 else 0]) for axis in rows]
    page = Image.new("L", (width * len(frames.titles), HEADER + sum(heights)))
    font, draw = ImageFont.load_default(0.6 * HEADER), ImageDraw.Draw(page)
    for column, (title, image) in enumerate(zip(frames.titles, frames.values, strict=True)):
        top = HEADER
        draw.text((width * (column + 0.5), HEADER / 2), title, 255, font, "mm")
        for axis, height in zip(rows, heights, strict=True):
            pixels = Image.fromarray(np.ascontiguousarray(levels[plane(image, axis)][::-1]))
            page.paste(pixels.resize((width, height), Image.Resampling.BILINEAR), (width * column, top))
            top += height
            if column == 0:
                draw.text((6, top - 6), PLANES[axis][1], 190, font, "ls")
    return page


def spectra(images: Mapping[str, MetaTensor]) -> Figure:
    """Draw the power of images along each axis, on one scale. The power of the last one is 0 dB where it is largest.

    Args:
        images: by title, each ``(1, X, Y, Z)`` with axes to the right, to anterior and to superior.
    """
    figure = Figure(figsize=(11, 3.3), layout="constrained")
    for axis, (panel, code) in enumerate(zip(figure.subplots(1, 3, sharey=True), "RAS", strict=True)):
        curves = {}
        for title, image in images.items():
            lines = image.as_tensor()[0][tuple(slice(None, None, 1 if other == axis else 2) for other in range(3))]
            power = smooth(axis_power(lines, axis, "forward")[1:])  # every other line is enough
            frequencies = cycles_per_voxel(image.shape[axis + 1])[1:] / float(image.pixdim[axis])
            curves[title] = frequencies, 10 * torch.log10(power.clamp(min=1e-20))
        highest = curves[title][1].max()
        for number, (name, (frequencies, levels)) in enumerate(curves.items()):
            colour = COLOURS[min(number, len(COLOURS) - 1)]
            panel.plot(frequencies, levels - highest, color=colour, linewidth=3.5 if number == 0 else 1.3, label=name)
        ends = next(iter(curves.values()))[0][-1]
        panel.axvline(ends, color=COLOURS[0], linestyle="--", linewidth=1)
        panel.set_title(axis_name(code), fontsize=10)
        panel.set_xlabel("spatial frequency (cycles per mm)")
        panel.grid(alpha=0.25)
    lowest = min(line.get_ydata().min() for line in figure.axes[0].get_lines()[:-1])
    figure.axes[0].set_ylim(max(-70.0, float(lowest) - 3), 3)
    figure.axes[0].set_ylabel("power (dB)")
    figure.axes[0].legend(fontsize=8, title="dashed: the acquisition ends", title_fontsize=8)
    return figure
