"""Data consistency: put the acquired k-space back into the prediction, as far as the scan supports the assumptions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch import Tensor

from scripts.physics.acquisition import RECOGNITION, Acquisition, measure_acquisition
from scripts.physics.consistency import gain_and_shift, in_band, soft_data_consistency
from scripts.physics.degradation import Degradation, read_degradation
from scripts.physics.encoding import SliceSelection
from scripts.physics.kspace import data_consistency
from scripts.physics.output import is_truncation
from scripts.physics.separable import SeparableAcquisition
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.utils import axis_names, file_name, plain, spatial_dims, warn

__all__ = ["DataConsistencyd", "consistency_mode"]


MODES = ("off", "hard", "soft", "auto")
LARGEST_GAIN = 0.02  # relative difference in brightness between prediction and scan
LARGEST_SHIFT = 0.1  # voxels of the scan
FILTER_ERROR = 0.05  # amplitude by which a filter may be wrong that was recognised from the scan's spectrum
CONTRADICTION = 0.2  # amplitude, rms along an axis, between the scan's filter and the transfer of its group


def consistency_mode(value: str | bool) -> str:
    """The mode of :class:`DataConsistencyd` that a config means. YAML reads ``off`` as false.

    Args:
        value: true for ``hard``, false for ``off``, or a mode.

    Raises:
        ValueError: when ``value`` is neither a boolean nor a mode.

    Example:
        >>> consistency_mode(False), consistency_mode("auto")
        ('off', 'auto')
    """
    mode = ("off", "hard")[value] if isinstance(value, bool) else value
    if mode not in MODES:
        raise ValueError(f"data_consistency must be one of {', '.join(MODES)}, got {value!r}.")
    return mode


class _AssumptionError(Exception):
    """The reason why a scan's k-space must not be put back: expectation, value, remedy."""


class _Transfer(NamedTuple):
    """The assumptions about a scan's k-space, see :func:`scripts.physics.consistency.soft_data_consistency`."""

    window: Tensor
    noise: Tensor | None
    error: Tensor | float


