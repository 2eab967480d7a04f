"""Configs: every stack composes, names only what exists, and trains."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CONFIGS, stack
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.physics.degradation import known_degradation
from scripts.utils.composition import check_options, option_names
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
RUNS = {"train": "training", "inference": "run", "evaluate": "evaluating"}  # what a trunk is run by
STACKS = {name: [f"{part}.yaml" for part in stack(name.removesuffix(".yaml"))] for name in FILES}
TRAINING = [name for name, files in STACKS.items() if files[0] == "train.yaml"]
EVALUATION = [name for name in FILES if name not in TRAINING]
TRAINING.remove("networks/slabs.yaml")  # it has no network of its own
TRAINING.remove("launch/label.yaml")  # tests/workflows/test_monai_label.py trains it as a server does
STAGES = {  # trainings that leave behind what another starts from
    "methods/dasr.yaml": ["methods/dasr_degradation.yaml"],
    "methods/distillation.yaml": ["methods/any_acquisition.yaml"],
    "methods/error_bars.yaml": ["methods/any_acquisition.yaml"],
}
# whose point is another network than the trunk's, of another kind, size or seed
OTHER_NETWORKS = [
    "networks/paper_network.yaml",
    "networks/slab_network.yaml",
    "networks/without_skip.yaml",
    "networks/kernel_degradation.yaml",
    "methods/spectral.yaml",
    "methods/kspace_pairs.yaml",
    "methods/supervised_oracle.yaml",
    "methods/any_acquisition.yaml",
    "methods/distillation.yaml",
    "methods/error_bars.yaml",
    "data/pooled.yaml",
    "recipes/shipped_weights.yaml",
    "recipes/shipped_error_bars.yaml",
]


SHARED_ARCHITECTURE = ("num_features", "num_groups", "num_blocks")
LOOKED_UP = {
    "_meta_",
    *RUNS.values(),
    "inspecting",
    "estimating",
    "exporting",
    "statistics",
    "train::inferer",
    "network_def",
    "bundle_root",
    "architecture::translation",  # by methods, in networks/
    "architecture::downsampling",
}


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))


def composed(files: Sequence[str]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in files])
    return parser


def leaves(config: Any) -> Iterator[Any]:
    if isinstance(config, Mapping):
        config = config.values()
    if isinstance(config, (str, bytes)) or not hasattr(config, "__iter__"):
        yield config
        return
    for value in config:
        yield from leaves(value)


# What stands in the files


@pytest.mark.parametrize("name", FILES)
def test_no_key_stands_twice(name):
    class Strict(yaml.SafeLoader):
        """YAML takes the last of two equal keys without a word."""

        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{sorted(k for k in keys if keys.count(k) > 1)} at {node.start_mark}"
            return super().construct_mapping(node, deep)

    yaml.load((CONFIGS / name).read_text(encoding="utf-8"), Loader=Strict)


@pytest.mark.parametrize("name", FILES)
def test_numbers_are_numbers(name):
    """YAML 1.1 reads 1e-4 as a string."""
    strings = [leaf for leaf in leaves(load(name)) if isinstance(leaf, str)]
    assert [text for text in strings if re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?", text)] == []


@pytest.mark.parametrize("name", FILES)
def test_lists_are_not_indexed(name):
    assert re.findall(r"(?:#|::)\d", (CONFIGS / name).read_text(encoding="utf-8")) == []


def test_the_training_trunk_is_a_page_that_a_user_can_read():
    lines = (CONFIGS / "train.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 260
    assert len(load("train.yaml")) <= 46


@pytest.mark.parametrize("name", FILES)
def test_a_run_uses_every_key(name):
    """A key that nothing refers to is dead, unless MONAI looks it up by name."""
    others = [load(file) for file in STACKS[name] if file != name]
    check_options(composed(STACKS[name]).config, LOOKED_UP.union(*(option_names(config) for config in others)))


def components(config: Any) -> Iterator[Mapping]:
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config
        config = list(config.values())
    for value in config if isinstance(config, list) else []:
        yield from components(value)


@pytest.mark.parametrize("name", FILES)
def test_every_network_has_the_size_that_the_variables_say(name):
    for component in components(load(name)):
        if component["_target_"] in (
            "@architecture::network",
            "@architecture::degradation",
            "@architecture::translation",
        ):
            size = {key: component.get(key) for key in SHARED_ARCHITECTURE}
            assert size == {key: f"@architecture::{key}" for key in SHARED_ARCHITECTURE}


# What the trunks share


PARTS = {"preprocessing", "postprocessing", "dataset", "dataloader", "inferer", "handlers", "evaluator", "scans"}
OWN = {"imports", "composition", "output_dir", "run", "data_consistency", *PARTS}  # what each trunk has of its own
ASSUMED = {"acquisition", "scale_factor"}  # of the scan in inference; otherwise simulated


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(RUNS, 2)))
def test_what_two_trunks_state_is_the_same(first, second):
    one, other = load(f"{first}.yaml"), load(f"{second}.yaml")
    for content in (one, other):
        content["network_def"].pop("seed", None)
        content["architecture"] = {key: content["architecture"][key] for key in ("network", *SHARED_ARCHITECTURE)}
    shared = (one.keys() & other.keys()) - OWN - (ASSUMED if "inference" in (first, second) else set())
    assert {key: one[key] for key in shared} == {key: other[key] for key in shared}
    assert shared >= {"architecture", "network_def", "network", "bundle_root", "device", "amp_dtype", "axcodes"}


def test_validation_passes_a_volume_as_inference_does():
    validation, inference = load("train.yaml")["validate"], load("inference.yaml")
    tiles = inference["inferer"]["inferer"]
    tiles.pop("progress")
    inference["inferer"].pop("orientations")
    assert validation["inferer"] == inference["inferer"]


def test_validation_prepares_an_image_as_inference_does():
    def of_image(transforms: list[dict]) -> list[dict]:
        own = ("allow_missing_keys", "analyze", "keys", "smallest", "_disabled_")
        named = [t for t in transforms if isinstance(t, Mapping)]  # simulated_acquisition is a reference
        named = [t for t in named if t.get("_disabled_") != "@low_res_grid"]  # validation scales before it interpolates
        plain = [{key: value for key, value in t.items() if key not in own} for t in named if "image" in t["keys"]]
        own_transforms = (
            "KSpaceTruncated",
            "DeclareHighResGridd",
            "MarkTissued",
            "WarnUnfamiliard",
            "InterpolateAcquiredd",
        )
        made_here = ("DivisiblePadd", *(f"scripts.transforms.{name}" for name in own_transforms))
        return [t for t in plain if t["_target_"] not in made_here]

    training, inference = (load(name) for name in ("train.yaml", "inference.yaml"))
    expected = of_image(inference["preprocessing"]["transforms"])
    reading, validation = training["data"]["reading"], training["validate"]["preprocessing"]
    assert validation["transforms"][0] == "@data::reading"
    assert of_image([*reading["transforms"], *validation["transforms"]]) == expected


# Every stack


@pytest.mark.parametrize("name", EVALUATION)
def test_an_evaluation_has_every_property_of_the_bundle_specification(name, phantom_dataset, tmp_path):
    settings = {"bundle_root": str(CONFIGS.parent), "dataset_dir": str(phantom_dataset() / "validation")}
    if name == "baselines/linear_inverse_estimated.yaml":
        settings["degradation"] = str(tmp_path / "degradation.json")
        known_degradation()._replace(spacing=(2.0, 2.0, 2.0)).save(settings["degradation"])
    paths = [str(CONFIGS / file) for file in STACKS[name]]
    run = RUNS[STACKS[name][0].removesuffix(".yaml")]
    workflow = ConfigWorkflow(paths, workflow_type="infer", run_id=run, logging_file=False, **settings)
    workflow.initialize()
    assert workflow.check_properties() == []


def trained(workflow: ConfigWorkflow) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], Any]:
    """Run a training: the network's first weights, the terms of each iteration, and the trainer."""
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train::trainer")
    network = workflow.parser.get_parsed_content("network")
    start = {key: value.clone() for key, value in network.state_dict().items()}
    terms: list[dict[str, Tensor]] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: terms.append(dict(engine.state.output["terms"]))
    )
    workflow.run()
    return start, terms, trainer


