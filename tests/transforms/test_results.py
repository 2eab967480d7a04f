"""Results: a prediction that contradicts its scan gets a remark, for any acquisition, and one that fits gets none."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import EXAMPLE, SHARED, head_phantom
from monai.data import MetaTensor
from scripts.physics.separable import receive
from scripts.transforms import MeasureConsistencyd, SimulateAcquiredd
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.saving import Derivatives, SaveImageDerivatived
from torch import Tensor

SIZE = 64
ACQUISITIONS = {
    "2x2x2": ["frequency 2.0"] * 3,
    "1.3": ["frequency 1.3"] * 3,
    "slices 4": ["unknown", "unknown", "slices 4.0"],
    "slices 6/4": ["frequency 1.5", "slices 6.0/4.0 box", "unknown"],
}
FITTING = MappingProxyType(
    {"truth": lambda truth, _: truth, "interpolation": lambda _, image: image}
)  # the truth differs from a noisy scan by its noise
WRONG = MappingProxyType(
    {
        "another subject": lambda truth, _: truth.flip(1),
        "shifted": lambda truth, _: truth.roll(4, 3),
        "darker": lambda truth, _: 0.7 * truth,
    }
)


@cache
def real(name: str) -> Tensor:
    """The middle of a real scan, as if its voxels had 1 mm; the phantom where ``name`` is empty."""
    if not name:
        return head_phantom(0, (SIZE,) * 3)
    path = (EXAMPLE if name == "sub-03_T1w" else SHARED / "data") / name[:6] / "anat" / f"{name}.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand")
    volume = torch.from_numpy(np.asarray(nib.load(path).dataobj, dtype=np.float32))
    return volume[tuple(slice(n // 2 - SIZE // 2, n // 2 + SIZE // 2) for n in volume.shape)].clone()


def remarks(acquisition: str, snr: float | None, name: str, make) -> str:
    truth = MetaTensor(real(name)[None], affine=torch.eye(4))
    data = SimulateAcquiredd(acquisition=ACQUISITIONS[acquisition])({"image": truth})
    scan = data["acquired"].as_tensor()
    if snr is not None:
        scan = receive(scan, float(scan[scan > scan.mean()].mean()) / snr, generator=torch.Generator().manual_seed(0))
    image = data["image"].clone().copy_(acquisition_of(data["image"]).interpolate(scan))
    pred = make(truth.as_tensor(), image.as_tensor())
    return MeasureConsistencyd()({"image": image, "acquired": scan, "pred": pred})["image"].meta.get("warnings", "")


@pytest.mark.parametrize("scan", ["", "sub-03_T1w", "sub-06_T2w"])
@pytest.mark.parametrize("snr", [None, 15.0])
@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_what_fits_gets_no_remark_and_what_contradicts_gets_one(acquisition, snr, scan):
    for name, make in FITTING.items():
        assert remarks(acquisition, snr, scan, make) == "", name
    for name, make in WRONG.items():
        assert "it contradicts the measurement" in remarks(acquisition, snr, scan, make), name


@pytest.mark.parametrize("level", [4, 9, -1, 1.5, "1"])
def test_a_level_of_compression_that_the_library_lacks_is_refused_before_any_scan(tmp_path, level):
    with pytest.raises(ValueError, match="compression must be a whole number from 0 to 3, got"):
        SaveImageDerivatived("pred", Derivatives(tmp_path), compression=level)
