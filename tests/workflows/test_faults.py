"""Faults: killed processes, full disks and damaged files, by real signals and real files."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import BUNDLE, TINY_TRAINING, head_phantom, write_scan
from hypothesis import given
from hypothesis import strategies as st
from reliability_checks import Chain, refusal, tally

SCAN_SHAPE = (16, 18, 20)


def command(run: str, config: str, **options) -> list[str]:
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [
        *(sys.executable, "-m", "monai.bundle", "run", run),
        *("--config_file", str(BUNDLE / "configs" / config), "--bundle_root", str(BUNDLE)),
        *arguments,
    ]


def training(dataset: Path, output_dir: Path, **options) -> list[str]:
    small = {**TINY_TRAINING, "max_iterations": 8, "iterations_per_epoch": 2, "device": "cpu"}
    return command("training", "train.yaml", dataset_dir=dataset, output_dir=output_dir, **{**small, **options})


def inference(dataset: Path, output_dir: Path, **options) -> list[str]:
    small = {"architecture::num_groups": 1, "architecture::num_blocks": 1, "load_pretrain": False, "report": False}
    return command("run", "inference.yaml", dataset_dir=dataset, output_dir=output_dir, **{**small, **options})


def run(arguments: list[str], **settings) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings = {"capture_output": True, "encoding": "utf-8", "timeout": 600, **settings}
    return subprocess.run(arguments, env=environment, **settings)


def killed_when(arguments: list[str], reached, wait: float = 0.0) -> None:
    """Start a command, and kill it without warning once something is reached, and a while later."""
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(ended: subprocess.CompletedProcess) -> str:
    return ended.stderr.strip().splitlines()[-1]


def differences(a: Path, b: Path) -> list[str]:
    """The networks' parameters that two trainings left different, bit for bit."""
    states = [torch.load(folder / "model.pt", weights_only=True) for folder in (a, b)]
    return [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]


