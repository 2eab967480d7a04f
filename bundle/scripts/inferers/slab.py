"""Inference around a stock inferer: reduced precision inside, averaging over slab orientations outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import convert_to_dst_type, convert_to_tensor, fall_back_tuple
from torch import Tensor

from scripts.physics.description import PER_AXIS, acquisition_vector
from scripts.physics.output import ACQUISITION, acquisition_from_record
from scripts.transforms.masks import TISSUE
from scripts.utils.precision import resolve_amp_dtype


def described(inputs: Tensor) -> tuple[Tensor, ...]:
    """The description of the acquisition that the metadata of a batch hold, ``(B, 9)``; empty without one.

    Args:
        inputs: interpolated volumes, ``(B, 1, H, W, D)``.
    """
    records = inputs.meta.get(ACQUISITION) if isinstance(inputs, MetaTensor) else None
    if records is None:
        return ()
    found = [acquisition_from_record(json.loads(one)) for one in ([records] if isinstance(records, str) else records)]
    return (torch.stack([acquisition_vector(one.encodings, one.voxel) for one in found]).to(inputs.device),)


def marked(inputs: Tensor) -> Tensor | None:
    """The blocks of tissue that the metadata of a batch hold, ``(B, 1, h, w, d)``; None without any.

    Args:
        inputs: interpolated volumes, ``(B, 1, H, W, D)``, see :class:`scripts.transforms.MarkTissued`.
    """
    blocks = inputs.meta.get(TISSUE) if isinstance(inputs, MetaTensor) else None
    return None if blocks is None else torch.as_tensor(blocks).reshape(-1, 1, *blocks.shape[-3:])


def _turned(description: Tensor, order: Sequence[int]) -> Tensor:
    """The description ``(B, 9)`` of volumes whose axes were permuted."""
    return description.unflatten(-1, (3, PER_AXIS))[:, list(order)].flatten(1)


class SlabInferer(Inferer):
    """Run an inferer in reduced precision where that is fast, and average over orientations of the slabs.

    The network takes slabs along the last axis. Each orientation presents another axis of the volume last. The
    predictions are turned back and averaged. A description of the acquisition, three numbers per axis, turns with the
    volume. It is an argument, or follows from the metadata of :class:`scripts.transforms.InterpolateAcquiredd`. A
    transposition keeps the grid exact, which a flip would not. Input and output are float32, and the output keeps the
    input's metadata.

    A sliding window as large as the volume is skipped where it changes nothing. It would hold the prediction several
    times: weighted, summed and normalised. Where the metadata mark the tissue, such a volume is restored around it
    alone, see :class:`scripts.networks.FoldedNet`. Windows are restored as they are.

    Args:
        inferer: runs the network over one volume, usually MONAI's ``SlidingWindowInferer`` tiling in-plane.
        orientations: permutations of the three spatial axes to average over. Several need the same scale factor along
            every axis.
        amp_dtype: see :func:`scripts.utils.precision.resolve_amp_dtype`.

    Raises:
        ValueError: when an orientation is no permutation of the three axes, or ``amp_dtype`` is unknown.

    Example:
        >>> inferer = SlabInferer(SlidingWindowInferer(roi_size=(-1, -1, -1)), orientations=[(0, 1, 2), (1, 2, 0)])
        >>> inferer(torch.rand(1, 1, 8, 8, 8), torch.nn.Upsample(scale_factor=2)).shape
        torch.Size([1, 1, 16, 16, 16])
    """

    def __init__(
        self,
        inferer: Inferer,
        orientations: Sequence[Sequence[int]] = ((0, 1, 2),),
        amp_dtype: str | None = None,
    ) -> None:
        super().__init__()
        if not orientations or any(sorted(order) != [0, 1, 2] for order in orientations):
            raise ValueError(f"orientations must be permutations of (0, 1, 2), got {orientations}.")
        resolve_amp_dtype(amp_dtype, torch.device("cpu"))
        self.inferer = inferer
        self.orientations = [tuple(order) for order in orientations]
        self.amp_dtype = amp_dtype

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Predict volumes.

        Args:
            inputs: LR volumes, ``(B, 1, H, W, D)``.
            network: maps them to ``(B, C, sH, sW, sD)``.
            args: further arguments of ``network``. The first one is the description of the acquisition, ``(B, 9)``.
            kwargs: further keyword arguments of ``network``.

        Returns:
            float32 volumes.

        Raises:
            ValueError: when the predictions of the orientations differ in size.
        """
        volume = convert_to_tensor(inputs, dtype=torch.float32)
        args = args or described(inputs)
        tissue = marked(inputs) if getattr(network, "skips_air", False) else None
        predictor = self._in_reduced_precision(network, volume.device)
        pred = None
        for order in self.orientations:
            told = [_turned(one, order) for one in args[:1]] + list(args[1:])
            axes = (0, 1, *(axis + 2 for axis in order))
            around = None if tissue is None else tissue.permute(axes)
            turned = self._infer(volume.permute(axes), around, predictor, *told, **kwargs)
            upright = turned.permute(0, 1, *(order.index(axis) + 2 for axis in range(3)))
            self._check_size(pred, upright)
            pred = upright if pred is None else pred + upright
        if len(self.orientations) > 1:
            pred = pred / len(self.orientations)
        return convert_to_dst_type(pred, inputs, dtype=torch.float32, device=pred.device)[0]

    def _infer(
        self, volume: Tensor, tissue: Tensor | None, predictor: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        if self._is_whole(volume) and not kwargs:
            return predictor(volume, *args) if tissue is None else predictor(volume, *args, tissue=tissue)
        return self.inferer(volume, predictor, *args, **kwargs)

    def _is_whole(self, volume: Tensor) -> bool:
        """Whether the inferer is a plain window that would see the whole volume at once."""
        window, size = self.inferer, tuple(volume.shape[2:])
        return (
            type(window) is SlidingWindowInferer
            and fall_back_tuple(window.roi_size, size) == size
            and window.sw_device is window.device is window.cpu_thresh is None
            and not window.with_coord
        )

    def _in_reduced_precision(self, network: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
        """The network under autocast. Its float32 output lets the sliding window accumulate without rounding."""
        dtype = resolve_amp_dtype(self.amp_dtype, device)

        def predictor(*args: Any, **kwargs: Any) -> Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                return network(*args, **kwargs).float()

        return predictor

    @staticmethod
    def _check_size(pred: Tensor | None, upright: Tensor) -> None:
        if pred is not None and pred.shape != upright.shape:
            raise ValueError(
                f"predictions of all orientations must have the same size, got {tuple(pred.shape)} and "
                f"{tuple(upright.shape)}. Average orientations only with an isotropic scale factor."
            )
