"""The matrix acquisition x method: what the shipped weights gain on scans of any acquisition, and what they cost.

Usage: python -m experiments.studies.acquisitions NAME=DIR ... [--matrix YAML] [--output_dir OUT] [--options DICT]

NAME=DIR gives the folder of a dataset that the matrix names. `run evaluating` acquires each of its scans in each way,
and restores it. OUT keeps these evaluations. A second call repeats only those with other options or weights. The
results of the project's matrix go to experiments/results/acquisitions, those of any other to OUT.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
import yaml
from scripts.handlers.tables import METRICS
from scripts.physics.encoding import SliceSelection
from scripts.physics.protocol import encoding_from_text, encoding_to_text
from scripts.transforms.naming import stem_of
from scripts.transforms.saving import describe_weights
from scripts.utils.precision import resolve_amp_dtype

from experiments import RESULTS, ROOT
from experiments.benchmark.execution import LOG, command
from experiments.benchmark.results import notes
from experiments.bundle import BUNDLE, read_configs
from experiments.speed.common import machine, measured_on, table

MATRIX = Path(__file__).with_suffix(".yaml")
FOLDER = RESULTS / "acquisitions"
OUTPUT = ROOT / "outputs" / "acquisitions"
TRUNK = "bundle/configs/evaluate.yaml"
SHOWN = ("psnr", "psnr_deep", "ssim")
COLUMNS = ("set", "acquisition", "reference", "scan", "method", *SHOWN, "ssim_deep", "seconds", "seconds_float32")
METHODS = (
    "zero_filling",
    "tricubic",
    "windowed_sinc",
    "linear_inverse",
    "pred",
    "automatic",
    "consistent",
)  # in their order
FLOAT32 = {"amp_dtype": "$None", "methods": {"pred": "super-resolution"}}  # as without units for bfloat16


class Case(NamedTuple):
    """A scan and how it is acquired.

    Args:
        set: title of its set.
        acquisition: title of its acquisition.
        texts: the acquisition of each axis, in voxels of the scan.
        scan: dataset and path in it.
        path: of the file.
    """

    set: str
    acquisition: str
    texts: Sequence[str]
    scan: str
    path: Path

    @property
    def reference(self) -> str:
        """The method above which a gain counts: Keys' cubic where there are slices, else zero-filling."""
        return "tricubic" if any("slices" in text for text in self.texts) else "zero_filling"

    @property
    def folder(self) -> str:
        """The folder of its evaluation."""
        return "/".join(re.sub(r"[^\w.-]+", "_", word) for word in (self.acquisition, stem_of(self.scan)))


def read_cases(matrix: Mapping[str, Any], datasets: Mapping[str, Path]) -> list[Case]:
    """Every scan of a matrix in every acquisition of its set.

    Args:
        matrix: content of the YAML file.
        datasets: folder of each dataset.

    Raises:
        ValueError: when the folder of a dataset is not given, or lacks a scan.
    """
    cases = []
    for title, one in matrix["sets"].items():
        wanted = matrix["acquisitions"] if one["acquisitions"] == "every" else one["acquisitions"]
        for acquisition in wanted:
            for scan in one["scans"]:
                texts = matrix["acquisitions"][acquisition]
                cases.append(Case(title, acquisition, texts, scan, scan_path(scan, datasets)))
    return cases


def scan_path(scan: str, datasets: Mapping[str, Path]) -> Path:
    """The file of a scan ``NAME/path``.

    Raises:
        ValueError: when the folder of the dataset NAME is not given, or lacks the scan.
    """
    name, _, file = scan.partition("/")
    if name not in datasets:
        raise ValueError(f"expected the folder of the dataset {name}, got {list(datasets)}. Add {name}=DIR.")
    path = Path(datasets[name]).expanduser().resolve() / file
    if not path.is_file():
        raise ValueError(f"{path}: expected a scan of the matrix, found none. Correct {name}=DIR.")
    return path


def dataset_folders(texts: Sequence[str]) -> dict[str, Path]:
    """The folders of a command line, from texts ``NAME=DIR``."""
    return {name: Path(folder) for name, _, folder in (text.partition("=") for text in texts)}


def in_mm(texts: Sequence[str], path: Path, axcodes: str) -> list[str]:
    """The acquisition of a scan in mm per axis of ``axcodes``, from lengths in voxels of the scan."""
    affine = nib.load(path).affine
    sizes = nib.affines.voxel_sizes(affine).round(6)  # headers hold float32
    sizes = sizes[np.argsort(nib.io_orientation(affine)[:, 0])]  # right, anterior, superior
    axes = nib.orientations.axcodes2ornt(axcodes)[:, 0].astype(int)
    found = []
    for text, mm in zip(texts, sizes[axes].tolist(), strict=True):
        one = encoding_from_text(text)
        if isinstance(one, SliceSelection):
            one = one._replace(thickness=round(one.thickness * mm, 6))
        found.append("unknown" if one is None else encoding_to_text(one._replace(spacing=round(one.spacing * mm, 6))))
    return found


