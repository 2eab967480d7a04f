"""Arguments: a run uses the folder that was typed, or refuses it before anything is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fire
import nibabel as nib
import pytest
from conftest import BUNDLE, CONFIGS, head_phantom, write_scan
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from scripts.utils.arguments import (
    PATHS,
    check_axcodes,
    check_booleans,
    check_scale_factor,
    typed_options,
    use_typed_paths,
)

PROGRAM = "lib/monai/bundle/__main__.py"
# rewritten by python-fire, by MONAI, or by nobody
NAMES = [
    *("100307", "2024_05_01", "1e3", "(1)", "a,b", "sub#01", "/data/sub#01/x", "[1]", "{'a'", "{a: b}", "-5", "001"),
    *("1_2", "True", "user@host", "a b", "0x10", "1.", "(a)", "a::b", "./@study", "./$HOME", "./None", "'", "Müller"),
]


def used(name: str, *words: str, value: object = None) -> object:
    """What ``@name`` is in a run with these words, after both parsers."""

    def run(*_positional: str, **override: object) -> dict:
        return override

    options = fire.Fire(run, command=list(words), serialize=lambda _: "") if words else {name: value}
    config = {"output_dir": "$@bundle_root + '/outputs'", "dataset_dir": None, "bundle_root": ".", "got": f"@{name}"}
    parser = ConfigParser({**config, **{key: one for key, one in options.items() if one is not None}})
    parser.parse()
    use_typed_paths(parser, [PROGRAM, "run", *words])
    return parser.get_parsed_content("got")


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("typed", NAMES)
def test_the_path_that_was_typed_is_used(name, typed):
    assert used(name, f"--{name}", typed) == typed
    assert used(name, f"--{name.replace('_', '-')}={typed}") == typed


@given(typed=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: text[0] not in "-$@%~'\"" and text != "None" and not set(Path(text).parts) <= {".", ".."}
))  # fmt: skip
def test_any_path_that_was_typed_is_used(typed):
    assert used("dataset_dir", "--dataset_dir", typed) == typed


def test_quotes_that_python_fire_takes_off_are_no_part_of_a_path():
    assert used("dataset_dir", "--dataset_dir", "'100307'") == "100307"
    assert used("dataset_dir", "--dataset_dir", '"a#b"') == "a#b"


@pytest.mark.parametrize("name", PATHS)
def test_a_home_folder_is_expanded_once_whoever_gave_it(name):
    for words, value in (((f"--{name}", "~/x"), None), ((), "~/x")):
        assert used(name, *words, value=value) == str(Path.home() / "x")


@pytest.mark.parametrize("typed", ["@study", "$HOME x", "$HOME/x", "$import", "@bundle_root/x"])
def test_a_sign_of_the_config_language_is_refused_with_the_path_to_write(typed):
    with pytest.raises(ValueError, match=r"--dataset_dir: expected a path, got .*, which MONAI reads as .* Write \./"):
        used("dataset_dir", "--dataset_dir", typed)


def test_an_expression_that_refers_to_the_config_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert used("output_dir", "--output_dir", "$@bundle_root + '/x'") == "./x"
    Path("@bundle_root").mkdir()
    with pytest.raises(ValueError, match=r"got @bundle_root, .* Write \./@bundle_root"):
        used("dataset_dir", "--dataset_dir", "@bundle_root")


def test_a_macro_never_becomes_a_folder():
    """MONAI itself refuses an unknown one, before any step of the run."""
    with pytest.raises(KeyError, match="done"):
        used("dataset_dir", "--dataset_dir", "%done")


@pytest.mark.parametrize("name", ["dataset_dir", "output_dir"])
@pytest.mark.parametrize("typed", ["", ".", "..", "./", "../..", "''"])
def test_a_folder_without_a_name_is_refused(name, typed):
    with pytest.raises(
        ValueError, match=rf"--{name}: expected a (folder by name|path), got .*\. .* the (path|folder) of"
    ):
        used(name, f"--{name}={typed}")


def test_an_option_without_a_path_is_refused():
    with pytest.raises(ValueError, match="got an empty text"):
        used("dataset_dir", "--dataset_dir")


def test_none_means_no_path_unless_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert used("dataset_dir", "--dataset_dir", "None") is None
    assert used("output_dir", "--output_dir", "None") == "./outputs"
    Path("None").mkdir()
    with pytest.raises(ValueError, match=r"got None, which means no path\. Write \./None"):
        used("dataset_dir", "--dataset_dir", "None")


@pytest.mark.parametrize("value", [100307, 20240501, ("a", "b"), [1], True])
def test_a_path_in_a_file_or_a_call_is_a_text(value):
    with pytest.raises(ValueError, match=r"dataset_dir: expected a path in quotes, got .* Put it in quotes"):
        used("dataset_dir", value=value)


def test_a_sharp_in_a_file_or_a_call_is_refused_because_monai_has_changed_it(tmp_path):
    with pytest.raises(ValueError, match="expected a path without # and ::, got /data/sub::01"):
        used("dataset_dir", value="/data/sub#01")
    (tmp_path / "a::b").mkdir()
    assert used("dataset_dir", value=str(tmp_path / "a::b")) == str(tmp_path / "a::b")


def test_a_component_is_no_path():
    assert used("degradation", value={"_target_": "builtins.dict"}) == {}


def test_the_words_of_another_program_are_not_read():
    assert typed_options(["pytest", "run", "--dataset_dir", "x"]) == {}


def test_the_words_are_read_as_python_fire_reads_them():
    words = [PROGRAM, "run", "training", "--a", "1", "--b=2=3", "--c", "--d-e", "-5", "--a", "4", "--", "--trace"]
    assert typed_options(words) == {"a": "4", "b": "2=3", "c": "", "d_e": "-5"}


@pytest.mark.parametrize("value", [2, 2.5, [2, 2], [2, 2, 0], [2.5, 2, 2], "2", [True, 1, 1], ()])
def test_a_scale_factor_is_three_whole_numbers(value):
    with pytest.raises(ValueError, match=r"scale_factor must be three whole numbers .*, got .* Set --scale_factor"):
        check_scale_factor(value)


@pytest.mark.parametrize("value", [[2, 2, 1], (1, 1, 3), "$[2, 2, 2]", "@other"])
def test_a_right_scale_factor_passes(value):
    check_scale_factor(value)


@pytest.mark.parametrize("value", ["AAR", "XYZ", "AS", "asr", 3, ["A", "P", "R"], "ASRL"])
def test_a_frame_names_one_end_of_each_axis(value):
    with pytest.raises(ValueError, match=r"axcodes must be three letters, .*, got .*--axcodes ASR"):
        check_axcodes(value)


@pytest.mark.parametrize("value", ["ASR", "RAS", "LPI", ["S", "L", "P"], None, "$'RAS'", "@other"])
def test_a_right_frame_passes(value):
    check_axcodes(value)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    files = [
        str(CONFIGS / name) for name in ("inference.yaml", "networks/fixed_factor.yaml", "baselines/tricubic.yaml")
    ]
    words = ("run", "--config_file", str(files), "--bundle_root", str(BUNDLE), *words)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder / "home")}
    return subprocess.run([sys.executable, "-m", "monai.bundle", *words], cwd=folder, env=environment,
                          capture_output=True, encoding="utf-8", timeout=120)  # fmt: skip


def test_the_command_line_uses_what_was_typed_and_the_home_folder_once(tmp_path):
    scan = write_scan(tmp_path / "2024_05_01" / "a#1.nii.gz", head_phantom(0, (24, 24, 24)), (2.0, 2.0, 2.0))
    ended = command(tmp_path, "--dataset_dir", "2024_05_01", "--output_dir", "~/100307#")
    assert ended.returncode == 0, ended.stderr[-2000:]
    folder = tmp_path / "home" / "100307#"
    made = ["a#1_desc-sr.json", "a#1_desc-sr.nii.gz", "report", "summary.csv"]
    assert sorted(path.name for path in folder.iterdir()) == made
    assert nib.load(folder / "a#1_desc-sr.nii.gz").shape == tuple(2 * n for n in nib.load(scan).shape)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2024_05_01", "home"]


def test_the_command_line_refuses_before_anything_is_read(tmp_path):
    ended = command(tmp_path, "--dataset_dir", "@study", "--output_dir", "out")
    assert ended.returncode == 1
    assert "Write ./@study for a file or folder of this name." in ended.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("typed", ["true", "false", "FALSE"])
def test_a_truth_value_that_the_command_line_made_a_text_is_refused(typed):
    """The text "false" would count as true."""
    options = fire.Fire(lambda **options: options, command=["--overwrite", typed], serialize=lambda _: "")
    with pytest.raises(ValueError, match=rf"overwrite must be True or False, got the text '{typed}'. Write it with"):
        check_booleans(options)
    with pytest.raises(ValueError, match="acquisition::hamming must be"):
        check_booleans({"acquisition": {"hamming": typed}})


@pytest.mark.parametrize("typed", ["True", "False"])
def test_a_truth_value_is_accepted(typed):
    check_booleans(fire.Fire(lambda **options: options, command=["--overwrite", typed], serialize=lambda _: ""))
