"""Headers: checks for faults that a reader ignores, and for an uncertain position of a volume."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

__all__ = ["Geometry", "HeaderError", "check_dicom", "check_geometry", "check_nifti"]


NIFTI = (".nii", ".nii.gz", ".hdr", ".img")
WITHOUT_HEADER = (".npy", ".npz")
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI's unit codes: unknown, m, mm, micrometre
CODES = range(6)  # of NIfTI's sform and qform
LARGEST_DISAGREEMENT = 0.1  # voxels between sform and qform without a warning
LARGEST_UNEVENNESS = 0.05  # share of the distance between slices
LARGEST_TILT = 0.5  # pixels of sideways displacement over a whole DICOM series


class HeaderError(ValueError):
    """A header that does not define the position of the volume or the meaning of its voxels."""


class Geometry(NamedTuple):
    """The position of a volume, as its header defines it.

    Args:
        affine: from voxels to mm; None where the reader's own affine is right.
        warnings: remarks for the user.
    """

    affine: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


def check_geometry(path: Path) -> Geometry:
    """Check the header of a file or of a DICOM series.

    Args:
        path: a file, or a folder with a DICOM series.

    Raises:
        HeaderError: when the header does not define the position of the volume.

    Example:
        >>> check_geometry(Path("scan.nrrd"))  # only NIfTI and DICOM need a check
        Geometry(affine=None, warnings=())
    """
    if path.is_dir():
        check_dicom(path)
    elif path.name.endswith(NIFTI):
        return check_nifti(path)
    elif path.suffix in WITHOUT_HEADER:
        raise HeaderError(f"{path}: expected a format with a header, got bare numbers. Save it as NIfTI.")
    return Geometry()


def check_nifti(path: Path) -> Geometry:
    """Check a NIfTI header as it was written, because nibabel silently repairs it: it reads 0 mm as 1 mm.

    The sform has priority over the qform, as in nibabel. MONAI's reader prefers the qform if only that agrees with
    pixdim.

    Args:
        path: NIfTI-1 or NIfTI-2, one file or a pair.

    Raises:
        HeaderError: when voxels are complex or coloured. When NIfTI does not define the unit of length or the
            orientation code. When a spacing is missing and there is no sform.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), "f4"), np.eye(4)), Path(folder, "scan.nii"))
        ...     check_nifti(Path(folder, "scan.nii")).affine.diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if path.suffix == ".gz":
        _check_checksum(path)
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Pair):
        return Geometry()
    if image.get_data_dtype().kind not in "iuf":
        raise HeaderError(
            f"{path}: expected real voxels, got the type {image.get_data_dtype()}. Save the magnitude of complex "
            "images."
        )
    source = image.file_map.get("header", image.file_map["image"])
    with source.get_prepare_fileobj("rb") as file:
        raw = image.header_class.from_fileobj(file, check=False)
    codes = {name: int(raw[f"{name}_code"]) for name in ("sform", "qform")}
    unit, spacing = int(raw["xyzt_units"]) & 7, np.asarray(raw["pixdim"][1:4], dtype=float)
    if unit not in MM_PER_UNIT:
        raise HeaderError(
            f"{path}: expected one of NIfTI's units of length (m, mm, micrometre), got the code {unit}. Correct "
            "xyzt_units."
        )
    wrong = {name: code for name, code in codes.items() if code not in CODES}
    if wrong:
        raise HeaderError(f"{path}: expected orientation codes in 0..5, got {wrong}. Correct the header.")
    if codes["sform"] == 0 and not (np.isfinite(spacing) & (spacing > 0)).all():
        raise HeaderError(
            f"{path}: expected a positive, finite voxel spacing, got {spacing.tolist()} in a header without sform. "
            "Correct pixdim."
        )
    to_mm = np.diag([*[MM_PER_UNIT[unit]] * 3, 1.0])
    return Geometry(to_mm @ image.affine, tuple(_doubts(image, codes, spacing)))