class DataConsistencyd(MapTransform):
    """Put the acquired k-space back into the prediction.

    Both volumes must be in the same units, so it belongs before the intensity scale is undone. The modes:

    * ``hard``: put back all of it. This suits a plain truncation, when the wanted image has the scan's noise.
    * ``soft``: put back as much as is expected to reduce the error, see :mod:`scripts.physics.consistency`. Transfer
      and noise come from ``degradation``. Without one, the scan counts as unfiltered, and detail that the network
      smoothed away may count as noise.
    * ``auto``: ``soft`` with a safeguard. Without a ``degradation``, the scan's own spectrum gives the transfer, see
      :mod:`scripts.physics.acquisition`. It stays off with a warning in three cases. The prediction differs from the
      scan in brightness or place; no filter of a scanner explains the spectrum; or the spectrum contradicts the
      degradation.
    * ``off``: put back nothing.

    An interpolated image has its scan under ``acquired_key`` and its acquisition in its metadata, see
    :class:`scripts.transforms.InterpolateAcquiredd`. ``auto`` then stays off for a scan of slices: with a wrong slice
    profile, or with noise, it would do harm. ``soft`` and ``hard`` also work for slices.

    The metadata of the image record its action under ``data_consistency``, and its warnings under ``warnings``.
    ``Invertd`` copies both to the metadata of the prediction.

    Args:
        keys: the predictions.
        image_key: the acquired volume, or what the interpolation made of it.
        acquired_key: the acquired volume of an interpolated image, where there is one.
        mode: see above and :func:`consistency_mode`.
        degradation: of the scan's group, for ``soft`` and ``auto``: an estimate, or its file.
        in_place: whether to change the prediction itself, because volumes are large.
        allow_missing_keys: whether a key may be absent.

    Raises:
        ValueError: when the mode is unknown, or a degradation is given for ``hard``. When called, if the prediction's
            size is not a whole multiple of the image's. When called in ``soft`` or ``auto``, if the prediction has
            several channels.

    Example:
        >>> data = {"image": torch.ones(1, 4, 4, 4), "pred": torch.zeros(1, 8, 8, 8)}
        >>> float(DataConsistencyd(mode="hard")(data)["pred"].mean())
        1.0
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        image_key: Hashable = "image",
        acquired_key: Hashable = "acquired",
        mode: str | bool = "hard",
        degradation: Degradation | PathLike | None = None,
        in_place: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.in_place = in_place
        self.image_key = image_key
        self.acquired_key = acquired_key
        self.mode = consistency_mode(mode)
        if degradation is not None and self.mode == "hard":
            raise ValueError(
                "data_consistency: hard takes the scan for a plain truncation, got a degradation as well. Set soft or "
                "auto, or leave the degradation out."
            )
        given = degradation is None or isinstance(degradation, Degradation)
        self.degradation = degradation if given else read_degradation(degradation)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.mode != "off":
                image, acquisition = d[self.image_key], acquisition_of(d[self.image_key])
                scan = d[self.acquired_key] if acquisition is not None else image
                d[key] = self._consistent(d[key], image, scan, acquisition)
        return d

    def _consistent(
        self, pred: Tensor, image: Tensor, acquired: Tensor, acquisition: SeparableAcquisition | None
    ) -> Tensor:
        _check_sizes(pred, image, acquired, acquisition)
        values, scan = plain(pred), plain(acquired).to(pred.device, pred.dtype)
        if acquisition is not None and is_truncation(acquisition):
            acquisition = None
        if self.mode != "hard" and len(values) != 1:
            raise ValueError(
                f"{file_name(image)}: data_consistency {self.mode} expects a prediction of one channel, got "
                f"{len(values)}. Split its channels before, or set data_consistency to hard or off."
            )
        if self.mode == "hard":
            done = "hard"
            if acquisition is None:
                values = data_consistency(values, scan, spatial_dims(pred), self.in_place)
            else:
                values = acquisition.make_consistent(values, scan, in_place=self.in_place)
        else:
            values, done, warning = self._weighted(values, scan, axis_names(image), acquisition)
            if warning and isinstance(image, MetaTensor):
                warn(image, warning)
        if isinstance(image, MetaTensor):
            image.meta["data_consistency"] = done
        out = convert_to_tensor(values, track_meta=isinstance(pred, MetaTensor))
        return out.copy_meta_from(pred) if isinstance(pred, MetaTensor) else out

    def _weighted(
        self, pred: Tensor, scan: Tensor, names: Sequence[str], acquisition: SeparableAcquisition | None
    ) -> tuple[Tensor, str, str]:
        """The prediction with the scan's k-space as far as it can be trusted, a record of this, and a warning."""
        slices = acquisition is not None and any(isinstance(one, SliceSelection) for one in acquisition.encodings)
        if slices and self.mode == "auto":
            return pred, "off: the scan has slices, whose profile is not known", ""
        try:
            transfer, remark = self._transfer(pred[0], scan[0], names)
            kspaces = in_band(pred[0], scan[0], acquisition)
            if self.mode == "auto":
                _check_brightness_and_place(*kspaces)
        except _AssumptionError as error:
            return pred, f"off: {error}", f"Data consistency is off: {error}"
        values, share = soft_data_consistency(pred[0], scan[0], *transfer, kspaces, acquisition, self.in_place)
        done = f"puts back {100 * share:.0f} % of the acquired k-space"
        if not remark:
            return values[None], done, ""
        return (
            values[None],
            f"{done}, undoing {remark}",
            f"Data consistency expected a plain truncation, found {remark}, and undid the filter as far as the noise "
            "allows. Set data_consistency: off if the scan is soft for another reason.",
        )

    def _transfer(self, pred: Tensor, scan: Tensor, names: Sequence[str]) -> tuple[_Transfer, str]:
        """The assumptions about the scan's k-space, and in words how they differ from a plain truncation."""
        group, measured = self.degradation, None
        if self.mode == "auto":
            truncated = [axis for axis in range(3) if pred.shape[axis] > scan.shape[axis]]
            measured = measure_acquisition(scan, truncated) if truncated else None
            if group is not None:
                _check_group(measured, group, truncated, names)
            elif truncated:
                _check_spectrum(measured, scan.shape, names)
        if group is not None:
            window = group.window(scan.shape)
            noise = group.noise_std**2 * scan.numel() * (window**2 if group.filtered_noise else torch.ones_like(window))
            error = (group.window(scan.shape, (1.0, 1.0, 1.0)) - window).abs()
            return _Transfer(window, noise, error.to(scan)), ""
        if measured is None:
            return _Transfer(torch.ones_like(scan), None, 0.0), ""
        window = measured.window(scan.shape)
        filtered = bool(((window > 0) & (window < 1)).any())
        return _Transfer(window, None, FILTER_ERROR * filtered), measured.describe(names)


