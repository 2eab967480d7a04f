"""Inspection: what a dataset holds, and which lines of the config suit it, as a report, a page and an overlay."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import yaml
from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, Orientationd
from monai.utils import MetaKeys
from tqdm import tqdm

from scripts.data.datalist import read_datalist
from scripts.handlers.pictures import upright
from scripts.physics.spectra import axis_spectrum
from scripts.reports.figures import as_uri, axis_name, spectra_of_groups, stills
from scripts.reports.pages import INDEX, REPORT, never_fatal, write_page
from scripts.reports.recommendation import Facts, recommend
from scripts.reports.volumes import frames_of, whole
from scripts.transforms import CheckVolumed, LoadImageStrictd, ScaleIntensityRobust
from scripts.utils.atomic import write_text_atomically
from scripts.utils.errors import explain

__all__ = ["inspect_dataset"]

logger = logging.getLogger(__name__)

GROUPS = {"source": "reals", "target": "image"}
MAX_SCANS = 8  # measured per group


def inspect_dataset(
    dataset_dir: PathLike | None,
    output_dir: PathLike,
    axcodes: str = "ASR",
    suffix: str = "T1w",
    split: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    report: bool = True,
) -> dict[str, Any]:
    """Measure the scans of the two groups as training would read them, and report what follows.

    Writes ``report.md``, ``spectra.png``, ``recommended.yaml``, an overlay of ``train.yaml``, and the page
    ``report/index.html``. It logs the report.
    It measures up to eight scans per group, spread over the group. A scan that it cannot read, or a subject in both
    groups, becomes a remark.

    Args:
        dataset_dir: see :func:`scripts.data.datalist.unpaired_datalist`, but not None.
        output_dir: where to write.
        axcodes: of the canonical frame.
        suffix: see there.
        split: see there.
        groups: see there.
        seed: see there.
        report: whether to write the page.

    Returns:
        the recommended lines.

    Raises:
        ValueError: when there is no dataset, or a group without a readable scan.
    """
    if dataset_dir is None:
        raise ValueError("dataset_dir must be the dataset to inspect, got None. Give it by --dataset_dir.")
    root = Path(dataset_dir).expanduser().resolve()
    datalist, left_out = read_datalist(root, split, seed, suffix, groups)
    training = datalist["training"]
    items = {name: [item for item in training if key in item] for name, key in GROUPS.items()}
    facts: dict[str, list[Facts]] = {}
    unreadable: list[str] = []
    pictures: dict[str, str] = {}
    for name, key in GROUPS.items():
        scans = [(item["subject"], item[key]) for item in items[name]]
        facts[name] = _measure(scans, root, axcodes, unreadable, pictures if report else None)
    if not all(facts.values()):
        empty = [name for name, measured in facts.items() if not measured]
        raise ValueError(
            f"{root}: expected readable scans in both groups, found none that can be read in {empty}. "
            + " ".join(unreadable)
        )
    lines, remarks = recommend(facts["source"], facts["target"], axcodes)
    shared = sorted(set.intersection(*({item["subject"] for item in items[name]} for name in GROUPS)))
    if shared:
        remarks.append(
            f"{len(shared)} subjects are in both groups ({', '.join(shared[:5])}). An unpaired training refuses them. "
            "Take them out of one group, or add `assignment: misaligned` if this is intended."
        )
    remarks += [f"{os.path.relpath(path, root)}: left out, because {reason}." for path, reason in left_out.items()]
    remarks += unreadable
    rows = _rows(items, facts, axcodes)
    text = _report(root, rows, remarks, lines)
    folder, axes = Path(output_dir), [axis_name(code) for code in axcodes]
    figure = spectra_of_groups({name: [one.spectra for one in group] for name, group in facts.items()}, axes)
    write_text_atomically(folder / "report.md", text)
    write_text_atomically(folder / "recommended.yaml", _as_yaml(lines))
    figure.savefig(folder / "spectra.png", dpi=130)
    if report:
        with never_fatal(str(root)):
            shown = {"remarks": remarks, "rows": rows, "lines": _as_yaml(lines), "pictures": pictures}
            write_page(folder / REPORT / INDEX, "inspection.html", name=root.name, spectra=as_uri(figure), **shown)
    logger.info("%s\nReport, figure and lines are in %s", text, output_dir)
    return lines


def _measure(
    scans: Sequence[tuple[str, str]],
    root: Path,
    axcodes: str,
    unreadable: list[str],
    pictures: dict[str, str] | None = None,
) -> list[Facts]:
    """The facts of scans spread over the group. Scans that cannot be read go to ``unreadable``."""
    read = Compose(
        [
            LoadImageStrictd("image"),
            EnsureChannelFirstd("image"),
            CheckVolumed("image"),
            Orientationd("image", axcodes=axcodes, labels=None),
            EnsureTyped("image", dtype=torch.float32),
        ]
    )
    chosen = sorted({round(i) for i in np.linspace(0, len(scans) - 1, min(MAX_SCANS, len(scans)))})
    facts = []
    for subject, file in tqdm([scans[i] for i in chosen], desc="Inspecting scans"):
        try:
            volume = read({"image": file})["image"]
        except (RuntimeError, ValueError) as error:
            unreadable.append(explain(error).replace(f"{root}{os.sep}", ""))
        else:
            name = os.path.relpath(file, root)
            facts.append(_facts(subject, name, volume))
            if pictures is not None:
                with never_fatal(name):
                    pictures[name] = _picture(volume)
    return facts


def _picture(volume: MetaTensor) -> str:
    """An axial and a sagittal plane of a scan, voxel by voxel."""
    scan = upright(volume, volume.affine)
    frames = frames_of({"": scan}, scan, whole(scan))
    return as_uri(stills(frames, (frames.low, frames.high), rows=[2, 0], width=200))


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


def _rows(
    items: Mapping[str, Sequence[Mapping]], facts: Mapping[str, Sequence[Facts]], axcodes: str
) -> list[list[str]]:
    """The table of both groups, with a header."""
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
    return rows


def _report(root: Path, rows: Sequence[Sequence[str]], remarks: Sequence[str], lines: Mapping[str, Any]) -> str:
    header, *others = rows
    table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *others))
    notes = "\n".join(f"- {remark}" for remark in remarks) or "- none"
    return (
        f"# {root.name}\n\n{table}\n\nRemarks\n\n{notes}\n\nRecommended lines, an overlay of train.yaml\n\n"
        f"```yaml\n{_as_yaml(lines)}```\n"
    )


def _as_yaml(lines: Mapping[str, Any]) -> str:
    return "".join(
        f"{key}: {yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}\n" for key, value in lines.items()
    )


def _counts(values: Iterable[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in Counter(values).most_common())


def _range(values: Sequence[float], digits: int, form: str = "f") -> str:
    low, high = (f"{value:.{digits}{form}}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
