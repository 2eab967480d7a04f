"""Interpolate: a scan of any acquisition on its output grid, with a record of how the scan was acquired."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from torch import Tensor

from scripts.physics.acquisition import filled_band
from scripts.physics.cost import estimate
from scripts.physics.description import acquisition_vector
from scripts.physics.encoding import Encoding, FrequencyEncoding, SliceSelection
from scripts.physics.kspace import truncate
from scripts.physics.output import (
    ACQUISITION,
    acquired_matrix,
    acquisition_in,
    checked_spacing,
    fitting_spacing,
    output_acquisition,
    record_of,
)
from scripts.physics.protocol import Assumption, assume_acquisition, encoding_from_text
from scripts.physics.separable import SeparableAcquisition
from scripts.transforms.acquire import scan_to_grid
from scripts.transforms.evidence import PROTOCOL, evidence_of, spectrum_evidence
from scripts.transforms.utils import (
    as_float,
    axis_names,
    file_name,
    on_grid,
    on_same_field_of_view,
    plain,
    spacing,
    spatial_dims,
    warn,
)

__all__ = [
    "ASSUMED",
    "InterpolateAcquiredd",
    "ReleaseInterpolatedd",
    "acquisition_of",
    "interpolated",
    "line_about",
    "named_option",
]

logger = logging.getLogger(__name__)

DETAIL = 1.1  # end of k-space over that of the acquired matrix from which header and spectrum contradict each other
SMALLEST_GRID = 5  # output voxels along an axis
ASSUMED = "assumed"  # key of the metadata: the line for the user


def named_option(acquisition: Sequence[str] | None) -> tuple[Encoding | None, ...]:
    """The encodings of the option ``acquisition``.

    Args:
        acquisition: one text per axis, see :func:`scripts.physics.protocol.encoding_from_text`.

    Raises:
        ValueError: when there are not three texts, or one has another form.

    Example:
        >>> named_option(["unknown", "unknown", "slices 5.0/4.0"])[2].thickness
        4.0
    """
    texts = ["unknown"] * 3 if acquisition is None else acquisition
    try:
        if isinstance(texts, (str, Mapping)) or len(texts) != 3:
            raise ValueError(f"acquisition must have one text for each of the three axes, got {acquisition!r}.")
        return tuple(encoding_from_text(text) for text in texts)
    except ValueError as error:
        raise ValueError(
            f"{error} The axes are those of axcodes, by default ASR: anterior, superior, right. Set for instance "
            "--acquisition \"['unknown','slices 5.0/4.0','unknown']\"."
        ) from error


def acquisition_of(img: Tensor) -> SeparableAcquisition | None:
    """The acquisition of an interpolated scan, see :func:`scripts.physics.output.acquisition_in`."""
    return acquisition_in(img.meta) if isinstance(img, MetaTensor) else None


class InterpolateAcquiredd(MapTransform):
    """Find out how a scan was acquired, and interpolate it to its output grid.

    The sources are the option, the DICOM header, the BIDS sidecar, the scan's spectrum and its spacings, in this order,
    see :mod:`scripts.physics.protocol`. A matrix that was interpolated is first truncated to the acquired matrix. Then
    frequency-limited axes are zero-filled. Slices are interpolated by Keys' cubic at their true positions.

    The scan as it was acquired goes to ``acquired_key``, and the vector that describes its acquisition to
    ``acquisition``. The metadata of the image hold a record of the acquisition and one line about it, which is logged.
    The transform is not traced: ``Invertd`` returns to the orientation and the units of the user, and keeps this grid.

    Args:
        keys: the scan.
        acquired_key: where to keep the scan as it was acquired.
        acquisition: the option, see :func:`named_option`.
        spacing: of the output grid in mm, one number or one per axis; None for what suits the scan.
        largest: voxels of the output grid, at most.
        scale_factor: whole factors from scan to output grid, one per axis, instead of ``acquisition`` and ``spacing``.
            The axes then count as frequency-limited at the spacing of the voxels, and no source is asked. None for any
            acquisition.
        allow_missing_keys: whether the scan may be absent.

    Raises:
        ValueError: when an option is none, or ``scale_factor`` stands beside ``acquisition`` or ``spacing``. When
            called, if the scan is not for a network, see :func:`~scripts.physics.protocol.assume_acquisition` and
            :func:`~scripts.physics.output.output_acquisition`, or the output grid has too many voxels.

    Example:
        >>> import torch
        >>> scan = MetaTensor(torch.rand(1, 20, 20, 8), affine=torch.diag(torch.tensor([0.9, 0.9, 4.5, 1.0])))
        >>> data = InterpolateAcquiredd("image")({"image": scan})
        >>> data["image"].shape, data["acquired"].shape
        (torch.Size([1, 20, 20, 40]), torch.Size([1, 20, 20, 8]))
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        acquired_key: Hashable = "acquired",
        acquisition: Sequence[str] | None = None,
        spacing: Sequence[float] | float | None = None,
        largest: int = 400**3,
        scale_factor: Sequence[int] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if scale_factor is not None and (acquisition, spacing) != (None, None):
            raise ValueError(
                f"scale_factor must stand without acquisition and spacing, got {list(scale_factor)} with {acquisition} "
                f"and {spacing}. Leave scale_factor out, or the other two."
            )
        if not (isinstance(largest, (int, float)) and largest > 0):
            raise ValueError(f"largest must be a positive number of voxels, got {largest!r}. Set --largest 64000000.")
        self.acquired_key = acquired_key
        self.option = named_option(acquisition)
        self.spacing = checked_spacing(spacing)
        self.scale_factor = scale_factor
        self.largest = largest

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            stored = as_float(d[key])
            try:
                assumption = self._assume(stored)
                matrix = acquired_matrix(stored.shape[1:], spacing(stored), assumption.encodings)
                scan = _truncated(stored, matrix)
                encodings = [
                    one._replace(spacing=float(mm)) for one, mm in zip(assumption.encodings, spacing(scan), strict=True)
                ]
                grid = output_acquisition(encodings, matrix, self._wanted(stored))
                line = line_about(assumption._replace(encodings=tuple(encodings)), grid, stored)
                self._check_size(grid)
            except ValueError as error:
                raise ValueError(f"{file_name(stored)}: {error}") from error
            cost = estimate(grid.shape)
            logger.info(
                "%s: %s. About %.1f million voxels, %.1f GB of memory, at most %.0f s of one processor core.",
                *(file_name(stored), line, cost.voxels / 1e6, cost.gigabytes, cost.seconds),
            )
            d[self.acquired_key], d[key] = scan, interpolated(scan, grid, line)
            d[ACQUISITION] = acquisition_vector(grid.encodings, grid.voxel)
            if isinstance(stored, MetaTensor) and (remark := _contradiction(stored, matrix, assumption.sources)):
                warn(d[key], remark)
        return d

    def _assume(self, img: Tensor) -> Assumption:
        """Ask the spectrum only where option and headers are silent."""
        if self.scale_factor is not None:
            return Assumption(tuple(FrequencyEncoding(mm) for mm in spacing(img).tolist()), ("scale_factor",) * 3)
        evidence = evidence_of(img)
        known = {one.through for one in evidence if one.kind is not None}
        silent = [
            axis
            for axis in range(3)
            if self.option[axis] is None and axis not in known and all(one.acquired[axis] is None for one in evidence)
        ]
        if silent:
            evidence.append(spectrum_evidence(img, silent))
        return assume_acquisition(spacing(img).tolist(), self.option, evidence, axis_names(img))

    def _wanted(self, img: Tensor) -> Sequence[float] | float | None:
        """The spacing of the output grid in mm; None for what suits the scan."""
        if self.scale_factor is None:
            return self.spacing
        return [mm / factor for mm, factor in zip(spacing(img).tolist(), self.scale_factor, strict=True)]

    def _check_size(self, grid: SeparableAcquisition) -> None:
        if min(grid.shape) < SMALLEST_GRID:
            raise ValueError(
                f"expected an output grid of at least {SMALLEST_GRID} voxels along each axis, got {_by(grid.shape)}. "
                "Set a smaller --spacing."
            )
        cost = estimate(grid.shape)
        if cost.voxels > self.largest:
            own, fitting = min(one.spacing for one in grid.encodings), fitting_spacing(grid, self.largest)
            keep = f"--spacing {own:.4g} to keep the scan's own, " if own >= fitting else ""
            raise ValueError(
                f"expected an output grid of at most {self.largest} voxels, got {_by(grid.shape)}, which would need "
                f"about {cost.gigabytes:.0f} GB of memory. Set {keep}--spacing {fitting:g} for the finest grid that "
                f"fits, or --largest {cost.voxels}."
            )


