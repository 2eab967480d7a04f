"""The record of a training, also of one that goes on after the folder of its first stage is gone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from experiments import record
from experiments.pictures import LARGEST, save_small


def trained(folder: Path, gains: list[float]) -> Path:
    """The folder of a training of ten iterations between validations, with a night in between."""
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for epoch, gain in enumerate(gains):
            writer.add_scalar("psnr_gain", gain, epoch, walltime=3600 * 12 * epoch)
            writer.add_scalar("psnr_gain_2x2x2", gain + 1, epoch, walltime=3600 * 12 * epoch)
            writer.add_scalar("relative_l1", 0.1, 10 * (epoch + 1), walltime=3600 * 12 * epoch + 720)
    scans = {"training": [{"reals": "a.nii", "subject": "a"}], "validation": []}
    (folder / "datalist.json").write_text(json.dumps(scans), encoding="utf-8")
    return folder


@pytest.mark.parametrize("at_once", [True, False])
def test_stages_are_recorded_one_after_the_other(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(record, "FOLDER", tmp_path / "results")
    first, second = trained(tmp_path / "first", [0.0, 0.5]), trained(tmp_path / "second", [0.6])
    if at_once:
        record.record(first, second)
    else:
        record.record(first)
        record.record(second, append=True)
    summary = json.loads((tmp_path / "results" / "training.json").read_text(encoding="utf-8"))
    with open(tmp_path / "results" / "curves.csv", newline="", encoding="utf-8") as file:
        curves = [(row["stage"], row["epoch"], float(row["psnr_gain_2x2x2"])) for row in csv.DictReader(file)]
    assert summary["stages"] == [{"iterations": 20, "hours": 0.4}, {"iterations": 10, "hours": 0.2}]
    assert summary["subjects"] == {"training": ["a"], "validation": []}
    assert curves == [("1", "0", 1.0), ("1", "1", 1.5), ("2", "0", 1.6)]


def test_pictures_are_made_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    save_small(tmp_path / "large.png", tmp_path / "results" / "small.png")
    assert (tmp_path / "results" / "small.png").stat().st_size <= LARGEST
