"""Run the MONAI Deploy application: ``python deploy --input DICOM --output OUT --model bundle``."""

from __future__ import annotations

from app import SuperResolutionApp

if __name__ == "__main__":
    SuperResolutionApp().run()