class ReleaseInterpolatedd(MapTransform):
    """Free the voxels of an interpolated scan, which follow from the scan. Its shape and its metadata stay.

    Args:
        keys: what :class:`InterpolateAcquiredd` made. Another volume stays.
        allow_missing_keys: whether a key may be absent.

    Example:
        >>> import torch
        >>> scan = MetaTensor(torch.rand(1, 20, 20, 8), affine=torch.diag(torch.tensor([0.9, 0.9, 4.5, 1.0])))
        >>> data = ReleaseInterpolatedd("image")(InterpolateAcquiredd("image")({"image": scan}))
        >>> data["image"].shape, data["image"].untyped_storage().nbytes()
        (torch.Size([1, 20, 20, 40]), 4)
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if acquisition_of(d[key]) is not None:
                d[key] = MetaTensor(plain(d[key]).new_zeros(1).expand(d[key].shape)).copy_meta_from(d[key])
        return d


def interpolated(scan: Tensor, grid: SeparableAcquisition, line: str) -> Tensor:
    """The scan on its output grid. The metadata of both hold the acquisition and the line about it."""
    image = on_grid(grid.interpolate(plain(scan)), scan, np.linalg.inv(scan_to_grid(grid)))
    for volume in (scan, image):
        if isinstance(volume, MetaTensor):
            volume.meta.pop(PROTOCOL, None)
            volume.meta |= {ACQUISITION: json.dumps(record_of(grid)), ASSUMED: line}
            volume.meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(volume.shape[1:])
    return image


def _contradiction(stored: Tensor, matrix: Sequence[int], sources: Sequence[str]) -> str:
    """A remark if the scan has detail beyond the acquired matrix that header or sidecar give; else empty."""
    sizes = list(zip(stored.shape[1:], matrix, sources, strict=True))
    claimed = [a for a, (size, kept, source) in enumerate(sizes) if kept < size and source in ("header", "sidecar")]
    shares = filled_band(plain(stored)[0], claimed)
    wrong = [a for a in claimed if shares[a] is not None and shares[a] > DETAIL * sizes[a][1] / sizes[a][0]]
    if not wrong:
        return ""
    size, kept, source = sizes[wrong[0]]
    name = axis_names(stored)[wrong[0]]
    return (
        f"The {source} says that {kept} of {size} voxels were acquired along the {name} axis, but the spectrum does "
        "not end there. If detail is lost, give the acquired spacing by --acquisition."
    )


def _truncated(img: Tensor, matrix: Sequence[int]) -> Tensor:
    if list(img.shape[1:]) == list(matrix):
        return on_same_field_of_view(plain(img), img)
    return on_same_field_of_view(truncate(plain(img), matrix, spatial_dims(img)), img)


def _by(values: Sequence[float], form: str = "g") -> str:
    return " x ".join(f"{value:{form}}" for value in values)


def line_about(assumption: Assumption, grid: SeparableAcquisition, stored: Tensor) -> str:
    """What was assumed and from where, in one line."""
    axes = list(zip(assumption.encodings, assumption.sources, axis_names(stored), strict=True))
    plain_axes = [(one, source) for one, source, _ in axes if not isinstance(one, SliceSelection)]
    slices = [(one, source, name) for one, source, name in axes if isinstance(one, SliceSelection)]
    parts = []
    if plain_axes:
        sources = " and ".join(dict.fromkeys(source for _, source in plain_axes))
        where = " in plane" if slices else ""
        parts.append(f"{_by([one.spacing for one, _ in plain_axes], '.3g')} mm{where} ({sources})")
    parts += [
        f"slices of {one.thickness:.3g} mm every {one.spacing:.3g} mm along {name} ({source})"
        for one, source, name in slices
    ]
    if tuple(grid.scan_shape) != tuple(stored.shape[1:]):
        parts.append(f"stored {_by(stored.shape[1:])} voxels, acquired {_by(grid.scan_shape)}")
    voxel = [f"{mm:.3g}" for mm in grid.voxel]
    size = f"{voxel[0]} mm isotropic" if len(set(voxel)) == 1 else f"{' x '.join(voxel)} mm"
    return f"assumed: {', '.join(parts)}; output {size}, {_by(grid.shape)} voxels"
