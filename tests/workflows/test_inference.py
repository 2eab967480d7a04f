"""The whole way of a scan: file in, file out, through the configs."""

from __future__ import annotations

import csv
import gc
import itertools
import json
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import BUNDLE
from dicom_series import write_dicom_series
from monai.bundle import ConfigWorkflow, verify_net_in_out
from monai.data import MetaTensor, ThreadDataLoader
from monai.inferers import SimpleInferer
from monai.transforms import Compose
from scripts.data.datasets import ScanDataset
from scripts.engines.scan_evaluator import ScanEvaluator
from scripts.utils.errors import full_message

SMALL = {"architecture::num_groups": 1, "architecture::num_blocks": 1, "load_pretrain": False, "amp_dtype": None}
SMALL |= {"inferer::inferer::progress": False, "report": False}
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.4) @ np.diag([1.8, 2.0, 2.4]), [-20.0, 15.0, 30.0]
)
TURNED = nib.affines.from_matvec(np.array([[0, 0, -2.2], [0, -1.9, 0], [2.0, 0, 0]]), [25.0, 10.0, -15.0])


def brightness(world):
    """A smooth field over the world in mm, so that any voxel's value tells whether its position is right."""
    x, y, z = np.moveaxis(world, -1, 0) / 24
    return 900 * np.exp(-(x**2 + y**2 + z**2)) * (1 + 0.3 * x - 0.2 * y + 0.4 * z)


def world_of(shape, affine):
    return nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))


def centred(affine, shape):
    """The affine whose volume has its middle at the origin of the world."""
    affine = affine.copy()
    affine[:3, 3] -= nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    return affine


def write_scan(path, shape=(37, 41, 33), affine=OBLIQUE):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = centred(affine, shape)
    nib.save(nib.Nifti1Image(brightness(world_of(shape, affine)).astype(np.float32), affine), path)
    return path


def run(dataset_dir, output_dir, trunk="inference.yaml", **overrides):
    settings = {
        "bundle_root": str(BUNDLE),
        "dataset_dir": dataset_dir and str(dataset_dir),
        "output_dir": str(output_dir),
    }
    files = [str(BUNDLE / "configs" / name) for name in (trunk, "networks/fixed_factor.yaml")]
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **settings, **{**SMALL, **overrides})
    workflow.initialize()
    return workflow.run()


def names(folder):
    """The files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def full_text(error):
    """The messages of an exception and of all that caused it: MONAI wraps, the traceback shows them all."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def assert_voxels_coincide(high_res, low_res, factors):
    """LR voxel l is HR voxel s * l, or s * l + s - 1 along an axis that the canonical frame flips."""
    to_high_res = np.linalg.inv(high_res) @ low_res
    np.testing.assert_allclose(to_high_res[:3, :3], np.diag(factors), atol=1e-4)
    assert all(min(abs(x), abs(x - (s - 1))) < 1e-3 for x, s in zip(to_high_res[:3, 3], factors, strict=True))


def assert_right_place(path, factors, source):
    """Every voxel away from the border holds the brightness of where its header says that it is."""
    result, source = nib.load(path), nib.load(source)
    assert result.shape == tuple(n * s for n, s in zip(source.shape, factors, strict=True))
    assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(source.affine)
    assert_voxels_coincide(result.affine, source.affine, factors)
    expected = brightness(world_of(result.shape, result.affine))
    inner = tuple(slice(8, -8) for _ in range(3))
    # the windowed sinc of the untrained network ripples by 1 %; a voxel off along one axis would be more than 3 %
    assert np.abs(result.get_fdata() - expected)[inner].max() < 0.015 * expected.max()


@pytest.mark.parametrize("affine", [OBLIQUE, TURNED], ids=["oblique", "turned"])
def test_the_result_lies_on_the_scan(tmp_path, affine):
    source = write_scan(tmp_path / "scan.nii.gz", affine=affine)
    run(source, tmp_path / "out")
    result = tmp_path / "out" / "scan_desc-sr.nii.gz"
    assert_right_place(result, (2, 2, 2), source)
    header = nib.load(result).header
    assert header.get_data_dtype() == np.float32
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-4)