def check_training(workflow: ConfigWorkflow) -> dict[str, Tensor]:
    """Two iterations compute all terms, finite, and leave their files; returns the network's first weights."""
    start, terms, trainer = trained(workflow)
    assert workflow.check_properties() == []
    expected = {name for name, weight in trainer.objective.weights.items() if weight is not None}
    assert [set(iteration) for iteration in terms] == [expected, expected]
    assert {name for iteration in terms for name, term in iteration.items() if not torch.isfinite(term)} == set()
    assert list(Path(workflow.parser.get_parsed_content("train::checkpoint_dir")).glob("*.pt"))
    assert (Path(workflow.parser.get_parsed_content("output_dir")) / workflow.parser["train::results_file"]).is_file()
    return start


@pytest.mark.filterwarnings("ignore:The ``noload``")  # MLflow's own
@pytest.mark.parametrize("name", TRAINING)
def test_a_training_runs_and_starts_from_the_trunk_s_network(name, train_stack):
    for stage in (*STAGES.get(name, ()), name):
        start = check_training(train_stack(*STACKS[stage][1:]))
    if name not in OTHER_NETWORKS:
        expected = train_stack().parser.get_parsed_content("network").state_dict()
        prefix = next(key for key in start if key.endswith("encoder.0.weight") and "cleaner" not in key)
        prefix = prefix.removesuffix("encoder.0.weight")
        assert all(torch.equal(start[prefix + key], value) for key, value in expected.items())


