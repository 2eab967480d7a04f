"""The network for any acquisition: it folds the interpolated scan and restores it on the output grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.physics.description import acquisition_vector
from scripts.physics.encoding import FrequencyEncoding
from scripts.utils.threads import in_turn

from .error_head import HEAD, ConvWithHead, ErrorHead
from .slabs import channels_to_volume, per_pass, threads_for, volume_to_channels
from .streaming import FeatureModulation, frames_of, log_share, rectangles_around, streamed
from .ts_rcan import Residual
from .volumetric import OUTPUT_SCALE, conv3x3x3, initialize_branches

PHASES = 8  # voxels of a block of 2 x 2 x 2


def fold(x: Tensor) -> Tensor:
    """Space to depth: volumes ``(B, 1, H, W, D)`` of even sizes to ``(B, 8, H / 2, W / 2, D / 2)``.

    Example:
        >>> fold(torch.arange(8.0).reshape(1, 1, 2, 2, 2)).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    batch, height, width, depth = x.shape[0], x.shape[2] // 2, x.shape[3] // 2, x.shape[4] // 2
    blocks = x.reshape(batch, height, 2, width, 2, depth, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return blocks.reshape(batch, height, width, depth, 8).movedim(-1, 1)  # channels last in memory


def unfold(y: Tensor) -> Tensor:
    """Depth to space, the inverse of :func:`fold`.

    Example:
        >>> x = torch.rand(2, 1, 4, 6, 2)
        >>> torch.equal(unfold(fold(x)), x)
        True
    """
    batch, height, width, depth = y.shape[0], y.shape[2], y.shape[3], y.shape[4]
    blocks = y.movedim(1, -1).reshape(batch, height, width, depth, 2, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)
    return blocks.reshape(batch, 1, 2 * height, 2 * width, 2 * depth)


def modulated_group(num_features: int, num_blocks: int) -> Residual:
    """The group of :func:`.volumetric.residual_group`, with a modulation in front of the ReLU of every block."""

    def block() -> Residual:
        first, last = conv3x3x3(num_features, num_features), conv3x3x3(num_features, num_features)
        return Residual(first, FeatureModulation(), nn.ReLU(inplace=True), last)

    return Residual(*[block() for _ in range(num_blocks)], conv3x3x3(num_features, num_features))


class FoldedNet(nn.Module):
    r"""Restore a scan that was interpolated to the output grid, whatever acquisition it had.

    Space-to-depth (arXiv 1609.05158, reversed) turns blocks of 2 x 2 x 2 voxels into 8 channels. Residual groups of
    3 x 3 x 3 convolutions follow, then depth-to-space. The result is added to the input. The untrained network is
    therefore the interpolation, exactly.

    A vector describes the acquisition. A small perceptron turns it into one scale and one shift per feature, in every
    block, behind the first convolution and before the last one (FiLM, https://arxiv.org/abs/1709.07871). Without the
    vector the network is blind: scales are 1, shifts are 0. A network that learns one factor per axis is given the
    vector of that factor once, by ``scale_factor``. Inference then describes such a scan by the same vector.

    An error head can be added. The result then has a second channel, the scale of the error of each voxel. The restored
    volume stays the same, bit by bit.

    ``reach`` says how far the network sees: an output voxel depends on input voxels at most ``reach`` away, per axis.

    Args:
        num_features: width.
        num_groups: residual groups, of which the first belongs to the encoder.
        num_blocks: blocks per group, each of two convolutions.
        conditions: length $K$ of the vector that describes an acquisition, see
            :func:`scripts.physics.description.acquisition_vector`; 0 for a network that is always blind.
        hidden: width of the perceptron.
        scale_factor: along each axis, what the network assumes where it is given no acquisition; None to stay blind.
        voxels_per_pass: about how many blocks of 2 x 2 x 2 voxels pass the network at once, see :mod:`.streaming`. It
            changes time and memory, never the result. None for the number that suits the device.
        seed: seed of the initialisation.

    Example:
        >>> volume = torch.rand(1, 1, 9, 8, 7)
        >>> torch.equal(FoldedNet()(volume, torch.zeros(1, 9)), volume)
        True
    """

    def __init__(
        self,
        num_features: int = 32,
        num_groups: int = 4,
        num_blocks: int = 3,
        conditions: int = 9,
        hidden: int = 32,
        scale_factor: Sequence[float] | None = None,
        voxels_per_pass: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.conditions = conditions
        self.voxels_per_pass = voxels_per_pass
        factors = [] if scale_factor is None else [FrequencyEncoding(float(factor)) for factor in scale_factor]
        assumed = acquisition_vector(factors, 1.0)
        self.register_buffer("assumed", assumed, persistent=False)  # empty for a blind network
        self.output_scale = OUTPUT_SCALE
        self.num_results = 1  # 2 with an error head
        self.skips_air = True  # given the tissue, see :meth:`forward`
        self.folded_reach = 2 + num_groups * (2 * num_blocks + 1)  # one block of 2 x 2 x 2 voxels per convolution
        self.reach = 2 * self.folded_reach + 1  # from one corner of a block to the opposite corner of another
        self.modulated = [1 + num_blocks, (num_groups - 1) * num_blocks + 1]  # places in encoder and decoder
        groups = [modulated_group(num_features, num_blocks) for _ in range(num_groups)]
        self.encoder = streamed(nn.Sequential(conv3x3x3(PHASES, num_features), FeatureModulation(), *groups[:1]))
        self.decoder = streamed(nn.Sequential(*groups[1:], FeatureModulation(), conv3x3x3(num_features, PHASES)))
        values = 2 * num_features * sum(self.modulated)
        self.modulation = nn.Sequential(nn.Linear(conditions, hidden), nn.ReLU(), nn.Linear(hidden, values))
        initialize_branches(self, first=self.encoder[0], last=self.decoder[-1], zero_last=True, seed=seed)
        nn.init.zeros_(self.modulation[-1].weight)

    def forward(self, x: Tensor, acquisition: Tensor | None = None, tissue: Tensor | None = None) -> Tensor:
        """Interpolated volume ``(B, 1, H, W, D)`` of any sizes to the restored volume of the same shape.

        With an error head ``(B, 2, H, W, D)``: the restored volume, and the scale of its error.

        Args:
            x: bright tissue at about 1.
            acquisition: ``(B, K)``, what the acquisitions are; None for what ``scale_factor`` says.
            tissue: which blocks of 4 x 4 x 4 voxels to restore, ``(B, 1, H / 4, W / 4, D / 4)``, rounded up. In each
                pair of slices of the first axis, the rectangle around them comes out as without ``tissue``. Elsewhere
                the result is ``x``, and nothing is computed that no rectangle depends on. None to restore all.

        Raises:
            ValueError: when the input is not a volume of one channel, ``acquisition`` is not ``(B, K)``, or ``tissue``
                has another shape.
        """
        if x.ndim != 5 or x.shape[1] != 1:
            raise ValueError(f"FoldedNet expects volumes of shape (B, 1, H, W, D), got {list(x.shape)}.")
        told = self._told(acquisition, x.shape[0])
        shape = [(x.shape[axis] + 1) // 2 for axis in (2, 3, 4)]
        rectangles = [[0, shape[1], 0, shape[2]]] * shape[0] if tissue is None else rectangles_around(tissue, shape)
        voxels = per_pass(x, self.voxels_per_pass, cached=131_072, launched=4_194_304)
        step = max(1, voxels // (shape[1] * shape[2]))
        if tissue is not None or shape[0] > step:
            return self._in_parts(x, told, rectangles, step)
        return self._restored(x, self.decoder(self.encoder(fold(to_even(x)), told=told), told=told))

    def encode(self, x: Tensor, acquisition: Tensor | None = None) -> Tensor:
        """Crop ``(B, 1, H, W, D)`` to features ``(B, num_features * ceil(D / 2), ceil(H / 2), ceil(W / 2))``.

        Their slices are channels, as 2-D discriminators and projection heads see them.
        """
        return volume_to_channels(self.encoder(fold(to_even(x)), told=self._told(acquisition, x.shape[0])))

    def decode(self, features: Tensor, x: Tensor, acquisition: Tensor | None = None) -> Tensor:
        """Features to the restored volume, the shape of ``x``, to which the residual is added."""
        told = self._told(acquisition, x.shape[0])
        volume = channels_to_volume(features, (x.shape[4] + 1) // 2)
        return self._restored(x, self.decoder(volume, told=told[self.modulated[0] :]))

    def restore(self, x: Tensor) -> Tensor:
        """Interpolated crop ``(B, 1, H, W, D)`` to the restored crop."""
        return self(x)

    def compared(self, **images: Tensor) -> dict[str, Tensor]:
        """Crops ``(B, 1, H, W, D)`` as terms compare them, ``(B, D, H, W)`` with slices as channels."""
        return {name: volume_to_channels(image) for name, image in images.items()}

    def add_error_head(self, num_features: int = 32, seed: int = 0) -> FoldedNet:
        """Put an untrained error head beside the last convolution.

        Args:
            num_features: width of the head.
            seed: seed of its initialisation.

        Returns:
            the network itself.
        """
        last = self.decoder[-1]
        head = ErrorHead(last.in_channels, last.out_channels, num_features, seed)
        self.decoder[-1] = ConvWithHead(last, head.to(last.weight))
        self.num_results = 2
        return self

    def grown(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a smaller network, extended so that this network does the same.

        They are those of a network with fewer groups, or of a :class:`.VolumetricNet` for 2x2x2. The additional groups
        come last, and their branches end in zeros. A :class:`.VolumetricNet` reads the scan alone. That is every second
        voxel of the zero-filled scan, the first of the 8 phases. Other weights come back unchanged. An error head keeps
        its own weights.
        """
        own, weights = self.state_dict(), dict(weights)
        head = {name: own.pop(name) for name in list(own) if HEAD in name}
        trunk, given = ([name for name in state if not name.startswith("modulation.")] for state in (own, weights))
        kept = [*trunk[: len(given) - 2], *trunk[-2:]]  # the last layer stays the last one
        per_group = 4 * (self.modulated[0] - 1) + 2  # weights and biases of its convolutions
        if weights.keys() == own.keys() or (len(trunk) - len(given)) % per_group or len(kept) != len(given):
            return {**weights, **head}
        state = {**own, **head, **dict(zip(kept, (weights[name] for name in given), strict=True))}
        added = trunk[len(given) - 2 : -2]
        state |= {name: torch.zeros_like(own[name]) for n, name in enumerate(added, start=2) if n % per_group < 2}
        if state[trunk[0]].shape[1] == 1:
            state[trunk[0]] = F.pad(state[trunk[0]], [0, 0, 0, 0, 0, 0, 0, PHASES - 1])
        for name in (name for name in weights if name.startswith("modulation.")):
            missing = len(own[name]) - len(weights[name])
            end = len(weights[name]) - len(own[name]) // sum(self.modulated)  # of what is told before the last layer
            rows = (weights[name][:end], torch.zeros_like(own[name][:missing]), weights[name][end:])
            state[name] = torch.cat(rows) if missing > 0 else weights[name]
        return state

    def _told(self, acquisition: Tensor | None, batch: int) -> list[Tensor]:
        """Scale and shift ``(B, 2 * num_features, 1, 1, 1)`` of every modulation, in their order."""
        if acquisition is None and self.assumed.numel() > 0:
            acquisition = self.assumed.expand(batch, -1)
        if acquisition is None or self.conditions == 0:
            return []
        if list(acquisition.shape) != [batch, self.conditions]:
            raise ValueError(
                f"acquisition must have shape {[batch, self.conditions]}, one description per volume, got "
                f"{list(acquisition.shape)}."
            )
        values = self.modulation(acquisition)[:, :, None, None, None]
        return list(values.chunk(sum(self.modulated), dim=1))

    def _restored(self, x: Tensor, phases: Tensor) -> Tensor:
        return self._start(x) + self._changes(phases)[:, :, : x.shape[2], : x.shape[3], : x.shape[4]]

    def _start(self, x: Tensor) -> Tensor:
        """What the changes are added to: the volume, and 0 as the scale of an error head."""
        return x if self.num_results == 1 else torch.cat([x, torch.zeros_like(x)], dim=1)

    def _changes(self, phases: Tensor) -> Tensor:
        """The residual, and the scale of an error head, ``(B, 1 or 2, ...)``, from the phases of the last layer."""
        own = phases.shape[1] // self.num_results
        residual = self.output_scale * unfold(phases[:, :own])
        return residual if self.num_results == 1 else torch.cat([residual, unfold(phases[:, own:].exp())], dim=1)

    def _in_parts(self, x: Tensor, told: list[Tensor], rectangles: list[list[int]], step: int) -> Tensor:
        """The restored volume. Its first axis passes ``step`` blocks at a time, see :mod:`.streaming`."""
        restored = x.clone() if self.num_results == 1 else self._start(x)
        starts = [start for start in range(0, len(rectangles) + self.folded_reach, step)]
        if not torch.jit.is_scripting():
            log_share(rectangles, [(x.shape[3] + 1) // 2, (x.shape[4] + 1) // 2], self.folded_reach, step)
            threads = threads_for(x)
            if threads > 1:
                in_turn(partial(self._part, x, restored, told, rectangles, step), starts, threads)
                return restored
        before: list[Tensor] = []
        for start in starts:
            after: list[Tensor] = []
            self._part(x, restored, told, rectangles, step, start, before, after)
            before = after
        return restored

    def _part(
        self,
        x: Tensor,
        restored: Tensor,
        told: list[Tensor],
        rectangles: list[list[int]],
        step: int,
        start: int,
        before: list[Tensor],
        after: list[Tensor],
    ) -> None:
        """Pass the blocks from ``start`` on, and add to ``restored`` the residual of the slices that come out."""
        plane = [(x.shape[3] + 1) // 2, (x.shape[4] + 1) // 2]
        frames = frames_of(rectangles, plane, self.folded_reach, start, start + step)
        slices, first = len(rectangles), 2 * min(start, len(rectangles) - 1)
        left, right, top, bottom = frames[0][0], plane[1] - frames[0][1], frames[0][2], plane[0] - frames[0][3]
        part = x[:, :, first : 2 * (start + step), 2 * top : 2 * bottom, 2 * left : 2 * right]
        entering = fold(to_even(part))[:, :, : max(0, slices - start)]  # none enters behind the last slice
        values = told[:]  # the layers take them out of the list
        features = self.encoder(entering, before, after, frames, values)
        phases = self.decoder(features, before, after, frames, values)
        changes = self._changes(phases)
        left, top = 2 * frames[0][0], 2 * frames[0][2]
        done = max(0, start - self.folded_reach)  # slices that earlier parts restored
        for i, rectangle in enumerate(rectangles[done : done + phases.shape[2]]):
            a, b = 2 * rectangle[0], min(2 * rectangle[1], x.shape[3])
            c, d = 2 * rectangle[2], min(2 * rectangle[3], x.shape[4])
            if a < b:
                wanted = restored[:, :, 2 * (done + i) : 2 * (done + i) + 2, a:b, c:d]
                wanted += changes[:, :, 2 * i : 2 * i + wanted.shape[2], a - top : b - top, c - left : d - left]


def to_even(x: Tensor) -> Tensor:
    """Repeat the last slice of every axis of odd size.

    Example:
        >>> to_even(torch.rand(1, 1, 3, 4, 5)).shape
        torch.Size([1, 1, 4, 4, 6])
    """
    return F.pad(x, [0, x.shape[4] % 2, 0, x.shape[3] % 2, 0, x.shape[2] % 2], mode="replicate")
