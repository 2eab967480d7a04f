"""DICOM: which files form a series, and a series as a volume, whatever the names and the order of its files.

A series is given by its folder, or by any one of its files. Where a folder holds several series, the first file of each
stands for it. An enhanced file of many frames is a series of its own, unless it is part of a concatenation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scripts.transforms.formats import HeaderError, Volume, identify
from scripts.transforms.frames import REMEDY, Frame, read_frames, stored_pixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["are_parts", "dicom_series", "named_path", "read_dicom", "series_files"]


LARGEST_UNEVENNESS = 0.05  # share of the distance between slices
LARGEST_TILT = 0.5  # pixels of sideways displacement over a whole series
LARGEST_TURN = 1e-3  # between the direction cosines of two slices
SMALLEST_STEP = 1e-3  # mm; closer slices have one position
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
HEADER = ["SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "NumberOfFrames", "ConcatenationUID", "Rows"]
PLACE = ["ImagePositionPatient", "ImageOrientationPatient"]


def dicom_series(folder: Path) -> dict[str, list[Path]]:
    """The DICOM images of a folder, by the UID of their series. Subfolders are not searched.

    Only headers are read. Files without an image, such as ``DICOMDIR`` or a report, are left out.

    Args:
        folder: any folder.

    Returns:
        the sorted files of each series, under its SeriesInstanceUID. A further enhanced file of that UID has its name
        after it. Empty when there is no DICOM image.

    Raises:
        OSError: when the folder or a file cannot be read.

    Example:
        >>> import tempfile
        >>> dicom_series(Path(tempfile.mkdtemp()))
        {}
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and identify(path) == "dicom":
            header = _header(path)
            if "Rows" in header and header.get("SeriesInstanceUID"):
                uid = str(header.SeriesInstanceUID)
                if "ConcatenationUID" in header:
                    uid = f"{uid} {header.ConcatenationUID}"
                elif uid in found and _is_multi_frame(header):
                    uid = f"{uid} {path.name}"
                found.setdefault(uid, []).append(path)
    return found


def _is_multi_frame(header: Dataset) -> bool:
    return int(header.get("NumberOfFrames") or 1) > 1


def are_parts(groups: Sequence[Sequence[Path]]) -> bool:
    """Whether files of one series, which lie in several folders, are parts of one volume.

    They are no copies and no echoes, which share positions, and no planes of several orientations.

    Args:
        groups: the files in each folder.
    """
    places = [[[_header(file).get(keyword) for keyword in PLACE] for file in files] for files in groups]
    if any(None in place for group in places for place in group):  # enhanced images have no such attributes
        return False
    axes = np.asarray([place[1] for group in places for place in group], dtype=float)
    positions = [{tuple(np.round(np.asarray(place[0], float), 3)) for place in group} for group in places]
    return bool(np.ptp(axes, axis=0).max() < LARGEST_TURN) and len(set.union(*positions)) == sum(map(len, positions))


def _header(path: Path) -> Dataset:
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=HEADER + PLACE)
    except OSError:
        raise
    except Exception:  # damaged bytes raise anything
        return pydicom.Dataset()


def series_files(path: Path) -> list[Path]:
    """The files of the series that a DICOM folder, or one DICOM file, stands for.

    Raises:
        HeaderError: when the folder holds no series or several, or the file holds no image.
    """
    path = Path(path)
    series = dicom_series(path if path.is_dir() else path.parent)
    if path.is_dir():
        if len(series) == 1:
            return next(iter(series.values()))
        if not series:
            raise HeaderError(
                f"{path}: expected DICOM images in this folder, but found no DICOMs. Give the folder that holds the "
                "files of one series."
            )
        listed = ", ".join(f"{_name(files[0])} ({files[0].name})" for files in list(series.values())[:5])
        raise HeaderError(
            f"{path}: expected one DICOM series, got {len(series)}: {listed}. Give one file of the series you want."
        )
    files = next((files for files in series.values() if path.name in {file.name for file in files}), None)
    if files is None:
        raise HeaderError(f"{path}: expected a DICOM image, got DICOM without pixels, such as a report or a DICOMDIR.")
    return files


