"""Tracking: terms under their own names and pictures, in TensorBoard and, where asked for, in MLflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.handlers.tracking import middle_slice, slices_of_batch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EVERY = {"iterations_per_epoch": 20, "max_iterations": 20}


def terms_of(workflow) -> set[str]:
    """The names of the weights in the config: the objective's and those of the contrastive handler."""
    return set(workflow.parser.get_parsed_content("objective").weights)


def run(workflow) -> None:
    workflow.initialize()
    workflow.run()


def test_a_slice_is_shown_upright():
    volume = torch.zeros(1, 4, 3, 5)  # anterior, superior, right
    volume[0, 3, 2, 2] = 1.0  # anterior and superior
    picture = middle_slice(volume)
    assert picture.shape == (1, 3, 4)
    assert picture[0, 0, 3] == 1  # first row, last column


def test_a_batch_without_reference_has_no_picture_of_one():
    images, labels = slices_of_batch([{"image": torch.zeros(1, 4, 4, 4)}])
    assert images[0].shape == (1, 4, 4)
    assert labels == [None]


def test_tensorboard_has_the_terms_of_the_config_and_pictures(train_stack, tmp_path):
    workflow = train_stack(**EVERY)
    run(workflow)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"image_cycle_l1", "contrastive_cycle"} < terms_of(workflow) <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["input_0_HW_0", "input_1_HW_0", "output_HW_0"]
    assert [picture.step for picture in events.Images("output_HW_0")] == [0, 1]
    assert not (tmp_path / "mlruns.db").exists()


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_has_the_same_and_the_config(train_stack, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install --editable '.[tracking]'")
    workflow = train_stack("launch/mlflow.yaml", **EVERY, tracking="mlflow")
    run(workflow)
    client = mlflow.MlflowClient(workflow.parser.get_parsed_content("tracking_uri"))
    experiment = client.get_experiment_by_name("brain_mri_unpaired_super_resolution")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == tmp_path.name
    assert tracked.info.status == "FINISHED"
    assert terms_of(workflow) | {"loss", "psnr", "psnr_gain", "ssim"} <= set(tracked.data.metrics)
    pictures = [item.path for item in client.list_artifacts(tracked.info.run_id, "images")]
    assert {name: any(f"/{name}" in path for path in pictures) for name in ("image", "label", "pred")} == {
        "image": True,
        "label": True,
        "pred": True,
    }
    assert len(list(tmp_path.glob("config_*.json"))) == 1  # what was run
    assert np.isfinite(list(tracked.data.metrics.values())).all()
