"""The tutorial runs from its first cell to its last one, as a newcomer opens it."""

from __future__ import annotations

import nbformat
from conftest import REPOSITORY
from nbclient import NotebookClient

CELL_SECONDS = 900  # a busy machine is slow


def test_the_tutorial_runs(tmp_path, monkeypatch):
    for name in ("bundle", "example"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "docs").mkdir()
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(REPOSITORY / "docs" / "tutorial.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path / "docs")}}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=place)
    client.execute()
    pictures = [one for cell in notebook.cells for one in cell.get("outputs", []) if "image/png" in one.get("data", {})]
    assert len(pictures) == 4
    assert (tmp_path / "outputs/tutorial/isotropic/report/index.html").is_file()
    assert (tmp_path / "outputs/tutorial/adapted/model.pt").is_file()
