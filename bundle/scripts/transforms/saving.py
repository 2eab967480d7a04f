"""Files: which scans a folder holds, and what their super-resolved versions are called."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Hashable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import FolderLayoutBase, NibabelWriter
from monai.data.utils import affine_to_spacing
from monai.inferers import Inferer
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys, convert_to_numpy
from torch import Tensor, nn

from scripts.utils.atomic import write_atomically, write_text_atomically

__all__ = [
    "EXTENSION",
    "AtomicNibabelWriter",
    "DerivativeLayout",
    "Derivatives",
    "SaveImageDerivatived",
    "derivative_name",
    "describe_inferer",
    "describe_network",
    "describe_weights",
]

logger = logging.getLogger(__name__)


EXTENSION = ".nii.gz"
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")  # of the volumes that a folder is searched for
BIDS_NAME = re.compile(r"(?P<entities>sub-[a-zA-Z0-9]+(_[a-zA-Z]+-[a-zA-Z0-9]+)*)_(?P<suffix>[a-zA-Z0-9]+)")


def derivative_name(name: str, description: str = "sr") -> str:
    """Name, without extension, of what is super-resolved from a file or DICOM folder of this name.

    ``sub-01_T1w.nii.gz`` becomes ``sub-01_desc-sr_T1w`` as BIDS wants it (an existing description is kept and extended,
    ``desc-preproc`` to ``desc-preprocsr``); any other ``scan.nii.gz`` becomes ``scan_desc-sr``.
    """
    stem = next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
    match = BIDS_NAME.fullmatch(stem)
    if match is None:
        return f"{stem}_desc-{description}"
    entities, suffix = match["entities"], match["suffix"]
    described = re.sub(r"(_desc-[a-zA-Z0-9]+)", rf"\g<1>{description}", entities)
    return f"{described}_{suffix}" if described != entities else f"{entities}_desc-{description}_{suffix}"


class DerivativeLayout(FolderLayoutBase):
    """Mirror the input's folders in the output folder, files named by :func:`derivative_name`.

    Args:
        output_dir: where to write.
        dataset_dir: the input's folder, whose inner structure is kept; a single scan, or one from elsewhere, goes to
            ``output_dir`` itself.
        description: what the results are, see :func:`derivative_name`; it ends with "sr", by which results are known.
    """

    def __init__(self, output_dir: PathLike, dataset_dir: PathLike | None = None, description: str = "sr") -> None:
        self.output_dir = Path(output_dir).expanduser()
        self.dataset_dir = None if dataset_dir is None else Path(dataset_dir).expanduser()
        self.description = description

    def filename(self, subject: PathLike = "subject", idx: Any = None, **kwargs: Any) -> Path:
        """
        Args:
            subject: path of the input.
            idx: for the interface; not used.
            kwargs: for the interface; not used.
        """
        source = Path(subject)
        inner = source.parent.relative_to(self.dataset_dir) if self.dataset_dir in source.parents else ""
        return self.output_dir / inner / f"{derivative_name(source.name, self.description)}{EXTENSION}"


RECORD = "record"  # of a result, in its metadata and as its sidecar
METADATA = Path(__file__).resolve().parents[2] / "configs" / "metadata.json"


class AtomicNibabelWriter(NibabelWriter):
    """``NibabelWriter`` that leaves no partial file behind and says that the spacing is in mm."""

    def set_metadata(self, meta_dict: Mapping, resample: bool = False, **options: Any) -> None:
        """Take the affine as it is. The base class passes the volume through a resampler, which fails for some files of
        shape (H, W, D, 1), whose number of spatial axes MONAI 1.6.1 forgets.

        Args:
            meta_dict: metadata with the affine.
            resample: for the interface; nothing is resampled.
            options: for the interface; not used.
        """
        self.affine = convert_to_numpy(meta_dict[MetaKeys.AFFINE])

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """
        Args:
            filename: where to write.
            verbose: log the name.
            obj_kwargs: see the base class.
        """
        write_atomically(filename, partial(super().write, verbose=verbose, **obj_kwargs))

    @classmethod
    def create_backend_obj(cls, *args: Any, **kwargs: Any) -> Any:
        """The base class's image, whose header states the unit of length."""
        image = super().create_backend_obj(*args, **kwargs)
        image.header.set_xyzt_units("mm")
        return image


DESCRIPTIONS = {
    "sr": "Super-resolved volume, in the intensity units of its source.",
    "disagreementsr": "Standard deviation of the super-resolved volume among slab orientations, in the same units.",
}


class Derivatives:
    """Where results go, what is recorded with each, and which of them are there already.

    Args:
        output_dir: see :class:`DerivativeLayout`.
        dataset_dir: see there.
        provenance: entries for the record besides those about the volume itself.
        weights: file of the network's weights, whose hash is recorded; None when none were loaded.
        overwrite: whether to make again what is there.
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
        path = Path(path)
        return path.with_name(path.name.removesuffix(EXTENSION) + ".json")

    def origin(self, source: PathLike) -> dict[str, Any]:
        """What is made from what, by what: equal records mean equal results."""
        record = {
            "Description": DESCRIPTIONS["sr"],
            "IntendedUse": self._bundle["intended_use"],
            "Sources": [Path(source).name],
            "SourceSHA256": _sha256(Path(source)),
            "GeneratedBy": [{"Name": self._bundle["name"], "Version": self._bundle["version"]}],
            "WeightsSHA256": self._weights_hash,
            **self.provenance,
        }
        return json.loads(json.dumps(record))

    def finished(self, source: PathLike) -> dict[str, Any] | None:
        """The record of a scan's result, where that is there and would be made alike today; else None."""
        result = self.layout.filename(source)
        sidecar = self.sidecar(result)
        if self.overwrite or not (result.is_file() and sidecar.is_file()):
            return None
        try:
            record = json.loads(sidecar.read_text(encoding="utf-8"))
        except ValueError:
            return None
        return record if isinstance(record, dict) and self.origin(source).items() <= record.items() else None

    @cached_property
    def _bundle(self) -> dict[str, Any]:
        return json.loads(METADATA.read_text(encoding="utf-8"))

    @cached_property
    def _weights_hash(self) -> str | None:
        return self.weights and _sha256(Path(self.weights))


