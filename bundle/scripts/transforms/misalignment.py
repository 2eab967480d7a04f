"""Misalignment: the movement of a subject between two scans."""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import Affine, MapTransform
from monai.transforms.utils import create_rotate, create_scale, create_translate
from monai.utils import convert_to_tensor
from torch import Tensor

from scripts.transforms.utils import as_float, file_name, plain, spacing

__all__ = ["Misalignd", "movement"]


class Misalignd(MapTransform):
    """Move and shrink a volume as UDEAN (https://arxiv.org/abs/2205.06891) did for its misaligned data.

    Rotation about the volume's centre, translation and shrinkage are drawn once per subject. They depend only on
    ``seed`` and the subject's name, not on epoch, worker or method. One cubic resampling applies all three. The affine
    stays, because a header does not know that its subject moved. ``meta["misalignment"]`` keeps the draw.

    Args:
        keys: the volumes to move. All volumes of a subject move together.
        rotation: largest angle about each spatial axis, in degrees, in either direction.
        translation: largest shift along each spatial axis, in voxels, in either direction.
        shrinkage: by how many voxels at most each spatial axis is shortened; the borders are replicated.
        seed: of the draws.
        record_dir: where to write the draws, as ``<subject>.json``; None to keep them in the metadata only.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when called with an item that does not name its subject under ``subject``.

    Example:
        >>> import torch
        >>> move = Misalignd("image", rotation=[0, 2, 2], translation=[0, 2, 2], shrinkage=[2, 0, 2])
        >>> move({"image": torch.rand(1, 16, 16, 16), "subject": "sub-01"})["image"].shape
        torch.Size([1, 16, 16, 16])
    """

    def __init__(
        self,
        keys: KeysCollection,
        rotation: Sequence[float],
        translation: Sequence[float],
        shrinkage: Sequence[float],
        seed: int = 0,
        record_dir: PathLike | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        limits = {"rotation": rotation, "translation": translation, "shrinkage": shrinkage}
        self.limits = {name: np.asarray(limit, dtype=float) for name, limit in limits.items()}
        self.seed = seed
        self.record_dir = record_dir

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if "subject" not in d:
                raise ValueError(
                    f"{file_name(d[key])}: expected the subject's name under 'subject', got the keys "
                    f"{sorted(map(str, d))}. Name the subject in the datalist: its movement depends on the name."
                )
            subject = str(d["subject"])
            drawn = self.draw(subject)
            d[key] = self._moved(d[key], drawn)
            if self.record_dir is not None:
                _record(Path(self.record_dir) / f"{subject}.json", drawn)
        return d

    def draw(self, subject: str) -> dict[str, list[float]]:
        """Rotation (degrees), translation and shrinkage (voxels) of a subject, per spatial axis."""
        rng = np.random.default_rng((self.seed, zlib.crc32(subject.encode())))
        low = {"rotation": -1.0, "translation": -1.0, "shrinkage": 0.0}
        return {name: (limit * rng.uniform(low[name], 1.0, 3)).tolist() for name, limit in self.limits.items()}

    def _moved(self, img: Tensor, drawn: Mapping[str, list[float]]) -> Tensor:
        img = as_float(img)
        inverse = np.linalg.inv(movement(img, **drawn))
        # the inverse, because resampling maps the voxels of the result to those of the input
        resample = Affine(affine=inverse, mode=3, padding_mode="nearest", image_only=True)
        values = convert_to_tensor(plain(resample(plain(img))), dtype=img.dtype)
        if not isinstance(img, MetaTensor):
            return values
        out = MetaTensor(values).copy_meta_from(img)
        out.meta["misalignment"] = drawn
        return out


def _record(path: Path, drawn: Mapping[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(drawn, indent=2))


def movement(
    img: Tensor, rotation: Sequence[float], translation: Sequence[float], shrinkage: Sequence[float]
) -> np.ndarray:
    """Matrix of a movement about the volume's centre, in voxels: shrink, then rotate, then translate.

    Args:
        img: channel-first volume of three spatial axes. Its spacing makes the rotation rigid in mm.
        rotation: angle about each spatial axis, in degrees.
        translation: along each spatial axis, in voxels.
        shrinkage: of each spatial axis, in voxels.

    Returns:
        matrix ``(4, 4)`` of homogeneous voxel coordinates.

    Example:
        >>> import torch
        >>> movement(torch.rand(1, 8, 8, 8), [0, 0, 0], [1, 0, 0], [0, 0, 4])[:3].tolist()
        [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.0]]
    """
    mm = np.diag([*spacing(img), 1.0])
    rotate = np.linalg.inv(mm) @ create_rotate(3, np.deg2rad(rotation)) @ mm
    shrink = create_scale(3, [(size - lost) / size for size, lost in zip(img.shape[1:], shrinkage, strict=True)])
    return create_translate(3, translation) @ rotate @ shrink
