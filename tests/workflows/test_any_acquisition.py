"""A scan of any acquisition, through the whole of inference: file in, file out, in its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import BUNDLE
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from scripts.physics.encoding import FrequencyEncoding, SliceSelection
from scripts.physics.kspace import zero_fill
from scripts.transforms import Acquire
from scripts.utils.errors import full_message

# without weights the network returns the interpolation
UNTRAINED = {"load_pretrain": False, "amp_dtype": None, "architecture::num_groups": 1, "architecture::num_blocks": 1}
UNTRAINED |= {"inferer::inferer::progress": False, "report": False}
FOURFOLD = {  # spacing in mm, shape, and the text of the sidecar
    "2x2x2": ((2.0, 2.0, 2.0), (24, 26, 22), None),
    "2x2x1": ((2.0, 2.0, 1.0), (24, 20, 40), None),
    "1x1x5": ((1.0, 1.0, 5.0), (40, 44, 9), {"MRAcquisitionType": "2D", "SliceThickness": 4.0}),
    "1.3": ((1.3, 1.3, 1.3), (28, 30, 26), None),
}


def run(dataset_dir, output_dir, *overlays: str, trunk: str = "inference.yaml", **overrides) -> None:
    settings = {
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(dataset_dir),
        "output_dir": str(output_dir),
        **UNTRAINED,
        **overrides,
    }
    files = [str(BUNDLE / "configs" / name) for name in (trunk, *overlays)]
    run_id = "run" if trunk == "inference.yaml" else "evaluating"
    workflow = ConfigWorkflow(files, workflow_type="infer", run_id=run_id, logging_file=False, **settings)
    workflow.initialize()
    workflow.run()


def oblique(seed: int, spacing: Sequence[float]) -> np.ndarray:
    """A random rotation and permutation of the axes, with a spacing, and a random origin."""
    rng = np.random.default_rng(seed)
    turn = nib.eulerangles.euler2mat(*rng.uniform(-0.4, 0.4, 3))
    order = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    return nib.affines.from_matvec(turn @ order @ np.diag(spacing), rng.uniform(-50, 50, 3))


def write(path: Path, values: np.ndarray, affine: np.ndarray, sidecar: dict | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), affine), path)
    if sidecar is not None:
        path.with_name(path.name.removesuffix(".nii.gz") + ".json").write_text(json.dumps(sidecar), encoding="utf-8")
    return path


def noisy(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 900, shape)


def record(output_dir: Path, name: str = "scan") -> dict:
    return json.loads((output_dir / f"{name}_desc-sr.json").read_text(encoding="utf-8"))


def test_a_folder_of_four_acquisitions_gives_four_isotropic_volumes(tmp_path):
    for seed, (name, (spacing, shape, sidecar)) in enumerate(FOURFOLD.items()):
        write(tmp_path / "in" / f"{name}.nii.gz", noisy(shape), oblique(seed, spacing), sidecar)
    run(tmp_path / "in", tmp_path / "out")
    rows = csv.DictReader((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines())
    assumed = {Path(row["scan"]).name.removesuffix(".nii.gz"): row["assumed"] for row in rows}
    for name, (spacing, shape, _) in FOURFOLD.items():
        result = nib.load(tmp_path / "out" / f"{name}_desc-sr.nii.gz")
        scan = nib.load(tmp_path / "in" / f"{name}.nii.gz")
        np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine), 0.65 if name == "1.3" else 1.0, rtol=1e-3)
        assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(scan.affine)
        whole = np.array(shape) * spacing
        assert (np.array(result.shape) * nib.affines.voxel_sizes(result.affine) >= whole - 1e-3).all()
        assert record(tmp_path / "out", name)["Assumed"] == assumed[name]
    assert "slices of 4 mm every 5 mm" in assumed["1x1x5"]
    assert "(sidecar)" in assumed["1x1x5"]
    assert assumed["2x2x2"].startswith("assumed: 2 x 2 x 2 mm (spacings); output 1 mm isotropic, ")


@pytest.mark.parametrize("seed", range(4))
def test_scan_and_output_share_world_coordinates(tmp_path, seed):
    rng = np.random.default_rng(seed)
    spacing = [*rng.uniform(0.9, 1.3, 2), rng.uniform(2.5, 5.5)]
    affine = oblique(seed, np.round(spacing, 3)[rng.permutation(3)])
    source = write(tmp_path / "scan.nii.gz", noisy(rng.integers(12, 24, 3)), affine)
    run(source, tmp_path / "out")
    result, made = nib.load(tmp_path / "out" / "scan_desc-sr.nii.gz"), record(tmp_path / "out")["Acquisition"]
    # in the canonical frame, voxel j of the scan lies on voxel start + j * spacing / voxel of the output
    ornt = nib.orientations.axcodes2ornt("ASR")
    scan_affine, output_affine = (_in_frame(image, ornt).affine for image in (nib.load(source), result))
    steps = [
        float(text.split()[1].split("/")[0]) / mm for text, mm in zip(made["Axes"], made["OutputVoxel"], strict=True)
    ]
    for index in rng.integers(0, made["ScanShape"], (20, 3)):
        place = np.array(made["Start"]) + index * steps
        np.testing.assert_allclose(
            nib.affines.apply_affine(output_affine, place),
            nib.affines.apply_affine(scan_affine, index),
            rtol=0,
            atol=1e-4,
        )
    assert made["Start"] == np.round(made["Start"]).tolist()


def _in_frame(image: nib.Nifti1Image, frame: np.ndarray) -> nib.Nifti1Image:
    """An image whose axes are turned to a frame."""
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), frame))


@pytest.mark.parametrize(("axis", "seed"), [(0, 0), (1, 1), (2, 2)])
def test_a_ramp_along_the_slices_comes_back_in_world_coordinates(tmp_path, axis, seed):
    """Acquired with a gap, interpolated and restored, each voxel holds the world's value at its own place."""
    affine = oblique(seed, (1.0, 1.0, 1.0))
    direction = affine[:3, axis]
    shape = [24, 24, 24]
    shape[axis] = 60
    world = nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1))
    ramp = 300 + world @ direction
    slices = SliceSelection(3.7, 2.9)
    scan = Acquire([slices if a == axis else None for a in range(3)])(
        MetaTensor(torch.from_numpy(ramp)[None], affine=torch.from_numpy(affine))
    )
    source = write(tmp_path / "scan.nii.gz", scan[0].numpy(), scan.affine.numpy())
    run(source, tmp_path / "out")
    result = nib.load(tmp_path / "out" / "scan_desc-sr.nii.gz")
    values = np.moveaxis(result.get_fdata(), axis, 0)
    grid = np.stack(np.meshgrid(*map(np.arange, result.shape), indexing="ij"), -1)
    expected = np.moveaxis(300 + nib.affines.apply_affine(result.affine, grid) @ direction, axis, 0)
    second, last_but_one = (scan[0].movedim(axis, 0)[j].mean().item() for j in (1, -2))
    between = (expected >= min(second, last_but_one)) & (expected <= max(second, last_but_one))
    assert between.sum() > 0.6 * between.size
    np.testing.assert_allclose(values[between], expected[between], rtol=0, atol=2e-3)