def _check_checksum(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is, because nibabel stops at the last voxel."""
    with gzip.open(path, "rb") as file:
        while file.read(2**22):
            pass


def _doubts(image: nib.Nifti1Pair, codes: dict[str, int], spacing: np.ndarray) -> list[str]:
    """Reasons why the position is uncertain, in words."""
    if not any(codes.values()):
        return ["The header has no orientation (sform_code and qform_code are 0): left and right may be exchanged."]
    if not all(codes.values()):
        sizes = nib.affines.voxel_sizes(image.affine)
        differs = codes["sform"] > 0 and not np.allclose(sizes, np.abs(spacing), rtol=0.01)
        return [f"The sform's spacing {sizes.round(3)} was used; pixdim says {spacing.round(3)}."] if differs else []
    try:
        qform = image.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError):
        return ["The qform is invalid; the sform was used."]
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in image.shape[:3])), -1).reshape(-1, 3)
    places = [nib.affines.apply_affine(affine, corners) for affine in (image.affine, qform)]
    apart = float(np.linalg.norm(places[0] - places[1], axis=1).max())
    if apart <= LARGEST_DISAGREEMENT * nib.affines.voxel_sizes(image.affine).min():
        return []
    return [f"Sform and qform disagree by up to {apart:.3g}; the sform was used, and the result has no other."]


def check_dicom(folder: Path) -> None:
    """Refuse a DICOM series whose slices do not form a regular volume, because ITK assumes that they do.

    Args:
        folder: with one series, one slice per file.

    Raises:
        HeaderError: when there are several series or frames; when slices differ in size or orientation; when they are
            missing, uneven, or shifted sideways, for instance by a tilted gantry.
    """
    names = _series(folder)
    slices = [_Slice.read(folder, name) for name in names]
    first = slices[0]
    remedy = "Export the series again, or convert it by dcm2niix."
    if any(one.size != first.size or not np.allclose(one.spacing, first.spacing, rtol=1e-3) for one in slices):
        raise HeaderError(f"{folder}: expected slices of one size and spacing, got several. {remedy}")
    if any(not np.allclose(one.orientation, first.orientation, atol=1e-3) for one in slices):
        raise HeaderError(f"{folder}: expected parallel slices, got several orientations, as in a localiser. {remedy}")
    if len(slices) == 1:
        return
    along = np.asarray([one.position - first.position for one in slices])
    normal = np.cross(*first.orientation)
    depth = along @ normal
    step = depth[-1] / (len(slices) - 1)
    uneven = float(np.abs(depth - step * np.arange(len(slices))).max())
    if not abs(step) > 0 or uneven > LARGEST_UNEVENNESS * abs(np.median(np.diff(depth))):
        raise HeaderError(
            f"{folder}: expected evenly spaced slices, got distances from {np.diff(depth).min():.4g} to "
            f"{np.diff(depth).max():.4g} mm: slices are missing, doubled or uneven. {remedy}"
        )
    sideways = float(np.linalg.norm(along - depth[:, None] * normal, axis=1).max())
    if sideways > LARGEST_TILT * min(first.spacing):
        raise HeaderError(
            f"{folder}: expected slices one above the other, got {sideways:.4g} mm of sideways displacement over the "
            "series (gantry tilt). Resample it first, for instance by dcm2niix."
        )


class _Slice(NamedTuple):
    """The position of a DICOM slice, in mm of the patient's LPS frame."""

    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, ...]
    size: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path, name: str) -> _Slice:
        import itk

        header = itk.GDCMImageIO.New()
        header.SetFileName(name)
        header.ReadImageInformation()
        tags = header.GetMetaDataDictionary()
        if tags.HasKey("0028|0008") and int(tags["0028|0008"]) > 1:
            raise HeaderError(
                f"{folder}: expected one slice per DICOM file, got {int(tags['0028|0008'])} frames in one. Convert it "
                "by dcm2niix."
            )
        if not (tags.HasKey("0020|0032") and tags.HasKey("0020|0037")):
            raise HeaderError(
                f"{folder}: expected ImagePositionPatient and ImageOrientationPatient in each file, but they are "
                f"absent from {Path(name).name}. Export the series again."
            )
        position, orientation = (
            np.asarray([float(value) for value in tags[tag].split("\\")]) for tag in ("0020|0032", "0020|0037")
        )
        plane = tuple((header.GetSpacing(axis), header.GetDimensions(axis)) for axis in range(2))
        return cls(position, orientation.reshape(2, 3), *(tuple(values) for values in zip(*plane, strict=True)))


def _series(folder: Path) -> Sequence[str]:
    """The files of the one series of a folder, as MONAI's ``ITKReader`` finds them."""
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(folder))
    series = names.GetSeriesUIDs()
    if len(series) != 1:
        count = len(series) or "no DICOMs"
        raise HeaderError(f"{folder}: expected one DICOM series per folder, got {count}. Sort them into folders.")
    return names.GetFileNames(series[0])