def named_path(path: Path) -> Path:
    """The path after which the results of a scan are named.

    A DICOM file stands for its series. Its results have the name of the folder. Where the folder holds several series,
    they have the name of the series, or of its one enhanced file. Another path names its own results.

    Example:
        >>> named_path(Path("folder/scan.nii")).as_posix()
        'folder/scan.nii'
    """
    path = Path(path)
    if not path.is_file() or identify(path) != "dicom":
        return path
    series = dicom_series(path.parent)
    if len(series) < 2:
        return path.parent
    own = next((uid for uid, files in series.items() if path.name in {file.name for file in files}), None)
    if own is None or (len(series[own]) == 1 and _is_multi_frame(_header(path))):
        return path.with_suffix("") if path.suffix.lower() in DICOM_ENDINGS else path
    names = {uid: _name(files[0]) for uid, files in series.items()}
    alike = [uid for uid, name in names.items() if name.casefold() == names[own].casefold()]
    return path.parent / (names[own] if len(alike) == 1 else f"{names[own]}_{own.replace(' ', '_')}")


def _name(path: Path) -> str:
    """The number and the description of a file's series, in letters that are legal in file names."""
    header = _header(path)
    given = [header.get(key) for key in ("SeriesNumber", "SeriesDescription")]  # None where the value is empty
    number, description = ("" if value is None else str(value) for value in given)
    words = f"series-{number}".rstrip("-") + f"_{description}"
    return re.sub(r"[^\w-]+", "-", words, flags=re.A).strip("-_")[:80]


def read_dicom(path: Path) -> Volume:
    """Read a DICOM series, given by its folder or by one of its files.

    Slices are sorted by their positions. Each slice has its own rescale slope and intercept.

    Args:
        path: a folder with one series, or a file of a series.

    Raises:
        HeaderError: when the slices form no single, evenly spaced volume with a position.
        ValueError: when pixels cannot be decoded.
    """
    files = series_files(path)
    try:
        frames = [frame for file in files for frame in read_frames(file)]
    except HeaderError as error:
        raise HeaderError(f"{path}: {error}" if not str(error).startswith(str(path)) else str(error)) from error
    warnings = _left_out(files[0].parent)
    frames, doubled = _without_copies(frames)
    warnings += [f"{doubled} DICOM files are copies of others and were left out."] if doubled else []
    frames, affine = _on_one_grid(path, frames)
    warnings += _doubts(frames)
    values = np.empty((*frames[0].size, len(frames)), np.float32)
    padded = 0
    for file in dict.fromkeys(frame.path for frame in frames):
        try:
            pixels = stored_pixels(file)
        except Exception as error:  # damaged bytes raise anything
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ValueError(f"{file.name}, {type(error).__name__}: {reason}") from error
        for place, frame in enumerate(frames):
            if frame.path == file:
                scaled = pixels[frame.index].astype(np.float64) * frame.slope + frame.intercept
                values[..., place] = scaled.T
                padding = _number(frame, "PixelPaddingValue")
                if padding is not None and padding * frame.slope + frame.intercept:
                    padded += int((pixels[frame.index] == padding).sum())
    if padded:
        warnings.append(f"{padded / values.size:.1%} of its voxels hold the padding value, which is no measurement.")
    return Volume(values, LPS_TO_RAS @ affine, tuple(warnings), json.dumps(frames[0].protocol))


def _doubts(frames: Sequence[Frame]) -> list[str]:
    """Remarks on slices that are not MR, or probably not of one image."""
    modality = frames[0].labels.get("Modality", "MR")
    remarks = [] if modality == "MR" else [f"Its modality is {modality}; the networks know MR."]
    for key in ("EchoTime", "EffectiveEchoTime", "InversionTime"):
        times = [value for frame in frames if (value := _number(frame, key)) is not None]
        found = sorted({float(f"{time:.3g}") for time in times})
        if len(found) > 1:
            remarks.append(f"Its slices differ in {key} ({', '.join(map('{:g}'.format, found[:4]))} ms).")
    return remarks


def _number(frame: Frame, key: str) -> float | None:
    try:
        return float(frame.labels[key])
    except (KeyError, ValueError):
        return None


