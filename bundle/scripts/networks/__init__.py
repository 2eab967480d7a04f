"""The papers' networks. Only the configs instantiate them; no other module of the bundle imports this package."""

from __future__ import annotations

from .baselines import Tricubic, ZeroFilling
from .degradation import DegradationNet
from .discriminators import VGGDiscriminator
from .projection import ProjectionHead
from .super_resolution import SuperResolutionNet

__all__ = ["DegradationNet", "ProjectionHead", "SuperResolutionNet", "Tricubic", "VGGDiscriminator", "ZeroFilling"]
