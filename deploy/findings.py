"""What a run found out about a scan and its result, for the log, the sidecar and the DICOM series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Findings"]


@dataclass(frozen=True)
class Findings:
    """The remarks of an inference, the same that its command line reports.

    Attributes:
        warnings: about the scan or its result, such as a scan unlike those of the training.
        consistency_psnr: agreement of the truncated prediction with the scan in dB.
        mode: the mode of data consistency that the bundle sets.
        data_consistency: what data consistency did, or why it stayed off.
        assumed: how the scan was acquired, and the output grid.
    """

    warnings: tuple[str, ...] = ()
    consistency_psnr: float | None = None
    mode: str = "off"
    data_consistency: str = "off"
    assumed: str = ""

    @classmethod
    def of(cls, meta: Mapping[str, Any], mode: str | bool) -> Findings:
        """Read the metadata of a prediction.

        Args:
            meta: as the bundle's postprocessing leaves them.
            mode: ``data_consistency`` of the bundle's config. YAML reads ``off`` as false.

        Example:
            >>> Findings.of({"warnings": "It was probably clipped."}, mode=False).sentences()
            ['Data consistency off: off.', 'Warning: It was probably clipped.']
        """
        mode = {False: "off", True: "hard"}.get(mode, mode)
        warnings = tuple(str(meta.get("warnings", "")).splitlines())
        done, assumed = str(meta.get("data_consistency", "off")), str(meta.get("assumed", ""))
        return cls(warnings, meta.get("consistency_psnr"), str(mode), done, assumed)

    def sidecar(self) -> dict[str, Any]:
        """The entries of a JSON sidecar, named as in the sidecars of the command line."""
        entries = {"Warnings": list(self.warnings), "DataConsistency": self.mode, "Assumed": self.assumed}
        if self.consistency_psnr is not None:
            entries["ConsistencyPSNR"] = self.consistency_psnr
        return {**entries, "DataConsistencyDone": self.data_consistency}

    def measures(self) -> list[str]:
        """Sentences about data consistency and agreement."""
        found = [f"Data consistency {self.mode}: {self.data_consistency.rstrip('.')}."]
        if self.consistency_psnr is not None:
            found.append(f"Agreement with the scan: {self.consistency_psnr:.1f} dB.")
        return found

    def sentences(self) -> list[str]:
        """All of it, a sentence or paragraph each."""
        about = [f"{self.assumed[:1].upper()}{self.assumed[1:]}."] if self.assumed else []
        return [*about, *self.measures(), *(f"Warning: {text}" for text in self.warnings)]