def test_the_own_spacing_gives_the_scan_back(tmp_path):
    values = noisy((24, 26, 22))
    source = write(tmp_path / "scan.nii.gz", values, oblique(3, (1.0, 1.0, 1.0)))
    run(source, tmp_path / "out", spacing=1.0)
    result = nib.load(tmp_path / "out" / "scan_desc-sr.nii.gz")
    assert result.shape == values.shape
    np.testing.assert_allclose(result.affine, nib.load(source).affine, atol=1e-5)
    np.testing.assert_allclose(result.get_fdata(), values, atol=1e-2)


def test_2x2x2_without_training_is_zero_filling_on_the_grid_of_one_factor(tmp_path):
    source = write(tmp_path / "scan.nii.gz", noisy((24, 26, 22)), oblique(4, (2.0, 2.0, 2.0)))
    run(source, tmp_path / "new")
    run(source, tmp_path / "old", "networks/fixed_factor.yaml")
    new, old = (nib.load(tmp_path / name / "scan_desc-sr.nii.gz") for name in ("new", "old"))
    assert new.shape == old.shape
    np.testing.assert_allclose(new.affine, old.affine, atol=1e-5)
    ornt = nib.orientations.axcodes2ornt("ASR")
    scan, result = (torch.from_numpy(_in_frame(image, ornt).get_fdata()) for image in (nib.load(source), new))
    np.testing.assert_allclose(result, zero_fill(scan, result.shape, (0, 1, 2)), atol=1e-2)
    assert record(tmp_path / "new")["ConsistencyPSNR"] > 60


