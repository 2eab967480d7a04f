"""The page of one scan: input, interpolation and result with a linked cursor, maps, spectra, and how it was made."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import Orientation

from scripts.handlers.pictures import PLANES, upright
from scripts.metrics.monitors import acquired_again
from scripts.metrics.quality import foreground_percentile
from scripts.physics.encoding import SliceSelection
from scripts.physics.kspace import zero_fill
from scripts.physics.output import ACQUISITION
from scripts.reports.figures import QUALITY, as_uri, axis_name, spectra, stills
from scripts.reports.pages import write_page
from scripts.reports.volumes import DARKEST, LEVELS, Frames, cube, fitted, frames_of, whole
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.utils import axis_names, plain
from scripts.utils.atomic import write_atomically

__all__ = ["INPUT", "INTERPOLATION", "REFERENCE", "RESULT", "error_map", "scan_images", "shows", "write_scan_page"]

INPUT, INTERPOLATION, RESULT, REFERENCE = "input", "interpolation", "super-resolution", "high resolution"
LARGEST = 11_000_000  # characters of the volumes; with the viewer and the figures a page stays below 15 MB
SOURCES = {  # words of the line about the acquisition
    "option": "the option --acquisition of this run",
    "header": "the DICOM header",
    "sidecar": "the JSON file beside the scan (BIDS sidecar)",
    "spectrum": "the scan's own spectrum, which ends there",
    "spacings": "the size of its voxels alone, because no other source speaks of it",
    "simulated": "this evaluation, which acquired the high-resolution scan in this way",
}
ANISOTROPIC = 1.3  # spacing through the axial planes over that within them
Images = dict[str, MetaTensor]


def scan_images(item: Mapping[str, Any], scale: float = 1.0) -> Images:
    """Input, interpolation and result of a restored scan, each on its own grid, in the network's frame.

    Args:
        item: holds the prediction ``pred``, the network's input ``image``, and of an interpolated one the scan
            ``acquired`` or ``acquired_scan``.
        scale: intensity of the scan over that of ``image``.

    Example:
        >>> import torch
        >>> image = MetaTensor(torch.rand(1, 4, 4, 4), meta={"low_res_affine": torch.eye(4)})
        >>> {title: len(one[0]) for title, one in scan_images({"image": image, "pred": torch.rand(1, 8, 8, 8)}).items()}
        {'input': 4, 'interpolation': 8, 'super-resolution': 8}
    """
    image, pred = item["image"], item["pred"]
    if isinstance(pred, MetaTensor):
        pred = Orientation("".join(axis_names(image)), labels=None)(pred)
    interpolated = acquisition_of(image) is not None
    scan = item.get("acquired_scan", item.get("acquired")) if interpolated else image
    low_res = plain(scan).cpu() * scale
    shape = pred.shape[1:]  # the voxels of an interpolated image may be released
    filled = acquisition_of(image).interpolate(low_res) if interpolated else zero_fill(low_res, shape, (1, 2, 3))
    affine = scan.affine if interpolated else image.meta["low_res_affine"]
    known = {ACQUISITION: image.meta[ACQUISITION]} if interpolated else {}
    return {
        INPUT: MetaTensor(low_res, affine=affine.cpu(), meta=known),
        INTERPOLATION: MetaTensor(filled, affine=image.affine.cpu()),
        RESULT: MetaTensor(plain(pred).cpu(), affine=image.affine.cpu()),
    }


def error_map(item: Mapping[str, Any]) -> MetaTensor | None:
    """The error bars of a restored scan in the network's frame, if it has some; see :func:`scan_images`."""
    if "error" not in item:
        return None
    error = Orientation("".join(axis_names(item["image"])), labels=None)(item["error"])
    return MetaTensor(plain(error).cpu(), affine=item["image"].affine.cpu())


def write_scan_page(
    path: PathLike,
    images: Images,
    facts: Mapping[str, Any],
    detail: Sequence[float] | None = None,
    error_bars: MetaTensor | None = None,
) -> None:
    """Write the page of a scan, and its still picture for the index.

    Args:
        path: the HTML file. The picture has its name and the ending ``.jpg``.
        images: see :func:`scan_images`. A reference may stand beside them.
        facts: values of ``templates/scan.html`` about the scan: ``name``, ``warnings``, ``assumed``, ``numbers``,
            ``record`` and ``index``.
        detail: the middle of a cube that the page also shows at full resolution, in mm.
        error_bars: of the result, on its grid; None without.
    """
    acquisition = acquisition_of(images[INPUT])
    axes = zip(axis_names(images[INPUT]), acquisition.encodings if acquisition else (), strict=False)
    encodings = [(axis_name(code), _in_words(encoding)) for code, encoding in axes]
    named = " ".join(re.findall(r"\(([^)]*)\)", facts["assumed"])).split()
    again = acquired_again(plain(images[RESULT]), plain(images[INPUT]), acquisition)
    contradiction = MetaTensor((again - plain(images[INPUT])).abs_(), affine=images[INPUT].affine)
    measured = {"contradiction of the scan": contradiction}
    if error_bars is not None:
        measured["error bar"] = error_bars
    images, measured = (
        {title: upright(image, image.affine) for title, image in one.items()} for one in (images, measured)
    )
    shown, sets, warnings = _sets(images, measured, detail)
    window = sets["whole"]["window"]
    thick = images[INPUT].pixdim[2] >= ANISOTROPIC * images[INPUT].pixdim[:2].max()
    row = stills(shown, window, rows=[1 if thick else 2], width=240)  # a plane that shows the slices
    write_atomically(Path(path).with_suffix(".jpg"), lambda file: row.save(file, quality=QUALITY))
    write_page(
        path,
        "scan.html",
        **{**facts, "warnings": [*facts["warnings"], *warnings], "record": _as_text(facts["record"])},
        result=_digest(facts["record"]),
        sets=sets,
        encodings=encodings,
        slices=acquisition is not None and any(isinstance(one, SliceSelection) for one in acquisition.encodings),
        sources=[text for word, text in SOURCES.items() if word in named],
        spectra=as_uri(spectra(images)),
        stills=as_uri(stills(shown, window)),
        spacings=[[f"{mm:.3g}" for mm in one] for one in (images[RESULT].pixdim.tolist(), shown.spacing)],
    )


