"""The commands of docs/commands.md, word for word, on phantoms and at a tiny budget."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, head_phantom, write_scan
from dicom_series import write_dicom_series

PAGE = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS = {
    title: [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}
TINY = "--max_iterations 2 --iterations_per_epoch 2 --train::warmup_iterations 1 --batch_size 2"
TINY += " --architecture::discriminator_features 4 --val_interval 2 --last_axes [2]"
ONE_MORE = TINY.replace("--max_iterations 2", "--max_iterations 4")  # to continue from the two
MADE = {  # by each section, among others
    "Any scan, isotropic": [
        "isotropic/one_desc-sr.nii.gz",
        "isotropic/inner/two_desc-sr.nii.gz",
        "corrected/slices_desc-sr.nii.gz",
        "interpolated/slices_desc-sr.nii.gz",
    ],
    "Any DICOM series, isotropic": ["from_dicom/my_series_desc-sr.nii.gz"],
    "Inspect my data": ["mine/inspection/report.md", "mine/inspection/spectra.png"],
    "Train on my two folders, and continue": ["mine/model.pt", "mine/best_model.pt", "lines/model.pt"],
    "Train from nothing, in two stages": ["first_stage/model.pt", "second_stage/model.pt"],
    "Train on HR scans alone, for any acquisition": ["any/model.pt", "any/model.json", "any/distilled.pt"],
    "Fine-tune the shipped weights": ["tuned/model.pt"],
    "Adapt the shipped weights to my scanner": [
        "adapted/degradation/report.md",
        "adapted/super_resolved/one_desc-sr.nii.gz",
    ],
    "Average, or take weights of your own": ["averaged/inner/two_desc-sr.nii.gz"],
    "Evaluate": [
        "evaluation/summary.md",
        "evaluation/sub-09_T1w_comparison.png",
        "slices/summary.md",
        "noisy/summary.md",
    ],
    "Compare methods": ["cyclegan/evaluation/summary.md", "zssr/summary.md"],
    "Thin slabs, as in the papers": ["slabs/evaluation/summary.md"],
    "2x2x1": ["two_two_one/super_resolved/one_desc-sr.nii.gz"],
    "Several GPUs": ["two_gpus/model.pt"],
    "Export": ["model.pt2", "model.ts", "model.onnx"],
    "Watch a training": ["tracked/mlruns.db", "tracked/model.pt"],
}
ELSEWHERE = {"Several GPUs", "Watch a training"}  # tested on every run too, by test_distributed and test_tracking
NEEDS = {"onnx_export": "onnxscript", "trt_export": "torch_tensorrt", "--tracking mlflow": "mlflow"}
# several commands in one process, to import PyTorch once
DRIVER = """
import json, runpy, subprocess, sys
for command in json.loads(sys.argv[1]):
    if command[0] == "torchrun":
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", *command[1:]], check=True)
        continue
    assert command[:3] == ["python", "-m", "monai.bundle"], command
    sys.argv = ["monai.bundle", *command[3:]]
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        assert not exit.code, command
"""


def at_a_tiny_budget(line: str) -> list[str]:
    if " run training " in line:
        line += f" {ONE_MORE if '--resume' in line else TINY}"
        crop = "[16,16,16]" if "methods/any_acquisition" in line else "[64,64,14]"  # the phantoms are small
        line += " --patch_size [32,32]" if "networks/slabs" in line else f" --crop_size {crop}"
    if "baselines/zssr.yaml" in line:
        line += " --inferer#num_iterations 1"
    return shlex.split(line.replace("[1,1,64,64,32]", "[1,1,32,32,4]"))


@pytest.fixture
def workplace(tmp_path, phantom_dataset) -> Path:
    """A folder with the bundle and all that the page speaks of."""
    (tmp_path / "bundle").symlink_to(REPOSITORY / "bundle")
    (tmp_path / "outputs").mkdir()
    shutil.copytree(phantom_dataset(), tmp_path / "my_data")
    shutil.copytree(phantom_dataset((2, 2, 1)), tmp_path / "my_thick_data")
    write_scan(tmp_path / "my_data/test/sub-09_T1w.nii.gz", head_phantom(9), (1.0, 1.0, 1.0))
    for name in ("my_scans/one.nii.gz", "my_scans/inner/two.nii", "my_thick_scans/one.nii.gz"):
        write_scan(tmp_path / name, head_phantom(0, (16, 34, 32)), (2.0, 2.0, 2.0))
    for number in (1, 2):
        write_scan(tmp_path / "my_hr_scans" / f"{number}.nii.gz", head_phantom(number, (24, 34, 32)), (1.0, 1.0, 1.0))
    write_scan(tmp_path / "my_slices" / "slices.nii.gz", head_phantom(0, (30, 34, 8)), (1.0, 1.0, 5.0))
    write_dicom_series(tmp_path / "my_series", np.random.default_rng(0).integers(100, 900, (20, 32, 24)))
    return tmp_path


def test_the_page_has_a_line_for_every_task():
    assert list(SECTIONS) == list(MADE)
    assert all(SECTIONS.values())


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=pytest.mark.slow) if title in ELSEWHERE else title for title in SECTIONS]
)
def test_the_commands_of_the_page_work(title, workplace):
    missing = {word for word, package in NEEDS.items() if importlib.util.find_spec(package) is None}
    lines = [line for line in SECTIONS[title] if not any(word in line for word in missing)]
    if not lines:
        pytest.skip(f"needs {NEEDS}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", DRIVER, json.dumps([at_a_tiny_budget(line) for line in lines])]
    result = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    expected = [name for name in MADE[title] if not (name.endswith(".onnx") and "onnx_export" in missing)]
    assert [name for name in expected if not (workplace / "outputs" / name).is_file()] == []
    if title == "Fine-tune the shipped weights":
        tuned, shipped = (
            torch.load(path, weights_only=True)
            for path in (workplace / "outputs/tuned/model.pt", REPOSITORY / "bundle/models/model.pt")
        )
        assert all((tuned[name] - value).abs().max() < 0.01 for name, value in shipped.items())
