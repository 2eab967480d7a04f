"""Sources: the files that a scan consists of, and the description of the dataset that its result belongs to."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from scripts.transforms.dicom import series_files
from scripts.transforms.formats import HEADER_FILES, VOXEL_FILES, HeaderError, first_bytes, identify, partner
from scripts.transforms.naming import bids_root, bundle_metadata, stem_of
from scripts.transforms.utils import json_object
from scripts.utils.atomic import write_text_atomically

__all__ = ["describe_dataset", "generated_by", "sha256", "skull_stripped", "source_files", "source_name"]

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
NO_BIDS = ("summary.csv", "report/")  # files of a run that BIDS does not know
SOURCE = "source"  # name of the source dataset in BIDS URIs
PARTNERS = {HEADER_FILES: VOXEL_FILES, VOXEL_FILES: HEADER_FILES}
DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file:)\s*([^\r\n]+?)\s*$", re.M | re.I)


def source_files(path: PathLike) -> list[Path]:
    """The files of a scan: those of its DICOM series, a header with its voxels, or a single file.

    Example:
        >>> source_files("scan.nii")
        [PosixPath('scan.nii')]
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and identify(path) == "dicom"):
        try:
            return series_files(path)
        except HeaderError:
            return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    endings = next((PARTNERS[own] for own in PARTNERS if path.name.casefold().endswith(own)), None)
    other = partner(path, endings) if endings else None
    if path.suffix.casefold() in (".nhdr", ".mhd") and (match := DATA_FILE.search(first_bytes(path))):
        other = path.parent / match[1].decode("utf-8", "surrogateescape")
    return sorted([path, *([other] if other is not None and other.is_file() else [])])


def sha256(files: Sequence[Path]) -> str:
    """Hash of the content of files, in their order."""
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()


def generated_by() -> list[dict[str, str]]:
    """The entry ``GeneratedBy`` of BIDS."""
    return [{"Name": bundle_metadata()["name"], "Version": bundle_metadata()["version"]}]


def source_name(path: PathLike) -> str:
    """The name of a scan, or its BIDS URI within the source dataset.

    Example:
        >>> source_name("data/sub-1/anat/sub-1_T1w.nii.gz"), source_name("data/scan.nii")
        ('bids:source:sub-1/anat/sub-1_T1w.nii.gz', 'scan.nii')
    """
    path = Path(os.path.abspath(path))
    root = bids_root(path)
    return path.name if root is None else f"bids:{SOURCE}:{path.relative_to(root).as_posix()}"


def skull_stripped(path: PathLike) -> bool:
    """Whether the record or the name of a source says that it holds the brain alone. BIDS asks for this.

    Example:
        >>> skull_stripped("sub-1_desc-brain_T1w.nii.gz"), skull_stripped("sub-1_T1w.nii.gz")
        (True, False)
    """
    path = Path(path)
    record = _read(path.with_name(f"{stem_of(path.name)}.json"))
    return bool(record.get("SkullStripped", "_desc-brain" in path.name))


def describe_dataset(output_dir: Path, source: PathLike) -> None:
    """Make a folder of results a BIDS derivative, if the source is from a BIDS dataset. Files that exist stay.

    Args:
        output_dir: folder of the results.
        source: a scan.
    """
    root = bids_root(Path(os.path.abspath(source)))
    if root is None or (output_dir / DESCRIPTION).exists():
        return
    known = _read(root / DESCRIPTION)
    origin = {"URL": root.as_uri()}
    if "DatasetDOI" in known:
        origin["DOI"] = known["DatasetDOI"]
    description = {
        "Name": f"Super-resolved scans of {known.get('Name', root.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
        "SourceDatasets": [origin],
        "DatasetLinks": {SOURCE: root.as_uri()},
    }
    write_text_atomically(output_dir / DESCRIPTION, json.dumps(description, indent=2) + "\n")
    if not (output_dir / ".bidsignore").exists():
        write_text_atomically(output_dir / ".bidsignore", "\n".join(NO_BIDS) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json_object(path)
    except (OSError, ValueError):
        return {}