def describe_weights(path: PathLike | None) -> str:
    """The file of a network's weights, from the bundle on or else with its folder, and the start of its SHA-256.

    A file that does not exist is named without a hash: the loader of weights refuses it with a better message.
    """
    if path is None:
        return "none"
    file, bundle = Path(path).resolve(), METADATA.parents[1]
    name = file.relative_to(bundle) if file.is_relative_to(bundle) else Path(*file.parts[-2:])
    return f"{name.as_posix()}, SHA-256 {_sha256(file)[:12]}" if file.is_file() else name.as_posix()


def _sha256(path: Path) -> str:
    """Hash of a file, or of the files of a folder in the order of their names."""
    content = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            content.update(file.read_bytes())
    return content.hexdigest()


class SaveImageDerivatived(SaveImaged):
    """Save volumes as float32 NIfTI derivatives, each with a JSON sidecar that says how it was made.

    A sidecar is written after its volume and removed before it, so that it always describes the volume beside it. The
    name begins like MONAI's own ``SaveImaged``, because MONAI Deploy and MONAI Label replace the saver of a bundle.

    Args:
        keys: the volumes to save.
        derivatives: where and with what record.
        description: "sr" for the prediction, "disagreementsr" for the map of its disagreement.

    Raises:
        ValueError: when called with a volume that is not finite.
    """

    def __init__(self, keys: KeysCollection, derivatives: Derivatives, description: str = "sr") -> None:
        layout = derivatives.layout
        super().__init__(
            keys,
            folder_layout=DerivativeLayout(layout.output_dir, layout.dataset_dir, description),
            writer=AtomicNibabelWriter,
            savepath_in_metadict=True,
            print_log=False,
        )
        self.derivatives = derivatives
        self.title = DESCRIPTIONS[description]

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        for key in self.key_iterator(dict(data)):
            self._prepare(data[key])
        d = super().__call__(data)
        for key in self.key_iterator(d):
            meta = d[key].meta
            origin = self.derivatives.origin(meta[ImageMetaKey.FILENAME_OR_OBJ])
            meta[RECORD] = {**origin, "Description": self.title, **_measured(meta)}
            path = Path(meta[MetaKeys.SAVED_TO])
            write_text_atomically(self.derivatives.sidecar(path), json.dumps(meta[RECORD], indent=2) + "\n")
            logger.info("Saved %s", path)
        return d

    def _prepare(self, volume: Tensor) -> None:
        """Refuse a volume that is not finite, state its shape, and remove the record of the one that it replaces."""
        source = volume.meta[ImageMetaKey.FILENAME_OR_OBJ]
        if not torch.isfinite(torch.stack(torch.aminmax(volume.as_tensor()))).all():  # which needs no second volume
            bad = int((~torch.isfinite(volume.as_tensor())).sum())
            raise ValueError(
                f"{source}: expected a finite prediction, got {bad} voxels that are NaN or infinite. Rescale the scan "
                "if its intensities are near the limits of float32, or set amp_dtype to null."
            )
        # SaveImage takes a shape of four axes, as of a series with one volume, for a volume without a channel
        volume.meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(volume.shape[1:])
        self.derivatives.sidecar(self.saver.folder_layout.filename(source)).unlink(missing_ok=True)


def _measured(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says about the volume itself."""
    spacings = [affine_to_spacing(meta[key]) for key in (MetaKeys.ORIGINAL_AFFINE, MetaKeys.AFFINE)]
    low_res, high_res = [np.round(np.asarray(spacing, dtype=float), 6).tolist() for spacing in spacings]
    record = {"SourceSpacing": low_res, "Spacing": high_res, "Warnings": meta.get("warnings", "").splitlines()}
    for key, name in (("consistency_psnr", "ConsistencyPSNR"), ("data_consistency", "DataConsistencyDone")):
        if key in meta:
            record[name] = meta[key]
    return record


def describe_network(network: nn.Module) -> dict[str, Any]:
    """A network's class, its number of parameters and its own plain settings, for the record."""
    settings = {k: v for k, v in vars(network).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
    settings.pop("training")
    return {"Class": type(network).__name__, "Parameters": sum(p.numel() for p in network.parameters()), **settings}


def describe_inferer(inferer: Inferer) -> dict[str, Any]:
    """An inferer's class and its own plain settings, those of the inferer inside it among them, for the record."""
    described: dict[str, Any] = {"Class": type(inferer).__name__}
    for name, value in vars(inferer).items():
        if isinstance(value, Inferer):
            described[name] = describe_inferer(value)
        elif isinstance(value, (bool, int, float, str, list, tuple)) and name not in ("progress", "sw_batch_size"):
            described[name] = value
    return described
