"""The environment of MONAI Label, completed for a torch that is built for the CPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _importable_torchvision():
    """torchvision comes built for CUDA; see torchvision_on_cpu.py."""
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode:
        packages = Path(sysconfig.get_path("purelib"))
        shutil.copy(Path(__file__).with_name("torchvision_on_cpu.py"), packages)
        (packages / "torchvision_on_cpu.pth").write_text("import torchvision_on_cpu\n", encoding="utf-8")
