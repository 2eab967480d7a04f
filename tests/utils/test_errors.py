from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import BUNDLE
from monai.bundle import ConfigParser
from monai.transforms import Compose
from scripts.transforms import CheckVolume
from scripts.utils.errors import explain, one_line

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


FULL = (
    "SaveImageDerivatived cannot find a suitable writer for /out/a_desc-sr.nii.gz.\n    " + "Writer " * 400 + "\n"
    "Traceback (most recent call last):\n  File \"/x/array.py\", line 1, in write\n    raise OSError(28)\n"
    "OSError: [Errno 28] No space left on device\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    "Traceback (most recent call last):\n  File \"/x/saving.py\", line 2, in write\n    raise OSError(\n"
    "OSError: /out/a_desc-sr.nii.gz: expected to write this file, but could not ([Errno 28] No space left on device; "
    "0.0 MiB free). Check the space.\n"
)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "start", "end"),
    [
        (RuntimeError(FULL), "/out/a_desc-sr.nii.gz: expected to write this file", "Finished results are kept."),
        (RuntimeError("Caught ValueError.\nOriginal Traceback (most recent call last):\n  File x\nValueError: no\nb\n"),
         "ValueError: no b", "no b"),
        (RuntimeError("before. Traceback (most recent call last): nothing more"), "RuntimeError: before.", "before."),
        (OSError(36, "File name too long", 250 * "n" + ".nii.gz"), "OSError: [Errno 36] File name", "result's adds 8."),
        (ValueError("line\n\tand line " * 300), "ValueError: line and line line", "and line"),
    ],
)  # fmt: skip
def test_a_remark_is_one_short_line_without_a_traceback(error, start, end):
    text = explain(error)
    assert text.startswith(start)
    assert text.endswith(end)
    assert len(text) <= 300
    assert "\n" not in text
    assert "Traceback" not in text


def test_a_short_text_is_kept_and_a_long_one_loses_its_middle():
    assert one_line(" a\r\n b ") == "a b"
    assert one_line(300 * "a") == 300 * "a"
    text = one_line(200 * "a" + 101 * "b")
    assert len(text) == 300
    assert (text[0], text[-1], " … " in text) == ("a", "b", True)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError('M\\udcfcller')"])
def test_the_command_ends_with_130_after_ctrl_c_and_prints_names_that_are_no_utf_8(error):
    program = f"from scripts.utils.errors import explain_last\nexplain_last()\nprint('\\udcfc')\nraise {error}"
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE), "PYTHONUTF8": "1"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=120)
    assert ended.returncode == (130 if error == "KeyboardInterrupt" else 1)
    assert ended.stdout == b"\\udcfc\n"
    last = ended.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("Interrupted." if error == "KeyboardInterrupt" else "ERROR: RuntimeError: M\\udcfcller")
    assert (b"Traceback" in ended.stderr) == (error != "KeyboardInterrupt")
