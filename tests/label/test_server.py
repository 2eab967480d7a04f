"""The bundle in MONAI Label: the stock server with the stock ``monaibundle`` app, and a viewer's requests.

``make test-label`` makes the environment. The results are in experiments/results/label.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import requests

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "experiments" / "results" / "label"
PAGE = REPOSITORY / "docs" / "applications.md"
PACKAGES = ("monailabel", "monai", "torch", "torchvision", "pydicom", "numpy", "itk", "nibabel")
NAME = "brain_mri_unpaired_super_resolution"
PORT = 8765
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": "",
    "OMP_NUM_THREADS": "1",
}
URL = f"http://127.0.0.1:{PORT}"
# an oblique scan of odd sizes, whose voxels differ along each axis
SHAPE = (37, 41, 33)
SPACING = (1.8, 2.0, 2.4)
ISOTROPIC_SHAPE = (37, 46, 44)  # of 1.8 mm, which covers the field of view
OBLIQUE = nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag(SPACING)


def brightness(world: np.ndarray) -> np.ndarray:
    """A smooth field over the world in mm, so that the value of a voxel depends on its position."""
    x, y, z = np.moveaxis(world, -1, 0) / 24
    return 900 * np.exp(-(x**2 + y**2 + z**2)) * (1 + 0.3 * x - 0.2 * y + 0.4 * z)


def world_of(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))


def write_scan(path: Path, shape: tuple[int, ...], matrix: np.ndarray, noise: float = 0.0) -> Path:
    """Write the field on a grid whose centre is the origin of the world."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = nib.affines.from_matvec(matrix, -matrix @ ((np.array(shape) - 1) / 2))
    values = brightness(world_of(shape, affine)) + noise * np.random.default_rng(len(path.name)).random(shape)
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return path