@pytest.mark.parametrize(("affine", "factors"), [(OBLIQUE, (1, 2, 2)), (TURNED, (2, 2, 1))], ids=["oblique", "turned"])
def test_the_slab_axis_of_2x2x1_is_left_right_in_any_orientation(tmp_path, affine, factors):
    source = write_scan(tmp_path / "scan.nii.gz", affine=affine)
    run(source, tmp_path / "out", scale_factor=[2, 2, 1])
    assert_right_place(tmp_path / "out" / "scan_desc-sr.nii.gz", factors, source)


def test_three_orientations_and_data_consistency_keep_the_place(tmp_path):
    source = write_scan(tmp_path / "scan.nii.gz")
    run(source, tmp_path / "out", orientations=[[0, 1, 2], [1, 2, 0], [2, 0, 1]], data_consistency="hard")
    assert_right_place(tmp_path / "out" / "scan_desc-sr.nii.gz", (2, 2, 2), source)


def test_a_bids_dataset_becomes_a_derivative_with_sidecars(tmp_path):
    for subject in ("sub-01", "sub-02"):
        write_scan(tmp_path / "in" / subject / "anat" / f"{subject}_T1w.nii.gz", shape=(16, 18, 20))
    run(tmp_path / "in", tmp_path / "out")
    files = names(tmp_path / "out")
    stems = [f"{subject}/anat/{subject}_desc-sr_T1w" for subject in ("sub-01", "sub-02")]
    results = [f"{stem}{extension}" for stem in stems for extension in (".json", ".nii.gz")]
    assert files == [".bidsignore", "dataset_description.json", *results, "summary.csv"]
    sidecar = json.loads((tmp_path / "out" / f"{stems[0]}.json").read_text(encoding="utf-8"))
    assert sidecar["SourceSpacing"] == pytest.approx([1.8, 2.0, 2.4], abs=1e-4)
    assert sidecar["Spacing"] == pytest.approx([0.9, 1.0, 1.2], abs=1e-4)
    assert (
        sidecar["GeneratedBy"][0]["Version"]
        == json.loads((BUNDLE / "configs/metadata.json").read_text(encoding="utf-8"))["version"]
    )
    assert sidecar["Network"]["Class"] == "VolumetricNet"
    assert sidecar["ScaleFactor"] == [2, 2, 2]
    assert sidecar["WeightsSHA256"] is None
    assert "not for diagnosis" in sidecar["IntendedUse"]


def test_a_dicom_series_gives_a_nifti_in_its_place(tmp_path):
    values = np.random.default_rng(0).integers(100, 900, (12, 20, 16))
    write_dicom_series(tmp_path / "1.2.840", values)
    run(tmp_path / "1.2.840", tmp_path / "out")
    result = nib.load(tmp_path / "out" / "1.2.840_desc-sr.nii.gz")
    # the series starts at (10, -20, 5) mm in DICOM's LPS; NIfTI's world is RAS
    affine = nib.affines.from_matvec(np.diag([-1.5, -1.5, 2.0]), [-10.0, 20.0, 5.0])
    assert result.shape == (32, 40, 24)
    assert_voxels_coincide(result.affine, affine, (2, 2, 2))
    # x and y run against the canonical frame, where voxel l is voxel 2 * l
    np.testing.assert_allclose(result.get_fdata()[1::2, 1::2, ::2], values.transpose(2, 1, 0), atol=1e-2)


def run_plain_and_raised(folder):
    """Results of one scan in plain/, and in out/ by weights that add half of the intensity scale everywhere."""
    from scripts.networks import VolumetricNet

    network = VolumetricNet(num_features=32, num_groups=1, num_blocks=1)
    torch.nn.init.constant_(network.decoder[-1].bias, 0.5 / network.output_scale)
    torch.save(network.state_dict(), folder / "model.pt")
    source = write_scan(folder / "scan.nii.gz", shape=(16, 18, 20))
    run(source, folder / "plain", data_consistency=False)
    run(source, folder / "out", load_pretrain=True, ckpt_path=str(folder / "model.pt"), data_consistency=False)


