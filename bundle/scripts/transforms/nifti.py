"""NIfTI, Analyze and MGH files as volumes, by nibabel's headers."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.transforms.formats import VOXEL_FILES, HeaderError, Volume, content, partner

__all__ = ["read_analyze", "read_mgh", "read_nifti"]


MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's unit codes: unknown, m, mm, micrometre
CODES = range(6)  # of NIfTI's sform and qform
LARGEST_DISAGREEMENT = 0.1  # voxels between sform and qform without a warning
SINGLE = (b"n+1\0", b"n+2\0")


def read_nifti(path: Path) -> Volume:
    """Read NIfTI-1 or NIfTI-2, one file or a pair.

    The header is read as it was written, because nibabel silently repairs it: it takes 0 mm for 1 mm. The sform has
    priority over the qform, as in nibabel. A ``scl_slope`` of 0 or NaN means unscaled, as in the standard.

    Args:
        path: the file, or the header of a pair.

    Raises:
        HeaderError: when voxels are complex or coloured. When NIfTI does not define the unit of length or the
            orientation code. When a spacing is missing and there is no sform. When the voxels of a pair are missing.
        EOFError: when voxels are missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), "f4"), np.eye(4)), Path(folder, "scan.nii"))
        ...     read_nifti(Path(folder, "scan.nii")).affine.diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    data = content(path)
    first = {struct.unpack(f"{order}i", data[:4])[0] for order in "<>"}
    header_class = nib.Nifti1Header if 348 in first else nib.Nifti2Header
    raw = header_class.from_fileobj(io.BytesIO(data), check=False)
    _check_meaning(path, raw)
    header = raw.copy()
    header.set_data_offset(0)  # the place of the voxels has its own check
    header.check_fix()
    affine = header.get_best_affine()
    to_mm = np.diag([*[MM_PER_UNIT[int(raw["xyzt_units"]) & 7]] * 3, 1.0])
    warnings = _doubts(header, affine, np.asarray(raw["pixdim"][1:4], dtype=float))
    values, remark = _voxels(path, raw, data)
    return Volume(values, to_mm @ affine, tuple(filter(None, [*warnings, remark])))


def _check_meaning(path: Path, raw: nib.Nifti1Header) -> None:
    """Refuse a header that does not define the type or the place of the voxels."""
    if raw.get_data_dtype().kind not in "iuf":
        raise HeaderError(
            f"{path}: expected real voxels, got the type {raw.get_data_dtype()}. Save the magnitude of complex images."
        )
    unit, spacing = int(raw["xyzt_units"]) & 7, np.asarray(raw["pixdim"][1:4], dtype=float)
    if unit not in MM_PER_UNIT:
        raise HeaderError(
            f"{path}: expected one of NIfTI's units of length (m, mm, micrometre), got the code {unit}. Correct "
            "xyzt_units."
        )
    codes = {name: int(raw[f"{name}_code"]) for name in ("sform", "qform")}
    wrong = {name: code for name, code in codes.items() if code not in CODES}
    if wrong:
        raise HeaderError(f"{path}: expected orientation codes in 0..5, got {wrong}. Correct the header.")
    if codes["sform"] == 0 and not (np.isfinite(spacing) & (spacing > 0)).all():
        raise HeaderError(
            f"{path}: expected a positive, finite voxel spacing, got {spacing.tolist()} in a header without sform. "
            "Correct pixdim."
        )


def _doubts(header: nib.Nifti1Header, affine: np.ndarray, spacing: np.ndarray) -> list[str]:
    """Reasons why the position is uncertain, in words."""
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not (sform or qform):
        return ["The header has no orientation (sform_code and qform_code are 0): left and right may be exchanged."]
    if not (sform and qform):
        sizes = nib.affines.voxel_sizes(affine)
        differs = sform > 0 and not np.allclose(sizes, np.abs(spacing), rtol=0.01)
        return [f"The sform's spacing {sizes.round(3)} was used; pixdim says {spacing.round(3)}."] if differs else []
    try:
        other = header.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError):
        return ["The qform is invalid; the sform was used."]
    shape = (*header.get_data_shape(), 1, 1, 1)[:3]
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape)), -1).reshape(-1, 3)
    places = [nib.affines.apply_affine(matrix, corners) for matrix in (affine, other)]
    apart = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    if apart <= LARGEST_DISAGREEMENT * nib.affines.voxel_sizes(affine).min():
        return []
    return [f"Sform and qform disagree by up to {apart:.3g}; the sform was used, and the result has no other."]