SLABS, LOW_RES_GRID = ("networks/slabs.yaml",), ("networks/fixed_factor.yaml",)
SLAB_NETWORK = ("networks/slab_network.yaml",)
PSEUDO_SR = ("methods/pseudo_sr.yaml",)


def scores(folder: Path) -> dict[str, dict[str, float]]:
    """The metrics of an evaluation of one subject by method."""
    rows = csv.DictReader((folder / "subjects.csv").read_text(encoding="utf-8").splitlines())
    return {row["method"]: {name: float(row[name]) for name in ("psnr", "psnr_consistency")} for row in rows}


@pytest.mark.parametrize(
    ("trained", "restored", "scale_factor"),
    [
        (("methods/udean.yaml",), (), (2, 2, 1)),
        (PSEUDO_SR, PSEUDO_SR, (2, 2, 1)),
        ((*PSEUDO_SR, *SLABS, *SLAB_NETWORK), (*PSEUDO_SR, *LOW_RES_GRID, *SLAB_NETWORK), (2, 2, 2)),
    ],
    ids=["udean", "pseudo_sr", "pseudo_sr_on_slabs"],
)
def test_weights_of_a_papers_method_are_evaluated_and_restore_a_scan(
    train_stack, phantom_dataset, tmp_path, trained, restored, scale_factor
):
    workflow = train_stack(*trained, scale_factor=scale_factor, output_dir=str(tmp_path / "training"))
    workflow.initialize()
    workflow.run()
    small = {"architecture::num_features": 16, "load_pretrain": True, "scale_factor": list(scale_factor)}
    small |= {"ckpt_path": str(tmp_path / "training" / "model.pt")}
    small |= {"architecture::slab_size": 5} if SLAB_NETWORK[0] in restored else {}
    scan, reference = (sorted((phantom_dataset(scale_factor) / name).glob("*"))[0] for name in ("target", "validation"))
    run(scan, tmp_path / "out", *restored, **small)
    result = nib.load(next((tmp_path / "out").rglob("*desc-sr*.nii.gz")))
    np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine), 1.0, rtol=1e-3)
    run(reference, tmp_path / "scores", *restored, trunk="evaluate.yaml", pictures=False, **small)
    found = scores(tmp_path / "scores")
    assert found["pred"]["psnr"] == pytest.approx(found["zero_filling"]["psnr"], abs=3)  # after two iterations
    assert found["zero_filling"]["psnr_consistency"] > 60  # the scan has the factors that were asked for


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_weights_of_a_papers_method_restore_a_scan_without_a_word_about_it(
    train_stack, phantom_dataset, tmp_path, scale_factor
):
    workflow = train_stack("methods/udean.yaml", scale_factor=scale_factor, output_dir=str(tmp_path / "training"))
    workflow.initialize()
    workflow.run()
    spacing = (scale_factor[2], *scale_factor[:2])  # axes R, A, S
    scan = sorted((phantom_dataset(scale_factor) / "target").glob("*.nii.gz"))[0]
    np.testing.assert_allclose(nib.load(scan).header.get_zooms(), spacing)
    small = {"architecture::num_features": 16, "load_pretrain": True, "spacing": 1.0}
    run(scan, tmp_path / "out", ckpt_path=str(tmp_path / "training" / "model.pt"), **small)
    result = nib.load(next((tmp_path / "out").rglob("*desc-sr*.nii.gz")))
    np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine), 1.0, rtol=1e-3)
    assert np.isfinite(result.get_fdata()).all()


