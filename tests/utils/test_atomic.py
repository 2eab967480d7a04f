"""Writing: a file is complete or it is the one that was there before."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

import pytest
import torch
from conftest import BUNDLE
from scripts.utils import atomic
from scripts.utils.atomic import usable_folder, writable_folder, write_atomically, write_text_atomically


@pytest.fixture
def full_disk():
    """Files cannot grow beyond 64 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_and_its_folder_are_made(tmp_path):
    write_text_atomically(tmp_path / "new" / "a.txt", "ä")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "ä"


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(
        OSError, match=r"out: expected a folder for the results, but .* is a file. Set another --output_dir"
    ):
        usable_folder(tmp_path / "out")


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, monkeypatch):
    def fail(**_):
        raise PermissionError("read-only")

    assert not writable_folder(tmp_path / "new" / "out").exists()
    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(
        OSError, match=r"out: expected a folder that can be written to, but could not write \(read-only"
    ):
        writable_folder(tmp_path / "out")


def test_the_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text_atomically(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_what_was_there(tmp_path, error):
    (tmp_path / "a.txt").write_text("before")

    def interrupted(path):
        path.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "a.txt", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize(
    "write", [lambda path: torch.save(torch.zeros(10**5), path), lambda path: path.write_bytes(bytes(10**5))]
)
def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path, full_disk, write):
    (tmp_path / "a.pt").write_text("before")
    with pytest.raises(OSError, match=r"a\.pt: expected to write .* MiB free\)\. .* is unchanged\. Check the space"):
        write_atomically(tmp_path / "a.pt", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert (tmp_path / "a.pt").read_text(encoding="utf-8") == "before"


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="expected to write this file, but could not"):
        write_text_atomically(tmp_path / "file" / "a.txt", "a")


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    code = (
        "import os, signal; from scripts.utils.atomic import write_atomically\n"
        "def write(path):\n    path.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_atomically({str(tmp_path / 'a.txt')!r}, write)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=BUNDLE, check=False)
    assert [path.name[:12] for path in tmp_path.iterdir()] == [".unfinished_"]
    running = f".unfinished_{atomic.HOST}_{os.getppid()}_a.txt"
    on_another_host = ".unfinished_01234567_1_a.txt"
    for name in (running, on_another_host):
        (tmp_path / name).touch()
    write_text_atomically(tmp_path / "a.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {running, on_another_host, "a.txt"}


@pytest.mark.parametrize("length", [200, 227, 255])
def test_a_name_may_have_every_length_that_the_file_system_allows(tmp_path, length):
    path = tmp_path / ("n" * (length - 7) + ".nii.gz")
    seen = []
    write_atomically(path, lambda unfinished: (seen.append(unfinished.name), unfinished.write_text("whole")))
    assert path.read_text() == "whole"
    assert seen[0].endswith(".nii.gz")
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_no_utf_8_is_written_and_its_bytes_in_a_text_become_escapes(tmp_path):
    name = os.fsdecode(b"M\xfcller.csv")
    write_text_atomically(tmp_path / name, name)
    assert os.listdir(bytes(tmp_path)) == [b"M\xfcller.csv"]
    assert (tmp_path / name).read_text(encoding="utf-8") == "M\\udcfcller.csv"
