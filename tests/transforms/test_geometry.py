"""Geometry: whatever a header says, the result is in the right place, or there is a clear refusal."""

from __future__ import annotations

import gzip
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_dicom_series
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability_checks import Chain, assert_same_places, refusal, tally
from scripts.transforms import LoadImageStrictd

# nibabel and NumPy warn of what the headers below get wrong on purpose
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Modifying image pixdim")

TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@pytest.fixture(scope="module")
def tricubic(tmp_path_factory):
    """Interpolates, so that every voxel of a scan reappears in the result."""
    return Chain(tmp_path_factory.mktemp("tricubic"), "baselines/tricubic.yaml")


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("learned"), **{"architecture::num_groups": 1, "architecture::num_blocks": 1})


@st.composite
def affines(draw) -> np.ndarray:
    """Any orientation, handedness, obliqueness and anisotropy, some with the shear of a registration."""
    spacing = [draw(st.floats(0.2, 8.0)) for _ in range(3)]
    signs = [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    axes = np.eye(3)[list(draw(st.permutations(range(3))))] * signs
    angles = [draw(st.sampled_from([0.0, draw(st.floats(-3.1, 3.1))])) for _ in range(3)]
    shear = np.eye(3)
    shear[0, 1] = draw(st.sampled_from([0.0, 0.0, 0.1]))
    origin = [draw(st.floats(-300, 300)) for _ in range(3)]
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*angles) @ shear @ axes @ np.diag(spacing), origin)


@st.composite
def headers(draw) -> dict[str, Any]:
    """What a NIfTI file may say about itself, right and wrong."""
    shape = [draw(st.integers(8, 11)) for _ in range(3)]
    if draw(st.integers(0, 9)) == 9:
        shape[draw(st.integers(0, 2))] = draw(st.integers(1, 7))
    return {
        "shape": tuple(shape),
        "volumes": draw(st.sampled_from([None] * 12 + [1, 1, 2])),
        "version": draw(st.sampled_from([1, 2])),
        "endianness": draw(st.sampled_from("<>")),
        "zipped": draw(st.booleans()),
        "type": draw(st.sampled_from(TYPES)),
        "scaling": draw(st.sampled_from([(1, 0), (0, 0), (np.nan, np.nan), (0.37, 0), (2.5, -30)])),
        "affine": draw(affines()),
        "qform_affine": draw(st.none() | affines()),
        "codes": draw(st.sampled_from([(0, 0), (1, 0), (0, 1), (2, 1), (4, 1), (1, 2), (3, 3), (9, 0)])),
        "unit": draw(st.sampled_from([0, 2, 2, 2, 2, 1, 3, 5])),
        "spoilt_spacing": draw(st.sampled_from([None] * 6 + [0.0, np.nan, -1.0, np.inf])),
        "seed": draw(st.integers(0, 2**16)),
    }


def write(path, case) -> tuple[np.ndarray, np.ndarray]:
    """Write a file byte by byte, since nibabel would mend the header; returns what it means."""
    kind = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[case["version"]]
    header = kind(endianness=case["endianness"])
    shape = case["shape"] + (() if case["volumes"] is None else (case["volumes"],))
    header.set_data_shape(shape)
    header.set_data_dtype(np.dtype(case["type"]))
    header.set_sform(case["affine"], 1)
    header["sform_code"] = case["codes"][0]
    if case["codes"][1]:
        qform = case["affine"] if case["qform_affine"] is None else case["qform_affine"]
        header.set_qform(qform, case["codes"][1])
    else:
        header["pixdim"][1:4] = nib.affines.voxel_sizes(case["affine"])
    header["xyzt_units"] = case["unit"]
    if case["spoilt_spacing"] is not None:
        header["pixdim"][2] = case["spoilt_spacing"]
    offset = header.single_vox_offset
    header["vox_offset"] = offset
    header["magic"] = header.single_magic
    header["scl_slope"], header["scl_inter"] = case["scaling"]
    rng = np.random.default_rng(case["seed"])
    stored = rng.integers(0, 100, shape).astype(case["endianness"] + case["type"])
    content = header.binaryblock + bytes(offset - len(header.binaryblock)) + stored.tobytes(order="F")
    path.write_bytes(gzip.compress(content) if case["zipped"] else content)
    slope, inter = case["scaling"] if np.isfinite(case["scaling"][0]) and case["scaling"][0] else (1, 0)
    return stored[..., 0] * slope + inter if case["volumes"] == 1 else stored * slope + inter, _affine(header, case)


