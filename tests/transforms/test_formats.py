"""Formats: the same bytes give the same scan under any name, and it is what independent readers find."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms import EnsureChannelFirstd
from reliability_checks import tally
from scripts.transforms import CheckVolumed, LoadImageStrictd
from scripts.transforms.formats import identify

SHAPE = (9, 10, 11)
VALUES = np.random.default_rng(0).integers(-500, 3000, SHAPE).astype(np.int16)
AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.0, 1.2, 0.9]), (12.0, -7.0, 30.0)
)


def read(path: Path, **options):
    """The volume of a file, its affine and its warnings."""
    volume = LoadImageStrictd("image", **options)({"image": str(path)})["image"]
    return volume.numpy(), volume.affine.numpy(), volume.meta.get("warnings", "")


def assert_is_the_scan(path: Path, values=VALUES, affine=AFFINE) -> str:
    found, matrix, warnings = read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))
    np.testing.assert_allclose(matrix, affine, atol=1e-4)
    return warnings


def nifti(kind=nib.Nifti1Image, values=VALUES) -> nib.Nifti1Image:
    made = kind(values, AFFINE)
    made.header.set_xyzt_units("mm")
    return made


def write_itk(path: Path) -> Path:
    made = itk.image_from_array(np.ascontiguousarray(VALUES.T))
    spacing = nib.affines.voxel_sizes(AFFINE)
    made.SetSpacing(spacing.tolist())
    made.SetOrigin((AFFINE[:3, 3] * [-1, -1, 1]).tolist())
    made.SetDirection(itk.matrix_from_array(np.ascontiguousarray(np.diag([-1, -1, 1]) @ AFFINE[:3, :3] / spacing)))
    itk.imwrite(made, str(path))
    return path


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> dict[str, bytes]:
    """One file of each format that keeps its scan in one file."""
    folder = tmp_path_factory.mktemp("contents")
    nib.save(nifti(), folder / "nifti.nii")
    nib.save(nifti(nib.Nifti2Image), folder / "nifti2.nii")
    nib.save(nib.MGHImage(VALUES, AFFINE), folder / "mgh.mgh")
    made = {path.stem: path.read_bytes() for path in folder.iterdir()}
    made |= {f"{name}, gzip": gzip.compress(content) for name, content in made.items()}
    return made | {kind: write_itk(folder / f"scan.{kind}").read_bytes() for kind in ("nrrd", "mha")}


NAMES = st.text("abcXYZ019 ._-#()äß", min_size=1, max_size=20).filter(lambda name: name.strip(" .") != "")
ENDINGS = st.sampled_from(
    ["", ".nii", ".NII.GZ", ".nii.gz", ".Mgz", ".MHA", ".nrrd", ".dcm", ".gz", ".hdr", ".img", ".txt"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["nifti", "nifti2", "mgh", "nifti, gzip", "nifti2, gzip", "mgh, gzip", "nrrd", "mha"]),
    name=NAMES,
    ending=ENDINGS,
)
def test_the_name_of_a_file_changes_nothing(contents, tmp_path, kind, name, ending):
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(contents[kind])
    try:
        expected = {"nrrd": "nrrd", "mha": "metaimage"}.get(kind, "mgh" if "mgh" in kind else "nifti")
        assert identify(path) == expected
        assert assert_is_the_scan(path) == ""
    finally:
        path.unlink()
    tally("formats", "the same bytes under any name", "right")


@pytest.mark.parametrize("name", ["scan.nii.gz", "SCAN.NII.GZ", "scan", "scan.nii"])
def test_the_checksum_of_gzip_is_compared_under_any_name(contents, tmp_path, name):
    damaged = bytearray(contents["nifti, gzip"])
    damaged[-6] ^= 255
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=rf"{name}: expected a complete .* cannot be read \(BadGzipFile: CRC"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "names", [("s.hdr", "s.img"), ("S.HDR", "S.IMG"), ("s.hdr", "S.IMG"), ("s.hdr.gz", "s.img.gz")]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_either_file_of_a_pair_stands_for_both(tmp_path, names, kind):
    nib.save(nifti(kind), tmp_path / "written.hdr")
    for name, source in zip(names, ("written.hdr", "written.img"), strict=True):
        content = (tmp_path / source).read_bytes()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for name in names:
        assert assert_is_the_scan(tmp_path / name) == ""
    (tmp_path / names[1]).unlink()
    with pytest.raises(ValueError, match=r"expected the voxels of this header in a file .* got none"):
        read(tmp_path / names[0])


@pytest.mark.parametrize("ending", ["nhdr", "mhd", "NHDR", "MHD"])
def test_detached_voxels_are_found(tmp_path, ending):
    path = write_itk(tmp_path / f"scan.{ending.lower()}")
    assert assert_is_the_scan(path.rename(tmp_path / f"other.{ending}")) == ""
    next(file for file in tmp_path.iterdir() if ending.lower() not in file.name.lower()).unlink()
    with pytest.raises(ValueError, match=rf"other\.{ending}: expected .*(cannot be read|voxels in one file)"):
        read(tmp_path / f"other.{ending}")


@pytest.mark.parametrize("change", [None, "slices"])
def test_mgh_is_read_as_by_nibabel(tmp_path, change):
    values = VALUES.astype(np.float32) if change is None else np.stack([VALUES] * 2, -1)
    nib.save(nib.MGHImage(values, AFFINE), tmp_path / "scan.mgz")
    other = nib.load(tmp_path / "scan.mgz")
    found, affine, _ = read(tmp_path / "scan.mgz")
    np.testing.assert_array_equal(found, np.asarray(other.dataobj))
    np.testing.assert_allclose(affine, other.affine, atol=1e-5)


# Geometry is not invented


def test_mgh_without_orientation_is_refused(tmp_path, contents):
    content = bytearray(contents["mgh"])
    struct.pack_into(">h", content, 28, 0)
    (tmp_path / "scan.mgh").write_bytes(content)
    with pytest.raises(ValueError, match=r"scan\.mgh: expected the orientation .*goodRASFlag is 0"):
        read(tmp_path / "scan.mgh")


@pytest.mark.parametrize("missing", ["space directions", "space origin", "space"])
def test_nrrd_without_geometry_is_refused(tmp_path, contents, missing):
    lines = contents["nrrd"].split(b"\n")
    (tmp_path / "scan.nrrd").write_bytes(b"\n".join(x for x in lines if not x.startswith(missing.encode() + b":")))
    with pytest.raises(ValueError, match=rf"scan\.nrrd: expected the position .* without {missing}\. Save it again"):
        read(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("missing", ["ElementSpacing", "TransformMatrix", "Offset"])
def test_metaimage_without_geometry_is_refused(tmp_path, contents, missing):
    lines = contents["mha"].split(b"\n")
    (tmp_path / "scan.mha").write_bytes(b"\n".join(line for line in lines if not line.startswith(missing.encode())))
    with pytest.raises(ValueError, match=rf"scan\.mha: expected the position .* without {missing}"):
        read(tmp_path / "scan.mha")


@pytest.mark.parametrize("name", ["scan.hdr", "scan.img", "SCAN.HDR"])
def test_analyze_is_refused_unless_it_is_accepted(tmp_path, name):
    nib.save(nib.AnalyzeImage(VALUES, np.diag([2.0, 2.0, 3.0, 1.0])), tmp_path / "scan.hdr")
    if name == "SCAN.HDR":
        (tmp_path / "scan.hdr").rename(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected a format with an orientation, got Analyze 7\.5.*--analyze True"):
        read(tmp_path / name)
    values, affine, warnings = read(tmp_path / name, analyze=True)
    np.testing.assert_array_equal(values, VALUES)
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), [2, 2, 3])
    assert "sides may be exchanged" in warnings


# NIfTI headers


def patched(path: Path, place: int, form: str, *values) -> Path:
    nib.save(nifti(), path)
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, place, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "dim", [(4, *SHAPE, 1, 1, 1, 1), (5, *SHAPE, 1, 1, 1, 1), (7, *SHAPE, 1, 1, 1, 1), (4, *SHAPE, 0, 0, 0, 0)]
)
def test_trailing_axes_of_one_voxel_are_no_axes(tmp_path, dim):
    assert_is_the_scan(patched(tmp_path / "scan.nii", 40, "8h", *dim))


@pytest.mark.parametrize("offset", [0.0, 16.0, 348.0])
def test_voxels_never_begin_inside_the_header(tmp_path, offset):
    path = patched(tmp_path / "scan.nii", 108, "f", offset)
    assert f"vox_offset {offset:g} is inside the header" in assert_is_the_scan(path)
    path.write_bytes(path.read_bytes() + bytes(100))  # now the size of the file does not tell where they begin
    with pytest.raises(ValueError, match=r"scan\.nii: expected the voxels from byte 352 on, got vox_offset"):
        read(path)


@pytest.mark.parametrize(
    "scaling", [(np.nan, np.nan), (0.0, 7.0), (np.inf, 0.0), (-1.0, 1200.0), (0.1, 0.3), (2.5, -30.0)]
)
def test_the_slope_of_nifti_is_that_of_the_standard(tmp_path, scaling):
    slope, inter = (float(np.float32(x)) for x in scaling)
    unscaled = not np.isfinite(slope) or slope == 0
    expected = VALUES if unscaled else VALUES.astype(np.float64) * slope + inter
    assert_is_the_scan(patched(tmp_path / "scan.nii", 112, "ff", *scaling), values=expected)


@pytest.mark.parametrize("kind", ["int16", "uint16", "int8", "uint8", "int32"])
def test_the_limits_of_a_type_stay_exact(tmp_path, kind):
    values = VALUES.astype(kind)
    values[0, 0, :2] = np.iinfo(kind).min, np.iinfo(kind).max
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "scan.nii")
    assert_is_the_scan(tmp_path / "scan.nii", values=values)


# What is no scan, and remarks


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", "an empty file. Copy it again"),
        (b"\x1f\x8b\x08damaged", "a damaged gzip file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer .*git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (gzip.compress(gzip.compress(bytes(999), mtime=0), mtime=0), "a file that was compressed twice"),
        (b"PK\x03\x04", "an archive. Unpack it"),
    ],
)
def test_what_is_no_scan_is_named(tmp_path, content, finding):
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"scan\.nii\.gz: expected a complete .* got {finding}"):
        read(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(("limit", "clipped"), [(3000, False), (2900, True)])
def test_a_clipped_scan_is_read_with_a_remark(tmp_path, limit, clipped):
    values = np.random.default_rng(0).normal(1000, 700, (32, 32, 32)).clip(0, limit).astype(np.int16)
    values[values == 3000] = 2999 if not clipped else 3000
    if not clipped:
        values[0, 0, 0] = 3500
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "scan.nii")
    image = EnsureChannelFirstd("image")(LoadImageStrictd("image")({"image": tmp_path / "scan.nii"}))
    warnings = CheckVolumed("image")(image)["image"].meta.get("warnings", "")
    assert ("it was probably clipped" in warnings) == clipped


def metaimage(path: Path, voxels: bytes, **fields) -> Path:
    """A MetaImage of 9 x 9 x 9 bytes with its voxels inside."""
    known = {"NDims": 3, "DimSize": "9 9 9", "ElementType": "MET_UCHAR", "ElementSpacing": "1 1 1", "Offset": "0 0 0"}
    known |= {"TransformMatrix": "1 0 0 0 1 0 0 0 1", **fields}
    known["ElementDataFile"] = known.pop("ElementDataFile", "LOCAL")
    path.write_bytes("".join(f"{key} = {value}\n" for key, value in known.items()).encode() + voxels)
    return path


def test_a_compressed_metaimage_is_read_only_with_its_size_and_its_checksum(tmp_path):
    values = bytes(range(243)) * 3
    packed = zlib.compress(values)
    fields = {"CompressedData": "True", "CompressedDataSize": len(packed)}
    found, *_ = read(metaimage(tmp_path / "right.mha", packed, **fields))
    assert found.astype(np.uint8).tobytes(order="F") == values
    with pytest.raises(ValueError, match="expected CompressedDataSize"):
        read(metaimage(tmp_path / "wrong.mha", packed, CompressedData="True"))
    with pytest.raises(ValueError, match="incorrect data check"):
        read(metaimage(tmp_path / "wrong.mha", packed[:-1] + b"\0", **fields))


@pytest.mark.parametrize("name", ["LIST", "slice%03d.raw 1 9 1", "missing.raw"])
def test_a_metaimage_without_its_voxels_in_one_file_is_refused(tmp_path, name):
    (tmp_path / "LIST").touch()
    with pytest.raises(ValueError, match="expected the voxels in one file"):
        read(metaimage(tmp_path / "scan.mhd", b"", ElementDataFile=name))


def test_a_truncated_metaimage_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 729 bytes of voxels, got 700"):
        read(metaimage(tmp_path / "scan.mha", bytes(700)))


def test_lost_voxels_of_nrrd_are_named(tmp_path):
    write_itk(tmp_path / "scan.nhdr")
    (tmp_path / "scan.raw").unlink(missing_ok=True)
    (tmp_path / "scan.raw.gz").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="couldn't open"):
        read(tmp_path / "scan.nhdr")


@pytest.mark.parametrize("shape", [(*SHAPE, 1, 3), (*SHAPE, 3, 1)])
def test_axes_of_one_voxel_hide_no_further_axis(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.broadcast_to(np.resize(VALUES, (*SHAPE, 1, 1)), shape), AFFINE), tmp_path / "scan.nii")
    assert read(tmp_path / "scan.nii")[0].shape == (*SHAPE, 3)


def test_a_mask_is_no_image(tmp_path):
    nib.save(nib.Nifti1Image((VALUES > 0).astype(np.uint8), AFFINE), tmp_path / "scan.nii")
    loaded = LoadImageStrictd("image")({"image": str(tmp_path / "scan.nii")})
    with pytest.raises(ValueError, match="expected an image, got a mask of 0 and 1"):
        CheckVolumed("image")(EnsureChannelFirstd("image")(loaded))


def test_dicom_that_gzip_compressed_is_named(tmp_path):
    (tmp_path / "a.dcm.gz").write_bytes(gzip.compress(bytes(128) + b"DICM" + bytes(400)))
    with pytest.raises(ValueError, match="that gzip compressed"):
        read(tmp_path / "a.dcm.gz")
