"""ITK: it loads its modules without changing the working directory of the process."""

from __future__ import annotations

import subprocess
import sys

from conftest import BUNDLE

WATCH = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from scripts.utils.itk import import_itk
seen, done = {os.getcwd()}, threading.Event()
def watch():
    while not done.wait(0.0002):
        seen.add(os.getcwd())
watching = threading.Thread(target=watch)
watching.start()
itk = import_itk()
itk.MetaImageIO.New()
itk.Image[itk.F, 3].New()
done.set()
watching.join()
assert seen == {os.getcwd()}, seen
"""


def test_other_threads_keep_their_working_directory_while_itk_loads(tmp_path):
    command = [sys.executable, "-c", WATCH, str(BUNDLE.resolve())]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