def folder_of_scans(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        write_scan(folder / f"sub-{number:02d}_T1w.nii.gz", head_phantom(number, SCAN_SHAPE), (2.0, 2.0, 2.0))
    return folder


# Training


@pytest.fixture(scope="module")
def uninterrupted(phantom_dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(training(phantom_dataset(), folder)).returncode == 0
    return folder


KILLS = [pytest.param(kill, marks=() if kill == 1 else pytest.mark.slow) for kill in range(1, 5)]


@pytest.mark.parametrize("kill", KILLS)
def test_a_training_that_is_killed_resumes_as_if_nothing_had_happened(phantom_dataset, uninterrupted, tmp_path, kill):
    checkpoints = tmp_path / "checkpoints"
    epoch = 1 + kill % 3
    killed_when(
        training(phantom_dataset(), tmp_path),
        lambda: any(checkpoints.glob(f"checkpoint_epoch={epoch}.pt")),
        wait=random.Random(kill).uniform(0, 0.6),
    )
    ended = run(training(phantom_dataset(), tmp_path, resume="latest"))
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert differences(tmp_path, uninterrupted) == []
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt"]
    tally("training", "kill -9, resumed bit-equal", "recovered")


@pytest.mark.slow
def test_the_number_of_workers_and_a_second_run_change_nothing(phantom_dataset, uninterrupted, tmp_path):
    for workers in (0, 1, 3):
        output_dir = tmp_path / str(workers)
        options = {"train#dataloader#num_workers": workers}
        assert run(training(phantom_dataset(), output_dir, **options)).returncode == 0
        assert differences(output_dir, uninterrupted) == []
        tally("training", f"bit-equal with {workers} workers", "right")


@pytest.mark.slow
def test_a_killed_worker_ends_the_training_with_what_to_do(phantom_dataset, uninterrupted, tmp_path):
    def workers(parent: int) -> list[int]:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split()
        return [int(child) for child in children if b"monai.bundle" in Path(f"/proc/{child}/cmdline").read_bytes()]

    options = {"train#dataloader#num_workers": 2}
    process = subprocess.Popen(
        training(phantom_dataset(), tmp_path, **options, max_iterations=2000, iterations_per_epoch=2),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    while not any((tmp_path / "checkpoints").glob("checkpoint_epoch=*.pt")):
        time.sleep(0.05)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Use fewer num_workers" in stderr.strip().splitlines()[-1]
    tally("training", "a worker killed", "refused")


@pytest.mark.slow
def test_a_full_disk_ends_the_training_with_the_checkpoint_before_it_intact(phantom_dataset, uninterrupted, tmp_path):
    """Files cannot grow beyond a size that the first checkpoint, made by another run, already has."""
    assert run(training(phantom_dataset(), tmp_path, **{"train#trainer#max_epochs": 1})).returncode == 0
    (tmp_path / "model.pt").unlink()
    kept = (tmp_path / "checkpoints" / "checkpoint_epoch=1.pt").read_bytes()
    limit = len(kept) // 2
    ended = run(
        training(phantom_dataset(), tmp_path, resume="latest"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == 1
    assert "epoch=2.pt: expected to write this file, but could not" in last_line(ended)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint_epoch=1.pt"]
    assert (tmp_path / "checkpoints" / "checkpoint_epoch=1.pt").read_bytes() == kept
    assert not (tmp_path / "model.pt").exists()
    tally("training", "disk full while a checkpoint is written", "refused")
    assert run(training(phantom_dataset(), tmp_path, resume="latest")).returncode == 0
    assert differences(tmp_path, uninterrupted) == []
    tally("training", "resumed after a full disk, bit-equal", "recovered")


# Inference


@pytest.mark.parametrize("kill", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 4))])
def test_an_inference_that_is_killed_is_completed_by_a_second_run(tmp_path, kill):
    scans, out = folder_of_scans(tmp_path / "in", 4), tmp_path / "out"
    killed_when(inference(scans, out), lambda: any(out.glob("[!.]*.nii.gz")), wait=random.Random(kill).uniform(0, 0.4))
    whole = {path.name for path in out.glob("[!.]*.nii.gz")}
    for name in whole:
        nib.load(out / name).get_fdata()  # complete
    ended = run(inference(scans, out))
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = list(csv.DictReader((out / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 4
    assert {row["result"] for row in rows} <= {"kept", "done"}
    assert sum(row["result"] == "kept" for row in rows) >= len(whole) - 1  # the last one may lack its sidecar
    assert not [path for path in out.iterdir() if path.name.startswith(".unfinished")]
    tally("inference", "kill -9, completed by a second run", "recovered")


@pytest.mark.slow
def test_a_full_disk_fails_the_scans_that_do_not_fit_and_no_other(tmp_path):
    scans, out = folder_of_scans(tmp_path / "in", 2), tmp_path / "out"
    write_scan(scans / "large.nii.gz", head_phantom(9, (40, 40, 40)), (2.0, 2.0, 2.0))
    limit = 250_000
    ended = run(inference(scans, out), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert ended.returncode == 1
    assert "1 of 3 scans failed" in ended.stderr
    assert "large.nii.gz" in ended.stderr.split("1 of 3 scans failed")[1]
    assert [len(row["remarks"]) <= 300 and "Traceback" not in row["remarks"] for row in summary(out)] == [True] * 3
    assert sorted(path.name for path in out.glob("*.nii.gz")) == [f"sub-0{n}_desc-sr_T1w.nii.gz" for n in (0, 1)]
    tally("inference", "disk full while a result is written", "refused")


def summary(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "summary.csv").read_text(encoding="utf-8").splitlines()))


def test_ctrl_c_leaves_a_summary_of_every_scan_and_the_status_130(tmp_path):
    scans, out = folder_of_scans(tmp_path / "in", 12), tmp_path / "out"
    arguments = inference(scans, out)
    process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, encoding="utf-8")  # fmt: skip
    while not any(out.glob("[!.]*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr[-2000:]
    assert stderr.strip().splitlines()[-1].startswith("Interrupted.")
    assert "Traceback" not in stderr
    rows = summary(out)
    assert len(rows) == 12
    made = {path.name.replace("_desc-sr", "") for path in out.glob("[!.]*_desc-sr_T1w.nii.gz")}
    assert {Path(row["scan"]).name for row in rows if row["result"] == "done"} == made
    assert all(row["result"] == "done" or row["remarks"].startswith("interrupted") for row in rows)
    tally("inference", "Ctrl-C, with a summary", "recovered")


def test_a_summary_comes_whatever_the_names_of_the_scans(tmp_path):
    """A name that is no UTF-8, as of an old Windows share, and names as long as the file system allows."""
    scans, out = folder_of_scans(tmp_path / "in", 1), tmp_path / "out"
    content = next(scans.iterdir()).read_bytes()
    longest = "n" * 248 + ".nii.gz"
    (scans / longest).write_bytes(content)
    (scans / ("m" * 240 + ".nii.gz")).write_bytes(content)
    (Path(os.fsdecode(bytes(scans) + b"/M\xfcller.nii.gz"))).write_bytes(content)
    ended = run(inference(scans, out), errors="backslashreplace")
    rows = {Path(row["scan"]).name: row for row in summary(out)}
    assert ended.returncode == 1
    assert len(rows) == 4
    assert {name for name, row in rows.items() if row["result"] == "failed"} == {longest}
    assert rows["M\\udcfcller.nii.gz"]["result"] == "done"
    assert b"M\xfcller_desc-sr.nii.gz" in os.listdir(bytes(out))
    assert rows[longest]["remarks"].endswith(
        "Give the scan a shorter name. A name has at most 255 bytes, and the result's adds 8."
    )
    assert all(len(row["remarks"]) <= 300 and "\n" not in row["remarks"] for row in rows.values())
    tally("inference", "undecodable and longest names, with a summary", "right")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_iterations": 50, "iterations_per_epoch": 100},
            "Set --iterations_per_epoch 50, or more --max_iterations.",
        ),
        ({"scale_factor": 2}, 'got 2. Set --scale_factor "[2, 2, 2]".'),
    ],
)
def test_a_training_with_a_wrong_number_says_which_one_to_set(tmp_path, options, message):
    ended = run(training(tmp_path / "never read", tmp_path / "out", **options))
    assert ended.returncode == 1
    assert last_line(ended).endswith(message)
    assert not (tmp_path / "out").exists()
    tally("training", "a wrong number", "refused")


# Damaged files


@pytest.fixture(scope="module")
def tricubic(tmp_path_factory) -> Chain:
    return Chain(tmp_path_factory.mktemp("tricubic"), "baselines/tricubic.yaml")


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    values = np.random.default_rng(0).integers(0, 999, (9, 10, 8)).astype(np.int16)
    contents = {}
    for name in ("scan.nii", "scan.nii.gz"):
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.5, 1.0])), folder / name)
        contents[name] = (folder / name).read_bytes()
    return contents


