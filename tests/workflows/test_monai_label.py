"""What MONAI Label does to the bundle, in small; ``make test-label`` runs the server itself."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from ignite.handlers import EMAHandler
from monai.data import MetaTensor
from scripts.handlers.averaging import AverageStartHandler
from scripts.transforms import DeclareRestoredGridd, LoadImageStrictd
from torch import nn


def test_the_loader_can_be_asked_for_the_metadata_afterwards(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.eye(4, dtype=np.float32)[None], np.diag([1, 2, 3, 1])), path)
    load = LoadImageStrictd("image")
    load._loader.image_only = False  # MONAI Label's own words
    assert set(load({"image": path})) == {"image", "image_meta_dict"}


def test_restoring_a_prediction_to_the_grid_of_its_input_resamples_nothing():
    meta = {"spatial_shape": np.array([4, 4, 4]), "original_affine": np.eye(4)}
    image = MetaTensor(torch.rand(1, 2, 2, 2), affine=torch.eye(4), meta=meta)
    affine = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=torch.float64))
    pred = MetaTensor(torch.rand(1, 4, 6, 2), affine=affine)
    out = DeclareRestoredGridd("image")({"image": image, "pred": pred})
    assert tuple(out["image"].meta["spatial_shape"]) == (4, 6, 2)
    np.testing.assert_array_equal(out["image"].meta["original_affine"], affine)
    assert torch.equal(out["image"].as_tensor(), image.as_tensor())
    assert out["pred"] is pred
    assert tuple(image.meta["spatial_shape"]) == (4, 4, 4)


def test_the_average_starts_from_what_was_loaded_but_not_when_a_training_goes_on():
    for start, expected in ((0, 1.0), (2, 0.0)):
        network = nn.Linear(1, 1)
        ema = EMAHandler(network)
        with torch.no_grad():
            network.weight.fill_(1.0)
            ema.ema_model.weight.fill_(0.0)
        engine = Engine(lambda _engine, _batch: None)
        AverageStartHandler(ema).attach(engine)
        engine.load_state_dict({"iteration": start, "epoch_length": 2, "max_epochs": 2})
        engine.run(range(2))
        assert ema.ema_model.weight.item() == expected


def test_the_studies_of_a_server_train_without_pairs_for_as_many_epochs_as_it_asks(
    train_stack, phantom_dataset, tmp_path
):
    folder = phantom_dataset((2, 2, 2))
    targets, sources = (sorted((folder / name).glob("*.nii.gz")) for name in ("target", "source"))
    studies = [{"image": str(image), "label": str(label)} for image, label in zip(targets, sources, strict=False)]
    workflow = train_stack(
        **{
            "train#dataset#data": studies,
            "validate#dataset#data": studies[:1],
            "train#trainer#max_epochs": 3,
            "iterations_per_epoch": 1,
            "final_dir": str(tmp_path / "models"),
        }
    )
    workflow.initialize()
    assert workflow.parser.get_parsed_content("referenced") is False
    trainer = workflow.parser.get_parsed_content("train::trainer")
    dataset = workflow.parser.get_parsed_content("train::dataset")
    assert len(dataset.high_res_volumes) == len(dataset.low_res_volumes) == len(studies)
    assert workflow.parser.get_parsed_content("g_scheduler::t_total") == 3
    workflow.run()
    assert trainer.state.iteration == 3
    assert (tmp_path / "models" / "model.pt").is_file()


def test_a_server_s_models_are_written_where_it_reads_them(train_stack):
    studies = [{"image": "low.nii", "label": "high.nii"}]
    workflow = train_stack(**{"train#dataset#data": studies})
    final_dir = workflow.parser.get_parsed_content("final_dir")
    assert final_dir == workflow.parser["bundle_root"] + "/models"
