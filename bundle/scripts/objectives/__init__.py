"""Objectives: what a method learns from the training set. One module per method."""

from __future__ import annotations

from .adversarial_degradation import AdversarialDegradation
from .blind_sr import BlindSR
from .cyclegan import CycleGAN
from .dasr import DASR, DASRDegradation
from .distillation import Distillation
from .error_scale import ErrorScale
from .pseudo_sr import PseudoSR
from .restoration import Restoration
from .supervised import Supervised
from .udean import UDEAN

__all__ = [
    "DASR",
    "UDEAN",
    "AdversarialDegradation",
    "BlindSR",
    "CycleGAN",
    "DASRDegradation",
    "Distillation",
    "ErrorScale",
    "PseudoSR",
    "Restoration",
    "Supervised",
]
