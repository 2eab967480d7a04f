"""The bundle in MONAI Label, without the server. ``make test-label`` runs the server itself."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING
from ignite.engine import Engine
from ignite.handlers import EMAHandler
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import MetaTensor
from scripts.handlers.averaging import AverageStartHandler
from scripts.networks import FoldedNet
from scripts.transforms import DeclareRestoredGridd, LoadImageStrictd
from torch import nn

from deploy.label import install


def test_the_loader_can_be_asked_for_the_metadata_afterwards(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.eye(4, dtype=np.float32)[None], np.diag([1, 2, 3, 1])), path)
    load = LoadImageStrictd("image")
    load._loader.image_only = False  # as MONAI Label does
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


@pytest.fixture
def bundle(tmp_path):
    return install(tmp_path / "monaibundle")


def test_one_config_of_the_application_holds_the_trunk_and_label_mode(bundle):
    config, overlay = (
        ConfigParser.load_config_file(bundle / "configs" / name) for name in ("train.yaml", "launch/label.yaml")
    )
    assert next(iter(config)) == "imports"
    assert config["composition"] == ["train"]
    assert "requires" not in config
    assert isinstance(config["train"]["handlers"], list)  # the server inserts a loader of its weights
    own = [key for key in overlay if key.isidentifier() and key != "requires"]
    assert {key: config[key] for key in own} == {key: overlay[key] for key in own}
    assert set(own) == {"output_dir", "report", "max_iterations", "learning_rate", "validation_acquisitions"}
    assert (bundle / "models" / "model.pt").is_file()
    assert (bundle / "configs" / "multi_gpu_train.yaml").is_file()


def test_a_bundle_with_trained_weights_is_not_replaced(bundle):
    with pytest.raises(FileExistsError, match="expected no such folder, got one"):
        install(bundle.parents[1])


def test_the_server_trains_the_network_that_it_infers_with(bundle):
    networks = []
    for name in ("train.yaml", "inference.yaml"):
        parser = ConfigParser()
        parser.read_config(bundle / "configs" / name)
        parser["bundle_root"] = str(bundle)
        networks.append(parser.get_parsed_content("network_def"))
    trained, inferred = networks
    assert type(trained).__name__ == type(inferred).__name__ == "FoldedNet"
    inferred.load_state_dict(trained.state_dict(), strict=True)


def test_the_studies_of_a_server_train_for_as_many_epochs_as_it_asks(bundle, phantom_dataset):
    """As the server does: it sets the data and the epochs, and loads the weights by a handler of its own."""
    folder = phantom_dataset((2, 2, 2))
    targets, sources = (sorted((folder / name).glob("*.nii.gz")) for name in ("target", "source"))
    studies = [{"image": str(image), "label": str(label)} for image, label in zip(targets, sources, strict=False)]
    weights = bundle / "models" / "model.pt"
    torch.save(FoldedNet(16, 1, 1).state_dict(), weights)  # of the tiny network
    asked = {
        "bundle_root": str(bundle),
        "train#trainer#max_epochs": 3,
        "train#dataset#data": studies,
        "validate#dataset#data": studies[:1],
    }
    tiny = {key: value for key, value in TINY_TRAINING.items() if key != "max_iterations"}
    tiny |= {"iterations_per_epoch": 1, "crop_size": [24] * 3}

    def run() -> ConfigWorkflow:
        config = str(bundle / "configs" / "train.yaml")
        workflow = ConfigWorkflow(config, logging_file=False, workflow_type="train", **tiny, **asked)
        handlers = workflow.parser["train"]["handlers"]
        load_dict = {"model": "$@network_def"}
        loader = {"_target_": "CheckpointLoader", "load_path": str(weights), "load_dict": load_dict, "strict": False}
        workflow.parser["train"]["handlers"] = [loader, *handlers]
        workflow.initialize()
        workflow.run()
        return workflow

    workflow = run()
    trainer, dataset = (workflow.parser.get_parsed_content(f"train::{name}") for name in ("trainer", "dataset"))
    assert workflow.parser.get_parsed_content("train::g_scheduler::t_total") == trainer.state.iteration == 3
    assert len(dataset.truths) == len(studies)
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert {"psnr_gain_2x2x2", "psnr_gain_slices_4_4"} <= metrics.keys()
    assert not (bundle / "models" / "demonstration").exists()  # the server's studies are all the data
    first = torch.load(weights, weights_only=True)
    inferred = FoldedNet(16, 1, 1)
    inferred.load_state_dict(first, strict=True)  # the server reads its weights there
    assert (bundle / "models" / "model.json").is_file()
    run()  # from these weights
    second = torch.load(weights, weights_only=True)
    steps = [(second[name] - first[name]).abs().max() for name in first]
    assert 0 < max(steps) < 0.01
