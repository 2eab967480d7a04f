"""What is learned from the training set, one method per file."""

from __future__ import annotations

from .udean import UDEAN

__all__ = ["UDEAN"]