def test_weights_are_loaded_and_recorded(tmp_path):
    run_plain_and_raised(tmp_path)
    plain, result = (nib.load(tmp_path / name / "scan_desc-sr.nii.gz").get_fdata() for name in ("plain", "out"))
    scale = (result - plain) / 0.5
    assert scale.std() < 1e-3 * scale.mean()
    assert len(json.loads((tmp_path / "out" / "scan_desc-sr.json").read_text(encoding="utf-8"))["WeightsSHA256"]) == 64


@pytest.mark.parametrize("folder", [BUNDLE.parent, BUNDLE], ids=["repository", "bundle"])
def test_the_command_works_from_the_repository_and_from_the_bundle(tmp_path, folder):
    source = write_scan(tmp_path / "scan.nii.gz", shape=(16, 18, 20))
    root = os.path.relpath(BUNDLE, folder)
    files = [f"{root}/configs/{name}.yaml" for name in ("inference", "networks/fixed_factor")]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    options = {"bundle_root": root, "dataset_dir": source, "output_dir": tmp_path / "out", **SMALL}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([*command, *arguments], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    assert_right_place(tmp_path / "out" / "scan_desc-sr.nii.gz", (2, 2, 2), source)


def save(path, values, affine=OBLIQUE):
    nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine), path)


def truncated(path):
    write_scan(path)
    path.write_bytes(path.read_bytes()[:2000])


def with_nan(path):
    values = np.random.default_rng(0).random((16, 16, 16))
    values[3, 3, 3] = np.nan
    save(path, values)