def _check_sizes(pred: Tensor, image: Tensor, scan: Tensor, acquisition: SeparableAcquisition | None) -> None:
    sizes, acquired = tuple(pred.shape[1:]), tuple(scan.shape[1:])
    if acquisition is not None:
        if (sizes, acquired) != (tuple(acquisition.shape), tuple(acquisition.scan_shape)):
            raise ValueError(
                f"{file_name(image)}: expected a prediction of {tuple(acquisition.shape)} voxels from a scan of "
                f"{tuple(acquisition.scan_shape)}, got {sizes} and {acquired}. Apply data consistency before the "
                "prediction is resampled, cropped or reoriented."
            )
    elif len(sizes) != len(acquired) or any(n % m for n, m in zip(sizes, acquired, strict=True)):
        raise ValueError(
            f"{file_name(image)}: expected a prediction of whole multiples of the image's size {acquired}, "
            f"got {sizes}. Apply data consistency before the prediction is resampled, cropped or reoriented."
        )


def _check_brightness_and_place(acquired: Tensor, predicted: Tensor) -> None:
    gain, shift = gain_and_shift(acquired, predicted)
    if not abs(gain - 1) <= LARGEST_GAIN:
        raise _AssumptionError(
            f"the truncated prediction should be as bright as the scan to {LARGEST_GAIN:.0%}, but is {gain:.3f} times "
            "as bright. Use weights that keep the intensity, or set data_consistency: hard to trust the scan."
        )
    if not max(map(abs, shift)) <= LARGEST_SHIFT:
        raise _AssumptionError(
            f"the truncated prediction should lie on the scan to {LARGEST_SHIFT:g} voxels, but is shifted by "
            f"{', '.join(f'{value:.2f}' for value in shift)} voxels. Use weights trained on this grid."
        )


def _check_spectrum(measured: Acquisition | None, shape: Sequence[int], names: Sequence[str]) -> None:
    if measured is None:
        raise _AssumptionError(
            "the scan should have at least 32 voxels along each axis to show how it was acquired, but has "
            f"{tuple(shape)}. Give the degradation of its group, or set data_consistency: hard for a plain truncation."
        )
    if None in measured.filters:
        axis = measured.filters.index(None)
        raise _AssumptionError(
            f"a filter of a scanner should explain the spectrum along the {names[axis]} axis to "
            f"{RECOGNITION.largest_misfit} dB, but the best one differs by {measured.misfits[axis]:.1f} dB: the scan "
            "was interpolated or smoothed, or it does not show a brain. Use the scan as it was acquired, or give the "
            "degradation of its group."
        )


def _check_group(measured: Acquisition | None, group: Degradation, axes: Sequence[int], names: Sequence[str]) -> None:
    """Compare the scan's own filters with the degradation of its group, along the axes whose filter was recognised."""
    u = np.linspace(0, 1, 65)
    for axis in axes if measured is not None else ():
        one, transfer = measured.filters[axis], group.transfers[axis]
        difference = 0.0 if one is None else float(np.sqrt(np.mean((one.at(u) - transfer.at(u)) ** 2)))
        if difference > CONTRADICTION:
            raise _AssumptionError(
                f"along the {names[axis]} axis the scan should have its group's transfer ({transfer.family}) to "
                f"{CONTRADICTION:g}, but its spectrum shows another ({one.family}), which differs by {difference:.2f}. "
                "Estimate the degradation on scans like this one."
            )
