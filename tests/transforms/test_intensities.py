"""Intensity: the result is in the scan's units, whatever they are, and says what was wrong with them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import head_phantom
from hypothesis import given, settings
from hypothesis import strategies as st
from reliability_checks import Chain, refusal, tally

HEAD = head_phantom(0, (20, 22, 18)).numpy().astype(np.float64)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Chain:
    return Chain(tmp_path_factory.mktemp("learned"), **{"architecture::num_groups": 1, "architecture::num_blocks": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def expected(learned, folder) -> np.ndarray:
    return result_of(learned, folder, HEAD)[0]


def result_of(chain: Chain, folder, values: np.ndarray):
    nib.save(nib.Nifti1Image(values, AFFINE, dtype=values.dtype), folder / "scan.nii")
    result, record = chain(folder / "scan.nii")
    return result.get_fdata(), record


def assert_proportional(result: np.ndarray, expected: np.ndarray, factor: float, tolerance: float = 1e-4) -> None:
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result / factor, expected, atol=tolerance * np.abs(expected).max())


@settings(max_examples=settings().max_examples // 4)
@given(exponent=st.floats(-25, 25))
def test_a_rescaled_scan_gives_a_rescaled_result(learned, folder, expected, exponent):
    result, _ = result_of(learned, folder, HEAD * 10**exponent)
    assert_proportional(result, expected, 10**exponent)
    tally("intensity", "linear rescaling", "right")


@settings(max_examples=settings().max_examples // 4)
@given(exponent=st.floats(25, 300) | st.floats(-300, -25))
def test_intensities_at_the_limits_are_rescaled_or_refused(learned, folder, expected, exponent):
    """Never wrong, though float32 ends at 3.4e38."""
    with np.errstate(over="ignore", under="ignore"):
        values = HEAD * 10.0**exponent
    try:
        result, _ = result_of(learned, folder, values)
    except (RuntimeError, ValueError) as error:
        refusal(error, folder / "scan.nii")
        tally("intensity", "beyond float32", "refused")
    else:
        assert_proportional(result, expected, 10.0**exponent, tolerance=1e-3)
        tally("intensity", "beyond float32", "right")


TYPES = {
    "uint8": 0.2,
    "int16": 20.0,
    "uint16": 50.0,
    "int32": 1e6,
    "uint32": 1e6,
    "int64": 1e9,
    "uint64": 1e9,
    "float32": 1.0,
    "float64": 1.0,
}


@pytest.mark.parametrize("name", TYPES)
def test_the_stored_type_changes_nothing_but_its_own_rounding(learned, folder, expected, name):
    values = (HEAD * TYPES[name]).astype(name)
    rounding = 0 if "float" in name else 1 / values.max()
    result, _ = result_of(learned, folder, values)
    assert_proportional(result, expected, TYPES[name], tolerance=1e-4 + 2 * rounding)
    tally("intensity", f"stored as {name}", "right")


def test_signed_intensities_stay_signed(learned, folder):
    result, _ = result_of(learned, folder, HEAD - 50)
    assert result.min() < -20
    tally("intensity", "signed", "right")


def test_an_outlier_is_neither_clipped_nor_spread(folder, tmp_path):
    """Beyond what interpolation does; how far a network spreads it is the network's."""
    tricubic = Chain(tmp_path, "baselines/tricubic.yaml")
    values = HEAD.copy()
    values[10, 11, 9] = 50 * HEAD.max()
    (result, _), (expected, _) = (result_of(tricubic, folder, scan) for scan in (values, HEAD))
    far = np.ones(result.shape, dtype=bool)
    far[16:25, 18:27, 14:23] = False
    assert np.abs(result - expected)[far].max() < 1e-3 * HEAD.max()
    assert result.max() == pytest.approx(50 * HEAD.max(), rel=1e-4)
    tally("intensity", "an outlier", "right")


def test_saturation_is_noted(learned, folder):
    _, record = result_of(learned, folder, HEAD.clip(max=np.percentile(HEAD, 90)))
    assert "it was probably clipped" in record["Warnings"][0]
    tally("intensity", "saturated", "warned")
