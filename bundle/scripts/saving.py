"""Saving: results that are complete or absent, each with a record of how it was made."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import NibabelWriter
from monai.data.utils import affine_to_spacing
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys
from torch import Tensor, nn

from scripts.files import EXTENSION, DerivativeLayout

__all__ = ["AtomicNibabelWriter", "SaveImageDerivatived", "describe_network"]

logger = logging.getLogger(__name__)

METADATA = Path(__file__).parents[1] / "configs" / "metadata.json"


def _write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a sibling that then takes the name, so that no interruption leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished_{path.name}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class AtomicNibabelWriter(NibabelWriter):
    """``NibabelWriter`` that leaves no partial file behind and says that the spacing is in mm."""

    def write(self, filename: PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """
        Args:
            filename: where to write.
            verbose: log the name.
            obj_kwargs: see the base class.
        """
        _write_atomically(Path(filename), partial(super().write, verbose=verbose, **obj_kwargs))

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
        dataset_dir: PathLike | None = None,
        provenance: Mapping[str, Any] | None = None,
        weights: PathLike | None = None,
    ) -> None:
        super().__init__(
            keys,
            folder_layout=DerivativeLayout(output_dir, dataset_dir),
            writer=AtomicNibabelWriter,
            savepath_in_metadict=True,
            print_log=False,
        )
        self.provenance = dict(provenance or {})
        self.weights = weights

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = super().__call__(data)
        for key in self.key_iterator(d):
            meta = d[key].meta
            path = Path(meta[MetaKeys.SAVED_TO])
            text = json.dumps(self._sidecar(meta), indent=2) + "\n"
            sidecar = path.with_name(path.name.removesuffix(EXTENSION) + ".json")
            _write_atomically(sidecar, partial(Path.write_text, data=text, encoding="utf-8"))
            logger.info("Saved %s", path)
        return d

    def _sidecar(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """What was made from what, by what."""
        bundle = json.loads(METADATA.read_text(encoding="utf-8"))
        spacings = [affine_to_spacing(meta[key]) for key in (MetaKeys.ORIGINAL_AFFINE, MetaKeys.AFFINE)]
        low_res, high_res = [np.round(np.asarray(spacing, dtype=float), 6).tolist() for spacing in spacings]
        return {
            "Description": "Super-resolved volume, in the intensity units of its source.",
            "IntendedUse": bundle["intended_use"],
            "Sources": [Path(meta[ImageMetaKey.FILENAME_OR_OBJ]).name],
            "GeneratedBy": [{"Name": bundle["name"], "Version": bundle["version"]}],
            "SourceSpacing": low_res,
            "Spacing": high_res,
            "WeightsSHA256": self.weights and hashlib.sha256(Path(self.weights).read_bytes()).hexdigest(),
            **self.provenance,
        }


def describe_network(network: nn.Module) -> dict[str, Any]:
    """A network's class, its number of parameters and its own plain settings, for the record."""
    settings = {k: v for k, v in vars(network).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
    settings.pop("training")
    return {"Class": type(network).__name__, "Parameters": sum(p.numel() for p in network.parameters()), **settings}
