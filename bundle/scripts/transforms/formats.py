"""Formats: what a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.config import PathLike

from scripts.utils.compression import decompress

__all__ = [
    "HEADER_FILES",
    "VOXEL_FILES",
    "HeaderError",
    "Volume",
    "content",
    "describe",
    "first_bytes",
    "identify",
    "partner",
]


HEAD = 4096  # bytes that identify a format
GZIP = b"\x1f\x8b"
HEADER_FILES, VOXEL_FILES = (".hdr", ".hdr.gz"), (".img", ".img.gz")  # the endings of the two files of a pair
NIFTI = {348: (344, (b"n+1\0", b"ni1\0")), 540: (4, (b"n+2\0", b"ni2\0"))}  # header size: place and values of the magic
MGH_TYPES = (0, 1, 2, 3, 4, 10)  # voxel types, as in FreeSurfer's mri.h
META_IMAGE = re.compile(rb"\A(?=\s*[A-Za-z]+\s*=).*?^\s*NDims\s*=", re.S | re.M)
VALUE_TYPES = frozenset(b"AE AS CS DA DS DT IS LO LT OB OW PN SH ST TM UI UL US UT".split())  # of DICOM's first groups
NO_SCANS = {  # first bytes: what such a file is, and what to do
    b"\x93NUMPY": "bare numbers of NumPy, which have no geometry. Save it as NIfTI",
    b"version https://git-lfs": "a Git LFS pointer instead of the file. Run `git lfs pull`",
    b"/annex/objects": "a git-annex pointer instead of the file. Run `git annex get`",
    b"<": "a web page or XML. Download the scan again",
    b"PK\x03\x04": "an archive. Unpack it",
    b"BZh": "a file that bzip2 compressed. Unpack it",
    b"\xfd7zXZ": "a file that xz compressed. Unpack it",
    b"\x28\xb5\x2f\xfd": "a file that zstd compressed. Unpack it",
    b"CDF": "a MINC file. Convert it by mnc2nii",
    b"\x89HDF": "an HDF5 or MINC file. Convert it to NIfTI",
    b"\x89PNG": "a picture. Use the scan itself",
    b"\xff\xd8\xff": "a picture. Use the scan itself",
    GZIP: "a file that was compressed twice. Unpack it once",
}


class HeaderError(ValueError):
    """A scan that is complete, but does not define where its voxels lie or what they mean."""


class Volume(NamedTuple):
    """A scan as its file defines it.

    Args:
        values: voxels ``(X, Y, Z)`` or, of a series of volumes, ``(X, Y, Z, ...)``.
        affine: from voxels to mm in the RAS frame.
        warnings: remarks for the user.
        protocol: attributes of the header that say how the scan was acquired, as JSON; empty where there are none.
    """

    values: np.ndarray
    affine: np.ndarray
    warnings: tuple[str, ...] = ()
    protocol: str = ""


def first_bytes(path: PathLike) -> bytes:
    """The first bytes of a file, up to 4,096, unpacked if gzip compressed it. None where unpacking fails at once."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head.startswith(GZIP):
        return head
    unpack, unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
    for start in range(0, len(head), 16):  # in small parts, so that damage spoils only what follows it
        try:
            unpacked += unpack.decompress(head[start : start + 16])
        except zlib.error:
            break
        if len(unpacked) >= HEAD:
            break
    return unpacked[:HEAD]


def content(path: PathLike) -> bytes:
    """The whole file, unpacked if gzip compressed it. Reading to the end compares the checksum of gzip."""
    data = Path(path).read_bytes()
    return decompress(data) if data.startswith(GZIP) else data


def identify(path: PathLike) -> str | None:
    """The format of a file by its first bytes. Its name does not matter.

    Args:
        path: any file.

    Returns:
        "nifti", "mgh", "nrrd", "metaimage", "dicom" or "analyze". None for another file, such as the ``.img`` of a
        pair, which has no header of its own.

    Raises:
        OSError: when the file cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "scan.txt")
        >>> _ = file.write_bytes(b"NRRD0004\\ntype: short")
        >>> identify(file)
        'nrrd'
    """
    with open(path, "rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    head = first_bytes(path)
    if not packed and (head[128:132] == b"DICM" or _is_dicom_without_preamble(head)):
        return "dicom"
    if not packed and head.startswith(b"NRRD"):
        return "nrrd"
    if not packed and META_IMAGE.match(head):
        return "metaimage"
    sizes = {size for order in "<>" if len(head) >= 348 for size in struct.unpack(f"{order}i", head[:4])}
    for size in sizes & NIFTI.keys():
        place, magics = NIFTI[size]
        if head[place : place + 4] in magics:
            return "nifti"
    if 348 in sizes:
        return "analyze" if any(1 <= struct.unpack_from(f"{order}h", head, 40)[0] <= 7 for order in "<>") else None
    if len(head) >= 284:
        version, *dims, kind = struct.unpack(">6i", head[:24])
        if version == 1 and min(dims) > 0 and kind in MGH_TYPES:
            return "mgh"
    return None


def _is_dicom_without_preamble(head: bytes) -> bool:
    """Whether a file begins with an element of DICOM's first groups, 0002 or 0008."""
    if len(head) < 16:
        return False
    for order in "<>":
        group, element = struct.unpack(f"{order}HH", head[:4])
        length = struct.unpack(f"{order}I", head[4:8])[0]
        implicit = order == "<" and length < 256 and length % 2 == 0
        if group in (2, 8) and element <= 0x1030 and (head[4:6] in VALUE_TYPES or implicit):
            return True
    return False


def describe(path: Path) -> str:
    """What an unknown file is instead of a scan, with a remedy, for a message."""
    head = first_bytes(path)
    if not head:
        return f"{'a damaged gzip' if path.stat().st_size else 'an empty'} file. Copy it again"
    if head[128:132] == b"DICM" or head.startswith(b"NRRD"):
        return "a DICOM or NRRD file that gzip compressed. Unpack it"
    known = (text for start, text in NO_SCANS.items() if head.lstrip().startswith(start))
    return next(
        known, f"a file that begins with {head[:16]!r}. It may be truncated or of another format: export it again"
    )


def partner(path: Path, endings: tuple[str, ...]) -> Path | None:
    """The other file of a pair: it has the same name but for the ending, in any case.

    Args:
        path: one file of the pair.
        endings: of the other file, in lower case.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "SCAN.IMG")
        >>> file.touch()
        >>> partner(file.with_name("SCAN.HDR"), VOXEL_FILES).name
        'SCAN.IMG'
    """
    stem = re.sub(r"(\.gz)?$", "", path.name, flags=re.I)
    stem = stem[: stem.rfind(".")] if "." in stem else stem
    found = [
        other
        for other in sorted(path.parent.iterdir())
        if other.name.casefold() in {stem.casefold() + ending for ending in endings}
    ]
    exact = [other for other in found if other.name.startswith(stem)]
    same_case = [other for other in exact if other.suffix.isupper() == path.suffix.isupper()]
    return next(iter([*same_case, *exact, *found]), None)
