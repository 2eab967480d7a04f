"""Simulation: a low-resolution scan from a high-resolution one, by whole factors or by any acquisition."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, DivisiblePadd, MapTransform
from monai.utils import ensure_tuple
from torch import Tensor

from scripts.physics.description import acquisition_vector
from scripts.physics.encoding import Encoding, FrequencyEncoding, SliceSelection
from scripts.physics.output import ACQUISITION, check_sampling
from scripts.physics.protocol import SAME, Assumption, check_thickness
from scripts.physics.separable import SeparableAcquisition
from scripts.transforms.acquire import checked_snr, scan_to_grid, with_noise
from scripts.transforms.acquisition import KSpaceTruncated
from scripts.transforms.interpolate import interpolated, line_about, named_option
from scripts.transforms.utils import as_float, on_grid, plain, spacing

__all__ = ["SimulateAcquiredd", "divisor", "simulated_acquisition"]


def divisor(scale_factor: Sequence[int]) -> list[int]:
    """Numbers whose multiples are the valid HR sizes: LR sizes are even, and LR voxel l lies on HR voxel s l.

    Example:
        >>> divisor([2, 2, 1])
        [4, 4, 1]
    """
    return [2 * s if s > 1 else 1 for s in scale_factor]


def simulated_acquisition(
    scale_factor: Sequence[int],
    acquisition: Mapping[str, Any],
    keys: KeysCollection = "image",
    references: KeysCollection = "label",
    snr: float | None = None,
) -> Compose:
    """Simulate an acquisition: pad a scan and its references to a common grid, then truncate the scan's k-space.

    Args:
        scale_factor: along the axes of the canonical frame.
        acquisition: options of :class:`scripts.transforms.KSpaceTruncate`, such as ``hamming`` or ``snr``.
        keys: the scans to degrade.
        references: the volumes that stay at high resolution.
        snr: of Rician noise, in place of that in ``acquisition``; None for the latter.

    Raises:
        TypeError: when ``acquisition`` is no dictionary, or :class:`scripts.transforms.KSpaceTruncate` lacks one of its
            options.

    Example:
        >>> import torch
        >>> pair = {"image": torch.rand(1, 15, 16, 9), "label": torch.rand(1, 15, 16, 9)}
        >>> {key: tuple(volume.shape) for key, volume in simulated_acquisition((2, 2, 1), {"snr": 20})(pair).items()}
        {'image': (1, 8, 8, 9), 'label': (1, 16, 16, 9)}
    """
    if not isinstance(acquisition, Mapping):
        raise TypeError(
            f"acquisition must be a dictionary beside a scale factor, such as {{'snr': 20}}, got {acquisition}. Only "
            "networks on the output grid restore other acquisitions: leave networks/fixed_factor.yaml out."
        )
    noise = {} if checked_snr(snr) is None else {"snr": snr, "rician": True}
    padded = (*ensure_tuple(keys), *ensure_tuple(references))
    return Compose(
        [
            DivisiblePadd(padded, divisor(scale_factor), allow_missing_keys=True),
            KSpaceTruncated(keys, scale_factor, **{**acquisition, **noise}, allow_missing_keys=True),
        ]
    )


class SimulateAcquiredd(MapTransform):
    """Acquire a high-resolution scan in any way, and interpolate it to its own grid, for an evaluation.

    It leaves the keys of :class:`InterpolateAcquiredd`, whose output grid is that of the high-resolution scan. The
    spacing of a frequency-limited axis becomes the nearest one that divides the field of view.

    Args:
        keys: the high-resolution scan.
        acquired_key: where to keep the scan as it was acquired.
        acquisition: one text per axis, see :func:`.named_option`; ``unknown`` leaves an axis as it is.
        snr: of Rician noise, see :class:`scripts.transforms.Acquire`; None for no noise.
        seed: of the noise, together with the scan's own values.
        allow_missing_keys: whether the scan may be absent.

    Raises:
        ValueError: when ``snr`` is not positive; when called, if a spacing is below that of the scan, or the scan
            would have too few samples. See also :func:`.named_option`.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> data = {"image": MetaTensor(torch.rand(1, 16, 16, 40), affine=torch.eye(4))}
        >>> data = SimulateAcquiredd(acquisition=["frequency 2.0", "unknown", "slices 5.0/4.0"])(data)
        >>> data["image"].shape, data["acquired"].shape
        (torch.Size([1, 16, 16, 40]), torch.Size([1, 8, 16, 8]))
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        acquired_key: Hashable = "acquired",
        acquisition: Sequence[str] | None = None,
        snr: float | None = None,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.acquired_key = acquired_key
        self.option = named_option(acquisition)
        self.snr, self.seed = checked_snr(snr), seed

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume, mm = as_float(d[key]), spacing(d[key]).tolist()
            encodings = [_dividing(*axis) for axis in zip(self.option, volume.shape[1:], mm, strict=True)]
            grid = SeparableAcquisition.of_volume(encodings, volume.shape[1:], tuple(mm))
            check_thickness(encodings, ["--acquisition"] * 3)
            check_sampling(encodings, grid.scan_shape, mm, "Set smaller spacings in --acquisition.")
            y = with_noise(grid.acquire(plain(volume)), self.snr, volume, self.seed)
            scan = on_grid(y, volume, scan_to_grid(grid))
            line = line_about(Assumption(tuple(encodings), ("simulated",) * 3), grid, scan)
            d[self.acquired_key], d[key] = scan, interpolated(scan, grid, line)
            d[ACQUISITION] = acquisition_vector(grid.encodings, grid.voxel)
        return d


def _dividing(encoding: Encoding | None, size: int, mm: float) -> Encoding:
    encoding = encoding or FrequencyEncoding(mm)
    if encoding.spacing < mm * (1 - SAME):
        raise ValueError(
            f"expected an acquired spacing of at least that of the scan, {mm:.4g} mm, got {encoding.spacing:g} mm. "
            "Correct --acquisition."
        )
    if isinstance(encoding, SliceSelection):
        return encoding
    return encoding._replace(spacing=size * mm / max(1, round(size * mm / encoding.spacing)))
