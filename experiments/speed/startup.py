"""The time until the first window reaches the network, beside the imports of MONAI alone.

Usage: python -m experiments.speed.startup [REPEATS]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import ROOT
from experiments.bundle import BUNDLE, CONFIGS
from experiments.speed.common import machine, save, spread, table
from experiments.speed.workflows import write_scan

FIRST_WINDOW = """
import os
import sys
import time

sys.path.insert(0, {bundle!r})
from monai.bundle import run
from torch import nn

def leave(module, inputs):  # the first convolution is the network's first layer
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        os._exit(0)

nn.modules.module.register_module_forward_pre_hook(leave)
run(run_id="run", config_file={config!r}, bundle_root={bundle!r}, dataset_dir={scan!r}, output_dir={output!r})
"""


WITHOUT_MLFLOW = "import sys; sys.modules['mlflow'] = None"  # MONAI imports it where it is installed


def seconds(code: str) -> tuple[float, float]:
    """Wall time and processor time of a fresh interpreter that runs ``code``."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(repeats: int = 5) -> None:
    record: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        scan = write_scan(Path(folder) / "scan.nii.gz", (32, 64, 64))
        names = {
            "bundle": str(BUNDLE),
            "config": str(CONFIGS / "inference.yaml"),
            "scan": str(scan),
            "output": str(Path(folder) / "output"),
        }
        codes = {
            "import torch": "import torch",
            "import monai": "import monai",
            "import monai.bundle, monai.engines, monai.handlers, monai.inferers": (
                "import monai.bundle, monai.engines, monai.handlers, monai.inferers"
            ),
            "to the first window": FIRST_WINDOW.format(**names),
            "to the first window, without MLflow installed": WITHOUT_MLFLOW + FIRST_WINDOW.format(**names),
        }
        times: dict[str, list[tuple[float, float]]] = {title: [] for title in codes}
        for _ in range(repeats):
            for title, code in codes.items():
                times[title].append(seconds(code))
    record["seconds"] = {
        title: dict(zip(("wall", "processor"), map(spread, zip(*values, strict=True)), strict=True))
        for title, values in times.items()
    }
    rows = [
        [title, *(f"{value[kind]['median']:.1f} ({value[kind]['least']:.1f})" for kind in ("wall", "processor"))]
        for title, value in record["seconds"].items()
    ]
    header = ["a fresh process", "wall seconds, median (least)", "processor seconds, median (least)"]
    save("startup", record, table(header, rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