@given(name=st.sampled_from(["scan.nii", "scan.nii.gz"]), share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tricubic, intact, tmp_path_factory, name, share):
    path = tmp_path_factory.getbasetemp() / name
    content = intact[name]
    path.write_bytes(content[: int(share * len(content))])
    began = time.monotonic()
    with pytest.raises((RuntimeError, ValueError)) as error:
        tricubic(path)
    refusal(error.value, path)
    assert time.monotonic() - began < 5
    tally("damaged files", "truncated", "refused")


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Modifying image pixdim", "ignore::UserWarning")
@given(
    name=st.sampled_from(["scan.nii", "scan.nii", "scan.nii.gz"]),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_is_refused_or_what_the_header_then_says(tricubic, intact, tmp_path_factory, name, where, bit):
    """NIfTI has no checksum: what is not refused has to follow the header as nibabel reads it. gzip has one."""
    path = tmp_path_factory.getbasetemp() / name
    content = bytearray(intact[name])
    size = 352 if name == "scan.nii" else len(content)  # the header is where a bit does most
    content[int(where * size)] ^= 1 << bit
    path.write_bytes(content)
    began = time.monotonic()
    try:
        result, _ = tricubic(path)
    except (RuntimeError, ValueError) as error:
        refusal(error, path)
        tally("damaged files", "a flipped bit", "refused")
    else:
        image = nib.load(path)
        if name == "scan.nii.gz":
            assert gzip.decompress(content) == gzip.decompress(intact[name])
        sizes = nib.affines.voxel_sizes(image.affine) * {1: 1000, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1)
        np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine) * 2, sizes, rtol=1e-3)
        assert result.shape == tuple(2 * n for n in image.shape[:3])
        tally("damaged files", "a flipped bit", "harmless")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("count", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_damaged_weights_are_never_used(tmp_path, count):
    from scripts.handlers.weights import read_checkpoint
    from scripts.networks import SuperResolutionNet

    torch.save(SuperResolutionNet(num_groups=1, num_blocks=1).state_dict(), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    expected = torch.load(tmp_path / "model.pt", weights_only=True)
    draw = random.Random(count)
    for _ in range(count):
        damaged = bytearray(content)
        if draw.random() < 0.5:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            damaged = damaged[: draw.randrange(len(damaged))]
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            state = read_checkpoint(tmp_path / "damaged.pt")
        except ValueError as error:
            refusal(error, tmp_path / "damaged.pt")
            tally("damaged files", "weights", "refused")
        else:
            assert all(torch.equal(state[name], value) for name, value in expected.items())
            tally("damaged files", "weights", "harmless")


# Security


@pytest.mark.parametrize("subject", ["../../evil", "/etc/evil", "a/b", "..", ""])
def test_a_subject_that_is_a_path_is_refused(tmp_path, subject):
    from scripts.data.datalist import unpaired_datalist

    for name in ("s.nii", "t.nii"):
        (tmp_path / name).touch()
    items = [{"reals": "s.nii", "subject": subject}, {"image": "t.nii"}]
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    with pytest.raises(ValueError, match=r"list\.json: a subject must be a plain name, got .* Rename it"):
        unpaired_datalist(tmp_path / "list.json")
    tally("security", "a subject that is a path", "refused")


def test_results_stay_below_the_output_folder(tmp_path):
    """A scan behind links, upward paths and unusual names."""
    from scripts.data.listing import inference_datalist
    from scripts.transforms.naming import DerivativeLayout

    outside = folder_of_scans(tmp_path / "outside", 1)
    root = tmp_path / "in"
    root.mkdir()
    (root / "link.nii.gz").symlink_to(next(outside.iterdir()))
    (root / "..hidden..name.nii.gz").symlink_to(next(outside.iterdir()))
    (root / "folder").symlink_to(outside)
    for dataset_dir in (root, root / ".." / "in"):
        layout = DerivativeLayout(tmp_path / "out", dataset_dir)
        for item in inference_datalist(dataset_dir):
            assert tmp_path / "out" in Path(os.path.normpath(layout.filename(item["image"]))).parents
    assert tmp_path / "out" == layout.filename("/somewhere/else/../../etc/passwd.nii").parent
    tally("security", "paths outside", "right")
