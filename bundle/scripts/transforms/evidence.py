"""Evidence: what DICOM header, sidecar and spectrum say about the acquisition of a scan.

Headers describe rows, columns and slices. A program may have turned the axes of the array since then. The directions of
rows and columns in the patient lead to the axes of the array, whatever their order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import MetaTensor
from monai.utils import ImageMetaKey, MetaKeys
from torch import Tensor

from scripts.physics.acquisition import filled_band
from scripts.physics.protocol import Evidence
from scripts.transforms.naming import stem_of
from scripts.transforms.utils import json_object, plain, spacing, warn

__all__ = ["PROTOCOL", "evidence_of", "sidecar_of", "spectrum_evidence"]


PROTOCOL = "protocol"  # key of the metadata: the attributes of the DICOM header as JSON
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
VOXEL_AXES = {"i": 0, "j": 1, "k": 2}  # of a NIfTI file, as a sidecar names them
# attribute of DICOM: keys that dcm2niix writes for it
SIDECAR_KEYS = {
    "MRAcquisitionType": ("MRAcquisitionType",),
    "SliceThickness": ("SliceThickness",),
    "ImageType": ("ImageType",),
    "ImageOrientationPatient": ("ImageOrientationPatientDICOM",),
    "InPlanePhaseEncodingDirection": ("InPlanePhaseEncodingDirectionDICOM",),
    "PercentPhaseFieldOfView": ("PercentPhaseFOV",),
    "FrequencySteps": ("BaseResolution",),
    # Philips counts the lines of a partial Fourier acquisition in the first one
    "PhaseSteps": ("AcquisitionMatrixPE", "PhaseEncodingStepsNoPartialFourier"),
    "StoredPhaseSize": ("ReconMatrixPE",),
    "SliceEncodingDirection": ("SliceEncodingDirection",),
}


def sidecar_of(path: PathLike) -> Path | None:
    """The BIDS sidecar of a scan, the file of the same name that ends with ``.json``. None where there is none.

    Example:
        >>> sidecar_of("scan.nii.gz") is None
        True
    """
    path = Path(path)
    if not path.is_file():
        return None
    file = path.with_name(f"{stem_of(path.name)}.json")
    return file if file.is_file() else None


def evidence_of(img: MetaTensor) -> list[Evidence]:
    """What the DICOM header and the sidecar of a scan say, the header first. Axes are the present ones.

    Args:
        img: channel-first volume. Its metadata hold the header's attributes under :data:`PROTOCOL`, and the file.
    """
    if not isinstance(img, MetaTensor):
        return []
    found = []
    if PROTOCOL in img.meta:
        found.append(_evidence("header", _of_header(json.loads(img.meta[PROTOCOL])), img))
    sidecar = sidecar_of(str(img.meta.get(ImageMetaKey.FILENAME_OR_OBJ, "")))
    if sidecar is not None:
        found.append(_evidence("sidecar", _of_sidecar(sidecar, img), img))
    return found


def spectrum_evidence(img: Tensor, axes: Sequence[int]) -> Evidence:
    """The acquired spacing of a matrix that was interpolated, from the end of its k-space.

    Args:
        img: channel-first volume.
        axes: the axes to examine.
    """
    shares = filled_band(plain(img)[0], axes)
    acquired = [
        float(mm) / share if share is not None and share < 1 else None
        for mm, share in zip(spacing(img), shares, strict=True)
    ]
    return Evidence("spectrum", acquired=acquired)


def _of_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a DICOM header, with the acquired matrix as two numbers."""
    matrix = [_number(value) or 0.0 for value in np.ravel(header.get("AcquisitionMatrix") or [])]
    facts = dict(header)
    if len(matrix) == 4:  # frequency rows, frequency columns, phase rows, phase columns
        facts["FrequencySteps"], facts["PhaseSteps"] = max(matrix[:2]), max(matrix[2:])
        facts.setdefault("InPlanePhaseEncodingDirection", "ROW" if matrix[2] > 0 else "COLUMN")
    else:
        facts["FrequencySteps"] = header.get("MRAcquisitionFrequencyEncodingSteps")
        facts["PhaseSteps"] = header.get("MRAcquisitionPhaseEncodingStepsInPlane")
    return facts