@pytest.mark.parametrize("method", ["blind_sr", "cyclegan", "dasr", "pseudo_sr", "spectral"])
def test_a_method_trains_on_thin_slabs(method, train_stack):
    name = f"methods/{method}.yaml"
    for stage in (*STAGES.get(name, ()), name):
        workflow = train_stack(*STACKS[stage][1:], "networks/slabs.yaml", "networks/slab_network.yaml")
        check_training(workflow)
    networks = {type(one).__name__ for one in workflow.parser.get_parsed_content("objective").modules()}
    assert not {one for one in networks if one.startswith("Folded") or one == "InterpolatedDownsampling"}
    margins = [one.margin for one in workflow.parser.get_parsed_content("network").modules() if hasattr(one, "margin")]
    assert margins == [2 if method == "spectral" else 0]


def test_the_default_trains_for_an_unscaled_slab_axis(train_stack):
    check_training(train_stack(scale_factor=(2, 2, 1)))


def test_high_resolution_scans_alone_suffice(train_stack):
    """A BIDS dataset is split by subject, and its target group degraded here."""
    workflow = train_stack(degrade_target=True)
    check_training(workflow)
    volumes = workflow.parser.get_parsed_content("train::dataset").volumes
    assert {tuple(v.shape) for vs in volumes["reals"].values() for v in vs} == {(72, 68, 24)}
    assert {tuple(v.shape) for vs in volumes["image"].values() for v in vs} == {(36, 34, 12)}
    assert not volumes["reals"].keys() & volumes["image"].keys()


@pytest.mark.parametrize("trunk", ["inference", "evaluate"])
def test_the_shipped_weights_fit_the_network(trunk):
    parser = composed([f"{trunk}.yaml"])
    parser["bundle_root"] = str(CONFIGS.parent)
    path = Path(parser.get_parsed_content("ckpt_path"))
    assert path == CONFIGS.parent / "models" / "model.pt"
    assert path.with_suffix(".json").is_file()  # what inference compares scans with
    parser.get_parsed_content("network_def").load_state_dict(torch.load(path, weights_only=True))


def test_the_last_model_loads_into_the_network_of_inference(train_stack, tmp_path):
    workflow = train_stack()
    trained(workflow)
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    parser = composed(["inference.yaml"])
    parser.update({f"architecture::{key}": workflow.parser["architecture"][key] for key in SHARED_ARCHITECTURE})
    parser["bundle_root"] = str(CONFIGS.parent)
    parser.get_parsed_content("network_def").load_state_dict(weights)
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_the_curves_are_on_disk_when_a_training_ends(train_stack, tmp_path):
    """Curves that wait for the next flush are lost with the process."""
    trained(train_stack())
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"psnr", "ssim", "degradation_gain"} <= set(curves.Tags()["scalars"])
    assert [event.step for event in curves.Scalars("psnr")] == [0, 1]


# Runs that equal others


def final_state(workflow: ConfigWorkflow) -> dict[str, Any]:
    """All that a run remembers when it has ended."""
    trained(workflow)
    (path,) = sorted(Path(workflow.parser.get_parsed_content("train::checkpoint_dir")).glob("*.pt"))[-1:]
    return torch.load(path, weights_only=False)


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested states differ, bit for bit."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [where for key in a for where in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [where for i in range(len(a)) for where in differences(a[i], b[i], f"{path}/{i}")]
    same = torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
    return [] if same else [path]


def test_a_resumed_training_equals_one_that_was_never_stopped(train_stack, tmp_path):
    budget = {"max_iterations": 4, "iterations_per_epoch": 2}
    uninterrupted = final_state(train_stack(**budget, output_dir=str(tmp_path / "a")))
    stopped = {"output_dir": str(tmp_path / "b"), **budget}
    trained(train_stack(**stopped, **{"train::trainer::max_epochs": 1}))
    resumed = final_state(train_stack(**stopped, resume="latest"))
    assert resumed["trainer"]["iteration"] == 4
    assert differences(resumed, uninterrupted) == []


def test_the_contrastive_model_without_its_loss_is_the_one_with_weights_of_zero(train_stack):
    zero = dict.fromkeys(["contrastive_feature", "contrastive_consistency", "contrastive_cycle"], 0.0)
    workflow = train_stack(max_iterations=3, iterations_per_epoch=3)
    assert workflow.parser["contrastive_terms::weights"].keys() == zero.keys()
    workflow.parser["contrastive_terms::weights"] = zero
    with_zero = final_state(workflow)
    without = final_state(train_stack("methods/without_contrastive.yaml", max_iterations=3, iterations_per_epoch=3))
    for part in ("objective", "ema"):
        assert differences(with_zero[part], without[part]) == []
