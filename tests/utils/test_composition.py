"""Composition: a run refuses every overlay in a wrong place, and every option that nothing uses."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence

import pytest
import yaml
from conftest import BUNDLE, CONFIGS, stack
from monai.bundle import ConfigParser
from scripts.utils.composition import KINDS, check_composition, check_options, check_order, option_names

# MONAI warns where an overlay has no trunk to append to; the check then refuses it
pytestmark = pytest.mark.filterwarnings("ignore:Can't merge entry:UserWarning")

NAMES = sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))
CONTENT = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) for name in NAMES}
REQUIRES = {name: content.get("requires", []) for name, content in CONTENT.items()}
TRUNKS = [name for name in NAMES if not REQUIRES[name]]
OVERLAYS = [name for name in NAMES if REQUIRES[name]]


@pytest.fixture(autouse=True)
def _read_once(monkeypatch):
    """Parsing YAML takes most of the time here."""
    monkeypatch.setattr(ConfigParser, "load_config_file", lambda path: copy.deepcopy(load(str(path))))


load = functools.cache(ConfigParser.load_config_file)


def run(names: Sequence[str], **options) -> None:
    """What the first step of a run does with these files, in this order."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    parser.update({"bundle_root": str(BUNDLE), **options})
    parser["run"] = {
        "_target_": "scripts.utils.composition.check_composition",
        "composition": "@composition",
        "config_dir": str(CONFIGS),
    }
    parser["imports"] = []
    try:
        parser.get_parsed_content("run")
    except RuntimeError as error:  # MONAI wraps what a component raises
        raise error.__cause__ or error from None


def wrong_orders(right: list[str]) -> Iterator[list[str]]:
    """Every other order of a few files; of more than four, any two of them exchanged."""
    if len(right) <= 4:
        yield from (list(order) for order in itertools.permutations(right) if list(order) != right)
    else:
        for a, b in itertools.combinations(range(len(right)), 2):
            yield [right[{a: b, b: a}.get(place, place)] for place in range(len(right))]


def files(names: Sequence[str]) -> str:
    return ",".join(f"'bundle/configs/{name}.yaml'" for name in names)


def test_the_trunks_are_three():
    assert TRUNKS == ["evaluate", "inference", "train"]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_its_own_name_and_what_must_stand_before_it(name):
    assert CONTENT[name].get("composition", CONTENT[name].get("+composition")) == [name]
    needed = itertools.chain(*([one] if isinstance(one, str) else one for one in REQUIRES[name]))
    assert set(needed) <= set(NAMES)
    assert name.rpartition("/")[0] in ("", *KINDS)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_the_right_stack_passes(name, trunk):
    names = stack(name, trunk)
    if names[0] == trunk:
        run(names)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_other_order_is_refused_with_the_right_line(name):
    right = stack(name)
    for order in wrong_orders(right):
        with pytest.raises(ValueError, match="The right line") as refusal:
            run(order)
        assert files(right) in str(refusal.value) or order[0] != right[0]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_missing_base_is_refused(name):
    right = stack(name)
    for left_out in right[:-1]:
        with pytest.raises(ValueError, match="The right line"):
            run([other for other in right if other != left_out])


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_of_another_trunk_is_refused(name, trunk):
    right = stack(name, trunk)
    if right[0] != trunk:
        with pytest.raises(ValueError, match="must"):
            run([trunk, *right[1:]])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("methods/cyclegan", "methods/udean"),
        ("networks/paper_network", "networks/slab_network"),
        ("recipes/fine_tuning", "recipes/shipped_weights"),
    ],
)
def test_two_of_a_kind_exclude_each_other(first, second):
    names = [*stack(first), *(other for other in stack(second) if other not in stack(first))]
    with pytest.raises(ValueError, match="exclude each other"):
        run(sorted(names, key=lambda name: ("", *KINDS).index(name.rpartition("/")[0])))


@pytest.mark.parametrize(
    ("first", "second"),
    [("methods/supervised_registered", "data/misaligned"), ("methods/cyclegan", "recipes/fine_tuning")],
)
def test_a_file_names_the_ones_that_it_excludes(first, second):
    with pytest.raises(ValueError, match="exclude each other"):
        run(["train", first, second])


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["evaluate", "inference", "train"], 2)))
def test_two_trunks_are_refused(first, second):
    with pytest.raises(ValueError, match="one trunk"):
        run([first, second])


def test_a_line_for_another_trunk_has_one_trunk():
    with pytest.raises(ValueError, match="The right line") as refusal:
        run(["inference", "methods/spectral"])
    assert files(["train", "methods/spectral"]) in str(refusal.value)


def test_tracking_without_its_overlay_is_refused():
    with pytest.raises(ValueError, match="launch/mlflow") as refusal:
        run(["train"], tracking_uri="here")
    assert files(["train", "launch/mlflow"]) in str(refusal.value)


def test_kinds_come_in_their_order():
    with pytest.raises(ValueError, match="in the order trunk, methods") as refusal:
        run(["train", "networks/slabs", "networks/paper_network", "methods/cyclegan"])
    assert files(["train", "methods/cyclegan", "networks/slabs", "networks/paper_network"]) in str(refusal.value)


def test_an_overlay_before_its_trunk_is_seen_although_the_trunk_hides_it():
    with pytest.raises(ValueError, match="got another file before train"):
        run(["methods/cyclegan", "train"])


def test_a_config_of_one_s_own_may_follow(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("batch_size: 2\nmine: 3\nseed: '@mine'\n", encoding="utf-8")
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.yaml"), str(own)])
    check_options(parser.config, set(option_names(CONTENT["train"])))


# Options


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("data_consistancy", "data_consistency"),
        ("datset_dir", "dataset_dir"),
        ("ckpt_pth", "ckpt_path"),
        ("architecture::num_feature", "architecture::num_features"),
        ("num_features", "architecture::num_features"),
        ("scale", "scale_factor"),
    ],
)
def test_a_misspelt_option_is_an_error_that_names_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=rf"got --{wrong}, which nothing uses. Did you mean --{right}\?"):
        run(["inference"], **{wrong: 1})


def test_an_option_that_nothing_resembles_is_an_error_too():
    with pytest.raises(ValueError, match=r"got --xyzzy, which nothing uses\. Remove it"):
        run(["inference"], xyzzy=1)


def test_options_of_the_files_and_of_monai_pass():
    run(["train", "launch/mlflow"], batch_size=2, tracking_uri="here", **{"train::trainer::max_epochs": 1})


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="expected a config of the bundle, found none"):
        check_composition(["train", "methods/nothing"], str(CONFIGS))


def test_outside_a_run_it_says_where_it_belongs():
    with pytest.raises(RuntimeError, match="must be a step of a run"):
        check_composition(["train"], str(CONFIGS))


def test_orders_are_plain_data():
    check_order(["train", "methods/spectral"], {"methods/spectral": ["train"]})
    with pytest.raises(ValueError, match="spectral must stand behind train"):
        check_order(["inference", "methods/spectral"], {"inference": [], "methods/spectral": ["train"]})


@pytest.mark.parametrize("overlays", [(), ("networks/fixed_factor",), ("methods/pseudo_sr",)])
@pytest.mark.parametrize("trunk", ["inference", "evaluate"])
def test_a_scale_factor_fits_networks_on_either_grid(trunk, overlays):
    run([trunk, *overlays], scale_factor=[2, 2, 1])
