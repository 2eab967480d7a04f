"""The networks of the papers and ours. Only configs instantiate them; no other package of the bundle imports them."""

from __future__ import annotations

from .baselines import LinearInverse, Tricubic, ZeroFilling
from .degradation import DegradationNet
from .discriminators import FrequencySeparatedDiscriminator, VGGDiscriminator
from .downsampling import CubicDownsampling, LinearDegradation
from .projection import PatchProjectionHead, ProjectionHead
from .super_resolution import SuperResolutionNet
from .translation import CleanedSuperResolutionNet, TranslatedDegradation, TranslationNet
from .volumetric import VolumetricDegradationNet, VolumetricNet

__all__ = [
    "CleanedSuperResolutionNet",
    "CubicDownsampling",
    "DegradationNet",
    "FrequencySeparatedDiscriminator",
    "LinearDegradation",
    "LinearInverse",
    "PatchProjectionHead",
    "ProjectionHead",
    "SuperResolutionNet",
    "TranslatedDegradation",
    "TranslationNet",
    "Tricubic",
    "VGGDiscriminator",
    "VolumetricDegradationNet",
    "VolumetricNet",
    "ZeroFilling",
]
