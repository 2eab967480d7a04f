"""The bundle that makes a result: its folder, version and weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BundleRecord", "find_bundle"]

METADATA = Path("configs", "metadata.json")
WEIGHTS = Path("models", "model.pt")


def find_bundle(folder: Path) -> Path:
    """The bundle's folder: ``folder`` itself, or the only bundle in it, as in the model folder of a MAP.

    Raises:
        ValueError: when there is no bundle, or more than one.
    """
    if (folder / METADATA).is_file():
        return folder.resolve()
    found = [path.parents[1] for path in sorted(folder.glob(f"*/{METADATA}"))]
    if len(found) != 1:
        raise ValueError(f"{folder}: expected the folder of one bundle, found {len(found)}. Give it with --model.")
    return found[0].resolve()


@dataclass(frozen=True)
class BundleRecord:
    """The origin that every result states.

    Attributes:
        name: name of the bundle.
        version: version of the bundle.
        weights_sha256: hash of the file with the weights.
        intended_use: the bundle's statement of its intended use.
    """

    name: str
    version: str
    weights_sha256: str
    intended_use: str

    @classmethod
    def of(cls, bundle: Path) -> BundleRecord:
        """Read the record of the bundle in a folder."""
        metadata = json.loads((bundle / METADATA).read_text(encoding="utf-8"))
        digest = hashlib.sha256((bundle / WEIGHTS).read_bytes()).hexdigest()
        return cls(metadata["name"], metadata["version"], digest, metadata["intended_use"])
