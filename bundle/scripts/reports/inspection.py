"""Inspection: what a dataset holds, what will go wrong with it, and which lines of the config suit it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, Orientationd
from monai.utils import MetaKeys
from tqdm import tqdm

from scripts.data.datalist import read_datalist
from scripts.physics.spectra import Spectrum, axis_spectrum, effective_spacing, head_law
from scripts.transforms import CheckVolumed, LoadImageStrictd, ScaleIntensityRobust
from scripts.utils.atomic import write_text_atomically
from scripts.utils.errors import explain

__all__ = ["Facts", "axis_name", "inspect_dataset", "recommend", "save_spectra"]

logger = logging.getLogger(__name__)


GROUPS = {"source": "reals", "target": "image"}
SAME = 0.1  # relative deviation that still counts as the same spacing, as in training
RESAMPLED = 1.15  # effective over stated spacing from which on a scan is suspected
AXES = {"A": "anterior-posterior", "S": "superior-inferior", "R": "left-right"}
OPPOSITE = dict(zip("PIL", "ASR", strict=True))


class Facts(NamedTuple):
    """What one scan is, along the axes of the canonical frame.

    Args:
        subject: whose scan.
        file: its path.
        orientation: axis codes as stored.
        spacing: mm.
        matrix: voxels.
        scale: its intensity scale, see :class:`scripts.transforms.ScaleIntensityRobust`.
        lowest: smallest intensity.
        spectra: one per axis, None where there is nothing to measure.
    """

    subject: str
    file: str
    orientation: str
    spacing: tuple[float, ...]
    matrix: tuple[int, ...]
    scale: float
    lowest: float
    spectra: tuple[Spectrum | None, ...]

    @property
    def effective(self) -> tuple[float | None, ...]:
        """The spacing in mm that the content supports, where it is coarser than stated."""
        finest = zip(self.spectra, self.spacing, strict=True)
        found = [None if s is None or effective_spacing(s) < RESAMPLED * h else effective_spacing(s) for s, h in finest]
        return tuple(found)


def inspect_dataset(
    dataset_dir: PathLike | None,
    output_dir: PathLike,
    axcodes: str = "ASR",
    suffix: str = "T1w",
    split: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    max_scans: int = 8,
) -> dict[str, Any]:
    """Measure the scans of the two groups as training would read them, and say what follows.

    Writes ``report.md``, ``spectra.png`` and ``recommended.yaml``, an overlay of ``train.yaml``; logs the report. A
    scan that cannot be read, or a subject in both groups, is reported rather than an error.

    Args:
        dataset_dir: see :func:`scripts.data.datalist.unpaired_datalist`; there must be one.
        output_dir: where to write.
        axcodes: of the canonical frame.
        suffix: see there.
        split: see there.
        groups: see there.
        seed: see there.
        max_scans: scans per group to measure, spread over the group.

    Returns:
        the recommended lines.

    Raises:
        ValueError: when there is no dataset, or nothing in it can be read.
    """
    if dataset_dir is None:
        raise ValueError("dataset_dir must be the dataset to inspect, got None. Give it by --dataset_dir.")
    root = Path(dataset_dir).expanduser().resolve()
    datalist = read_datalist(root, split, seed, suffix, groups)["training"]
    items = {name: [item for item in datalist if key in item] for name, key in GROUPS.items()}
    facts: dict[str, list[Facts]] = {}
    unreadable: list[str] = []
    for name, key in GROUPS.items():
        scans = [(item["subject"], item[key]) for item in items[name]]
        facts[name] = _measure(scans, root, axcodes, max_scans, unreadable)
    if not all(facts.values()):
        empty = [name for name, measured in facts.items() if not measured]
        raise ValueError(
            f"{root}: expected scans in both groups, found none that can be read in {empty}. " + " ".join(unreadable)
        )
    lines, remarks = recommend(facts["source"], facts["target"], axcodes)
    shared = sorted(set.intersection(*({item["subject"] for item in items[name]} for name in GROUPS)))
    if shared:
        remarks.append(
            f"{len(shared)} subjects are in both groups ({', '.join(shared[:5])}): an unpaired training refuses them. "
            "Take them out of one group, or add `assignment: misaligned` if this is wanted."
        )
    report = _report(root, items, facts, axcodes, [*remarks, *unreadable], lines)
    _write(Path(output_dir), facts, axcodes, lines, report)
    logger.info("%s\nReport, picture and lines in %s", report, output_dir)
    return lines


def recommend(source: Sequence[Facts], target: Sequence[Facts], axcodes: str) -> tuple[dict[str, Any], list[str]]:
    """The lines of ``train.yaml`` that suit two groups of scans, and what their user should know.

    Args:
        source: facts of the high-resolution group.
        target: facts of the low-resolution group.
        axcodes: the canonical frame that the facts are in.

    Returns:
        entries of the config, and remarks.
    """
    high, low = (np.median([one.spacing for one in group], axis=0) for group in (source, target))
    lines: dict[str, Any] = {}
    remarks = _remarks_on_groups({"source": source, "target": target})
    ratio = low / high
    if np.all(np.abs(ratio - 1) <= SAME):
        remarks.append("Both groups have one spacing: the target's scans will be degraded by k-space truncation.")
        lines |= {"degrade_target": True, "scale_factor": [2, 2, 2]}
        matrix = [[n // 2 for n in one.matrix] for one in target]
    else:
        factor = [1 if r < 1.5 else 2 for r in ratio]
        lines |= _factor_lines(factor, axcodes, remarks)
        remarks += _remarks_on_ratio(high, low, factor)
        order = [axcodes.index(code) for code in lines.get("axcodes", axcodes)]
        matrix = [[one.matrix[axis] for axis in order] for one in target]
    smallest = min(min(sizes[:2]) for sizes in matrix)
    if smallest < 64:
        lines["patch_size"] = [32, 32]
    if smallest < 32:
        remarks.append(
            f"A target scan has {smallest} voxels along an axis of the slabs, training needs 32: leave it out."
        )
    return lines, remarks


def _factor_lines(factor: list[int], axcodes: str, remarks: list[str]) -> dict[str, Any]:
    """The scale factor, with a frame whose last axis is the one that stays."""
    if factor == [2, 2, 2]:
        return {"scale_factor": factor}
    if sorted(factor) == [1, 2, 2]:
        kept = factor.index(1)
        frame = "".join(code for axis, code in enumerate(axcodes) if axis != kept) + axcodes[kept]
        return {"scale_factor": [2, 2, 1]} | ({} if frame == axcodes else {"axcodes": frame})
    remarks.append(
        f"The target is coarser along {factor.count(2)} of three axes. The networks double two axes or three: thick "
        "2-D slices are another problem."
    )
    return {}


def _remarks_on_ratio(high: np.ndarray, low: np.ndarray, factor: Sequence[int]) -> list[str]:
    wanted = low / factor
    text = f"{_mm(wanted)}, the target's spacing over the scale factor"
    if np.any(high > (1 + SAME) * wanted):
        return [
            f"The source ({_mm(high)}) is coarser than {text}: training refuses it, for detail that was never acquired "
            "cannot be learned. Are the groups swapped?"
        ]
    if np.any(high < (1 - SAME) * wanted):
        return [f"The source ({_mm(high)}) is finer than {text}: training brings it there by truncating its k-space."]
    return []


def _remarks_on_groups(groups: Mapping[str, Sequence[Facts]]) -> list[str]:
    remarks = []
    for name, group in groups.items():
        median = np.median([one.spacing for one in group], axis=0)
        for one in group:
            if np.any(np.abs(np.asarray(one.spacing) / median - 1) > SAME):
                remarks.append(f"{one.file}: spacing {_mm(one.spacing)}, but the {name}'s median is {_mm(median)}.")
            if any(one.effective):
                remarks.append(f"{one.file}: {_suspicion(one)}")
        negative = sum(one.lowest < 0 for one in group)
        if negative:
            remarks.append(
                f"{negative} of {len(group)} scans of the {name} go below zero, which a magnitude does not: they were "
                "interpolated, filtered or scaled."
            )
    return remarks


def _suspicion(one: Facts) -> str:
    effective = [h if e is None else e for h, e in zip(one.spacing, one.effective, strict=True)]
    return (
        f"stated {_mm(one.spacing)}, but its spectrum ends at {_mm(effective)}: resampled or strongly filtered. As a "
        "source it would teach blur, as a target it is coarser than it says. Use the scan before resampling, or leave "
        "it out."
    )


def _measure(
    scans: Sequence[tuple[str, str]], root: Path, axcodes: str, max_scans: int, unreadable: list[str]
) -> list[Facts]:
    """The facts of scans spread over the group; what cannot be read is remembered and left out."""
    read = Compose(
        [
            LoadImageStrictd("image"),
            EnsureChannelFirstd("image"),
            CheckVolumed("image"),
            Orientationd("image", axcodes=axcodes, labels=None),
            EnsureTyped("image", dtype=torch.float32),
        ]
    )
    chosen = sorted({round(i) for i in np.linspace(0, len(scans) - 1, min(max_scans, len(scans)))})
    facts = []
    for subject, file in tqdm([scans[i] for i in chosen], desc="Inspecting scans"):
        try:
            volume = read({"image": file})["image"]
        except (RuntimeError, ValueError) as error:
            unreadable.append(explain(error))
        else:
            facts.append(_facts(subject, os.path.relpath(file, root), volume))
    return facts


def _facts(subject: str, file: str, volume: MetaTensor) -> Facts:
    array = torch.as_tensor(volume[0].as_tensor())
    spacing = tuple(float(h) for h in volume.pixdim)
    return Facts(
        subject,
        file,
        "".join(nib.aff2axcodes(np.asarray(volume.meta[MetaKeys.ORIGINAL_AFFINE]))),
        spacing,
        tuple(array.shape),
        ScaleIntensityRobust().measure(volume),
        float(array.min()),
        tuple(axis_spectrum(array, axis, h) for axis, h in enumerate(spacing)),
    )


def _report(
    root: Path,
    items: Mapping[str, Sequence[Mapping]],
    facts: Mapping[str, Sequence[Facts]],
    axcodes: str,
    remarks: Sequence[str],
    lines: Mapping[str, Any],
) -> str:
    rows = [["", *facts]]
    rows.append(["scans (measured)", *(f"{len(items[name])} ({len(group)})" for name, group in facts.items())])
    rows.append(["subjects", *(str(len({item["subject"] for item in items[name]})) for name in facts)])
    for axis, code in enumerate(axcodes):
        cells = []
        for group in facts.values():
            cutoffs = [0.5 / one.spectra[axis].cutoff for one in group if one.spectra[axis] is not None]
            content = f", content {_range(cutoffs, 2)} mm" if cutoffs else ""
            matrix, spacing = [one.matrix[axis] for one in group], [one.spacing[axis] for one in group]
            cells.append(f"{_range(matrix, 0)} x {_range(spacing, 2)} mm{content}")
        rows.append([axis_name(code), *cells])
    rows.append(["stored as", *(_counts(one.orientation for one in group) for group in facts.values())])
    rows.append(["intensity scale", *(_range([one.scale for one in group], 4, "g") for group in facts.values())])
    rows.insert(1, ["---"] * len(rows[0]))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "\n".join(f"- {remark}" for remark in remarks) or "- nothing that stands in the way"
    return (
        f"# {root.name}\n\n{table}\n\nRemarks\n\n{notes}\n\nRecommended lines, an overlay of train.yaml\n\n"
        f"```yaml\n{_as_yaml(lines)}```\n"
    )


def _write(
    folder: Path, facts: Mapping[str, Sequence[Facts]], axcodes: str, lines: Mapping[str, Any], report: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "report.md", report)
    write_text_atomically(folder / "recommended.yaml", _as_yaml(lines))
    spectra = {name: [one.spectra for one in group] for name, group in facts.items()}
    save_spectra(folder / "spectra.png", spectra, [axis_name(code) for code in axcodes])


def axis_name(code: str) -> str:
    """What an axis code of the canonical frame means, in words."""
    return AXES[OPPOSITE.get(code, code)]


def _as_yaml(lines: Mapping[str, Any]) -> str:
    return "".join(
        f"{key}: {yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}\n" for key, value in lines.items()
    )


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common())


def _range(values: Sequence[float], digits: int, form: str = "f") -> str:
    low, high = (f"{value:.{digits}{form}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in spacing) + " mm"


COLOURS = ("#1f5fa8", "#c04a1a")


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
