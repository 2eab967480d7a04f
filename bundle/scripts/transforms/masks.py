"""Masks: the voxels that a comparison counts, and the blocks of voxels that a network restores."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from scripts.physics.tissue import tissue_blocks
from scripts.transforms.utils import file_name, plain, spacing

__all__ = ["TISSUE", "ErodeMask", "ErodeMaskd", "MarkTissued"]

logger = logging.getLogger(__name__)

TISSUE = "tissue"  # key of a volume's metadata: which blocks of 4 x 4 x 4 voxels to restore
TISSUE_SHARE = "tissue_share"  # key of a volume's metadata: their share of the volume


class ErodeMask(Transform):
    """Keep the voxels of a mask that lie deeper in it than a distance in mm.

    The border of the volume is not an edge of the mask, because tissue continues beyond it.

    Args:
        depth: distance in mm from a voxel's centre to that of the nearest voxel outside the mask, not negative.

    Raises:
        ValueError: when ``depth`` is negative.

    Example:
        >>> ErodeMask(1.0)(torch.tensor([0.0, 1.0, 1.0]).expand(1, 3, 3, 3))[0, 0, 0].tolist()
        [0.0, 0.0, 1.0]
    """

    def __init__(self, depth: float) -> None:
        if depth < 0:
            raise ValueError(f"depth must not be negative, got {depth}.")
        self.depth = depth

    def __call__(self, img: Tensor) -> Tensor:
        """Erode a mask ``(1, H, W, D)``, positive inside."""
        inside = plain(img)[0].cpu().numpy() > 0
        if not inside.all():
            inside = distance_transform_edt(inside, sampling=spacing(img)) > self.depth
        eroded = torch.as_tensor(inside[None]).to(img)
        return MetaTensor(eroded).copy_meta_from(img) if isinstance(img, MetaTensor) else eroded


class ErodeMaskd(MapTransform):
    """Dictionary version of :class:`ErodeMask`.

    Args:
        keys: the masks.
        depth: see :class:`ErodeMask`.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> ErodeMaskd("mask", 1.0)({"mask": torch.tensor([0.0, 1.0, 1.0]).expand(1, 3, 3, 3)})["mask"].sum()
        tensor(9.)
    """

    def __init__(self, keys: KeysCollection, depth: float, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.erode = ErodeMask(depth)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.erode(d[key])
        return d


class MarkTissued(MapTransform):
    """Mark the blocks of 4 x 4 x 4 voxels that hold tissue, so that a network need not restore air.

    The marks go to the metadata of the image. :class:`scripts.inferers.SlabInferer` hands them to the network. The
    share of marked blocks is logged, and recorded with the result.

    Args:
        keys: volumes of one channel on the network's grid and scale.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> volume = torch.zeros(1, 40, 40, 40)
        >>> volume[:, 10:30, 10:30, 10:30] = 1.0
        >>> MarkTissued("image")({"image": MetaTensor(volume)})["image"].meta["tissue_share"]
        0.512
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            blocks = tissue_blocks(plain(d[key])[0])
            share = round(float(blocks.float().mean()), 4)
            d[key].meta |= {TISSUE: blocks, TISSUE_SHARE: share}
            logger.info(
                "%s: %.0f %% of the output grid holds tissue, around which the network runs. The rest is interpolated.",
                *(file_name(d[key]), 100 * share),
            )
        return d
