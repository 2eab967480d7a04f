"""ZSSR: zero-shot super-resolution (Shocher et al., CVPR 2018, https://arxiv.org/abs/1712.06087)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor, nn
from tqdm import trange

from scripts.data.crops import crop_slab, draw_informative_start
from scripts.losses import absolute_error, ssim_loss
from scripts.physics.kspace import truncate
from scripts.utils.precision import resolve_amp_dtype


class ZSSRInferer(Inferer):
    """Train the network on the test volume alone, then apply it to that volume.

    The volume is the HR side of its own training pairs. Its k-space truncation by the same factors is the LR side. Each
    volume trains a copy of the network from the same start, so that nothing passes from one volume to the next. Unlike
    the original, this neither flips pairs nor averages over flips. On this grid a flip moves the prediction by a voxel.

    Args:
        inferer: applies the trained copy to the volume.
        scale_factor: integer factors along the spatial axes.
        patch_size: in-plane sizes of a slab of the truncated volume. A smaller volume gives smaller slabs.
        slab_size: slices of a slab that are learned, those of the network.
        context: further slices on either side, for the network's skip alone.
        batch_size: slabs per iteration.
        num_iterations: iterations of each training.
        learning_rate: of Adam.
        ssim_weight: of the SSIM term beside L1.
        amp_dtype: autocast type of the training, see :func:`scripts.utils.precision.resolve_amp_dtype`.
        seed: of the slabs drawn.
    """

    def __init__(
        self,
        inferer: Inferer,
        scale_factor: Sequence[int] = (2, 2, 2),
        patch_size: Sequence[int] = (64, 64),
        slab_size: int = 3,
        context: int = 0,
        batch_size: int = 8,
        num_iterations: int = 3000,
        learning_rate: float = 1e-4,
        ssim_weight: float = 0.5,
        amp_dtype: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.scale_factor = [int(s) for s in scale_factor]
        self.slab = (*patch_size, slab_size)
        self.context = context
        self.batch_size = batch_size
        self.num_iterations = num_iterations
        self.learning_rate = learning_rate
        self.ssim_weight = ssim_weight
        self.amp_dtype = amp_dtype
        self.seed = seed

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Train a copy of ``network`` on the volume and predict.

        Args:
            inputs: one LR volume, ``(1, 1, H, W, D)``.
            network: maps volumes to volumes. Its method ``restore`` maps slabs ``(B, S, H, W)`` to slabs. Its method
                ``compared`` leaves the slices that it learns.
            args: further arguments of ``network``.
            kwargs: further keyword arguments of ``network``.

        Raises:
            ValueError: when there are several volumes, or too few slices for a slab of the truncated volume.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"ZSSR learns from one volume: the batch must hold one, got {inputs.shape[0]}.")
        adapted = self._adapt(network, convert_to_tensor(inputs, dtype=torch.float32)[0, 0])
        return self.inferer(inputs, adapted, *args, **kwargs)

    @torch.enable_grad()
    def _adapt(self, network: nn.Module, volume: Tensor) -> nn.Module:
        """A copy of ``network``, trained on ``volume`` (H, W, D)."""
        image, label = self._pair(volume.cpu())
        adapted = copy.deepcopy(network).requires_grad_(True).train()
        optimizer = torch.optim.Adam(adapted.parameters(), lr=self.learning_rate)
        dtype = resolve_amp_dtype(self.amp_dtype, volume.device)
        scaler = torch.amp.GradScaler(volume.device.type, enabled=dtype == torch.float16)
        rng = np.random.default_rng(self.seed)
        for _ in trange(self.num_iterations, desc="Zero-shot training"):
            low_res, high_res = (slabs.to(volume.device) for slabs in self._draw(image, label, rng))
            with torch.autocast(volume.device.type, dtype=dtype, enabled=dtype is not None):
                pred = adapted.restore(low_res)
            learned = adapted.compared(image=low_res, pred=pred, label=high_res)
            pair = learned["pred"], learned["label"]
            loss = absolute_error(*pair) + self.ssim_weight * ssim_loss(*pair)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return adapted.eval()

    def _pair(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """The truncated volume and the volume, cut to whole multiples, so that LR voxel l is HR voxel s l."""
        matrix = [n // s for n, s in zip(volume.shape, self.scale_factor, strict=True)]
        if matrix[2] < self.slab[2]:
            raise ValueError(
                f"ZSSR needs at least {self.slab[2] * self.scale_factor[2]} slices to cut slabs of {self.slab[2]} from "
                f"the truncated volume, got {volume.shape[2]}. Choose a smaller slab_size."
            )
        for axis, (size, factor) in enumerate(zip(matrix, self.scale_factor, strict=True)):
            volume = volume.narrow(axis, 0, size * factor)
        return truncate(volume, matrix, (0, 1, 2)), volume

    def _draw(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of slabs of both volumes at the same places."""
        size = [min(n, w) for n, w in zip(image.shape, self.slab, strict=True)]

        def draw() -> list[int]:
            look = lambda start: crop_slab(image, start, size)  # noqa: E731
            return draw_informative_start(image.shape, size, (1, 1, 1), rng, look)

        starts = np.stack([draw() for _ in range(self.batch_size)])
        low_res = [crop_slab(image, start, size, self.context) for start in starts.tolist()]
        high_res_size = np.multiply(size, self.scale_factor).tolist()
        context = self.context * self.scale_factor[2]
        high_res = [crop_slab(label, start, high_res_size, context) for start in (starts * self.scale_factor).tolist()]
        return torch.stack(low_res), torch.stack(high_res)
