"""Naming: the kinds of results, and the names of their files."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import FolderLayoutBase

from scripts.transforms.dicom import named_path

__all__ = [
    "DESCRIPTIONS",
    "ENDINGS",
    "EXTENSION",
    "METADATA",
    "SERIES_ENDINGS",
    "DerivativeLayout",
    "beside",
    "bids_root",
    "bundle_metadata",
    "derivative_name",
    "is_own_result",
    "stem_of",
]


DESCRIPTIONS = {
    "sr": "Super-resolved volume, in the intensity units of its source.",
    "srerror": "Error bars of the super-resolved volume: half width of the 90 % interval, in the same units.",
}
EXTENSION = ".nii.gz"
ENDINGS = (  # of the input files, in any case; the longer of two comes first
    *(".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh.gz", ".mgh"),
    *(".hdr.gz", ".hdr", ".img.gz", ".img"),
)
SERIES_ENDINGS = (".dcm", ".dicom", ".ima")  # a DICOM file stands for its series
BIDS_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(?:_[a-zA-Z0-9]+-[a-zA-Z0-9+]+)*)_(?P<suffix>[a-zA-Z0-9]+)")
RESULT = re.compile(r"_desc-[a-zA-Z0-9+]*sr(?:error)?(?:_[a-zA-Z0-9]+)?$")
METADATA = Path(__file__).resolve().parents[2] / "configs" / "metadata.json"


def stem_of(name: str) -> str:
    """The name of a scan without its known ending, in any case. Other dots belong to the name.

    Example:
        >>> stem_of("IXI.001.T1.NII.GZ"), stem_of("1.2.840")
        ('IXI.001.T1', '1.2.840')
    """
    ending = next((end for end in (*ENDINGS, *SERIES_ENDINGS) if name.casefold().endswith(end)), "")
    return name[: len(name) - len(ending)] or name


def bids_root(path: Path) -> Path | None:
    """The root of the BIDS dataset in whose ``sub-<label>/[ses-<label>/]anat`` a file lies. None for another file.

    Example:
        >>> bids_root(Path("data/sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz")).as_posix()
        'data'
    """
    if not BIDS_NAME.fullmatch(stem_of(path.name)) or path.parent.name != "anat":
        return None
    subject = path.parents[2] if path.parents[1].name.startswith("ses-") else path.parents[1]
    return subject.parent if path.name.startswith(f"{subject.name}_") else None


def is_own_result(path: Path) -> bool:
    """Whether a file is a result of this bundle: its name is that of a result, and its record names the bundle.

    A result without a record, as an interrupted run leaves it, counts where its scan lies beside it. The results of
    other tools, such as ``desc-gibbssr``, do not count.

    Example:
        >>> is_own_result(Path("scan_desc-sr.nii.gz"))
        False
    """
    stem = stem_of(path.name)
    if not RESULT.search(stem):
        return False
    try:
        record = json.loads(path.with_name(f"{stem}.json").read_text(encoding="utf-8"))
        return bundle_metadata()["name"] in [tool["Name"] for tool in record["GeneratedBy"]]
    except FileNotFoundError:
        scans = [other.name for other in path.parent.iterdir() if other.name != path.name]
        return any(derivative_name(scan, kind) == stem for scan in scans for kind in DESCRIPTIONS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@cache
def bundle_metadata() -> dict[str, Any]:
    """The description of this bundle, ``configs/metadata.json``."""
    return json.loads(METADATA.read_text(encoding="utf-8"))


def derivative_name(name: str, description: str = "sr") -> str:
    """Name of a result, without extension, from the name of its file or DICOM folder.

    A BIDS name stays a BIDS name. An existing description is extended, so ``desc-preproc`` becomes ``desc-preprocsr``.

    Args:
        name: of the input.
        description: kind of the result, see :data:`DESCRIPTIONS`.

    Example:
        >>> derivative_name("sub-01_T1w.nii.gz"), derivative_name("scan.nii.gz")
        ('sub-01_desc-sr_T1w', 'scan_desc-sr')
    """
    stem = stem_of(name)
    match = BIDS_NAME.fullmatch(stem)
    if match is None:
        return f"{stem}_desc-{description}"
    entities, suffix = match["entities"], match["suffix"]
    described = re.sub(r"(_desc-[a-zA-Z0-9+]+)", rf"\g<1>{description}", entities)
    return f"{described}_{suffix}" if described != entities else f"{entities}_desc-{description}_{suffix}"


def beside(result: PathLike, ending: str) -> Path:
    """The file of a result's name with another ending, such as its record.

    Example:
        >>> beside("out/scan_desc-sr.nii.gz", ".json").as_posix()
        'out/scan_desc-sr.json'
    """
    result = Path(result)
    return result.with_name(result.name.removesuffix(EXTENSION) + ending)


class DerivativeLayout(FolderLayoutBase):
    """Mirror the folders of the input in the output folder. :func:`derivative_name` names the files.

    Args:
        output_dir: the folder to write to.
        dataset_dir: the input's folder, whose inner structure is kept. Of a BIDS dataset it may be the folder of a
            subject, a session or ``anat``, or one scan. A scan from elsewhere goes to ``output_dir`` itself.
        description: kind of the results, see :data:`DESCRIPTIONS`, by which results are recognised.

    Example:
        >>> DerivativeLayout("results", "scans").filename("scans/group/scan.nii.gz").as_posix()
        'results/group/scan_desc-sr.nii.gz'
    """

    def __init__(self, output_dir: PathLike, dataset_dir: PathLike | None = None, description: str = "sr") -> None:
        self.output_dir = Path(output_dir).expanduser()
        self.dataset_dir = None if dataset_dir is None else Path(dataset_dir).expanduser()
        self.description = description

    def filename(self, subject: PathLike = "subject", idx: Any = None, **kwargs: Any) -> Path:
        """The path of the result of an input.

        Args:
            subject: path of the input.
            idx: part of MONAI's interface; not used.
            kwargs: part of MONAI's interface; not used.
        """
        source = named_path(Path(os.path.abspath(subject)))
        folder = Path(os.path.abspath(self.dataset_dir or os.devnull))
        inner: PathLike = ""
        if folder in (source, *source.parents):
            root = bids_root(source)
            whole = root is not None and root in folder.parents  # a part of a dataset counts as the whole one
            folder = source.parent if folder == source else folder
            inner = source.parent.relative_to(root if whole else folder)
        return self.output_dir / inner / f"{derivative_name(source.name, self.description)}{EXTENSION}"
