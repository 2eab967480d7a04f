"""Saving: the files of the results, and a record of how each was made."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Hashable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import ImageWriter, NibabelWriter
from monai.data.utils import affine_to_spacing
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys, convert_to_numpy
from torch import Tensor

from scripts.physics.output import ACQUISITION
from scripts.transforms.errors import ERROR_BARS
from scripts.transforms.evidence import sidecar_of
from scripts.transforms.interpolate import ASSUMED
from scripts.transforms.masks import TISSUE_SHARE
from scripts.transforms.naming import DESCRIPTIONS, METADATA, DerivativeLayout, beside, bundle_metadata
from scripts.transforms.sources import (
    describe_dataset,
    generated_by,
    sha256,
    skull_stripped,
    source_files,
    source_name,
)
from scripts.transforms.utils import json_object
from scripts.utils.atomic import write_atomically, write_text_atomically
from scripts.utils.compression import GzipFile

__all__ = [
    "AtomicNibabelWriter",
    "Derivatives",
    "SaveImageDerivatived",
    "describe_weights",
]

logger = logging.getLogger(__name__)


RECORD = "record"  # key of a result's record in its metadata
MEASURES = {  # entries of the record about the volume, by their key in its metadata
    "consistency_psnr": "ConsistencyPSNR",
    "data_consistency": "DataConsistencyDone",
    ASSUMED: "Assumed",
    TISSUE_SHARE: "TissueShare",
    ERROR_BARS: "ErrorBars",
}
LEVELS = range(4)  # of ISA-L
ABOUT_VOLUME = {"SourceSpacing", "Spacing", "Warnings", "Acquisition", *MEASURES.values()}


class AtomicNibabelWriter(NibabelWriter):
    """``NibabelWriter`` that leaves no partial file behind and sets the unit of length to mm."""

    def set_metadata(self, meta_dict: Mapping, resample: bool = False, **options: Any) -> None:
        """Take the affine as it is, because the resampler of MONAI 1.6.1 fails for some files of shape (H, W, D, 1).

        Args:
            meta_dict: metadata with the affine.
            resample: part of MONAI's interface; nothing is resampled.
            options: part of MONAI's interface; not used.
        """
        self.affine = convert_to_numpy(meta_dict[MetaKeys.AFFINE])

    def write(self, filename: PathLike, verbose: bool = False, compression: int = 1, **obj_kwargs: Any) -> None:
        """Write the compressed file under a temporary name, then rename it. Equal volumes give equal bytes.

        Args:
            filename: the file to write, whose name ends with ``.nii.gz``.
            verbose: log the name.
            compression: level of gzip, from 0, which stores, and 1, which is fast, to 3, which may be smaller.
            obj_kwargs: see the base class.
        """
        ImageWriter.write(self, filename, verbose=verbose)
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype, **obj_kwargs)
        image.set_sform(self.affine, code=1)
        image.set_qform(self.affine, code=1)

        def fill(path: Path) -> None:
            with open(path, "wb") as file, GzipFile("", "wb", compression, file, mtime=0) as packed:
                image.to_stream(packed)

        write_atomically(filename, fill)
        self.data_obj = None  # frees the volume, which the saver would keep until the next one

    @classmethod
    def create_backend_obj(cls, *args: Any, **kwargs: Any) -> Any:
        """The image of the base class, with the unit of length in its header."""
        image = super().create_backend_obj(*args, **kwargs)
        image.header.set_xyzt_units("mm")
        return image


class Derivatives:
    """The files of the results, the record of each, and the results that exist already.

    Args:
        output_dir: see :class:`DerivativeLayout`.
        dataset_dir: see there.
        provenance: entries of the record besides those about the volume itself.
        weights: file of the network's weights, whose hash is recorded; None without weights.
        overwrite: whether to make existing results again.

    Example:
        >>> Derivatives("results").sidecar("results/scan_desc-sr.nii.gz").as_posix()
        'results/scan_desc-sr.json'
    """

    def __init__(
        self,
        output_dir: PathLike,
        dataset_dir: PathLike | None = None,
        provenance: Mapping[str, Any] | None = None,
        weights: PathLike | None = None,
        overwrite: bool = False,
    ) -> None:
        self.layout = DerivativeLayout(output_dir, dataset_dir)
        self.provenance = dict(provenance or {})
        self.weights = weights
        self.overwrite = overwrite

    def sidecar(self, path: PathLike) -> Path:
        """The file of the record of a result."""
        return beside(path, ".json")

    def origin(self, source: PathLike) -> dict[str, Any]:
        """The part of the record that determines the result: equal origins mean equal results."""
        sidecar = sidecar_of(source)
        record = {
            "Description": DESCRIPTIONS["sr"],
            "IntendedUse": bundle_metadata()["intended_use"],
            "Sources": [source_name(source)],
            "SourceSHA256": sha256(source_files(source)),
            "SidecarSHA256": sidecar and sha256([sidecar]),
            "SkullStripped": skull_stripped(source),
            "GeneratedBy": generated_by(),
            "WeightsSHA256": self._weights_hash,
            **self.provenance,
        }
        return json.loads(json.dumps(record))

    def finished(self, source: PathLike) -> dict[str, Any] | None:
        """The record of a scan's existing result; None if it does not exist, or would now be made in another way."""
        result = self.layout.filename(source)
        sidecar = self.sidecar(result)
        if self.overwrite or not (result.is_file() and sidecar.is_file()):
            return None
        try:
            record = json_object(sidecar)
        except ValueError:
            return None
        if MEASURES[ERROR_BARS] in record and not self.error_bars(source).is_file():
            return None
        origin = {key: value for key, value in record.items() if key not in ABOUT_VOLUME}
        return record if origin == self.origin(source) else None  # MONAI leaves out an option that becomes None

    def error_bars(self, source: PathLike) -> Path:
        """The file of the error bars of a scan."""
        return Path(DerivativeLayout(self.layout.output_dir, self.layout.dataset_dir, "srerror").filename(source))

    def remove_error_bars(self, source: PathLike) -> None:
        """Remove the error bars of an earlier result of a scan, because they do not belong to the new result."""
        bars = self.error_bars(source)
        for file in (bars, self.sidecar(bars)):
            if os.path.exists(file):  # False also for a name that is too long for a file
                file.unlink()
                logger.info("Removed %s of an earlier result. The new result has no error bars.", file)

    @cached_property
    def _weights_hash(self) -> str | None:
        return self.weights and sha256([Path(self.weights)])


