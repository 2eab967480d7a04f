"""Naming: the kinds of results, and the names of their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import FolderLayoutBase

__all__ = ["DESCRIPTIONS", "ENDINGS", "EXTENSION", "DerivativeLayout", "derivative_name"]


DESCRIPTIONS = {
    "sr": "Super-resolved volume, in the intensity units of its source.",
    "disagreementsr": "Standard deviation of the super-resolved volume among slab orientations, in the same units.",
}
EXTENSION = ".nii.gz"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")  # of the input files
BIDS_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-zA-Z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")


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
    stem = next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
    match = BIDS_NAME.fullmatch(stem)
    if match is None:
        return f"{stem}_desc-{description}"
    entities, suffix = match["entities"], match["suffix"]
    described = re.sub(r"(_desc-[a-zA-Z0-9]+)", rf"\g<1>{description}", entities)
    return f"{described}_{suffix}" if described != entities else f"{entities}_desc-{description}_{suffix}"


class DerivativeLayout(FolderLayoutBase):
    """Mirror the folders of the input in the output folder. :func:`derivative_name` names the files.

    Args:
        output_dir: the folder to write to.
        dataset_dir: the input's folder, whose inner structure is kept. A scan from elsewhere goes to ``output_dir``
            itself.
        description: kind of the results, see :data:`DESCRIPTIONS`. It ends with "sr", by which results are recognised.

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
        source = Path(subject)
        inner = source.parent.relative_to(self.dataset_dir) if self.dataset_dir in source.parents else ""
        return self.output_dir / inner / f"{derivative_name(source.name, self.description)}{EXTENSION}"
