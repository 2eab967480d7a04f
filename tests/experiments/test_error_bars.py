"""The study of error bars: what it writes, and that its table says whether they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import head_phantom, write_scan
from scripts.networks import FoldedNet

from experiments.studies import error_bars
from experiments.studies.acquisitions import Case

SIZES = {"num_groups": 1, "num_blocks": 1}
OWN = yaml.safe_load(error_bars.MATRIX.read_text(encoding="utf-8"))


def sample(seed: int, count: int = 20_000) -> error_bars.Sample:
    torch.manual_seed(seed)
    scale = 0.01 + 0.1 * torch.rand(count)
    error = torch.distributions.Laplace(0.0, 1.0).sample((count,)).abs() * scale
    return {"scale": scale, "half_width": 2.3026 * scale, "error": error, "change": torch.rand(count)} | {
        "around": scale,
        "deep": torch.rand(count) < 0.5,
    }


def case(name: str) -> Case:
    return Case("scans", "2x2x2", ["frequency 2"] * 3, f"data/{name}_T1w.nii.gz", Path(name))


def test_the_table_says_whether_the_bars_hold():
    good, bad = sample(0), sample(1)
    bad["half_width"] = bad["half_width"] / 2
    found = [(case("sub-1"), "isotropic", good), (case("sub-2"), "in_plane", bad)]
    rows = list(error_bars.rows(found))
    assert [row["coverage"] for row in rows] == pytest.approx([0.9, 0.684], abs=0.01)
    assert rows[0]["half_width"] == pytest.approx(rows[0]["if_exact"], abs=0.03)
    assert rows[0]["half_width"] > 0.2 > 0.05 > abs(rows[0]["change"])
    lines = error_bars.summary(found, rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| isotropic", "| in plane", "| all"]
    assert " 90." in lines[2] or " 89." in lines[2]
    assert " 79." in lines[4] or " 78." in lines[4]


def test_no_subject_calibrates_and_tests():
    scans = [{scan for one in OWN[section].values() for scan in one["scans"]} for section in ("calibration", "test")]
    assert scans[0].isdisjoint(scans[1])
    assert len(scans[1]) >= 8


@pytest.fixture
def matrix(tmp_path) -> Path:
    for name in ("sub-1", "sub-2"):
        write_scan(
            tmp_path / "scans" / f"{name}_T1w.nii.gz", head_phantom(int(name[-1]), (24, 30, 28)), (1.0, 1.0, 1.0)
        )
    scans = {
        name: {"phantoms": {"acquisitions": "every", "scans": [f"data/{name}_T1w.nii.gz"]}}
        for name in ("sub-1", "sub-2")
    }
    content = {"axcodes": "ASR", "acquisitions": {name: OWN["acquisitions"][name] for name in ("2x2x2", "slices of 3")}}
    content |= {"calibration": scans["sub-1"], "test": scans["sub-2"]}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tmp_path / "tiny.yaml"


def test_it_calibrates_and_tests_weights_of_the_user(matrix, tmp_path):
    weights = tmp_path / "model.pt"
    torch.save(FoldedNet(**SIZES).state_dict(), weights)
    head = FoldedNet(**SIZES).add_error_head().decoder[-1].error_head
    torch.nn.init.normal_(head.log_scale.weight, std=0.1)
    torch.save(head.state_dict(), tmp_path / "model_error_head.pt")
    (tmp_path / "model.json").write_text(json.dumps({"volumes": []}), encoding="utf-8")
    options = {"ckpt_path": str(weights), "amp_dtype": None, **{f"architecture::{key}": n for key, n in SIZES.items()}}
    given = ({"data": tmp_path / "scans"}, matrix, options)
    with pytest.raises(ValueError, match=r"model\.json: expected a calibration of these weights"):
        error_bars.main("test", *given)
    error_bars.main("calibrate", *given)
    written = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert written["volumes"] == []
    assert list(written["error_bars"]["kinds"]) == ["isotropic", "slices"]
    assert written["error_bars"]["Scans"] == ["sub-1 of data"]
    text = error_bars.main("test", *given).read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in text.splitlines()[2:5]] == ["| isotropic", "| slices", "| all"]
    assert "- calibrated on sub-1 of data" in text
    assert len((tmp_path / "tiny.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_the_error_around_a_voxel_is_not_its_own():
    error = np.ones((40, 40, 40))
    error[20, 20, 20] = 100
    around = error_bars.around(error)
    assert around[20, 20, 20] == pytest.approx(1)
    assert around[20, 20, 21] > 1.5


def test_the_rank_correlation_ignores_the_units():
    torch.manual_seed(0)
    x, y = torch.rand(1000), torch.rand(1000)
    assert error_bars.rank_correlation(x, y) == pytest.approx(error_bars.rank_correlation(x.exp(), 3 * y + 1))
    assert abs(error_bars.rank_correlation(x, y)) < 0.1