def evaluate(case: Case, axcodes: str, output_dir: Path, options: Mapping[str, Any]) -> Path:
    """The folder of a complete evaluation, which is made unless it exists with the same options and weights.

    Raises:
        RuntimeError: when the evaluation fails.
    """
    folder = output_dir / case.folder
    settings = {"axcodes": axcodes, "acquisition": in_mm(case.texts, case.path, axcodes), "pictures": False, **options}
    weights = settings.get("ckpt_path", BUNDLE / "models" / "model.pt") if settings.get("load_pretrain", True) else None
    record = json.dumps({**settings, "scan": str(case.path), "weights": describe_weights(weights)}, indent=2) + "\n"
    done = folder / "settings.json"  # written last
    if not done.is_file() or done.read_text(encoding="utf-8") != record:
        done.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{case.acquisition}: {case.scan}", flush=True)
        paths = {"dataset_dir": str(case.path), "output_dir": str(folder), "report": False}
        if not command("evaluating", [TRUNK], {**settings, **paths}, folder):
            raise RuntimeError(f"{case.acquisition} of {case.scan} failed. {folder / LOG} has the reason.")
        done.write_text(record, encoding="utf-8")
    return folder


def evaluated(case: Case, axcodes: str, output_dir: Path, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For each method the metrics of a scan; for the network also its seconds."""
    folder = evaluate(case, axcodes, output_dir / "default", options)
    plain = folder  # without units for bfloat16 both are float32
    if resolve_amp_dtype("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu")) is not None:
        plain = evaluate(case, axcodes, output_dir / "float32", {**options, **FLOAT32})
    seconds = {"seconds": notes(folder)["seconds per volume"], "seconds_float32": notes(plain)["seconds per volume"]}
    with open(folder / "subjects.csv", newline="", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for method in METHODS:
        about = {"set": case.set, "acquisition": case.acquisition, "reference": case.reference, "scan": case.scan}
        row = {**about, **rows[method]}
        yield {name: row[name] for name in COLUMNS if name in row} | (seconds if method == "pred" else {})


def summary(rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """A table for each metric: the reference's mean, the gain of each other method, and the seconds of the network.

    Args:
        rows: of every case and method.
        titles: of the methods.
    """
    header = ["set", "acquisition", "scans", *(titles[method] for method in METHODS)]
    groups = list(dict.fromkeys((row["set"], row["acquisition"]) for row in rows))
    parts = []
    for metric in SHOWN:
        lines = []
        for group in groups:
            same = [row for row in rows if (row["set"], row["acquisition"]) == group]
            lines.append([*group, len({row["scan"] for row in same}), *_cells(same, metric)])
            if metric == SHOWN[0]:
                lines[-1] += [f"{_mean(same, 'pred', name):.1f}" for name in ("seconds", "seconds_float32")]
        costs = ["seconds per scan", "seconds per scan in float32"] if metric == SHOWN[0] else []
        parts += [f"**{METRICS[metric][2]}**", table([*header, *costs], lines).strip()]
    return "\n\n".join(parts)


def _mean(rows: Sequence[Mapping[str, Any]], method: str, column: str) -> float:
    return mean(float(row[column]) for row in rows if row["method"] == method)


def _cells(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Cells of the methods: the reference's mean, and above it the gains."""
    reference = rows[0]["reference"]
    base, decimals = _mean(rows, reference, metric), METRICS[metric][3]
    return [
        f"**{base:.{decimals}f}**" if method == reference else f"{_mean(rows, method, metric) - base:+.{decimals}f}"
        for method in METHODS
    ]


def main(
    datasets: Mapping[str, Path],
    matrix: Path = MATRIX,
    output_dir: Path = OUTPUT,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Evaluate every case and write ``test.csv`` and ``test.md``, or the name of another matrix.

    Args:
        datasets: folder of each dataset of the matrix.
        matrix: YAML file.
        output_dir: for the evaluations.
        options: of ``evaluate.yaml``.

    Returns:
        the table.
    """
    content = yaml.safe_load(matrix.read_text(encoding="utf-8"))
    cases = read_cases(content, datasets)
    before, output_dir = machine(), output_dir.resolve()
    rows = [row for case in cases for row in evaluated(case, content["axcodes"], output_dir, options or {})]
    own = matrix.resolve() == MATRIX
    folder, name = (FOLDER, "test") if own else (output_dir, matrix.stem)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    about = notes(output_dir / "default" / cases[0].folder)
    lines = [summary(rows, read_configs("evaluate.yaml")["methods"]), ""]
    lines += [f"- {key}: {about[key]}" for key in ("network", "parameters", "weights", "orientations averaged")]
    text = "\n".join([*lines, measured_on(before)]) + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
    return folder / f"{name}.md"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME=DIR", help="folder of a dataset of the matrix")
    parser.add_argument("--matrix", type=Path, default=MATRIX)
    parser.add_argument("--output_dir", type=Path, default=OUTPUT)
    parser.add_argument("--options", type=ast.literal_eval, default={}, help="of evaluate.yaml, as a dictionary")
    given = parser.parse_args()
    main(dataset_folders(given.datasets), given.matrix, given.output_dir, given.options)
