"""Documentation: the examples of the pages are true, and every page speaks in short sentences."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import BUNDLE, REPOSITORY, head_phantom, write_scan
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd
from scripts import objectives
from scripts.physics.kspace import zero_fill
from scripts.transforms import InterpolateAcquiredd, LoadImageStrictd

from experiments import gains


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


PAGE = read("docs/adding_a_method.md")
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.M | re.S))
OBJECTIVE = "bundle/scripts/objectives/degrade_and_restore.py"
OVERLAY = "bundle/configs/methods/degrade_and_restore.yaml"
TEST = "tests/objectives/test_degrade_and_restore.py"

SPOKEN = ("README.md", "CHANGELOG.md", "bundle/docs/README.md", "experiments/benchmark/README.md")
PAGES = [*SPOKEN, *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))]
NOTES = [cell for cell in json.loads(read("docs/tutorial.ipynb"))["cells"] if cell["cell_type"] == "markdown"]
OLD_NAMES = "docs/from_the_first_version.md"
LONGEST_SENTENCE = 35  # words
LONGEST_PARAGRAPH = 5  # lines
LONGEST_README = 90  # lines
LONGEST_ACQUISITIONS = 150
NOT_PROSE = re.compile(
    r"<!-- begin .*?<!-- end -->|^```.*?^```|^\$\$.*?\$\$$|^\s*\|.*?$|^#.*?$|^<!--.*?-->", re.M | re.S
)
ITEM = re.compile(r"^(?:> ?)?\s*(?:[-*]|\d+\.) ", re.M)
SENTENCE_END = re.compile(r"(?<=[.!?])[\"*_)`]*\s+(?=[\"*_(`\[]*[A-Z0-9`$])")


@pytest.fixture
def example(tmp_path, monkeypatch) -> Iterator[Path]:
    """The page's files in a folder of their own, where Python and the configs find them."""
    root = tmp_path / "example"
    shutil.copytree(BUNDLE / "configs", root / "bundle" / "configs")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str((root / OBJECTIVE).parent)])
    importlib.invalidate_caches()
    yield root
    sys.modules.pop("scripts.objectives.degrade_and_restore", None)


def test_the_page_has_the_files_of_a_method():
    assert list(FILES) == [OBJECTIVE, OVERLAY, TEST]
    assert not any((REPOSITORY / name).exists() for name in FILES)


def test_the_example_passes_its_own_test(example):
    tests = runpy.run_path(str(example / TEST))
    tests["test_each_term_moves_the_networks_that_the_method_says"]()


@pytest.mark.parametrize("overlays", [(), ("data/misaligned.yaml",)])
def test_the_example_trains(example, train_stack, tmp_path, overlays):
    workflow = train_stack(str(example / OVERLAY), *overlays, bundle_root=str(example / "bundle"))
    workflow.initialize()
    assert workflow.check_properties() == []
    terms = {}
    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: terms.update(engine.state.output["terms"]))
    workflow.run()
    assert trainer.state.iteration == 2
    assert set(terms) == {"restoration_l1", "restoration_ssim", "adversarial", "low_res_discriminator_degraded"}
    assert all(torch.isfinite(term) for term in terms.values())
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize("name", [name for name in PAGES if name != OLD_NAMES])
def test_files_that_a_page_names_exist(name):
    text = read(name)
    found = re.findall(r"(?<![\w/.])((?:bundle/)?configs/[\w/]+\.yaml)(?=[' \"\n`])", text)
    found += re.findall(r"`((?:bundle|deploy|docs|experiments|scripts|tests)/[\w/]+\.(?:py|yaml|md))(?=[`:])", text)
    missing = {one for one in found if not any((root / one).is_file() for root in (REPOSITORY, BUNDLE))}
    assert missing - set(FILES) == set()


def test_the_options_of_inference_have_the_defaults_of_the_page():
    rows = re.findall(r"^\| `--(\w+)` \| `(.*?)` \|", read("docs/commands.md"), re.M)
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs" / "inference.yaml"))
    parser["bundle_root"] = "bundle"
    assert len(rows) >= 15
    for name, default in rows:
        typed = None if default == "'$None'" else yaml.safe_load(default)
        assert parser.get_parsed_content(name) == typed, name


