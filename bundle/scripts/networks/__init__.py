"""Networks: ours, those of the compared papers, and baselines without learning. Only configs instantiate them.

* Ours, on crops of the output grid: :class:`FoldedNet` for any acquisition, and for fixed factors its twins
  :class:`FoldedDegradationNet` and :class:`FoldedTranslationNet`. :class:`VolumetricNet` holds older weights.
* UDEAN's: :class:`SuperResolutionNet`, :class:`DegradationNet`, :class:`VGGDiscriminator` and :class:`ProjectionHead`,
  with 2-D convolutions on thin slabs. Beside them :class:`KernelDegradationNet` and :class:`SpectrumDiscriminator`.
* Other methods': :class:`TranslationNet` and :class:`CleanedSuperResolutionNet` (Pseudo-SR),
  :class:`FrequencySeparatedDiscriminator` (DASR), :class:`LinearDegradation` (KernelGAN), and
  :class:`PatchProjectionHead` (CUT).
* Without learning: :class:`Tricubic`, :class:`ZeroFilling` and :class:`LinearInverse`.
"""

from __future__ import annotations

from .baselines import LinearInverse, Tricubic, ZeroFilling
from .degradation import DegradationNet
from .discriminators import FrequencySeparatedDiscriminator, SpectrumDiscriminator, VGGDiscriminator
from .downsampling import CubicDownsampling, LinearDegradation
from .export import export_network
from .folded import FoldedNet
from .folded_degradation import FoldedDegradationNet, FoldedTranslationNet, InterpolatedDownsampling
from .kernel_degradation import KernelDegradationNet
from .projection import PatchProjectionHead, ProjectionHead
from .super_resolution import SuperResolutionNet
from .translation import CleanedSuperResolutionNet, TranslatedDegradation, TranslationNet
from .volumetric import VolumetricNet

__all__ = [
    "CleanedSuperResolutionNet",
    "CubicDownsampling",
    "DegradationNet",
    "FoldedDegradationNet",
    "FoldedNet",
    "FoldedTranslationNet",
    "FrequencySeparatedDiscriminator",
    "InterpolatedDownsampling",
    "KernelDegradationNet",
    "LinearDegradation",
    "LinearInverse",
    "PatchProjectionHead",
    "ProjectionHead",
    "SpectrumDiscriminator",
    "SuperResolutionNet",
    "TranslatedDegradation",
    "TranslationNet",
    "Tricubic",
    "VGGDiscriminator",
    "VolumetricNet",
    "ZeroFilling",
    "export_network",
]
