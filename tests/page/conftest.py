"""A Chromium of the system, and pages of phantoms as files on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import head_phantom
from monai.data import MetaTensor
from playwright.sync_api import Page, sync_playwright
from scripts.physics.encoding import FrequencyEncoding
from scripts.physics.output import ACQUISITION, output_acquisition, record_of
from scripts.reports.pages import Row, write_index
from scripts.reports.scan import INPUT, INTERPOLATION, REFERENCE, RESULT, write_scan_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a GPU
SIZE = 40
OBLIQUE = np.array([[0.98, -0.17, 0.05, -21.0], [0.17, 0.98, -0.02, -18.0], [-0.05, 0.03, 1.0, -25.0], [0, 0, 0, 1]])


@pytest.fixture(scope="session")
def images() -> dict[str, MetaTensor]:
    """The images of one scan, all different, on an oblique grid."""
    encodings = [FrequencyEncoding(2.0)] * 3
    grid = output_acquisition(encodings, [SIZE // 2] * 3, 1.0)
    high_res = head_phantom(0, (SIZE,) * 3)[None]
    scan = grid.acquire(high_res)
    filled = grid.interpolate(scan)
    coarse = torch.from_numpy(OBLIQUE @ np.diag([2.0, 2.0, 2.0, 1.0]))
    fine = torch.from_numpy(OBLIQUE)
    return {
        INPUT: MetaTensor(scan, affine=coarse, meta={ACQUISITION: json.dumps(record_of(grid))}),
        INTERPOLATION: MetaTensor(filled, affine=fine),
        RESULT: MetaTensor(0.5 * (filled + high_res), affine=fine),
        REFERENCE: MetaTensor(high_res, affine=fine),
    }


@pytest.fixture(scope="session")
def folder(images, tmp_path_factory) -> Path:
    """A report of two scans, one with a warning and a detail."""
    folder = tmp_path_factory.mktemp("report #1")  # a name that an address must escape
    facts = {"assumed": "assumed: 2 x 2 x 2 mm (spacings); output 1 mm", "numbers": {}, "index": "index.html"}
    known, unknown = folder / "known.html", folder / "unknown scan.html"
    write_scan_page(known, images, {**facts, "name": "known", "warnings": [], "record": {"Version": 1}})
    centre = (OBLIQUE @ [SIZE / 2, SIZE / 2, SIZE / 2, 1])[:3].tolist()
    warned = {**facts, "name": "unknown", "warnings": ["Its spacing is <new>."], "record": {}}
    write_scan_page(unknown, images, warned, detail=centre)
    rows = [
        Row("known", known, {"result": "done"}),
        Row("unknown", unknown, {"result": "done"}, "Its spacing is <new>."),
    ]
    write_index(folder, "Scans", rows)
    return folder


@pytest.fixture(scope="session")
def browsers() -> Iterator[Callable]:
    if CHROMIUM is None:
        pytest.fail("expected Chromium on the PATH, found none. Install it: apt-get install chromium")
    with sync_playwright() as playwright:
        started = {}

        def browser(webgl: bool):
            if webgl not in started:
                arguments = [*QUIET, *(SOFTWARE if webgl else ["--disable-gpu", "--disable-3d-apis"])]
                started[webgl] = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
            return started[webgl]

        yield browser
        for one in started.values():
            one.close()


@pytest.fixture
def open_page(browsers) -> Iterator[Callable[..., Page]]:
    """Opens a file. The test fails if a page logs, raises, or asks for anything but files of its own folder."""
    faults, opened = [], []

    def open_file(path: Path, webgl: bool = True) -> Page:
        page = browsers(webgl).new_page(viewport={"width": 900, "height": 700})
        page.set_default_timeout(120_000)
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(path.parent.as_uri()) else faults.append(request.url),
        )
        opened.append(page)
        page.goto(path.as_uri())
        return page

    yield open_file
    for page in opened:
        page.close()
    assert faults == []


@pytest.fixture
def viewer(open_page, folder) -> Callable[[str], Page]:
    """Opens the page of a scan, and waits for its viewer."""

    def open_viewer(name: str = "known.html") -> Page:
        page = open_page(folder / name)
        page.wait_for_selector("body[data-ready=true]")
        return page

    return open_viewer
