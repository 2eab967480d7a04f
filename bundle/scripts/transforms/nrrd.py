"""NRRD and MetaImage files as volumes, by ITK, with their voxels inside or in another file."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scripts.transforms.formats import HeaderError, Volume
from scripts.utils.itk import import_itk

__all__ = ["read_metaimage", "read_nrrd"]


LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACES = {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps"}
SPACES |= {f"{space}-time" for space in list(SPACES)[:3]} | {"rast", "last", "lpst"}
META_GEOMETRY = (  # what MetaImage needs, by any of its names
    ("ElementSpacing", "ElementSize"),
    ("TransformMatrix", "Orientation", "Rotation"),
    ("Offset", "Position", "Origin"),
)
META_BYTES = {  # of one number, by MetaImage's names
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_DOUBLE", "MET_LONG_LONG", "MET_ULONG_LONG"), 8),
    **dict.fromkeys(("MET_LONG", "MET_ULONG"), 4),
}


def read_nrrd(path: Path) -> Volume:
    """Read NRRD, also as the header ``.nhdr`` of detached voxels.

    Args:
        path: the file or the header.

    Raises:
        HeaderError: when space, directions or origin are missing or unknown.
    """
    fields = {key.strip().lower(): value.strip() for key, value in _lines(path, b":")}
    missing = [key for key in ("space", "space directions", "space origin") if key not in fields]
    if missing:
        raise HeaderError(
            f"{path}: expected the position of the volume, got a header without {', '.join(missing)}. Save it again "
            "with its geometry."
        )
    if fields["space"].lower() not in SPACES:
        raise HeaderError(
            f"{path}: expected the space left-posterior-superior or right-anterior-superior, got {fields['space']}. "
            "Save it in one of them."
        )
    units = set(fields.get("space units", "").replace('"', "").split()) - {"mm"}
    if units:
        raise HeaderError(f"{path}: expected lengths in mm, got the space units {sorted(units)}. Convert them.")
    return _by_itk(path, import_itk().NrrdImageIO.New())


def read_metaimage(path: Path) -> Volume:
    """Read MetaImage, also as the header ``.mhd`` of detached voxels.

    Args:
        path: the file or the header.

    Raises:
        HeaderError: when spacing, orientation or position are missing.
    """
    fields = {key.strip(): value.strip() for key, value in _lines(path, b"=")}
    missing = [names[0] for names in META_GEOMETRY if not fields.keys() & set(names)]
    if missing:
        raise HeaderError(
            f"{path}: expected the position of the volume, got a header without {', '.join(missing)}. Save it again "
            "with its geometry."
        )
    _check_voxels(path, fields)
    return _by_itk(path, import_itk().MetaImageIO.New())


def _check_voxels(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse a MetaImage without all of its voxels, because ITK fills what is missing with any numbers."""
    name, kind = fields.get("ElementDataFile", ""), fields.get("ElementType", "").upper()
    if kind not in META_BYTES:
        raise HeaderError(f"{path}: expected a volume of numbers, got the ElementType {kind}. Save it again.")
    local = name.casefold() == "local"
    file = path if local else path.parent / name
    if name.split(" ")[0].casefold() == "list" or "%" in name or not file.is_file():
        raise HeaderError(f"{path}: expected the voxels in one file, got {name}. Put it beside the header.")
    data = file.read_bytes()
    if local:
        data = data[re.search(rb"^\s*ElementDataFile\s*=.*\n", data, re.M).end() :]
    if fields.get("CompressedData", "").upper() in ("TRUE", "1"):
        if local and "CompressedDataSize" not in fields:
            raise HeaderError(f"{path}: expected CompressedDataSize in a header of compressed voxels. Save it again.")
        data = zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(data)  # compares the checksum, which ITK does not
    sizes = [*fields["DimSize"].split(), fields.get("ElementNumberOfChannels", "1")]
    needed = math.prod(map(int, sizes)) * META_BYTES[kind] + max(0, int(fields.get("HeaderSize", 0)))
    if len(data) < needed:
        raise EOFError(f"expected {needed} bytes of voxels, got {len(data)}")


def _lines(path: Path, sign: bytes) -> list[tuple[str, str]]:
    """The fields of a header in text, which ends with an empty line or where the voxels begin."""
    fields = []
    with open(path, "rb") as file:
        for line in iter(lambda: file.readline(4096), b""):
            key, found, value = line.partition(sign)
            if not line.strip():
                break
            if found:
                fields.append((key.decode("latin-1"), value.decode("latin-1")))
            if key.strip() == b"ElementDataFile":
                break
    return fields


def _by_itk(path: Path, file_format: object) -> Volume:
    itk = import_itk()
    try:
        image = itk.imread(str(path), imageio=file_format)
    except RuntimeError as error:  # the first lines are places in ITK's source
        raise ValueError((str(error).strip().splitlines() or [""])[-1]) from error
    direction = np.asarray(itk.array_from_matrix(image.GetDirection()))
    axes = len(direction)
    values = itk.array_view_from_image(image).T  # (X, Y, Z), as in NIfTI
    if image.GetNumberOfComponentsPerPixel() > 1:
        values = np.moveaxis(values, 0, -1)
    affine = np.eye(4)
    space = min(axes, 3)
    affine[:space, :space] = (direction * np.asarray(image.GetSpacing()))[:space, :space]
    affine[:space, 3] = np.asarray(image.GetOrigin())[:space]
    with np.errstate(over="ignore"):
        return Volume(values.astype(np.float32), LPS_TO_RAS @ affine)  # a copy, which ITK does not free
