"""Subsampling: a degradation that no scanner performs, as the wrong assumption about one that does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor

from scripts.transforms.utils import checked_factors, factors_of, file_name, on_same_field_of_view, plain

__all__ = ["Subsample", "Subsampled"]


class Subsample(Transform):
    """Keep every s-th voxel, the first among them, and nothing of the others: nearest-neighbour down-sampling.

    What lies above the new Nyquist frequency is aliased. The voxels kept are those on which low-resolution voxels of
    k-space truncation sit, so that the two differ by their transfer of detail, not by their grid.

    Args:
        scale_factor: whole number s, one or one per spatial axis.

    Raises:
        ValueError: when called with a volume whose sizes are no multiples of the scale factor.
    """

    def __init__(self, scale_factor: Sequence[int] | int) -> None:
        self.scale_factor = checked_factors(scale_factor)

    def __call__(self, img: Tensor) -> Tensor:
        """
        Args:
            img: channel-first volume of shape (C, H, W, [D, ...]).
        """
        factors = [int(factor) for factor in factors_of(self.scale_factor, img)]
        if any(size % factor for size, factor in zip(img.shape[1:], factors, strict=True)):
            raise ValueError(
                f"{file_name(img)}: expected sizes in multiples of {factors}, got {tuple(img.shape[1:])}. Pad it first."
            )
        kept = plain(img)[(slice(None), *(slice(None, None, factor) for factor in factors))]
        return on_same_field_of_view(kept.contiguous(), img)


class Subsampled(MapTransform):
    """Dictionary version of :class:`Subsample`.

    Args:
        keys: the volumes to subsample.
        scale_factor: see :class:`Subsample`.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(
        self, keys: KeysCollection, scale_factor: Sequence[int] | int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.subsample = Subsample(scale_factor)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.subsample(d[key])
        return d
