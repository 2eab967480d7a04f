"""A degradation of few parameters beside UDEAN's network of thin slabs: a separable kernel and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .degradation import SlabDegradation
from .slabs import central
from .super_resolution import check_geometry
from .ts_rcan import SlabEncoder

START_NOISE = 0.01  # standard deviation before training; bright tissue is 1
NOISE_RATE = 10.0  # how much faster its logarithm moves than a tap; otherwise the kernel makes up for the noise


class KernelDegradationNet(SlabDegradation):
    r"""k-space truncation, then one symmetric kernel per in-plane axis, then Rician noise: seven numbers in all.

    KernelGAN (https://arxiv.org/abs/1909.06581) learns a kernel against a discriminator. Here its modulation transfer
    is $1 - 2 \sum_r t_r (1 - \cos \pi r u)$ along each axis, with the learned $t_r$ and the frequency $u$ in units of
    the band. A kernel of sum 1 cannot change the mean intensity. The extractor only serves UDEAN's other terms. An LR
    slab passes :meth:`decode` unchanged.

    Args:
        scale_factor: integer factors $(s, s, s_z)$, the slab axis last.
        slab_size: odd number of LR slices of a slab.
        num_features: width of the extractor.
        reach: number of $t_r$ along an axis.
        rate: how much faster than other parameters the kernel moves. The logarithm of the noise is ten times as fast.
        margin: see :class:`.DegradationNet`.
        seed: seed of the initialisation.

    Raises:
        ValueError: when the geometry is not valid.

    Example:
        >>> KernelDegradationNet(num_features=16)(torch.rand(1, 1, 16, 16, 10)).shape
        torch.Size([1, 1, 8, 8, 5])
    """

    def __init__(
        self,
        scale_factor: Sequence[int] = (2, 2, 2),
        slab_size: int = 3,
        num_features: int = 64,
        reach: int = 3,
        rate: float = 10.0,
        margin: int = 0,
        seed: int = 0,
    ) -> None:
        in_plane, through_plane = check_geometry(scale_factor, slab_size)
        super().__init__((in_plane, in_plane, through_plane), slab_size, skip=True, estimate=None, margin=margin)
        self.rate = rate
        self.taps = nn.Parameter(torch.zeros(2, reach))
        self.noise = nn.Parameter(torch.zeros(()))
        self.extractor = SlabEncoder(
            slab_size * self.through_plane, stride=in_plane, num_features=num_features, seed=seed
        )

    def encode(self, high_res: Tensor) -> Tensor:
        """HR slab to features of its central slices, see :meth:`.DegradationNet.encode`."""
        return self.extractor(central(high_res, self.slab_size * self.through_plane))

    def truncate(self, high_res: Tensor) -> Tensor:
        """The k-space truncation of an HR slab, ``(B, S, H, W)``, blurred by the kernels. Borders are replicated."""
        low_res = super().truncate(high_res)
        for dim, taps in zip((2, 3), self.rate * self.taps, strict=True):
            size, reach = low_res.shape[dim], len(taps)
            index = torch.arange(-reach, size + reach, device=low_res.device).clamp(0, size - 1)
            padded = low_res.index_select(dim, index)
            for distance, tap in enumerate(taps, start=1):
                neighbours = [padded.narrow(dim, reach + step, size) for step in (-distance, distance)]
                low_res = low_res + tap * (sum(neighbours) - 2 * padded.narrow(dim, reach, size))
        return low_res

    def add_noise(self, low_res: Tensor) -> Tensor:
        """The magnitude of the LR slab with complex noise."""
        level = START_NOISE * (NOISE_RATE * self.rate * self.noise).exp()
        noise = level * torch.randn((2, *low_res.shape), device=low_res.device)
        return torch.hypot(low_res + noise[0], noise[1])

    def decode(self, features: Tensor, low_res: Tensor) -> Tensor:
        """The LR slab as it is."""
        return low_res

    def degrade(self, high_res: Tensor) -> Tensor:
        """HR slab to LR slab, see :meth:`.SlabDegradation.degrade`. It needs no features."""
        return self.add_noise(self.truncate(high_res))

    def forward(self, x: Tensor) -> Tensor:
        """HR volume ``(B, 1, s * H, s * W, s_z * D)`` to LR volume ``(B, 1, H, W, D)``.

        Raises:
            ValueError: when the sizes of the volume are not multiples of the scale factor.
        """
        self.check_volume(x)
        return self.degrade(x[:, 0].movedim(-1, 1)).movedim(1, -1).unsqueeze(1)
