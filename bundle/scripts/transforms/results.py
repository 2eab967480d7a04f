"""Results: volumes and numbers beside a prediction, such as its agreement with the scan and interpolations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from torch import Tensor

from scripts.metrics.monitors import consistency_psnr, neighbour_psnr
from scripts.physics.interpolation import interpolate_cubic
from scripts.physics.kspace import zero_fill
from scripts.physics.output import interpolations_of
from scripts.transforms.grid import DeclareHighResGrid
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.utils import factors_of, plain, spatial_dims, warn

__all__ = ["InterpolateBaselinesd", "MeasureConsistencyd"]


class MeasureConsistencyd(MapTransform):
    """Compare the prediction, acquired again, with the scan. This reveals a network that contradicts the measurement.

    It writes the PSNR in dB to ``consistency_psnr`` in the metadata of the image. A low value adds a warning to its
    ``warnings``. A value is low when the voxels of the scan agree better with their neighbours than with the
    prediction, and when it is below ``least``. This holds for any acquisition and noise, see :func:`.neighbour_psnr`.

    ``Invertd`` copies both to the metadata of the prediction. The transform belongs before the intensity scale is
    undone.

    Args:
        keys: the prediction.
        image_key: the acquired volume, or what the interpolation made of it.
        acquired_key: the acquired volume of an interpolated image, where there is one.
        least: dB from which no value is low.
        allow_missing_keys: whether the prediction may be absent.

    Example:
        >>> import torch
        >>> pred = torch.ones(1, 8, 8, 8)
        >>> data = {"image": MetaTensor(0.9 * pred[:, ::2, ::2, ::2]), "pred": pred}
        >>> "warnings" in MeasureConsistencyd()(data)["image"].meta
        True
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: Hashable = "image",
        acquired_key: Hashable = "acquired",
        least: float = 30.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.acquired_key = acquired_key
        self.least = least

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[self.image_key]
            acquisition = acquisition_of(image)
            scan = plain(image if acquisition is None else d[self.acquired_key]).to(d[key].device)
            value = round(float(consistency_psnr(plain(d[key]), scan, acquisition)), 2)
            image.meta["consistency_psnr"] = value
            if not value >= self.least and not value >= (expected := float(neighbour_psnr(scan))):
                warn(
                    image,
                    f"The prediction, acquired again, agrees with the scan only to {value:.1f} dB (expected at least "
                    f"{min(expected, self.least):.1f} dB): it contradicts the measurement.",
                )
        return d


class InterpolateBaselinesd(MapTransform):
    """Add the interpolations ``zero_filling`` and aligned ``tricubic``, on the grid of the prediction.

    An image that :class:`scripts.transforms.InterpolateAcquiredd` made has its acquisition in its metadata. Its scan is
    interpolated at the true positions, also by ``windowed_sinc`` and ``linear_inverse``.

    Args:
        keys: the low-resolution image.
        scale_factor: of an image on its own grid, a whole number, one for all or one per spatial axis.
        acquired_key: the acquired volume of an interpolated image.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when a scale factor is not a whole number of at least 1.

    Example:
        >>> import torch
        >>> InterpolateBaselinesd("image", (2, 2, 1))({"image": torch.rand(1, 8, 8, 8)})["tricubic"].shape
        torch.Size([1, 16, 16, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale_factor: Sequence[int] | int,
        acquired_key: Hashable = "acquired",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.acquired_key = acquired_key
        if any(factor < 1 or factor != int(factor) for factor in ensure_tuple(scale_factor)):
            raise ValueError(f"scale_factor must be a whole number of at least 1 along each axis, got {scale_factor}.")
        self.scale_factor = scale_factor

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            acquisition = acquisition_of(d[key])
            if acquisition is not None:
                made = interpolations_of(acquisition, plain(d[self.acquired_key]))
                d |= {name: MetaTensor(values).copy_meta_from(d[key]) for name, values in made.items()}
                continue
            x = tricubic = plain(d[key])
            factors = [int(factor) for factor in factors_of(self.scale_factor, d[key])]
            size = [n * factor for n, factor in zip(x.shape[1:], factors, strict=True)]
            for dim, factor in enumerate(factors, start=1):
                tricubic = interpolate_cubic(tricubic, factor, dim)
            d["zero_filling"] = self._declared(zero_fill(x, size, spatial_dims(x)), d[key])
            d["tricubic"] = self._declared(tricubic, d[key])
        return d

    def _declared(self, values: Tensor, image: Tensor) -> Tensor:
        """Give ``values`` the image's metadata and the high-resolution grid, whether or not it is declared already."""
        if not isinstance(image, MetaTensor):
            return values
        declared = image if "low_res_affine" in image.meta else DeclareHighResGrid(self.scale_factor)(image)
        return MetaTensor(values).copy_meta_from(declared)
