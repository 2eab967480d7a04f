"""Inference: the SDK's operator for bundles, with a float32 volume and the findings of the run as its output."""

from __future__ import annotations

from typing import Any

import numpy as np
from findings import Findings
from monai.data import MetaTensor
from monai.deploy.core import Image
from monai.deploy.operators import MonaiBundleInferenceOperator

__all__ = ["SuperResolutionOperator"]


class SuperResolutionOperator(MonaiBundleInferenceOperator):
    """Run the bundle's preprocessing, inferer and postprocessing.

    The stock operator expects a segmentation. It would round the output to 8 bits and give it the input's metadata.
    """

    def predict(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict without the scan as it was acquired, which is for the postprocessing alone.

        The inferer reads from the metadata how the scan was acquired.
        """
        return super().predict(data)

    def _send_output(self, value: MetaTensor, name: str, metadata: dict, op_output: Any, context: Any) -> None:
        """Send float32 (slices, rows, columns) with the findings and the affine to NIfTI's world."""
        volume = np.asarray(value.as_tensor()[0].cpu(), dtype=np.float32)
        findings = Findings.of(value.meta, self.parser.get_parsed_content("data_consistency"))
        meta = {"affine": np.asarray(value.affine, dtype=float), "findings": findings}
        op_output.emit(Image(volume.transpose(2, 1, 0), meta), name)