def describe_weights(path: PathLike | None) -> str:
    """The file of a network's weights, relative to the bundle, and the start of its SHA-256.

    A file outside the bundle is named with its folder. A missing file is named without a hash, because the loader of
    weights has the better error message.

    Example:
        >>> describe_weights("/elsewhere/models/missing.pt")
        'models/missing.pt'
    """
    if path is None:
        return "none"
    file, bundle = Path(path).resolve(), METADATA.parents[1]
    name = file.relative_to(bundle) if file.is_relative_to(bundle) else Path(*file.parts[-2:])
    return f"{name.as_posix()}, SHA-256 {sha256([file])[:12]}" if file.is_file() else name.as_posix()


class SaveImageDerivatived(SaveImaged):
    """Save volumes as float32 NIfTI derivatives, each with a JSON sidecar that records how it was made.

    A sidecar is removed before its volume is written, and written after it. It therefore always describes the volume
    beside it. MONAI Deploy and MONAI Label replace the saver of a bundle, and recognise it by the first letters of its
    name, those of ``SaveImaged``.

    Args:
        keys: the volumes to save.
        derivatives: the files and their record.
        description: "sr" for the prediction, "srerror" for its error bars.
        compression: level of gzip, see :class:`AtomicNibabelWriter`.
        allow_missing_keys: whether a volume may be absent.

    Raises:
        ValueError: when there is no such level, or when called with a volume that is not finite.

    Example:
        >>> import tempfile
        >>> from monai.data import MetaTensor
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan = Path(folder, "scan.nii.gz")
        ...     _ = scan.write_bytes(b"the source, of which only the hash is used")
        ...     pred = MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.eye(4), meta={"filename_or_obj": str(scan)})
        ...     pred.meta["original_affine"] = pred.affine
        ...     _ = SaveImageDerivatived("pred", Derivatives(folder))({"pred": pred})
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['scan.nii.gz', 'scan_desc-sr.json', 'scan_desc-sr.nii.gz']
    """

    def __init__(
        self,
        keys: KeysCollection,
        derivatives: Derivatives,
        description: str = "sr",
        compression: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        if compression not in LEVELS:
            raise ValueError(f"compression must be a whole number from 0 to {LEVELS[-1]}, got {compression!r}.")
        layout = derivatives.layout
        super().__init__(
            keys,
            folder_layout=DerivativeLayout(layout.output_dir, layout.dataset_dir, description),
            writer=AtomicNibabelWriter,
            savepath_in_metadict=True,
            print_log=False,
            allow_missing_keys=allow_missing_keys,
        )
        self.set_options(write_kwargs={"compression": compression})
        self.derivatives = derivatives
        self.description = description

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        for key in self.key_iterator(dict(data)):
            self._prepare(data[key])
        d = super().__call__(data)
        for key in self.key_iterator(d):
            meta = d[key].meta
            origin = self.derivatives.origin(meta[ImageMetaKey.FILENAME_OR_OBJ])
            meta[RECORD] = {**origin, "Description": DESCRIPTIONS[self.description], **_measured(meta)}
            path = Path(meta[MetaKeys.SAVED_TO])
            if self.derivatives.layout.output_dir in path.parents[1:]:
                describe_dataset(self.derivatives.layout.output_dir, meta[ImageMetaKey.FILENAME_OR_OBJ])
            write_text_atomically(self.derivatives.sidecar(path), json.dumps(meta[RECORD], indent=2) + "\n")
            logger.info("Saved %s", path)
        return d

    def _prepare(self, volume: Tensor) -> None:
        """Refuse a volume that is not finite, set its shape, and remove what described an earlier result."""
        source = volume.meta[ImageMetaKey.FILENAME_OR_OBJ]
        if not torch.isfinite(torch.stack(torch.aminmax(volume.as_tensor()))).all():  # without a second volume
            bad = int((~torch.isfinite(volume.as_tensor())).sum())
            raise ValueError(
                f"{source}: expected a finite prediction, got {bad} voxels that are NaN or infinite. Rescale the scan "
                "if its intensities are near the limits of float32, or set amp_dtype to null."
            )
        # SaveImage takes a shape of four axes (a series of one volume) for a volume without a channel
        volume.meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(volume.shape[1:])
        self.derivatives.sidecar(self.saver.folder_layout.filename(source)).unlink(missing_ok=True)
        if self.description == "sr" and ERROR_BARS not in volume.meta:
            self.derivatives.remove_error_bars(source)


def _measured(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the record about the volume itself."""
    spacings = [affine_to_spacing(meta[key]) for key in (MetaKeys.ORIGINAL_AFFINE, MetaKeys.AFFINE)]
    low_res, high_res = [np.round(np.asarray(spacing, dtype=float), 6).tolist() for spacing in spacings]
    record = {"SourceSpacing": low_res, "Spacing": high_res, "Warnings": meta.get("warnings", "").splitlines()}
    record |= {name: meta[key] for key, name in MEASURES.items() if key in meta}
    if ACQUISITION in meta:
        record["Acquisition"] = json.loads(meta[ACQUISITION])
    return record
