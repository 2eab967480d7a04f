"""Inferers: how a volume becomes a prediction, given a network from volumes to volumes."""

from __future__ import annotations

from .slab import SlabInferer
from .zssr import ZSSRInferer

__all__ = ["SlabInferer", "ZSSRInferer"]
