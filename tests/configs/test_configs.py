"""Configs: every stack composes, names only what exists, and trains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CONFIGS
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.physics.degradation import known_degradation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
RUN_LINE = re.compile(
    r'^# .*(?:python|torchrun .*) -m monai\.bundle run (?:(\w+) )?--config_file ("\[.*?\]"|\S+)', re.M
)
TRUNKS = {"train.yaml": "train", "inference.yaml": "infer"}


def stages_of(name: str) -> list[tuple[str, list[str]]]:
    """The runs that the comment at the head of a config asks for, up to its own: names, and files below configs/."""
    lines = RUN_LINE.findall((CONFIGS / name).read_text(encoding="utf-8"))
    stages = [(run or "run", re.findall(r"bundle/configs/([\w/]+\.yaml)", files)) for run, files in lines]
    own = [index for index, (_, files) in enumerate(stages) if files[-1] == name]
    assert own, f"{name} does not say how it is run"
    return stages[: own[0] + 1]


STACKS = {name: stages_of(name)[-1] for name in FILES}
TRAINING = [name for name, (_, files) in STACKS.items() if files[0] == "train.yaml"]
EVALUATION = [name for name in FILES if name not in TRAINING]
OVERLAYS = [name for name, (_, files) in STACKS.items() if len(files) > 1]
# whose point is another network than the trunk's
OTHER_NETWORKS = [
    "networks/paper_network.yaml",
    "networks/slab_network.yaml",
    "networks/without_skip.yaml",
    "recipes/shipped_weights_continued.yaml",
    "recipes/shipped_weights_grown.yaml",
    "recipes/shipped_weights_all_scans.yaml",
    "networks/large.yaml",
]  # of another seed or size


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
def test_a_config_says_how_it_is_run(name):
    run, files = STACKS[name]
    assert files[-1] == name
    assert files[0] in TRUNKS
    assert all((CONFIGS / file).is_file() for file in files)
    assert run in composed(files).config


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


# What an overlay changes


def split_override(key: str) -> tuple[bool, list[str]]:
    """Whether the key of an overlay adds, and the path that it names."""
    return key.startswith("+"), key.lstrip("+").replace("#", "::").split("::")


def misnamed(trunk: Mapping, overlay: Mapping, merged: str) -> list[str]:
    """The keys of an overlay that do not do what they say: ``a::b`` changes, ``+a`` adds, ``a`` replaces or is used."""
    wrong = []
    for key, value in overlay.items():
        adds, path = split_override(key)
        target: Any = trunk
        for part in path[: None if adds else -1]:
            target = target.get(part) if isinstance(target, Mapping) else None
        if adds:
            new = isinstance(target, list) or (isinstance(target, Mapping) and not set(target) & set(value))
            wrong += [] if new else [key]
        elif len(path) > 1:
            wrong += [] if isinstance(target, Mapping) and path[-1] in target else [key]
        elif (
            key not in trunk
            and not re.search(rf"[@%]{key}\b", merged)
            and key not in {"initialize", "finalize", *(run for run, _ in STACKS.values())}
        ):
            wrong.append(key)
    return wrong


@pytest.mark.parametrize("name", OVERLAYS)
def test_overrides_change_what_exists_and_additions_add(name):
    files = STACKS[name][1]
    merged = str(composed(files).config)
    assert misnamed(composed(files[:-1]).config, load(name), merged) == []


@pytest.mark.parametrize(
    ("overlay", "wrong"),
    [
        ({"a::b": 2, "+a": {"c": 1}, "+l": [2], "x": 2}, []),
        ({"a::c": 2}, ["a::c"]),
        ({"d::b": 2}, ["d::b"]),
        ({"+a": {"b": 2}}, ["+a"]),
        ({"+d": {"b": 2}}, ["+d"]),
        ({"max_epoch": 2}, ["max_epoch"]),
        ({"used": 2, "a::b": "@used"}, []),
    ],
)
def test_slips_of_an_overlay_are_found(overlay, wrong):
    trunk = {"a": {"b": 1}, "l": [1], "x": 1}
    assert misnamed(trunk, overlay, merged=str({**trunk, **overlay})) == wrong


def components(config: Any) -> Iterator[Mapping]:
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield config
        config = list(config.values())
    for value in config if isinstance(config, list) else []:
        yield from components(value)


@pytest.mark.parametrize("name", FILES)
def test_every_network_of_slabs_has_the_size_that_the_variables_say(name):
    size = ("slab_size", "num_features", "num_groups", "num_blocks")
    for component in components(load(name)):
        if component["_target_"] in ("@network_class", "@degradation_class", "scripts.networks.TranslationNet"):
            assert {key: component.get(key) for key in size} == {key: f"@{key}" for key in size}


# What the trunks share


def test_what_both_trunks_state_is_the_same():
    training, inference = load("train.yaml"), load("inference.yaml")
    assert training["network_def"].pop("seed") == "$@seed + 10"
    own = {"imports", "output_dir", "run"}
    shared = (training.keys() & inference.keys()) - own
    assert {key: training[key] for key in shared} == {key: inference[key] for key in shared}
    assert shared >= {
        "axcodes",
        "scale_factor",
        "slab_size",
        "num_groups",
        "num_blocks",
        "skip",
        "network_class",
        "network_def",
        "network",
    }
    assert set(inference["imports"]) <= set(training["imports"])


def test_validation_passes_a_volume_as_inference_does():
    validation, inference = load("train.yaml")["validate"], load("inference.yaml")
    tiles = inference["inferer"]["inferer"]
    tiles.pop("progress")
    for option in ("orientations", "disagreement"):
        inference["inferer"].pop(option)
    assert validation["inferer"] == inference["inferer"]


def test_validation_prepares_an_image_as_inference_does():
    def of_image(transforms: list[dict]) -> list[dict]:
        own = ("allow_missing_keys", "keys", "_disabled_")
        plain = [{key: value for key, value in t.items() if key not in own} for t in transforms if "image" in t["keys"]]
        own_transforms = ("KSpaceTruncated", "DeclareHighResGridd", "WarnUnfamiliard")
        made_here = ("DivisiblePadd", *(f"scripts.transforms.{name}" for name in own_transforms))
        return [t for t in plain if t["_target_"] not in made_here]

    training, inference = (load(name) for name in ("train.yaml", "inference.yaml"))
    expected = of_image(inference["preprocessing"]["transforms"])
    assert of_image(training["validate"]["preprocessing"]["transforms"]) == expected


# Every stack


@pytest.mark.parametrize("name", EVALUATION)
def test_an_evaluation_has_every_property_of_the_bundle_specification(name, phantom_dataset, tmp_path):
    run, files = STACKS[name]
    settings = {"bundle_root": str(CONFIGS.parent), "dataset_dir": str(phantom_dataset() / "validation")}
    if name == "baselines/linear_inverse_estimated.yaml":
        settings["degradation"] = str(tmp_path / "degradation.json")
        known_degradation()._replace(spacing=(2.0, 2.0, 2.0)).save(settings["degradation"])
    paths = [str(CONFIGS / file) for file in files]
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
    assert list(Path(workflow.parser.get_parsed_content("ckpt_dir")).glob("*.pt"))
    assert (Path(workflow.parser.get_parsed_content("output_dir")) / workflow.parser["final_filename"]).is_file()
    return start


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_runs_and_starts_from_the_trunk_s_network(name, train_stack):
    for _, files in stages_of(name):
        start = check_training(train_stack(*files[1:]))
    if name not in OTHER_NETWORKS:
        expected = train_stack().parser.get_parsed_content("network").state_dict()
        prefix = next(key for key in start if key.endswith("encoder.0.weight") and "cleaner" not in key)
        prefix = prefix.removesuffix("encoder.0.weight")
        assert all(torch.equal(start[prefix + key], value) for key, value in expected.items())


def test_the_weights_of_all_scans_are_monitored_on_generated_subjects_alone(
    train_stack, phantom_bids_dataset, tmp_path
):
    scans = sorted(phantom_bids_dataset.rglob("*.nii.gz"))
    groups = {"source": [scan.parts[-3] for scan in scans]}
    generated = [{"image": str(scan), "label": str(scan), "subject": f"generated-{scan.parts[-3]}"} for scan in scans]
    training = [{"reals": str(scans[0]), "subject": "source"}, {"image": str(scans[0]), "subject": "target"}]
    (tmp_path / "cohort.json").write_text(json.dumps({"training": training, "validation": generated}))
    workflow = train_stack(*STACKS["recipes/shipped_weights_all_scans.yaml"][1][1:], groups=groups)
    workflow.parser["dataset_dir"] = str(phantom_bids_dataset)
    workflow.parser["cohort::dataset_dir"] = str(tmp_path / "cohort.json")
    workflow.initialize()
    content = workflow.parser.get_parsed_content
    assert list(content("train::dataset").volumes["label"]) == groups["source"]
    assert [item["subject"] for item in content("validate::dataset").data] == [item["subject"] for item in generated]


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


@pytest.mark.parametrize(
    ("overlays", "weights"),
    [
        ((), "model.pt"),
        (("networks/large.yaml",), "large/model.pt"),
        (("recipes/in_plane.yaml",), "in_plane/model.pt"),
        (("recipes/all_scans.yaml",), "all_scans/model.pt"),
        (("recipes/in_plane.yaml", "recipes/all_scans.yaml"), "all_scans/in_plane/model.pt"),
    ],
)
def test_the_shipped_weights_fit_the_network_that_their_overlays_make(overlays, weights):
    parser = composed(("inference.yaml", *overlays))
    parser["bundle_root"] = str(CONFIGS.parent)
    path = Path(parser.get_parsed_content("ckpt_path"))
    assert path == CONFIGS.parent / "models" / weights
    assert path.with_suffix(".json").is_file()  # what inference compares scans with
    parser.get_parsed_content("network_def").load_state_dict(torch.load(path, weights_only=True))


def test_the_last_model_loads_into_the_network_of_inference(train_stack, tmp_path):
    workflow = train_stack()
    trained(workflow)
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    parser = composed(("inference.yaml",))
    parser.update({key: workflow.parser[key] for key in ("num_features", "num_groups", "num_blocks")})
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
    objects = workflow.parser.get_parsed_content("training_state")
    return {name: item.state_dict() for name, item in objects.items()}


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
    assert workflow.parser["contrastive_weights"].keys() == zero.keys()
    workflow.parser["contrastive_weights"] = zero
    with_zero = final_state(workflow)
    without = final_state(train_stack("methods/without_contrastive.yaml", max_iterations=3, iterations_per_epoch=3))
    for part in ("objective", "ema"):
        assert differences(with_zero[part], without[part]) == []