def _sets(images: Images, measured: Images, detail: Sequence[float] | None) -> tuple[Frames, dict[str, Any], list[str]]:
    """The images of the whole scan, what the viewer needs of each part of it, and warnings."""
    parts, warnings = {}, []
    try:
        parts = {} if detail is None else {"detail": cube(images[RESULT], detail)}
    except ValueError as error:  # of the many scans of a run, one may end before the place
        warnings.append(str(error))
    parts["whole"] = whole(images[RESULT])
    sets, left = {}, LARGEST
    for name, box in parts.items():
        shown, sets[name] = _volumes(images, measured, box, left if name == "whole" else left // 2)
        left -= len(sets[name]["images"]) + len(sets[name]["maps"])
    return shown, dict(reversed(sets.items())), warnings


def _volumes(images: Images, measured: Images, box: Sequence[slice], limit: int) -> tuple[Frames, dict[str, Any]]:
    """The images of a part of the grid, and what the viewer needs: two files, titles, ranges and maps.

    The viewer subtracts images itself. The file of the maps begins with the measured ones, and has an empty place for
    each difference.
    """
    white = abs(foreground_percentile(plain(images[INPUT]))) or 1.0
    frames = frames_of(images, images[RESULT], box)
    maps, levels = [], []
    for place, (title, volume) in enumerate(measured.items()):
        high = max(float(np.percentile(volume[0, ::2, ::2, ::2].numpy(), 99.9)), 1e-3 * white)
        maps.append({"title": title, "minus": {}, "frames": {RESULT: place}, "high": 100 * high / white})
        levels.append(frames_of({title: volume}, images[RESULT], box, ends=(0.0, high)).values[0])
    maps = [*_differences(frames, 100 / white, len(levels)), *maps]
    values = np.zeros((sum(len(one["frames"]) for one in maps), *levels[0].shape), np.uint8)
    values[: len(levels)] = np.maximum(levels, 1)  # the viewer leaves out voxels of level 0
    (shown, _), files = fitted([frames, Frames(("",) * len(values), values, frames.affine, 0.0, float(LEVELS))], limit)
    result = shown.values[frames.titles.index(RESULT)]
    brightest = float(np.percentile(result[result > result.mean()], 99.9)) if result.any() else float(LEVELS)
    step = (frames.high - frames.low) / LEVELS
    darkest = frames.low + step * float(np.percentile(result, DARKEST))
    cursor = [PLANES[axis][0] * (size - 1) for axis, size in enumerate(result.shape)]
    return shown, {
        "images": files[0],
        "maps": files[1],
        "titles": frames.titles,
        "legend": maps,
        "range": [frames.low, frames.high],
        "window": [min(darkest, 0.0), frames.low + step * brightest],
        "cursor": (shown.affine @ [*cursor, 1.0])[:3].tolist(),
    }


def _differences(frames: Frames, per_cent: float, place: int) -> list[dict[str, Any]]:
    """The maps that are differences of two images: which, their places, and where their scale ends.

    Args:
        frames: the images.
        per_cent: of white, per unit of intensity.
        place: of the first one.
    """
    maps: list[dict[str, Any]] = [{"title": "change by the network", "minus": {RESULT: INTERPOLATION}}]
    if REFERENCE in frames.titles:
        maps.insert(0, {"title": "error", "minus": {INTERPOLATION: REFERENCE, RESULT: REFERENCE}})
    values = dict(zip(frames.titles, frames.values[:, ::2, ::2, ::2].astype(np.int16), strict=True))
    for one in maps:
        highest = [np.percentile(np.abs(values[a] - values[b]), 99.9) for a, b in one["minus"].items()]
        one["levels"] = max(1.0, *map(float, highest))
        one["high"] = one["levels"] / LEVELS * (frames.high - frames.low) * per_cent
        one["frames"] = {title: place + number for number, title in enumerate(one["minus"])}
        place += len(one["minus"])
    return maps


def shows(page: PathLike, record: Mapping[str, Any]) -> bool:
    """Whether a page exists and shows the result that has this record, instead of an earlier one.

    Example:
        >>> shows("missing.html", {"WeightsSHA256": None})
        False
    """
    if not Path(page).is_file():
        return False
    with open(page, encoding="utf-8") as file:
        return f'name="result" content="{_digest(record)}"' in file.read(4096)  # it is in the first lines


def _digest(record: Mapping[str, Any]) -> str:
    """The start of the SHA-256 of a record, as it is in its JSON file."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _as_text(record: Mapping[str, Any]) -> dict[str, str]:
    """Values as a JSON file shows them."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in record.items()
    }


def _in_words(encoding: Any) -> str:
    if isinstance(encoding, SliceSelection):
        gap = encoding.spacing - encoding.thickness
        said = f", a gap of {gap:.3g} mm" if gap > 1e-6 else ", overlapping" if gap < -1e-6 else ""
        return (
            f"slices of {encoding.thickness:.3g} mm every {encoding.spacing:.3g} mm{said}; {encoding.profile} profile"
        )
    window = f", {encoding.filter.family} filter" if encoding.filter else ""
    return f"k-space, voxels of {encoding.spacing:.3g} mm{window}"