def _left_out(folder: Path) -> list[str]:
    """A remark on files that are called DICOM, but are none: a slice may be among them."""
    called = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in DICOM_ENDINGS and file.is_file()]
    names = [file.name for file in called if not file.name.startswith(".") and identify(file) != "dicom"]
    return [f"{len(names)} files are called DICOM but are none, such as {names[0]}."] if names else []


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], int]:
    """The frames without files that repeat another file byte by byte."""
    kept: dict[tuple[str, int], Frame] = {}
    copies = set()
    for frame in frames:
        other = kept.setdefault((frame.instance, frame.index), frame)
        if other.path != frame.path:
            if other.path.read_bytes() != frame.path.read_bytes():
                return list(frames), 0
            copies.add(frame.path)
    return list(kept.values()), len(copies)


def _on_one_grid(path: Path, frames: Sequence[Frame]) -> tuple[list[Frame], np.ndarray]:
    """The frames in the order of their positions, and the affine to mm in the LPS frame."""
    first = frames[0]
    if any(one.size != first.size or not np.allclose(one.spacing, first.spacing, rtol=1e-3) for one in frames):
        raise HeaderError(f"{path}: expected slices of one size and spacing, got several. {REMEDY}")
    if any(not np.allclose(one.orientation, first.orientation, atol=LARGEST_TURN) for one in frames):
        raise HeaderError(f"{path}: expected parallel slices, got several orientations, as in a localiser. {REMEDY}")
    stacks = sorted({one.labels.get("StackID", "") for one in frames})
    if len(stacks) > 1:
        raise HeaderError(f"{path}: expected one stack of slices, got {len(stacks)} ({', '.join(stacks)}). {REMEDY}")
    normal = np.cross(*first.orientation)
    frames = sorted(frames, key=lambda one: float(one.position @ normal))
    if len(frames) < 2:
        raise HeaderError(
            f"{path}: expected a volume of several slices, got one. Give the folder or a file that lies beside all "
            "slices of its series."
        )
    positions = np.asarray([one.position for one in frames])
    depth = positions @ normal
    steps = np.diff(depth)
    if steps.min() < SMALLEST_STEP:
        raise HeaderError(f"{path}: {_several_volumes(frames, depth)}")
    step = (depth[-1] - depth[0]) / (len(frames) - 1)
    uneven = float(np.abs(depth - depth[0] - step * np.arange(len(frames))).max())
    if uneven > LARGEST_UNEVENNESS * np.median(steps):
        raise HeaderError(
            f"{path}: expected evenly spaced slices, got distances from {steps.min():.4g} to {steps.max():.4g} mm: "
            f"slices are missing, doubled or uneven. {REMEDY}"
        )
    along = positions - positions[0]
    sideways = float(np.linalg.norm(along - (along @ normal)[:, None] * normal, axis=1).max())
    if sideways > LARGEST_TILT * min(first.spacing):
        raise HeaderError(
            f"{path}: expected slices one above the other, got {sideways:.4g} mm of sideways displacement over the "
            "series (gantry tilt). Resample it first, for instance by dcm2niix."
        )
    affine = np.eye(4)
    affine[:3, :2] = frames[0].orientation.T * first.spacing
    affine[:3, 2] = along[-1] / (len(frames) - 1)
    affine[:3, 3] = positions[0]
    return frames, affine


def _several_volumes(frames: Sequence[Frame], depth: np.ndarray) -> str:
    """Why several frames share a position."""
    positions = int((np.diff(depth) >= SMALLEST_STEP).sum()) + 1
    same = [frame for frame, place in zip(frames, depth, strict=True) if abs(place - depth[0]) < SMALLEST_STEP]
    if len(same) < 2:
        index = int(np.argmin(np.diff(depth)))
        same = list(frames[index : index + 2])
    keys = [key for key in frames[0].labels if len({frame.labels.get(key) for frame in same}) > 1]
    reason = f"they differ in {', '.join(keys[:3])}" if keys else "their headers do not tell them apart"
    return (
        f"expected one volume, got {len(frames)} images at {positions} positions; {reason}. Export one volume as a "
        "series of its own, or convert the series by dcm2niix."
    )