def paragraphs(text: str) -> list[str]:
    """The prose of a page, without code, tables, formulas, headings and generated blocks; each item of a list alone."""
    text = ITEM.sub("\n\n", NOT_PROSE.sub("\n\n", text))
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph. A formula, a link or a piece of code counts as one word."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    plain = re.sub(r"`[^`]*`|\$[^$]*\$", "Code", plain)
    return SENTENCE_END.split(plain)


def test_a_long_sentence_is_found():
    short, long = "Ten words are fine.", " ".join(["word"] * (LONGEST_SENTENCE + 1)) + "."
    text = f"# Title\n\n{short} Word {long}\n* {short}\n\n```sh\n{long}\n```\n| {long} |\n"
    assert paragraphs(text) == [f"{short} Word {long}", short]
    assert [len(sentence.split()) > LONGEST_SENTENCE for sentence in sentences(paragraphs(text)[0])] == [False, True]


@pytest.mark.parametrize("name", PAGES)
def test_sentences_and_paragraphs_are_short(name):
    found = paragraphs(read(name))
    assert [s for part in found for s in sentences(part) if len(s.split()) > LONGEST_SENTENCE] == []
    assert [part for part in found if len(part.splitlines()) > LONGEST_PARAGRAPH] == []


def test_the_tutorial_is_stored_without_outputs():
    code = [cell for cell in json.loads(read("docs/tutorial.ipynb"))["cells"] if cell["cell_type"] == "code"]
    assert code
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("text", [pytest.param("".join(cell["source"]), id=cell["id"]) for cell in NOTES])
def test_sentences_of_the_tutorial_are_short(text):
    assert [s for part in paragraphs(text) for s in sentences(part) if len(s.split()) > LONGEST_SENTENCE] == []


def written_lines(text: str) -> int:
    """The lines of a page without generated blocks."""
    return len(re.sub(r"<!-- begin .*?<!-- end -->", "", text, flags=re.DOTALL).splitlines())


def test_the_readme_fits_on_a_page():
    assert written_lines(read("README.md")) <= LONGEST_README


def test_the_gains_of_the_shipped_weights_are_a_table(tmp_path):
    rows = ["set,acquisition,scan,method,psnr,psnr_deep,ssim"]
    for scan, gain in (("a", 1.0), ("b", -0.5)):
        case = f"heads,2x2x2,{scan}"
        rows += [f"{case},zero_filling,30,28,0.9", f"{case},tricubic,9,9,0", f"{case},windowed_sinc,8,8,0"]
        rows += [f"{case},linear_inverse,30,28,0.9", f"{case},pred,{30 + gain},{28 + 2 * gain},{0.9 + gain / 100}"]
    rows += [f"more,slices,c,{name},28,28,0.9" for name in ("zero_filling", "windowed_sinc", "tricubic")]
    rows += ["more,slices,c,linear_inverse,30,28,0.9", "more,slices,c,pred,31,29,0.91"]
    (tmp_path / "test.csv").write_text("\n".join(rows))
    assert gains.gains_table(tmp_path / "test.csv").splitlines()[2:] == [
        "| heads | 2x2x2 | zero-filling | 2 | +0.25 ± 1.06 (1 of 2) | +0.50 ± 2.12 (1 of 2) "
        "| +0.0025 ± 0.0106 (1 of 2) |",
        "| more | slices | linear inverse | 1 | +1.00 (1 of 1) | +1.00 (1 of 1) | +0.0100 (1 of 1) |",
    ]


ACQUISITIONS = read("docs/acquisitions.md")
LOGGED = re.findall(r"^my_scans/([\w.]+): (assumed: .*)$", ACQUISITIONS, re.M)
SCANS = {  # of the page: shape along right, anterior, superior; spacing in mm; acquired shape; sidecar
    "isotropic.nii.gz": ((80, 96, 88), (2.0, 2.0, 2.0), None, None),
    "fine.nii.gz": ((112, 128, 120), (1.3, 1.3, 1.3), None, None),
    "gap.nii.gz": ((160, 192, 24), (0.9, 0.9, 5.0), None, {"MRAcquisitionType": "2D", "SliceThickness": 4.0}),
    "interpolated.nii.gz": ((160, 192, 28), (0.9, 0.9, 4.0), (120, 144, 28), None),
}
OPTIONS = [{}, {}, {}, {}, {"acquisition": ["unknown", "slices 5.0/4.5 box", "unknown"], "spacing": 1}]


@pytest.mark.parametrize("index", range(len(OPTIONS)))
def test_the_log_says_the_lines_of_the_page(index, tmp_path, monkeypatch, caplog):
    assert len(LOGGED) == len(OPTIONS)
    name, line = LOGGED[index]
    shape, spacing, acquired, sidecar = SCANS[name]
    monkeypatch.chdir(tmp_path)
    phantom = zero_fill(head_phantom(index, acquired or shape), shape, (0, 1, 2))
    path = write_scan(Path("my_scans", name), phantom, spacing)
    if sidecar:
        path.with_name("gap.json").write_text(json.dumps(sidecar), encoding="utf-8")
    prepare = [LoadImageStrictd("image"), EnsureChannelFirstd("image"), Orientationd("image", "ASR", labels=None)]
    scan = Compose(prepare)({"image": str(path)})
    with caplog.at_level("INFO"):
        InterpolateAcquiredd("image", **OPTIONS[index])(scan)
    assert caplog.messages == [f"my_scans/{name}: {line}"]


def test_the_tests_of_the_theorems_exist():
    named = re.findall(r"`(test_\w+)` \|$", ACQUISITIONS, re.M)
    written = {
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    assert len(named) == 7
    assert set(named) <= written


def test_the_page_about_acquisitions_is_short():
    assert written_lines(ACQUISITIONS) <= LONGEST_ACQUISITIONS
