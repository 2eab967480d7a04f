"""3-D convolutions: what our networks share, and the network of fixed factors that earlier versions shipped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from scripts.utils.threads import in_turn

from .initialization import initialize, rescale
from .interpolation import SlabInterpolation
from .slabs import channels_last, per_pass, threads_for
from .streaming import frames_of, streamed
from .super_resolution import check_geometry
from .ts_rcan import Residual

OUTPUT_SCALE = 0.1
"""Factor of what the last convolution adds to a skip, because that residual is small beside the image.

Otherwise the first steps at a usual learning rate add too much, and hundreds of iterations only undo it.
"""


def conv3x3x3(in_channels: int, out_channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)


def residual_block(num_features: int) -> Residual:
    """Convolution, ReLU, convolution, and the skip around them."""
    return Residual(conv3x3x3(num_features, num_features), nn.ReLU(inplace=True), conv3x3x3(num_features, num_features))


def residual_group(num_features: int, num_blocks: int) -> Residual:
    """The group of RCAN (https://arxiv.org/abs/1807.02758) without channel attention, which needs whole volumes."""
    blocks = [residual_block(num_features) for _ in range(num_blocks)]
    return Residual(*blocks, conv3x3x3(num_features, num_features))


class VolumetricNet(nn.Module):
    """Residual groups of 3-D convolutions on the LR grid, then sub-pixel convolution (arXiv 1609.05158).

    Every convolution sees all three axes. The papers' thin slabs see three slices of one axis. Nothing is pooled, so an
    output voxel depends on its surroundings alone. It holds the weights of earlier versions, and trains no more.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        num_features: width.
        num_groups: residual groups, of which the first belongs to the encoder.
        num_blocks: blocks per group, each of two convolutions.
        skip: learn the residual to a fixed interpolation. The untrained network is then this interpolation.
        voxels_per_pass: about how many LR voxels pass the network at once, see :mod:`.streaming`. It changes time and
            memory, never the result. None for the number that suits the device, see :func:`.slabs.per_pass`.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the factors are not of that form.

    Example:
        >>> VolumetricNet(scale_factor=(2, 2, 1))(torch.rand(1, 1, 8, 8, 6)).shape
        torch.Size([1, 1, 16, 16, 6])
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        num_features: int = 32,
        num_groups: int = 2,
        num_blocks: int = 3,
        skip: bool = True,
        voxels_per_pass: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        in_plane, through_plane = check_geometry(scale_factor, slab_size=1)  # a small volume needs no central slice
        self.factors = [in_plane, in_plane, through_plane]
        self.voxels_per_pass = voxels_per_pass
        self.skip = skip
        self.output_scale = OUTPUT_SCALE if skip else 1.0
        self.reach = 2 + num_groups * (2 * num_blocks + 1)  # one voxel per convolution
        groups = [residual_group(num_features, num_blocks) for _ in range(num_groups)]
        phases = in_plane * in_plane * through_plane
        self.encoder = streamed(nn.Sequential(conv3x3x3(1, num_features), *groups[:1]))
        self.decoder = streamed(nn.Sequential(*groups[1:], conv3x3x3(num_features, phases)))
        self.interpolation = SlabInterpolation(self.factors)
        initialize_branches(self, first=self.encoder[0], last=self.decoder[-1], zero_last=skip, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        """LR volume ``(B, 1, H, W, D)`` to SR volume ``(B, 1, s * H, s * W, s_z * D)``.

        Raises:
            ValueError: when the input is not a volume of one channel.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"VolumetricNet expects volumes of shape (B, 1, H, W, D), got {list(x.shape)}.")
        voxels = per_pass(x, self.voxels_per_pass, cached=131_072, launched=4_194_304)
        step = max(1, voxels // (x.shape[3] * x.shape[4]))
        if x.shape[2] > step:
            return self._in_parts(x, step)
        return self._restore(self.decoder(self.encoder(channels_last(x))), x, 0, x.shape[2])

    def _refine(self, phases: Tensor) -> Tensor:
        """Sub-pixel shuffle, ``(B, s * s * s_z, H, W, D)`` to ``(B, 1, s * H, s * W, s_z * D)``."""
        phases = self.output_scale * phases
        batch, height, width, depth = phases.shape[0], phases.shape[2], phases.shape[3], phases.shape[4]
        s = self.factors
        phases = phases.reshape(batch, s[0], s[1], s[2], height, width, depth).permute(0, 4, 1, 5, 2, 6, 3)
        return phases.reshape(batch, 1, s[0] * height, s[1] * width, s[2] * depth)

    def _restore(self, phases: Tensor, low_res: Tensor, start: int, end: int) -> Tensor:
        """The SR part of the LR slices from ``start`` to ``end``, from the phases of the last layer."""
        part = self._refine(phases)
        if self.skip:
            part = part + self.interpolation(low_res[:, 0].movedim(-1, 1), start, end).movedim(1, -1).unsqueeze(1)
        return part

    def _in_parts(self, x: Tensor, step: int) -> Tensor:
        """The SR volume of ``x``, whose first axis passes ``step`` slices at a time, see :mod:`.streaming`."""
        s, batch, height, width, depth = self.factors, x.shape[0], x.shape[2], x.shape[3], x.shape[4]
        volume = torch.empty([batch, 1, s[0] * height, s[1] * width, s[2] * depth], dtype=x.dtype, device=x.device)
        starts = [start for start in range(0, height + self.reach, step)]
        if not torch.jit.is_scripting():
            threads = threads_for(x)
            if threads > 1:
                in_turn(partial(self._part, x, volume, step), starts, threads)
                return volume
        before: list[Tensor] = []
        for start in starts:
            after: list[Tensor] = []
            self._part(x, volume, step, start, before, after)
            before = after
        return volume

    def _part(
        self, x: Tensor, volume: Tensor, step: int, start: int, before: list[Tensor], after: list[Tensor]
    ) -> None:
        """Pass the LR slices from ``start`` on, and write the SR slices that come out to ``volume``."""
        plane, s = [x.shape[3], x.shape[4]], self.factors[0]
        frames = frames_of([[0, plane[0], 0, plane[1]]] * x.shape[2], plane, self.reach, start, start + step)
        features = self.encoder(channels_last(x[:, :, start : start + step]), before, after, frames)
        phases = self.decoder(features, before, after, frames)
        done = max(0, start - self.reach)  # slices that earlier parts restored
        ready = done + phases.shape[2]
        if done < ready:
            volume[:, :, s * done : s * ready] = self._restore(phases, x, done, ready)


def initialize_branches(network: nn.Module, first: nn.Conv3d, last: nn.Conv3d, zero_last: bool, seed: int) -> None:
    """Initialise a network. Convolutions without an activation behind them get no gain.

    ``zero_last`` makes the last convolution zero, so that an untrained network with a skip is the skip. The branches do
    not start near the identity as in the papers' deeper networks. Such a network would be almost linear, and would
    spend its first hundreds of iterations on a linear filter.
    """
    initialize(network, seed)
    branches = [branch for branch in network.modules() if isinstance(branch, Residual)]
    ends = [[layer for layer in branch if isinstance(layer, nn.Conv3d)][-1] for branch in branches]
    for layer in (first, *ends, last):
        rescale(layer, gain=1.0)
    if zero_last:
        nn.init.zeros_(last.weight)
