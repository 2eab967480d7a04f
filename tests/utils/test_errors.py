from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import BUNDLE
from monai.bundle import ConfigParser
from monai.transforms import Compose
from scripts.transforms import CheckVolume
from scripts.utils.errors import explain

VOLUME = torch.zeros(1, 9, 9, 9)


def test_the_bundle_s_own_message_is_found_among_those_that_wrap_it():
    parser = ConfigParser({"run": "$@check(@volume)", "check": Compose([CheckVolume()]), "volume": VOLUME})
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("run")
    assert "Failed to evaluate" in str(caught.value)
    assert explain(caught.value) == "volume: expected an image, got the constant 0. Check how the file was written."


def test_of_foreign_errors_the_cause_is_told_with_its_remedy():
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except RuntimeError as cause:
            raise ValueError("something") from cause
    except ValueError as error:
        text = explain(error)
    assert text.startswith("RuntimeError: DataLoader worker (pid 7)")
    assert "fewer num_workers" in text


def test_an_error_without_a_text_has_its_name():
    assert explain(MemoryError()) == "MemoryError"


@pytest.mark.parametrize("debug", ["False", "True"])
def test_the_command_ends_with_the_message(tmp_path, debug, monkeypatch):
    monkeypatch.setenv("MONAI_DEBUG", debug)
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
    ended = subprocess.run(
        [*command, "--dataset_dir", tmp_path / "none"], cwd=BUNDLE, capture_output=True, encoding="utf-8", timeout=120
    )
    assert ended.returncode == 1
    assert ("Traceback" in ended.stderr) == (debug == "True")
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ERROR: {tmp_path / 'none'}: dataset_dir must be a scan or a folder of scans, got no such")