class Server(NamedTuple):
    """A running server with its files."""

    root: Path
    studies: Path
    bundle: Path
    log: Path

    @property
    def weights(self) -> str:
        return hashlib.sha256((self.bundle / "models" / "model.pt").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def record() -> Iterator[dict]:
    """The measurements of this run, written at its end."""
    figures: dict = {}
    yield figures
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    content = {"python": platform.python_version(), "versions": versions, "figures": figures}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "record.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    rows = [f"| {key} | {value} |" for key, value in figures.items()]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = ["| asked | answered |", "| --- | --- |", *rows, "", f"Python {platform.python_version()}, {listed}."]
    (RESULTS / "summary.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def command(words: str) -> str:
    """The page's block of commands that contains ``words``, with the test's own port."""
    text = PAGE.read_text(encoding="utf-8").split("## MONAI Deploy")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    (found,) = (block for block in blocks if words in block)
    return found.replace("8000", str(PORT))


def shell(words: str, cwd: Path, **names: str) -> str:
    """Run the page's commands and return their output."""
    text = command(words)
    for name, value in names.items():
        text = text.replace(name, value)
    run = subprocess.run(["bash", "-ec", text], cwd=cwd, env=ENVIRONMENT, capture_output=True, timeout=600)
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    return run.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """Run the page's commands beside copies of the bundle and of deploy/: fetch the app, install the bundle, start."""
    root = tmp_path_factory.mktemp("label")
    ignore = shutil.ignore_patterns("outputs", "__pycache__")
    for name in ("bundle", "deploy"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignore)
    shell("monailabel apps", root)
    shell("sed -i", root)
    studies = write_studies(root / "studies")
    log = root / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", command("monailabel start_server")],
            cwd=root, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(process, log)
        yield Server(root, studies, root / "apps" / "monaibundle" / "model" / NAME, log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def write_studies(folder: Path) -> Path:
    """LR scans, each with an HR scan as its label, and a scan to infer on."""
    for number in range(3):
        name = f"sub-{number}.nii.gz"
        write_scan(folder / name, (20, 44, 42), np.diag([2.0, 2.0, 2.0]), noise=20)
        write_scan(folder / "labels" / "final" / name, (40, 88, 84), np.diag([1.0, 1.0, 1.0]) * 0.99, noise=40)
    write_scan(folder / "oblique.nii.gz", SHAPE, OBLIQUE)
    return folder


def wait_for(process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-4000:]
        try:
            if requests.get(f"{URL}/info/", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(1)
    raise TimeoutError(log.read_text(encoding="utf-8", errors="replace")[-4000:])


def infer(output: Path, image: str) -> nib.Nifti1Image:
    """POST /infer for an image of the studies."""
    query = {"output": "image", "image": image}
    answer = requests.post(f"{URL}/infer/{NAME}", params=query, data={"params": "{}"}, timeout=600)
    assert answer.ok, answer.text
    output.write_bytes(answer.content)
    return nib.load(output)


def test_the_server_offers_the_bundle_to_infer_and_to_train(server, record):
    info = requests.get(f"{URL}/info/", timeout=30).json()
    version = json.loads((server.bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    assert info["models"][NAME]["version"] == info["trainers"][NAME]["version"] == version
    assert info["models"][NAME]["dimension"] == 3
    assert info["datastore"] == {"total": 4, "completed": 3, "label_tags": {"final": 3}}
    record["`GET /info/`"] = f"{NAME} {version}, to infer and to train"


@pytest.mark.parametrize("way", ["of the studies", "sent along"])
def test_an_oblique_scan_comes_back_with_isotropic_voxels_in_its_place(server, tmp_path, record, way):
    source = server.studies / "oblique.nii.gz"
    start = time.monotonic()
    if way == "of the studies":
        result = infer(tmp_path / "result.nii.gz", "oblique")
    else:
        shell("/infer/", server.root, **{"scan.nii.gz": "oblique.nii.gz"})
        result = nib.load(server.root / "result.nii.gz")
    seconds = time.monotonic() - start
    low_res = nib.load(source)
    assert result.shape == ISOTROPIC_SHAPE
    assert result.get_data_dtype() == np.float32
    assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(low_res.affine)
    np.testing.assert_allclose(np.linalg.norm(result.affine[:3, :3], axis=0), min(SPACING), atol=1e-4)
    expected = brightness(world_of(result.shape, result.affine))
    error = np.abs(result.get_fdata() - expected)[(slice(8, -8),) * 3].max() / expected.max()
    assert error < 0.02  # a voxel off would be 0.03
    record[f"`POST /infer/`, a scan {way}"] = (
        f"{' x '.join(map(str, SHAPE))} voxels became {' x '.join(map(str, result.shape))}, {result.get_data_dtype()}, "
        f"in {seconds:.1f} s"
    )
    record["affine"] = "; ".join(" ".join(f"{value:.4f}" for value in row) for row in result.affine[:3])
    record["largest error of a smooth phantom in world coordinates"] = f"{100 * error:.2f} % of its peak"


def test_it_is_what_the_command_line_gives(server, tmp_path, record):
    run = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "bundle/configs/inference.yaml"]
    source = server.studies / "oblique.nii.gz"
    options = ["--bundle_root", "bundle", "--dataset_dir", str(source), "--output_dir", str(tmp_path)]
    subprocess.run([*run, *options], cwd=REPOSITORY, env=ENVIRONMENT, check=True, capture_output=True, timeout=600)
    other = nib.load(tmp_path / "oblique_desc-sr.nii.gz")
    result = infer(tmp_path / "result.nii.gz", "oblique")
    np.testing.assert_allclose(result.affine, other.affine, atol=1e-4)
    difference = np.abs(result.get_fdata() - other.get_fdata()).max() / other.get_fdata().max()
    assert difference < 1e-3  # the server keeps another memory format, which rounds differently in bfloat16
    record["largest difference from the command line"] = f"{difference:.1g} of the peak"


def test_training_on_the_studies_shows_its_progress_and_is_served_at_once(server, tmp_path, record):
    before, image = server.weights, infer(tmp_path / "before.nii.gz", "oblique").get_fdata()
    start = time.monotonic()
    shell('max_epochs": 2', server.root)
    seen: list[str] = []
    status = "SUBMITTED"
    while status in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
        task = json.loads(shell('"http://127.0.0.1:8000/train/"', server.root))
        status = task["status"]
        seen += [line for line in task.get("details", []) if line not in seen]
        assert time.monotonic() - start < 600, seen
    assert status == "DONE", seen
    assert any("Training [2/2]: [3/3]" in line for line in seen), seen
    assert any("psnr_gain_slices_4_4" in line for line in seen), seen
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert "Restored all variables from" in log  # the pretrained weights
    assert server.weights != before
    after = infer(tmp_path / "after.nii.gz", "oblique").get_fdata()
    assert 0 < np.abs(after - image).max() < 0.2 * image.max()
    record["`POST /train/`"] = (
        f"two epochs of three iterations on two studies, validated on a third, in {time.monotonic() - start:.0f} s; "
        "progress and metrics in `GET /train/`; the next `/infer/` uses the trained weights"
    )