def _affine(header, case) -> np.ndarray:
    """The affine in mm that NIfTI's standard gives such a header."""
    sform, qform = case["codes"]
    if sform:
        affine = case["affine"]
    elif qform and case["spoilt_spacing"] is None:
        affine = header.get_qform()
    elif case["spoilt_spacing"] is None:
        affine = header.get_base_affine()
    else:
        return np.eye(4)  # to be refused
    return np.diag([*[MM.get(case["unit"], 1.0)] * 3, 1.0]) @ affine


def must_be_refused(case) -> bool:
    return (
        min(case["shape"]) < 8
        or case["volumes"] == 2
        or case["unit"] not in MM
        or case["codes"][0] == 9
        or (case["codes"][0] == 0 and case["spoilt_spacing"] is not None)
    )


@given(headers())
def test_any_nifti_header_gives_the_right_place_or_a_refusal(tricubic, tmp_path_factory, case):
    folder = tmp_path_factory.getbasetemp() / "headers"
    folder.mkdir(exist_ok=True)
    path = folder / ("scan.nii.gz" if case["zipped"] else "scan.nii")
    values, affine = write(path, case)
    if must_be_refused(case):
        with pytest.raises((RuntimeError, ValueError)) as error:
            tricubic(path)
        refusal(error.value, path)
        tally("geometry", "NIfTI header", "refused")
        return
    result, record = tricubic(path)
    assert_same_places(result, values, affine)
    assert result.header.get_xyzt_units()[0] == "mm"
    assert result.get_data_dtype() == np.float32
    np.testing.assert_allclose(nib.affines.voxel_sizes(result.affine) * 2, nib.affines.voxel_sizes(affine), rtol=1e-4)
    if case["codes"] == (0, 0):
        assert "left and right may be exchanged" in record["Warnings"][0]
    qform = case["qform_affine"]
    if all(case["codes"]) and qform is not None and not np.allclose(qform, case["affine"], rtol=1e-2, atol=0.5):
        assert "disagree" in str(record["Warnings"]) or "invalid" in str(record["Warnings"])
    tally("geometry", "NIfTI header", "right")