BAD = {
    "truncated": (truncated, "cannot be read"),
    "not_an_image": (lambda path: path.write_text("hello"), "export it again"),
    "slice": (lambda path: save(path, np.eye(16)), "3 spatial axes"),
    "series": (lambda path: save(path, np.random.default_rng(0).random((16, 16, 16, 4))), "one channel"),
    "nan": (with_nan, "finite voxels"),
    "constant": (lambda path: save(path, np.full((16, 16, 16), 7.0)), "the constant 7"),
    "tiny": (lambda path: save(path, np.random.default_rng(0).random((16, 16, 4))), "at least"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in_a_folder"])
def test_a_bad_scan_is_named_and_stops_no_other(tmp_path, name, alone):
    make, reason = BAD[name]
    folder = tmp_path / "in"
    write_scan(folder / "good.nii", shape=(16, 18, 20))
    make(folder / "bad.nii")
    with pytest.raises(RuntimeError) as error:
        run(folder / "bad.nii" if alone else folder, tmp_path / "out")
    text = full_message(error.value)
    rest = "1 scans failed; none was restored" if alone else f"2 scans failed; the others are in {tmp_path / 'out'}"
    assert text.startswith(f"1 of {rest}.\n- {folder / 'bad.nii'}: ")
    assert reason in text
    assert text.endswith("run the same command again: only what is missing is made.")
    good = [] if alone else ["good_desc-sr.json", "good_desc-sr.nii.gz"]
    assert names(tmp_path / "out") == [*good, "summary.csv"]
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["result"] for row in rows] == ["failed"] + ["done"] * (not alone)
    assert reason in rows[0]["remarks"]


def test_every_scan_that_a_person_would_count_is_in_the_summary(tmp_path, caplog):
    root = tmp_path / "in"
    write_scan(root / "sub-1/anat/sub-1_T1w.nii.gz", shape=(16, 18, 20))
    for name in ("sub-1/anat/sub-1_dseg.nii.gz", "derivatives/tool/scan.nii.gz", "dataset_description.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "sub-2/anat").mkdir(parents=True)
    (root / "sub-2/anat/sub-2_T1w.nii.gz").symlink_to("nowhere")
    caplog.set_level("INFO")
    with pytest.raises(RuntimeError) as error:
        run(root, tmp_path / "out")
    assert full_message(error.value).startswith(f"1 of 2 scans failed; the others are in {tmp_path / 'out'}")
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert {Path(row["scan"]).relative_to(root).as_posix(): row["result"] for row in rows} == {
        "derivatives": "left out",
        "sub-1/anat/sub-1_T1w.nii.gz": "done",
        "sub-1/anat/sub-1_dseg.nii.gz": "left out",
        "sub-2/anat/sub-2_T1w.nii.gz": "failed",
    }
    assert all(row["remarks"] in caplog.text for row in rows if row["result"] == "left out")
    assert "1 done, 0 kept, 1 failed, 2 left out" in caplog.text


@pytest.mark.parametrize("dataset_dir", [None, "missing", "empty"])
def test_nothing_to_do_is_an_error(tmp_path, dataset_dir):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError) as error:
        run(dataset_dir and tmp_path / dataset_dir, tmp_path / "out")
    assert {None: "--dataset_dir", "missing": "no such path", "empty": "found none"}[dataset_dir] in full_text(
        error.value
    )
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_no_partial_file(tmp_path, monkeypatch):
    source = write_scan(tmp_path / "scan.nii.gz", shape=(16, 18, 20))

    def interrupted(image, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert names(tmp_path / "out") == ["summary.csv"]


def evaluator_of(scans, postprocess, **options):
    """A :class:`ScanEvaluator` of tiny volumes, whose network adds one."""
    dataset = ScanDataset([{"image": scan} for scan in scans], lambda item: {"image": torch.zeros(1, 2, 2, 2)})
    loader = ThreadDataLoader(dataset, batch_size=1, buffer_size=1)
    return ScanEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=torch.nn.Identity(),
        inferer=SimpleInferer(),
        postprocessing=postprocess,
        **options,
    )


def recorded(item):
    item["pred"] = MetaTensor(item["pred"], meta={"record": {}})
    return item


@pytest.mark.parametrize("overlap", [True, False])
def test_a_scan_is_written_while_the_network_is_at_the_next_and_no_more_than_one(overlap):
    begun, written = [], []

    def write_slowly(item):
        time.sleep(0.2)
        written.append(len(begun))
        return recorded(item)

    evaluator = evaluator_of("abcd", write_slowly, overlap=overlap)
    evaluator.network.register_forward_hook(lambda *_: begun.append(len(written)))
    evaluator.run()
    # how many scans the network had begun when each was written, and how many were written when each was begun
    assert (written, begun) == (([2, 3, 4, 4], [0, 0, 1, 2]) if overlap else ([1, 2, 3, 4], [0, 1, 2, 3]))
    assert [outcome[:2] for outcome in evaluator.state.outcomes] == [(scan, "done") for scan in "abcd"]


def test_a_prediction_is_let_go_once_a_transform_has_made_another_of_it():
    """Volumes are large: nothing but the transform that takes one holds it."""
    first, held = [], []

    def replace(item):
        first.append(weakref.ref(item["pred"]))
        return {**item, "pred": item["pred"].clone()}

    def look(item):
        gc.collect()
        held.append(first[-1]() is not None)
        return item

    evaluator = evaluator_of("ab", Compose([replace, Compose([look, recorded])]), overlap=False)
    evaluator.run()
    assert held == [False, False]


def test_outcomes_stay_in_order_where_writing_fails():
    def write(item):
        if next(counter) == 1:
            raise OSError("no space left")
        return recorded(item)

    counter = itertools.count()
    evaluator = evaluator_of("abc", write)
    evaluator.run()
    assert [outcome.result for outcome in evaluator.state.outcomes] == ["done", "failed", "done"]
    assert "no space left" in evaluator.state.outcomes[1].remarks


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reading_thread_that_ends_early_is_noticed():
    evaluator = evaluator_of("abc", recorded)
    evaluator.data_loader.collate_fn = lambda items: 1 / 0
    with pytest.raises(RuntimeError, match=r"reading stopped"):
        evaluator.run()


def test_a_second_run_makes_only_what_is_missing(tmp_path):
    source, result = tmp_path / "in" / "a.nii", tmp_path / "out" / "a_desc-sr.nii.gz"
    write_scan(source, shape=(16, 18, 20))
    run(tmp_path / "in", tmp_path / "out")

    def remade(expected: list[str], **overrides) -> bool:
        before = result.stat().st_mtime_ns if result.exists() else None
        run(tmp_path / "in", tmp_path / "out", **overrides)
        rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()))
        assert [row["result"] for row in rows] == expected
        assert all(float(row["consistency_psnr"]) > 30 for row in rows)
        return result.stat().st_mtime_ns != before

    write_scan(tmp_path / "in" / "b.nii", shape=(16, 18, 20))
    assert not remade(["kept", "done"])
    assert remade(["done", "done"], data_consistency="hard")
    assert remade(["done", "done"])
    assert remade(["done", "done"], overwrite=True)
    result.unlink()
    assert remade(["done", "kept"])
    write_scan(source, shape=(18, 18, 20))
    assert remade(["done", "kept"])


