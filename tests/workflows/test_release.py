"""The release archive, and what the model zoo checks: unpacked anywhere, with nothing of the repository beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from zipfile import ZipFile

import monai.bundle.scripts
import nibabel as nib
import pytest
import yaml
from conftest import BUNDLE, REPOSITORY, head_phantom, write_scan
from monai.bundle import push_to_hf_hub
from packaging.requirements import Requirement

from deploy.release import pack

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

SCHEMA = Path(__file__).with_name("metadata_schema.json")
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
NAME = METADATA["name"]
ZOO_SIZE_LIMIT = 25e6  # bytes; larger files need large_files.yml


def python(*arguments: str | Path, cwd: Path, home: Path) -> str:
    """Run Python where it finds neither the repository nor a bundle but those that MONAI downloaded to ``home``."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"TORCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return pack(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def home(tmp_path_factory, archive) -> Path:
    """Where MONAI's own command downloaded the archive to."""
    folder = tmp_path_factory.mktemp("home")
    python("-m", "monai.bundle", "download", "--name", NAME, "--url", archive.as_uri(), cwd=folder, home=folder)
    return folder


@pytest.fixture(scope="module")
def unpacked(home) -> Path:
    return home / "hub" / "bundle" / NAME


# What is in it


def test_the_archive_is_named_after_the_bundle_and_holds_one_folder_of_that_name(archive):
    names = ZipFile(archive).namelist()
    assert archive.name == f"{NAME}.zip"
    assert {name.split("/")[0] for name in names} == {NAME}
    for needed in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert f"{NAME}/{needed}" in names


def test_each_config_is_in_it_as_yaml_and_as_json(unpacked):
    configs = sorted((unpacked / "configs").rglob("*.yaml"))
    assert len(configs) == len(list((BUNDLE / "configs").rglob("*.yaml")))
    for path in configs:
        assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == yaml.safe_load(
            path.read_text(encoding="utf-8")
        )


def test_equal_contents_give_equal_bytes_and_runs_leave_nothing_in_it(archive, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    for left_behind in ("outputs/model.pt", "scripts/__pycache__/data.pyc", "models/.hidden"):
        (copy / left_behind).parent.mkdir(parents=True, exist_ok=True)
        (copy / left_behind).write_text("not to be released")
    assert pack(tmp_path / "dist", copy).read_bytes() == archive.read_bytes()


# What the model zoo checks


def test_the_zoo_s_minimal_checks(unpacked):
    metadata = json.loads((unpacked / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert "Apache License" in (unpacked / "LICENSE").read_text(encoding="utf-8")
    assert metadata["version"] in metadata["changelog"]
    assert all(path.stat().st_size < ZOO_SIZE_LIMIT for path in unpacked.rglob("*") if path.is_file())
    code = [path.read_text(encoding="utf-8") for path in unpacked.rglob("*.py")]
    assert max(len(line) for text in code for line in text.splitlines()) <= 120
    assert (unpacked / "docs" / "data_license.txt").is_file()


def test_the_model_card_has_the_sections_of_the_zoo_s_template_and_its_picture(unpacked):
    card = (unpacked / "docs" / "README.md").read_text(encoding="utf-8")
    template = [
        "Authors",
        "Tags",
        "Model Description",
        "Data",
        "Preprocessing",
        "Performance",
        "Additional Usage Steps",
    ]
    template += ["System Configuration", "Limitations", "Citation Info", "References"]
    sections = re.findall(r"^#+ \*\*(.*?)\*\*$", card, re.M)
    assert [section for section in sections if section in template] == template
    assert "not for diagnosis" in card
    assert (unpacked / "docs" / "comparison.png").is_file()


def test_the_metadata_name_the_versions_that_the_project_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {r.name: r for r in map(Requirement, project["dependencies"])}
    named = {**METADATA["required_packages_version"], "monai": METADATA["monai_version"]}
    named["torch"] = METADATA["pytorch_version"]
    assert named.keys() == required.keys()
    assert {name: version for name, version in named.items() if version not in required[name].specifier} == {}
    assert f"torch=={METADATA['pytorch_version']}" in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")


CHECKS = """
import os, sys, tempfile
import numpy, onnx, onnx.reference, torch
from monai.bundle import ckpt_export, create_workflow, onnx_export, verify_metadata, verify_net_in_out

config, meta, weights, schema, root = sys.argv[1:]
place = {"bundle_root": root} if root else {}
stack = {"config_file": config, "meta_file": meta}
verify_metadata(meta_file=meta, filepath=schema)
verify_net_in_out(net_id="network_def", device="cpu", **stack, **place)
assert create_workflow(config_file=config, workflow_type="inference", **place).check_properties() == []

with tempfile.TemporaryDirectory() as folder:
    export = {"net_id": "network_def", "ckpt_file": weights, **stack, **place}
    ckpt_export(filepath=f"{folder}/model.ts", **export)
    onnx_export(filepath=f"{folder}/model.onnx", input_shape=[1, 1, 32, 32, 3], **export)
    scripted = torch.jit.load(f"{folder}/model.ts")
    graph = onnx.load(f"{folder}/model.onnx")
onnx.checker.check_model(graph)
image = torch.rand(1, 1, 32, 32, 3)
pred = scripted(image).detach().numpy()
assert pred.shape == image.shape
(by_onnx,) = onnx.reference.ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: image.numpy()})
numpy.testing.assert_allclose(by_onnx, pred, atol=1e-5)
print(sys.modules["scripts"].__file__)
"""


@pytest.mark.parametrize("place", ["repository", "bundle", pytest.param("archive", marks=pytest.mark.slow), "zoo"])
def test_the_zoo_s_full_checks_and_the_exports_pass(place, unpacked, home, tmp_path):
    pytest.importorskip("onnxscript", reason="pip install --editable '.[dev]'")
    cwd, below, form = {
        "repository": (REPOSITORY, "bundle/", "yaml"),
        "bundle": (BUNDLE, "", "yaml"),
        "archive": (unpacked, "", "json"),
        "zoo": (unpacked.parent, f"{NAME}/", "json"),
    }[place]
    files = [f"{below}{name}" for name in (f"configs/inference.{form}", "configs/metadata.json", "models/model.pt")]
    (tmp_path / "checks.py").write_text(CHECKS)
    root = below.rstrip("/") if place == "zoo" else ""  # the zoo says where the bundle is
    out = python(tmp_path / "checks.py", *files, SCHEMA, root, cwd=cwd, home=tmp_path)
    assert Path(cwd, out.splitlines()[-1]).resolve().is_relative_to(unpacked if form == "json" else BUNDLE)


# What users do with it


USE = """
import sys
from pathlib import Path
from monai.bundle import create_workflow, load, run_workflow

name, scan, output = sys.argv[1:]
network = load(name, progress=False)                       # configs/train.json
network = load(name, workflow_type="inference", progress=False)
root = Path(sys.modules["scripts"].__file__).parents[1]
assert root.parts[-3:] == ("hub", "bundle", name), root
print(type(network).__name__, sum(p.numel() for p in network.parameters()))

config = {"config_file": str(root / "configs" / "inference.json"), "workflow_type": "inference", "logging_file": False}
data = {"dataset_dir": scan, "device": "$torch.device('cpu')"}
workflow = create_workflow(**config, **data, output_dir=f"{output}/created")
workflow.run()
workflow.finalize()
run_workflow(workflow_name="ConfigWorkflow", **config, **data, output_dir=f"{output}/run")
"""


def test_load_create_workflow_and_run_workflow_need_nothing_but_the_name(home, tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", head_phantom(0, (16, 34, 32)), (2.0, 2.0, 2.0))
    (tmp_path / "use.py").write_text(USE)
    out = python(tmp_path / "use.py", NAME, scan, tmp_path / "out", cwd=tmp_path, home=home)
    assert "FoldedNet" in out
    results = [nib.load(tmp_path / "out" / name / "scan_desc-sr.nii.gz") for name in ("created", "run")]
    assert [result.shape for result in results] == [(32, 68, 64)] * 2
    assert (results[0].get_fdata() == results[1].get_fdata()).all()


def test_the_command_needs_no_bundle_root_wherever_the_bundle_lies(home, archive, tmp_path):
    ZipFile(archive).extractall(tmp_path / "elsewhere")
    scan = write_scan(tmp_path / "scan.nii.gz", head_phantom(0, (16, 34, 32)), (2.0, 2.0, 2.0))
    config = tmp_path / "elsewhere" / NAME / "configs" / "inference.yaml"
    options = ["--dataset_dir", scan, "--output_dir", tmp_path / "out"]
    python("-m", "monai.bundle", "run", "--config_file", config, *options, cwd=tmp_path, home=tmp_path / "none")
    assert nib.load(tmp_path / "out" / "scan_desc-sr.nii.gz").shape == (32, 68, 64)


def test_push_to_hf_hub_uploads_the_bundle_with_its_model_card(archive, tmp_path, monkeypatch):
    """Against a stub of the hub's interface: no upload without a network."""
    calls = []

    class HfApi:
        def __init__(self, token):
            calls.append(("token", token))

        def create_repo(self, **arguments):
            calls.append(("create_repo", arguments))

        def upload_folder(self, repo_id, folder_path):
            card = Path(folder_path, "README.md").read_text(encoding="utf-8")
            calls.append(("upload_folder", repo_id, card))
            return f"hub/{repo_id}"

        def create_tag(self, **arguments):
            calls.append(("create_tag", arguments["tag"]))

    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", types.SimpleNamespace(HfApi=HfApi))
    ZipFile(archive).extractall(tmp_path)
    url = push_to_hf_hub(repo=f"user/{NAME}", name=NAME, bundle_dir=str(tmp_path), version=METADATA["version"])
    assert url == f"hub/user/{NAME}"
    card = next(call for call in calls if call[0] == "upload_folder")[2]
    assert card.startswith("---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n")
    assert "# Brain MRI super-resolution without pairs" in card
    assert ("create_tag", METADATA["version"]) in calls
