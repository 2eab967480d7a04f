"""Files: which scans a folder holds, what their super-resolved versions are called, what is recorded beside them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import FolderLayoutBase, NibabelWriter
from monai.data.utils import affine_to_spacing
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys
from torch import Tensor, nn
from tqdm import tqdm

from scripts.datalist import unpaired_datalist

__all__ = [
    "AtomicNibabelWriter",
    "DerivativeLayout",
    "SaveImageDerivatived",
    "derivative_name",
    "describe_network",
    "inference_datalist",
    "reference_datalist",
]

EXTENSION = ".nii.gz"
METADATA = Path(__file__).parents[1] / "configs" / "metadata.json"
BIDS_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-zA-Z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")


def inference_datalist(
    dataset_dir: PathLike, preprocessing: Callable[[dict], Any] | None = None
) -> list[dict[str, str]]:
    """The scans to super-resolve.

    Args:
        dataset_dir: a scan, a folder with NIfTI scans at any depth, or a folder with DICOM series, one per folder.
            Of a BIDS dataset the ``anat`` folders count. Earlier results (``desc-...sr``) are left out.
        preprocessing: tried on every scan when there are several, so that a bad one is found before the first is
            written. A single scan is checked when it is read.

    Returns:
        one item per scan, its path under ``image``.

    Raises:
        ValueError: when nothing is found, or the results of two scans would have the same name.
    """
    root = Path(dataset_dir or "").expanduser()
    if not dataset_dir or not root.exists():
        raise ValueError(f"dataset_dir must be a scan or a folder with scans, got {dataset_dir!r}. Give --dataset_dir.")
    scans = [root] if root.is_file() else _nifti_files(root) or _dicom_folders(root)
    if not scans:
        raise ValueError(f"{root}: expected NIfTI files (.nii, .nii.gz) or DICOM series, found none. Check the path.")
    layout = DerivativeLayout("", root)
    by_name = {layout.filename(scan): scan for scan in reversed(scans)}
    for scan in scans:
        other = by_name[layout.filename(scan)]
        if other != scan:
            raise ValueError(
                f"{scan}: expected another name than {other.name}, for the results would be one. Rename it."
            )
    items = [{"image": str(scan)} for scan in scans]
    for item in tqdm(items, desc="Checking scans") if preprocessing and len(items) > 1 else ():
        preprocessing(dict(item))
    return items


def reference_datalist(dataset_dir: PathLike, section: str = "test") -> list[dict[str, str]]:
    """The high-resolution scans to evaluate on.

    Args:
        dataset_dir: a datalist (.json) with that section, such as training leaves behind; a folder that holds a folder
            of that name; or scans as :func:`inference_datalist` finds them, which then all count.
        section: "test" or "validation".

    Returns:
        one item per scan, its path under ``image``, to be degraded, and ``label``. A datalist may pair other files.

    Raises:
        ValueError: when there is nothing to evaluate on.
    """
    root = Path(dataset_dir or "").expanduser()
    if root.suffix == ".json":
        items = unpaired_datalist(root)[section] if root.is_file() else []
    else:
        items = inference_datalist(root / section if (root / section).is_dir() else dataset_dir)
    if not items:
        raise ValueError(
            f"{root}: expected a datalist with scans in the section {section!r}, found none. Train first, or give a "
            "folder of high-resolution scans by --dataset_dir."
        )
    return [{"image": item["image"], "label": item.get("label", item["image"])} for item in items]


def _nifti_files(root: Path) -> list[Path]:
    """NIfTI files at any depth, neither hidden nor our own results."""
    files = [path for path in sorted(root.rglob("*.nii*")) if re.fullmatch(r"[^.].*\.nii(\.gz)?", path.name)]
    files = [path for path in files if not re.search(r"_desc-[a-zA-Z0-9]*sr[_.]", path.name)]
    return [path for path in files if path.parent.name == "anat"] or files


def _dicom_folders(root: Path) -> list[Path]:
    """Folders that hold a DICOM series.

    Raises:
        ValueError: when a folder holds several.
    """
    import itk

    folders = []
    for folder in sorted({root, *(path.parent for path in root.rglob("*") if path.is_file())}):
        names = itk.GDCMSeriesFileNames.New(Directory=str(folder), UseSeriesDetails=True)
        count = len(names.GetSeriesUIDs())
        if count > 1:
            raise ValueError(f"{folder}: expected one DICOM series per folder, got {count}. Sort them into folders.")
        folders += [folder] * count
    return folders


def derivative_name(name: str) -> str:
    """Name, without extension, of what is super-resolved from a file or DICOM folder of this name.

    ``sub-01_T1w.nii.gz`` becomes ``sub-01_desc-sr_T1w`` as BIDS wants it (an existing description is kept and extended,
    ``desc-preproc`` to ``desc-preprocsr``); any other ``scan.nii.gz`` becomes ``scan_desc-sr``.
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", name)
    match = BIDS_NAME.fullmatch(stem)
    if match is None:
        return f"{stem}_desc-sr"
    entities, suffix = match["entities"], match["suffix"]
    described = re.sub(r"(_desc-[a-zA-Z0-9]+)", r"\1sr", entities)
    return f"{described}_{suffix}" if described != entities else f"{entities}_desc-sr_{suffix}"


