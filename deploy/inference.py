"""Inference: the SDK's operator for bundles, with a volume of real numbers as its output."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.deploy.core import Image
from monai.deploy.operators import MonaiBundleInferenceOperator

__all__ = ["SuperResolutionOperator"]


class SuperResolutionOperator(MonaiBundleInferenceOperator):
    """Runs the bundle's preprocessing, inferer and postprocessing.

    The stock operator rounds what it sends to 8 bits, for it expects a segmentation, and gives it the input's metadata.
    """

    def _send_output(self, value: MetaTensor, name: str, metadata: dict, op_output: Any, context: Any) -> None:
        """Send (slices, rows, columns) in float32 with the affine of voxel (column, row, slice) to NIfTI's world."""
        volume = np.asarray(value.as_tensor()[0].cpu(), dtype=np.float32)
        op_output.emit(Image(volume.transpose(2, 1, 0), {"affine": np.asarray(value.affine, dtype=float)}), name)