@settings(max_examples=settings().max_examples // 4)
@given(affine=affines(), kind=st.sampled_from(["nrrd", "mha", "mhd", "nhdr"]), seed=st.integers(0, 99))
def test_nrrd_and_metaimage_give_the_right_place(tricubic, tmp_path_factory, affine, kind, seed):
    folder = tmp_path_factory.getbasetemp() / "itk"
    folder.mkdir(exist_ok=True)
    path = folder / f"scan.{kind}"
    spacing = nib.affines.voxel_sizes(affine)
    axes, _ = np.linalg.qr(affine[:3, :3] / spacing)  # ITK's directions are orthonormal
    affine = nib.affines.from_matvec(axes * spacing, affine[:3, 3])
    values = np.random.default_rng(seed).integers(0, 99, (9, 10, 8)).astype(np.int16)
    image = itk.image_from_array(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((affine[:3, 3] * [-1, -1, 1]).tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(np.diag([-1, -1, 1]) @ axes)))
    itk.imwrite(image, str(path))
    result, _ = tricubic(path)
    assert_same_places(result, values, affine)
    tally("geometry", "NRRD or MetaImage", "right")


@settings(max_examples=settings().max_examples // 4)
@given(
    affine=affines(),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    seed=st.integers(0, 99),
)
def test_the_order_in_which_voxels_are_stored_changes_nothing(learned, tmp_path_factory, affine, order, flips, seed):
    folder = tmp_path_factory.getbasetemp() / "stored"
    folder.mkdir(exist_ok=True)
    image = nib.Nifti1Image(np.random.default_rng(seed).random((9, 10, 8), dtype=np.float32), affine)
    turned = image.as_reoriented(np.stack([order, flips], axis=1))
    results = []
    for name, scan in (("a.nii", image), ("b.nii", turned)):
        nib.save(scan, folder / name)
        results.append(learned(folder / name)[0])
    # the same voxels, one by one, at the same points of the world
    mapping = np.linalg.inv(results[1].affine) @ results[0].affine
    voxels = np.stack(np.meshgrid(*map(np.arange, results[0].shape), indexing="ij"), -1)
    places = nib.affines.apply_affine(mapping, voxels)
    indices = tuple(np.moveaxis(places.round().astype(int), -1, 0))
    assert np.abs(places - np.moveaxis(np.stack(indices), 0, -1)).max() < 0.01
    np.testing.assert_allclose(results[1].get_fdata()[indices], results[0].get_fdata(), atol=1e-6)
    tally("geometry", "stored order", "right")


# DICOM


def series(folder, **changes):
    values = np.random.default_rng(0).integers(100, 900, (12, 20, 16))
    write_dicom_series(folder, values, **changes)
    return values


SERIES = {
    "tilted": ({"position": lambda z: (10.0, -20.0 + 0.6 * z, 5.0 + 2.0 * z)}, "gantry tilt"),
    "uneven": ({"position": lambda z: (10.0, -20.0, 5.0 + 2.0 * z + (0.7 if z == 5 else 0))}, "uneven"),
    "several orientations": (
        {"orientation": lambda z: (1, 0, 0, 0, 0.8, 0.6) if z == 3 else (1, 0, 0, 0, 1, 0)},
        "several orientations",
    ),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_that_is_no_regular_volume_is_refused(tricubic, tmp_path, name):
    changes, reason = SERIES[name]
    series(tmp_path / "series", **changes)
    with pytest.raises((RuntimeError, ValueError)) as error:
        tricubic(tmp_path / "series")
    assert reason in refusal(error.value, tmp_path / "series")
    tally("geometry", f"DICOM, {name}", "refused")


@pytest.mark.parametrize("missing", [1, 5, 10])
def test_a_missing_slice_is_seen(tricubic, tmp_path, missing):
    series(tmp_path / "series")
    (tmp_path / "series" / f"1_{missing:03d}.dcm").unlink()
    with pytest.raises((RuntimeError, ValueError)) as error:
        tricubic(tmp_path / "series")
    assert "slices are missing" in refusal(error.value, tmp_path / "series")
    tally("geometry", "DICOM, a slice missing", "refused")


@pytest.mark.parametrize("damage", [b"", b"hello"])
def test_a_damaged_slice_is_seen(tricubic, tmp_path, damage):
    series(tmp_path / "series")
    (tmp_path / "series" / "1_005.dcm").write_bytes(damage)
    with pytest.raises((RuntimeError, ValueError)) as error:
        tricubic(tmp_path / "series")
    refusal(error.value, tmp_path / "series")
    tally("geometry", "DICOM, a slice damaged", "refused")


def test_an_oblique_series_is_in_its_place(tricubic, tmp_path):
    """Rows, columns and the way from slice to slice turned about one axis."""
    normal, down = np.array([0, -0.6, 0.8]), np.array([0, 0.8, 0.6])
    values = series(
        tmp_path / "series",
        position=lambda z: tuple(np.array([10.0, -20.0, 5.0]) + 2.0 * z * normal),
        orientation=lambda z: (1, 0, 0, *down),
    )
    result, _ = tricubic(tmp_path / "series")
    lps = np.stack([np.array([1.5, 0, 0]), 1.5 * down, 2 * normal], axis=1)
    affine = nib.affines.from_matvec(np.diag([-1, -1, 1]) @ lps, np.diag([-1, -1, 1]) @ [10.0, -20.0, 5.0])
    assert_same_places(result, values.transpose(2, 1, 0), affine)
    tally("geometry", "DICOM, oblique", "right")


# What is not a volume of real numbers


@pytest.mark.parametrize("kind", ["complex64", [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=["complex", "colour"])
def test_voxels_that_are_not_real_are_refused(tmp_path, kind):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), dtype=kind), np.eye(4)), path)
    with pytest.raises(ValueError, match=r"scan\.nii: expected real voxels, got the type .* Save the magnitude"):
        LoadImageStrictd("image")({"image": path})
    tally("geometry", "complex or colour", "refused")


def test_bare_numbers_are_refused(tmp_path):
    np.save(tmp_path / "scan.npy", np.ones((9, 9, 9)))
    with pytest.raises(ValueError, match=r"scan\.npy: expected .* got bare numbers of NumPy, which have no geometry"):
        LoadImageStrictd("image")({"image": tmp_path / "scan.npy"})
    tally("geometry", "no header", "refused")


@pytest.mark.parametrize("spoilt", ["flat", "nan"])
def test_axes_that_span_no_volume_are_refused(tricubic, tmp_path, spoilt):
    affine = np.eye(4)
    if spoilt == "flat":
        affine[:3, 1] = affine[:3, 0] + [0, 0.01, 0]
    else:
        affine[0, 3] = np.nan
    image = nib.Nifti1Image(np.random.default_rng(0).random((9, 9, 9)), np.eye(4))
    image.header.set_sform(affine, 1)
    path = tmp_path / "scan.nii"
    header = image.header
    header.set_data_dtype(np.float32)
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    path.write_bytes(header.binaryblock + bytes(4) + image.get_fdata().astype("f4").tobytes(order="F"))
    with pytest.raises((RuntimeError, ValueError)) as error:
        tricubic(path)
    assert "axes that span a volume" in refusal(error.value, path)
    tally("geometry", "axes that span no volume", "refused")