def _voxels(path: Path, raw: nib.Nifti1Header, data: bytes) -> tuple[np.ndarray, str | None]:
    """The scaled voxels, from this file or from the other file of a pair, and a remark on their place."""
    shape = raw.get_data_shape()
    while len(shape) > 3 and shape[-1] in (0, 1):  # some tools write 0 for an axis that is not there
        shape = shape[:-1]
    if min(shape, default=0) < 1:
        raise HeaderError(f"{path}: expected positive sizes of the axes, got {shape}. Correct dim.")
    size = int(np.prod(shape, dtype=object)) * raw.get_data_dtype().itemsize
    offset = float(raw["vox_offset"])
    if not (np.isfinite(offset) and offset >= 0 and offset == int(offset)):
        raise HeaderError(f"{path}: expected the voxels at a whole byte, got vox_offset {offset}. Correct it.")
    offset, remark = int(offset), None
    if bytes(raw["magic"].tobytes()[:4]) not in SINGLE:
        other = partner(path, VOXEL_FILES)
        if other is not None and other != path:
            data = content(other)
        elif len(data) < max(offset, raw.sizeof_hdr) + size:
            raise HeaderError(
                f"{path}: expected the voxels of this header in a file of the same name that ends with .img, got none "
                "beside it. Copy both files."
            )
        else:
            offset = max(offset, raw.single_vox_offset)
    elif offset < raw.single_vox_offset:
        written, offset = offset, len(data) - size
        if offset not in (raw.sizeof_hdr, raw.single_vox_offset):
            raise HeaderError(
                f"{path}: expected the voxels from byte {raw.single_vox_offset} on, got vox_offset {written}, which is "
                "inside the header. Correct vox_offset."
            )
        remark = f"vox_offset {written} is inside the header; by the size of the file, the voxels begin at {offset}."
    if len(data) < offset + size:
        raise EOFError(f"expected {size} bytes of voxels, got {max(0, len(data) - offset)}")
    stored = np.ndarray(shape, raw.get_data_dtype(), data, offset, order="F")
    return _scaled(stored, *raw.get_slope_inter()), remark


def _scaled(stored: np.ndarray, slope: float | None, inter: float | None) -> np.ndarray:
    """Slope times voxel plus intercept in float64, rounded to float32 once."""
    if slope is None or (slope == 1 and not inter):
        with np.errstate(over="ignore"):
            return stored.astype(np.float32, order="C")
    values = np.empty(stored.shape, np.float32)
    for index in range(stored.shape[0]):  # by parts, because float64 needs much memory
        with np.errstate(over="ignore", invalid="ignore"):
            values[index] = stored[index].astype(np.float64) * float(slope) + float(inter or 0)
    return values


def read_analyze(path: Path) -> Volume:
    """Read Analyze 7.5, whose header has no orientation. The axes are taken as nibabel takes them.

    Args:
        path: the header of the pair.

    Raises:
        HeaderError: when the other file is missing.
    """
    other = partner(path, VOXEL_FILES)
    if other is None:
        raise HeaderError(f"{path}: expected the voxels in a file of the same name that ends with .img, got none.")
    files = {"header": path, "image": other}
    holders = {key: nib.FileHolder(fileobj=io.BytesIO(content(file))) for key, file in files.items()}
    holders["mat"] = nib.FileHolder(fileobj=io.BytesIO())  # SPM's own orientation is not used
    image = nib.Spm2AnalyzeImage.from_file_map(holders)
    spacing = np.asarray(image.header["pixdim"][1:4], dtype=float)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise HeaderError(f"{path}: expected a positive, finite voxel spacing, got {spacing.tolist()}. Correct pixdim.")
    remark = "Analyze has no orientation: the axes are taken as left, anterior, superior, and sides may be exchanged."
    return Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine, (remark,))


def read_mgh(path: Path) -> Volume:
    """Read a file of FreeSurfer, ``.mgh`` or its compressed form ``.mgz``.

    Args:
        path: the file.

    Raises:
        HeaderError: when the header has no orientation.
    """
    data = content(path)
    if not struct.unpack_from(">h", data, 28)[0]:
        raise HeaderError(
            f"{path}: expected the orientation of the volume, got none in the header (goodRASFlag is 0). Convert it by "
            "mri_convert from a scan with an orientation."
        )
    image = nib.MGHImage.from_file_map({"image": nib.FileHolder(fileobj=io.BytesIO(data))})
    with np.errstate(over="ignore"):
        return Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine)