REFUSED = {
    "too coarse": ((0.5, 0.5, 5.0), (24, 24, 8), {}, "a factor of at most 8 between acquired and output spacing"),
    "few slices": ((1.0, 1.0, 4.0), (24, 24, 4), {}, "expected at least (5, 5, 5) voxels"),
    "thick slices": (
        (1.0, 1.0, 3.0),
        (24, 24, 8),
        {"sidecar": {"MRAcquisitionType": "2D", "SliceThickness": 7.0}},
        "expected 2-D slices of at most 2 times their spacing, got slices of 7 mm every 3 mm",
    ),
    "localiser": (
        (1.0, 1.0, 4.0),
        (24, 24, 8),
        {"sidecar": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}},
        "got a localiser (sidecar)",
    ),
    "too many voxels": ((1.0, 1.0, 4.0), (24, 24, 8), {"largest": 1000}, "Set --spacing"),
    "wrong option": (
        (1.0, 1.0, 4.0),
        (24, 24, 8),
        {"acquisition": ["frequency 0.5", "unknown", "unknown"]},
        "acquisition must have at least the spacing of the voxels, 1 mm along the A axis",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_network_can_restore_is_refused_with_the_reason(tmp_path, name):
    spacing, shape, options, reason = REFUSED[name]
    options = dict(options)
    source = write(tmp_path / "scan.nii.gz", noisy(shape), np.diag([*spacing, 1.0]), options.pop("sidecar", None))
    with pytest.raises(RuntimeError) as error:
        run(source, tmp_path / "out", **options)
    assert reason in full_message(error.value)


def test_the_option_has_the_last_word(tmp_path):
    source = write(tmp_path / "scan.nii.gz", noisy((24, 24, 8)), np.diag([1.0, 1.0, 4.0, 1.0]))
    run(source, tmp_path / "out", acquisition=["unknown", "frequency 4.0", "unknown"], spacing=2.0)
    made = record(tmp_path / "out")
    assert made["Acquisition"]["Axes"][1] == "frequency 4.0"
    assert made["Spacing"] == pytest.approx([2.0] * 3, rel=1e-3)
    assert made["AcquisitionOption"] == ["unknown", "frequency 4.0", "unknown"]


def test_an_interpolated_matrix_is_truncated_first(tmp_path):
    """The sidecar says that 36 of 48 voxels were acquired, and the scan has no more detail than that."""
    acquired = Acquire([FrequencyEncoding(4 / 3), None, None])
    scan = MetaTensor(
        torch.from_numpy(noisy((48, 48, 12)))[None], affine=torch.diag(torch.tensor([1.0, 1, 3, 1])).double()
    )
    stored = acquired.inverse(acquired(scan))
    sidecar = {"MRAcquisitionType": "2D", "SliceThickness": 3.0, "InPlanePhaseEncodingDirectionDICOM": "ROW"}
    sidecar |= {"AcquisitionMatrixPE": 36, "ReconMatrixPE": 48, "BaseResolution": 48}
    source = write(tmp_path / "scan.nii.gz", stored[0].numpy(), stored.affine.numpy(), sidecar)
    run(source, tmp_path / "out")
    made = record(tmp_path / "out")
    assert sorted(made["Acquisition"]["ScanShape"]) == [12, 36, 48]
    assert "acquired" in made["Assumed"]


@pytest.mark.parametrize(
    "acquisition",
    [["frequency 2.0"] * 3, ["unknown", "slices 3.3/2.5 box", "unknown"], ["frequency 1.5"] * 3],
    ids=["2x2x2", "slices", "1.5"],
)
def test_an_evaluation_simulates_any_acquisition(phantom_dataset, tmp_path, acquisition):
    """The untrained network is the interpolation: zero-filling, or cubic along the slices."""
    folder = phantom_dataset() / "validation"
    run(folder, tmp_path / "out", trunk="evaluate.yaml", acquisition=acquisition, pictures=False)
    lines = (tmp_path / "out" / "subjects.csv").read_text(encoding="utf-8").splitlines()
    rows = {row["method"]: row for row in csv.DictReader(lines)}
    assert set(rows) == {
        "tricubic",
        "windowed_sinc",
        "zero_filling",
        "linear_inverse",
        "consistent",
        "automatic",
        "pred",
    }
    if "slices" not in acquisition[1]:
        assert float(rows["pred"]["psnr"]) == pytest.approx(float(rows["zero_filling"]["psnr"]), abs=1e-3)
        assert float(rows["pred"]["psnr"]) > float(rows["tricubic"]["psnr"]) - 3
    else:
        assert float(rows["automatic"]["psnr"]) == float(rows["pred"]["psnr"])
    assert float(rows["consistent"]["psnr_consistency"]) > float(rows["pred"]["psnr_consistency"]) - 1
    assert "acquisition" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scale_factor", [(2, 2, 2), (2, 2, 1)])
def test_whole_factors_are_those_of_a_training_on_either_grid(phantom_dataset, tmp_path, scale_factor):
    """The same scan, filtered and noisy, is interpolated. On the output grid an untrained network is zero-filling."""
    folder = phantom_dataset() / "validation"
    options = {"scale_factor": list(scale_factor), "pictures": False, "trunk": "evaluate.yaml"}
    options |= {"acquisition::hamming": True, "acquisition::elliptical": True, "acquisition::snr": 20}
    run(folder, tmp_path / "output", **options)
    run(folder, tmp_path / "scan", *LOW_RES_GRID, **options)
    ours, theirs = (scores(tmp_path / name) for name in ("output", "scan"))
    for method in ("zero_filling", "tricubic"):
        assert ours[method]["psnr"] == pytest.approx(theirs[method]["psnr"], abs=1e-3)
    assert ours["pred"]["psnr"] == pytest.approx(ours["zero_filling"]["psnr"], abs=1e-3)
    assert set(ours) - set(theirs) == {"windowed_sinc", "linear_inverse"}
    assert f"- scale factor: {list(scale_factor)}" in (tmp_path / "output" / "summary.md").read_text(encoding="utf-8")


def test_a_network_on_the_grid_of_the_scan_is_for_whole_factors_alone(phantom_dataset, tmp_path):
    with pytest.raises(RuntimeError) as error:
        run(
            *(phantom_dataset() / "validation", tmp_path / "out", *LOW_RES_GRID),
            trunk="evaluate.yaml",
            acquisition=["unknown", "slices 3.0", "unknown"],
        )
    assert "leave networks/fixed_factor.yaml out" in full_message(error.value)


def test_a_scale_factor_is_an_assumption_of_its_own(tmp_path):
    source = write(tmp_path / "scan.nii.gz", noisy((24, 20, 40)), np.diag([2.0, 2.0, 1.0, 1.0]))
    run(source, tmp_path / "out", scale_factor=[2, 1, 2])
    assert record(tmp_path / "out")["Spacing"] == pytest.approx([1.0] * 3)
    assert "(scale_factor)" in record(tmp_path / "out")["Assumed"]
    with pytest.raises(RuntimeError) as error:
        run(source, tmp_path / "both", scale_factor=[2, 1, 2], spacing=1.0)
    assert "scale_factor must stand without acquisition and spacing" in full_message(error.value)


def test_orientations_are_averaged_for_any_acquisition(tmp_path):
    source = write(tmp_path / "scan.nii.gz", noisy((24, 24, 8)), np.diag([1.0, 1.0, 4.0, 1.0]))
    run(source, tmp_path / "one")
    run(source, tmp_path / "three", orientations=[[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    one, three = (nib.load(tmp_path / name / "scan_desc-sr.nii.gz").get_fdata() for name in ("one", "three"))
    np.testing.assert_allclose(three, one, atol=1e-2)