def test_the_consistency_of_what_was_made_up_is_seen(tmp_path):
    """A constant added to the prediction is detail that nobody measured."""
    run_plain_and_raised(tmp_path)
    plain, spoilt = (
        json.loads((tmp_path / name / "scan_desc-sr.json").read_text(encoding="utf-8")) for name in ("plain", "out")
    )
    assert plain["ConsistencyPSNR"] > 32
    assert plain["Warnings"] == []
    assert spoilt["ConsistencyPSNR"] < 10
    assert "agrees with the scan only to" in spoilt["Warnings"][0]


def test_what_data_consistency_did_is_recorded(tmp_path):
    source = write_scan(tmp_path / "scan.nii.gz", shape=(16, 18, 20))
    run(source, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "scan_desc-sr.json").read_text(encoding="utf-8"))
    assert record["DataConsistency"] == "auto"
    assert record["DataConsistencyDone"].startswith("off: the scan should have at least 32 voxels along each axis")
    assert record["Warnings"][0] == f"Data consistency is {record['DataConsistencyDone']}"


def test_weights_of_another_scale_factor_are_refused(tmp_path):
    from scripts.networks import VolumetricNet

    network = VolumetricNet(scale_factor=(2, 2, 1), num_features=32, num_groups=1, num_blocks=1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    source = write_scan(tmp_path / "scan.nii.gz", shape=(16, 18, 20))
    with pytest.raises((RuntimeError, ValueError)) as error:
        run(source, tmp_path / "out", load_pretrain=True, ckpt_path=str(tmp_path / "model.pt"))
    assert "model.pt: expected the weights of a VolumetricNet" in full_text(error.value)
    assert "(expected [8, 32, 3, 3, 3], got [4, 32, 3, 3, 3])" in full_text(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trunk", ["inference.yaml", "evaluate.yaml"])
def test_the_configs_have_every_property_of_the_bundle_specification(trunk):
    file = str(BUNDLE / "configs" / trunk)
    workflow = ConfigWorkflow(file, workflow_type="infer", logging_file=False, bundle_root=str(BUNDLE), **SMALL)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_evaluation_writes_table_and_pictures(tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / "in" / "test" / f"sub-0{number}_T1w.nii.gz", shape=(34, 38, 30), affine=TURNED / 2)
    run(tmp_path / "in", tmp_path / "out", "evaluate.yaml")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "sub-01_T1w_comparison.png",
        "sub-02_T1w_comparison.png",
        "subjects.csv",
        "summary.md",
    ]
    assert (
        len((tmp_path / "out" / "subjects.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 5
    )  # subjects, methods
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "| super-resolution |" in summary
    assert "- subjects: 2" in summary


def test_paired_volumes_of_different_grids_are_refused(tmp_path):
    pair = {
        "image": str(write_scan(tmp_path / "low.nii.gz", shape=(16, 18, 20))),
        "label": str(write_scan(tmp_path / "high.nii.gz", shape=(32, 36, 38), affine=OBLIQUE / 2)),
    }
    write_scan(tmp_path / "s.nii", shape=(16, 16, 16))
    write_scan(tmp_path / "t.nii", shape=(16, 16, 16))
    datalist = {"training": [{"reals": "s.nii"}, {"image": "t.nii"}], "test": [pair]}
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    with pytest.raises((RuntimeError, ValueError)) as error:
        run(tmp_path / "datalist.json", tmp_path / "out", "evaluate.yaml", paired=True)
    assert "high.nii.gz: expected a reference of" in full_text(error.value)
    assert not (tmp_path / "out").exists()


def test_the_network_fits_its_description_in_the_metadata(monkeypatch):
    monkeypatch.chdir(BUNDLE.parent)
    settings = {"meta_file": "bundle/configs/metadata.json", "config_file": "bundle/configs/inference.yaml"}
    verify_net_in_out("network_def", device="cpu", **settings)