class DerivativeLayout(FolderLayoutBase):
    """Mirror the input's folders in the output folder, files named by :func:`derivative_name`.

    Args:
        output_dir: where to write.
        dataset_dir: the input's folder, whose inner structure is kept; a single scan goes to ``output_dir`` itself.
    """

    def __init__(self, output_dir: PathLike, dataset_dir: PathLike) -> None:
        self.output_dir = Path(output_dir)
        self.dataset_dir = Path(dataset_dir)

    def filename(self, subject: PathLike = "subject", idx: Any = None, **kwargs: Any) -> Path:
        """
        Args:
            subject: path of the input.
            idx: for the interface; not used.
            kwargs: for the interface; not used.
        """
        source = Path(subject)
        inner = source.parent.relative_to(self.dataset_dir) if self.dataset_dir in source.parents else Path()
        return self.output_dir / inner / f"{derivative_name(source.name)}{EXTENSION}"


def _write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a sibling that then takes the name, so that no interruption leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial_{path.name}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class AtomicNibabelWriter(NibabelWriter):
    """``NibabelWriter`` that leaves no partial file behind and says that the spacing is in mm."""

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """
        Args:
            filename: where to write.
            verbose: log the name.
            obj_kwargs: see the base class.
        """
        _write_atomically(Path(filename), lambda partial: super(AtomicNibabelWriter, self).write(partial, **obj_kwargs))

    @classmethod
    def create_backend_obj(cls, *args: Any, **kwargs: Any) -> Any:
        """The base class's image, whose header states the unit of length."""
        image = super().create_backend_obj(*args, **kwargs)
        image.header.set_xyzt_units("mm")
        return image


class SaveImageDerivatived(SaveImaged):
    """Save volumes as float32 NIfTI derivatives, each with a JSON sidecar that says how it was made.

    The name begins like MONAI's own ``SaveImaged``, because MONAI Deploy and MONAI Label replace the saver of a bundle.

    Args:
        keys: the volumes to save.
        output_dir: see :class:`DerivativeLayout`.
        dataset_dir: see there.
        provenance: entries for the sidecar besides those about the volume itself.
        weights: file of the network's weights, whose hash is recorded; None when none were loaded.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: PathLike,
        dataset_dir: PathLike,
        provenance: Mapping[str, Any] | None = None,
        weights: PathLike | None = None,
    ) -> None:
        layout = DerivativeLayout(output_dir, dataset_dir)
        super().__init__(
            keys, folder_layout=layout, writer=AtomicNibabelWriter, savepath_in_metadict=True, print_log=False
        )
        self.layout = layout
        self.provenance = dict(provenance or {})
        self.weights = weights

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = super().__call__(data)
        for key in self.key_iterator(d):
            meta = d[key].meta
            path = Path(meta[MetaKeys.SAVED_TO])
            text = json.dumps(self._sidecar(meta), indent=2)
            _write_atomically(path.with_name(path.name.removesuffix(EXTENSION) + ".json"), _writes(text))
        return d

    def _sidecar(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """What was made from what, by what."""
        bundle = json.loads(METADATA.read_text())
        spacings = [affine_to_spacing(meta[key]) for key in (MetaKeys.ORIGINAL_AFFINE, MetaKeys.AFFINE)]
        low_res, high_res = [np.round(np.asarray(spacing, dtype=float), 6).tolist() for spacing in spacings]
        return {
            "Description": "Super-resolved volume, in the intensity units of its source.",
            "IntendedUse": bundle["intended_use"],
            "Sources": [Path(meta[ImageMetaKey.FILENAME_OR_OBJ]).name],
            "GeneratedBy": [{"Name": bundle["name"], "Version": bundle["version"]}],
            "SourceSpacing": low_res,
            "Spacing": high_res,
            "WeightsSHA256": None
            if self.weights is None
            else hashlib.sha256(Path(self.weights).read_bytes()).hexdigest(),
            **self.provenance,
        }


def _writes(text: str) -> Callable[[Path], Any]:
    return lambda partial: partial.write_text(text + "\n")


def describe_network(network: nn.Module) -> dict[str, Any]:
    """A network's class, its number of parameters and its own plain settings, for the record."""
    settings = {k: v for k, v in vars(network).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
    settings.pop("training")
    return {
        "Class": type(network).__name__,
        "Parameters": sum(p.numel() for p in network.parameters()),
        **settings,
    }
