"""Discriminators: is an image, or a feature map, of the one group or of the other?"""

from __future__ import annotations

from torch import Tensor, nn

from .initialization import initialize

SLOPE = 0.2


class VGGDiscriminator(nn.Module):
    """The VGG discriminator of USR_DA and ESRGAN, with slices (or features) as channels and a linear output.

    Ten convolutions, of which every second halves the image; batch normalisation on all but the first. No sigmoid: the
    loss is least squares.

    Args:
        in_channels: slices of the slab, or number of features.
        feature_size: input size divided by 32: 4 for patches of 128, 2 for 64.
        num_features: width of the first layer, doubled up to eightfold.
        seed: seed of the initialisation.
    """

    def __init__(self, in_channels: int, feature_size: int, num_features: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.input_size = 32 * feature_size
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

    @staticmethod
    def _block(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, 32 * feature_size, 32 * feature_size)`` to ``(B, 1)``, unbounded.

        Raises:
            ValueError: when the patch has another size.
        """
        if x.shape[2] != self.input_size or x.shape[3] != self.input_size:
            raise ValueError(
                f"this discriminator takes patches of {self.input_size} x {self.input_size}, got {list(x.shape[2:])}; "
                "set feature_size to the patch size divided by 32."
            )
        return self.classifier(self.features(x))