def _of_sidecar(path: Path, img: MetaTensor) -> dict[str, Any]:
    """The entries of a sidecar. The scan gets a remark where the file cannot be read."""
    try:
        content = json_object(path)
    except (OSError, ValueError) as error:
        warn(img, f"{path.name}: expected a JSON object, got none ({error}). The sidecar was ignored. Correct it.")
        return {}
    facts = {name: content.get(keys[0]) for name, keys in SIDECAR_KEYS.items()}
    steps = [number for key in SIDECAR_KEYS["PhaseSteps"] if (number := _number(content.get(key)))]
    facts["PhaseSteps"] = max(steps, default=None)
    return facts


def _evidence(source: str, facts: Mapping[str, Any], img: MetaTensor) -> Evidence:
    kind = str(facts.get("MRAcquisitionType") or "").upper()
    kind = kind if kind in ("2D", "3D") else None
    axes = _axes(facts, img, kind)
    image_type = {str(word).upper() for word in np.ravel(facts.get("ImageType") or [])}
    return Evidence(
        source,
        kind,
        None if axes is None else axes[2],
        _number(facts.get("SliceThickness")),
        _acquired(facts, axes, img.shape[1:], spacing(img)),
        "LOCALIZER" in image_type,
    )


def _axes(facts: Mapping[str, Any], img: MetaTensor, kind: str | None) -> list[int] | None:
    """The present axes along a row, along a column, and across the slices. None where the source does not say."""
    directions = np.asarray(img.affine, dtype=float)[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    try:
        cosines = np.asarray(facts.get("ImageOrientationPatient"), dtype=float)
    except (TypeError, ValueError):
        cosines = np.empty(0)
    if cosines.size == 6 and np.isfinite(cosines).all():
        rows_and_columns = cosines.reshape(2, 3) * LPS_TO_RAS
        found = np.abs(rows_and_columns @ directions).argmax(1).tolist()
    elif kind == "2D" or facts.get("SliceEncodingDirection"):  # converters keep rows, columns and slices of 2-D scans
        original = np.asarray(img.meta.get(MetaKeys.ORIGINAL_AFFINE, img.affine), dtype=float)[:3, :3]
        slices = VOXEL_AXES.get(str(facts.get("SliceEncodingDirection") or "k")[0], 2)
        order = [*(axis for axis in range(3) if axis != slices), slices]
        turned = np.abs(np.linalg.inv(original) @ directions).argmax(0).tolist()  # the file's axis of each present one
        return [turned.index(axis) for axis in order] if sorted(turned) == [0, 1, 2] else None
    else:
        return None
    return [*found, 3 - sum(found)] if len(set(found)) == 2 else None


def _acquired(
    facts: Mapping[str, Any], axes: Sequence[int] | None, shape: Sequence[int], mm: Sequence[float]
) -> list[float | None]:
    """The acquired spacing in mm along each axis, where the source gives the acquired matrix."""
    acquired: list[float | None] = [None] * 3
    direction = str(facts.get("InPlanePhaseEncodingDirection") or "").upper()[:3]
    if axes is None or direction not in ("ROW", "COL"):
        return acquired
    phase, frequency = (axes[0], axes[1]) if direction == "ROW" else (axes[1], axes[0])
    steps = {frequency: _number(facts.get("FrequencySteps")), phase: _number(facts.get("PhaseSteps"))}
    field = {axis: shape[axis] * float(mm[axis]) for axis in (frequency, phase)}
    if share := _number(facts.get("PercentPhaseFieldOfView")):  # some scanners fill the stored matrix up with air
        field[phase] = min(field[phase], field[frequency] * share / 100)
    sampling = _number(facts.get("PercentSampling"))
    stored = _number(facts.get("StoredPhaseSize"))
    if stored is not None and stored != shape[phase]:  # the volume was cropped or resampled
        return acquired
    for axis in (frequency, phase):
        if steps[axis] is not None:
            acquired[axis] = field[axis] / steps[axis]
    if acquired[phase] is None and acquired[frequency] is not None and sampling:
        acquired[phase] = acquired[frequency] * 100 / sampling
    return acquired


def _number(value: Any) -> float | None:
    """A positive, finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None
