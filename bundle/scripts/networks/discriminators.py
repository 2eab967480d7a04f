"""Discriminators: to which of two groups an image or a feature map belongs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.layers import get_norm_layer
from torch import Tensor, nn

from .initialization import initialize, rescale

SLOPE = 0.2
FLOOR = 1e-6  # power; that of noise of 0.001, where bright tissue is 1
POWER_SCALE = 0.1  # brings the logarithms of power about to [-1, 1]


def _normalisation(norm: str | Sequence | None, channels: int) -> list[nn.Module]:
    return [] if norm is None else [get_norm_layer(norm, spatial_dims=2, channels=channels)]


class VGGDiscriminator(nn.Module):
    """The VGG discriminator of USR_DA and ESRGAN, with slices or features as channels and a linear output.

    It has ten convolutions. Every second one halves the image. A normalisation follows all but the first. There is no
    sigmoid, because the loss is least squares.

    The papers take batch normalisation, whose last layer sees ``feature_size ** 2`` values per image and channel. Where
    these are few, its statistics hide the difference between the groups. Group normalisation works image by image and
    needs no large batch.

    Args:
        in_channels: slices of the slab, or number of features.
        feature_size: input size divided by 32, such as 2 for patches of 64.
        num_features: width of the first layer, doubled up to eightfold.
        norm: a normalisation as in MONAI's networks, by name or by name and arguments: ``"batch"``, ``"instance"``,
            ``("group", {"num_groups": 4})``. None for none.
        seed: seed of the initialisation.

    Example:
        >>> VGGDiscriminator(in_channels=3, feature_size=1, num_features=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        in_channels: int,
        feature_size: int,
        num_features: int = 64,
        norm: str | Sequence | None = "batch",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.input_size = 32 * feature_size
        self.norm = norm
        widths = [num_features * factor for factor in (1, 2, 4, 8, 8)]
        first = nn.Conv2d(in_channels, num_features, 3, padding=1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(SLOPE, inplace=True)]
        previous = num_features
        for index, width in enumerate(widths):
            if index > 0:
                layers += self._block(previous, width, stride=1)
            layers += self._block(width, width, stride=2)
            previous = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(previous * feature_size**2, 100),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(100, 1),
        )
        initialize(self, seed, negative_slope=SLOPE)

    def _block(self, in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=self.norm is None)
        return [convolution, *_normalisation(self.norm, out_channels), nn.LeakyReLU(SLOPE, inplace=True)]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, 32 * feature_size, 32 * feature_size)`` to ``(B, 1)``, unbounded.

        Raises:
            ValueError: when the patch has another size.
        """
        if x.shape[2] != self.input_size or x.shape[3] != self.input_size:
            raise ValueError(
                f"this discriminator takes patches of {self.input_size} x {self.input_size}, got {list(x.shape[2:])}. "
                "Set feature_size to the patch size divided by 32."
            )
        return self.classifier(self.features(x))


class SpectrumDiscriminator(nn.Module):
    """A discriminator that only sees the power spectrum of a patch, so that anatomy cannot distract it.

    The patch is windowed (Hann), and the logarithm of its power is averaged over slices and over bins of frequencies. A
    small perceptron follows.

    Args:
        in_channels: slices of the slab; any number passes.
        num_features: an eighth of the width of the hidden layers.
        num_bins: along each half-axis of frequencies.
        seed: seed of the initialisation.

    Example:
        >>> SpectrumDiscriminator(in_channels=3, num_features=4)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1])
    """

    def __init__(self, in_channels: int, num_features: int = 64, num_bins: int = 8, seed: int = 0) -> None:
        super().__init__()
        self.num_bins = num_bins
        sizes = [2 * num_bins**2, 8 * num_features, 8 * num_features, 1]
        layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.LeakyReLU(SLOPE))]
        self.layers = nn.Sequential(*layers[:-1])
        initialize(self, seed, negative_slope=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` to ``(B, 1)``, unbounded."""
        rows, columns = (torch.hann_window(size, periodic=False, device=x.device) for size in x.shape[2:])
        spectrum = torch.fft.rfft2(x.float() * rows[:, None] * columns, norm="ortho")
        power = torch.fft.fftshift((spectrum.abs().square() + FLOOR).log().mean(1), dim=1)
        bins = F.adaptive_avg_pool2d(power, (2 * self.num_bins, self.num_bins))
        return self.layers(POWER_SCALE * bins.flatten(1))


def haar_details(x: Tensor) -> Tensor:
    """The three detail bands of the 2-D Haar wavelet: ``(B, C, H, W)`` to ``(B, 3 * C, H / 2, W / 2)``, sizes even.

    Example:
        >>> float(haar_details(torch.ones(1, 1, 4, 4)).abs().max())  # a constant has no details
        0.0
    """
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


class FrequencySeparatedDiscriminator(nn.Module):
    """DASR's discriminator (https://arxiv.org/abs/2004.01178, after FSSR) of high frequencies, patch by patch.

    Three 5 x 5 convolutions without stride and a 1 x 1 convolution see the details of the Haar wavelet. Each output
    therefore judges 26 x 26 pixels. The outputs are log-odds, and the loss takes their sigmoid. The paper's instance
    normalisation hides how strong the details of an image are.

    Args:
        in_channels: slices of the slab.
        num_features: width of the first layer, doubled twice.
        norm: see :class:`VGGDiscriminator`.
        seed: seed of the initialisation.

    Example:
        >>> FrequencySeparatedDiscriminator(3, num_features=4)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 1, 16, 16])
    """

    receptive_field = 13  # pixels of the details that an output sees

    def __init__(
        self, in_channels: int, num_features: int = 64, norm: str | Sequence | None = "instance", seed: int = 0
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3 * in_channels, num_features, 5, padding=2), nn.LeakyReLU(SLOPE)]
        for width in (num_features, 2 * num_features):
            layers += [
                nn.Conv2d(width, 2 * width, 5, padding=2, bias=norm is None),
                *_normalisation(norm, 2 * width),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * num_features, 1, 1))
        initialize(self, seed, negative_slope=SLOPE)
        rescale(self.layers[-1], gain=1.0, negative_slope=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` to log-odds ``(B, 1, H / 2, W / 2)``."""
        return self.layers(haar_details(x))

    def domain_distance(self, x: Tensor) -> Tensor:
        """How real each pixel looks, ``(B, in_channels, H, W)`` to ``(B, 1, H, W)`` in [0, 1].

        This is the mean probability over all patches that contain the pixel. The paper calls the map a domain distance,
        although it is large where an image is close to the real group.
        """
        probability = torch.sigmoid(self(x).float())
        size = self.receptive_field
        mean = F.avg_pool2d(probability, size, stride=1, padding=size // 2, count_include_pad=False)
        return F.interpolate(mean, scale_factor=2.0, mode="nearest")
