"""Registration: rigid, of a high-resolution volume to a low-resolution one, by ITK."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample
from monai.utils import MetaKeys, convert_to_tensor

from scripts.transforms.grid import DeclareHighResGrid
from scripts.transforms.utils import as_float, file_name, plain
from scripts.utils.atomic import write_text_atomically
from scripts.utils.itk import import_itk

__all__ = ["RigidRegisterd", "register_rigid"]


RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HISTOGRAM_BINS = 32  # of the mutual information
SAMPLED_SHARE = 0.3  # of the voxels, for the mutual information


class RigidRegisterd(MapTransform):
    """Register volumes rigidly to a low-resolution volume. Resample them once, by cubic splines, onto its fine grid.

    The fine grid is that of the low-resolution volume refined by ``scale_factor``, see
    :class:`~scripts.transforms.DeclareHighResGrid`. The registration starts from the positions in the affines.

    Args:
        keys: the high-resolution volumes to register.
        fixed_key: the low-resolution volume.
        scale_factor: one number or one per spatial axis.
        cache_dir: folder that keeps the results, by the content of both volumes; None to keep nothing.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> low_res = MetaTensor(torch.rand(1, 16, 16, 16), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
        >>> high_res = MetaTensor(torch.rand(1, 32, 32, 32), affine=torch.eye(4))
        >>> RigidRegisterd("label", "image", 2)({"image": low_res, "label": high_res})["label"].shape
        torch.Size([1, 32, 32, 32])
    """

    def __init__(
        self,
        keys: KeysCollection,
        fixed_key: Hashable,
        scale_factor: Sequence[float] | float,
        cache_dir: PathLike | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fixed_key = fixed_key
        self.declare = DeclareHighResGrid(scale_factor)
        self.cache_dir = cache_dir

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        d = dict(data)
        fixed = d[self.fixed_key]
        grid = self.declare(fixed)
        for key in self.key_iterator(d):
            moving = as_float(d[key])
            matrix = self._registered(fixed, moving)
            aligned = MetaTensor(plain(moving), affine=torch.as_tensor(np.linalg.inv(matrix)) @ moving.affine)
            resample = SpatialResample(mode=3, padding_mode="nearest", dtype=moving.dtype)
            values = resample(aligned, dst_affine=grid.affine, spatial_size=grid.meta[MetaKeys.SPATIAL_SHAPE])
            d[key] = MetaTensor(convert_to_tensor(plain(values), dtype=moving.dtype)).copy_meta_from(moving)
            d[key].affine = grid.affine
            d[key].meta["registration"] = matrix.tolist()
        return d

    def _registered(self, fixed: MetaTensor, moving: MetaTensor) -> np.ndarray:
        """The registration of two volumes, from the cache if it is there."""
        if self.cache_dir is None:
            return register_rigid(fixed, moving)
        content = hashlib.sha256()
        for img in (fixed, moving):
            content.update(plain(img).cpu().contiguous().numpy())
            content.update(np.asarray(img.affine))
        path = Path(self.cache_dir) / f"{content.hexdigest()[:16]}.json"
        if not path.exists():
            matrix = register_rigid(fixed, moving)
            record = {"fixed": file_name(fixed), "moving": file_name(moving), "matrix": matrix.tolist()}
            write_text_atomically(path, json.dumps(record, indent=2))
        return np.asarray(json.loads(path.read_text(encoding="utf-8"))["matrix"])


def register_rigid(fixed: MetaTensor, moving: MetaTensor) -> np.ndarray:
    """Find the rigid motion that maximises Mattes' mutual information, in three levels of resolution.

    Args:
        fixed: channel-first volume ``(1, H, W, D)`` with its affine.
        moving: another volume of the same subject, of any resolution, in about the same position.

    Returns:
        matrix ``(4, 4)`` that takes each point of ``fixed``, in mm (RAS), to the same anatomy in ``moving``.
    """
    itk = import_itk()
    images = [_itk_image(img) for img in (fixed, moving)]
    kind = type(images[0])
    transform = itk.Euler3DTransform[itk.D].New()
    centre = RAS_TO_LPS @ np.asarray(fixed.affine) @ [*((np.array(fixed.shape[1:]) - 1) / 2), 1.0]
    transform.SetCenter(centre[:3].tolist())
    metric = itk.MattesMutualInformationImageToImageMetricv4[kind, kind].New(NumberOfHistogramBins=HISTOGRAM_BINS)
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(Metric=metric)
    # the values of two levels of resolution cannot be compared, so the optimiser must not return the best one
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        MinimumStepLength=1e-3, NumberOfIterations=100, ReturnBestParametersAndValue=False
    )
    optimizer.SetScalesEstimator(scales)
    registration = itk.ImageRegistrationMethodv4[kind, kind].New(
        FixedImage=images[0], MovingImage=images[1], Metric=metric, Optimizer=optimizer, InitialTransform=transform
    )
    registration.InPlaceOn()
    registration.SetNumberOfLevels(3)
    registration.SetShrinkFactorsPerLevel([4, 2, 1])
    voxel = float(fixed.pixdim.max())
    registration.SetSmoothingSigmasPerLevel([2 * voxel, voxel, voxel / 2])
    registration.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    registration.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_REGULAR)
    registration.SetMetricSamplingPercentage(SAMPLED_SHARE)
    registration.MetricSamplingReinitializeSeed(1)
    registration.Update()
    return RAS_TO_LPS @ _matrix(transform) @ RAS_TO_LPS


def _itk_image(img: MetaTensor):
    """An ITK image (float32) of a channel-first volume, in the world of its affine."""
    itk = import_itk()
    affine = RAS_TO_LPS @ np.asarray(img.affine, dtype=float)
    mm = np.linalg.norm(affine[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(plain(img)[0].cpu().float().numpy().T))
    image.SetSpacing(mm.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:3, :3] / mm)))
    return image


def _matrix(transform) -> np.ndarray:
    """The homogeneous matrix ``(4, 4)`` of an affine ITK transform, from the images of origin and unit vectors."""
    origin, *units = (np.array(transform.TransformPoint(point.tolist())) for point in np.eye(4)[[3, 0, 1, 2], :3])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(units, axis=1) - origin[:, None]
    matrix[:3, 3] = origin
    return matrix
