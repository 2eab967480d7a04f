"""Calibrate the error bars of the trained weights, and test them on other scans.

Usage: python -m experiments.studies.error_bars calibrate NAME=DIR ... [--matrix YAML] [--options DICT]
       python -m experiments.studies.error_bars test NAME=DIR ... [--matrix YAML] [--options DICT]

NAME=DIR gives the folder of a dataset that the matrix names. Each scan is acquired in each way and restored as in
inference, with its data consistency. ``calibrate`` writes the factors into the statistics beside the weights.
``test`` writes the table in experiments/results/error_bars, or beside another matrix.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.transforms import Compose, FillHoles, ForegroundMask, KeepLargestConnectedComponent
from scipy.ndimage import gaussian_filter
from scripts.handlers.weights import ErrorHeadLoader, WeightsLoader
from scripts.metrics.calibration import LEVEL, ErrorCalibration, calibrate
from scripts.physics.description import kind_of
from scripts.transforms import DataConsistencyd, SplitErrord
from scripts.transforms.errors import CALIBRATION, read_calibration
from scripts.transforms.interpolate import acquisition_of
from scripts.transforms.saving import describe_weights
from scripts.transforms.sources import sha256
from scripts.utils.atomic import write_text_atomically
from torch import Tensor, nn

from experiments import RESULTS
from experiments.bundle import read_configs
from experiments.speed.common import table
from experiments.studies.acquisitions import Case, dataset_folders, in_mm, read_cases

MATRIX = Path(__file__).with_suffix(".yaml")
FOLDER = RESULTS / "error_bars"
VOXELS = 200_000  # of each restored scan, drawn from the head
SMOOTH = 2.0  # voxels, standard deviation
DECIMALS = 5
HEAD = Compose([ForegroundMask("otsu", invert=True), KeepLargestConnectedComponent(), FillHoles()])
RANKS = {
    "half_width": "the bars",
    "if_exact": "exact bars",  # with errors drawn from the bars
    "change": "the network's change",
    "around": "the error around",
}
Sample = dict[str, Tensor]


def trained(parser: ConfigParser) -> nn.Module:
    """The network of inference with weights and error head, also before it is calibrated."""
    network = parser.get_parsed_content("network")
    WeightsLoader(parser.get_parsed_content("ckpt_path"), network)(Engine(lambda *_: None))
    ErrorHeadLoader(parser.get_parsed_content("error_head"), network)()
    return network.eval()


@torch.no_grad()
def sampled(case: Case, axcodes: str, parser: ConfigParser, network: nn.Module) -> tuple[str, Sample]:
    """The kind of a case, and for voxels of the head: scale, error, the smoothed rivals, and whether they lie deep.

    Args:
        case: a scan and how it is acquired.
        axcodes: axes of its acquisition.
        parser: of inference.yaml.
        network: see :func:`trained`.
    """
    evaluation = read_configs(
        "evaluate.yaml", device="cpu", axcodes=axcodes, acquisition=in_mm(case.texts, case.path, axcodes)
    )
    item = evaluation.get_parsed_content("preprocessing")({"image": str(case.path), "label": str(case.path)})
    image, scale = item["image"], float(item["image"].meta["intensity_scale"])
    item["pred"] = parser.get_parsed_content("inferer")(image[None], network)[0]
    consistent = DataConsistencyd("pred", mode=parser.get_parsed_content("data_consistency"))
    item = Compose([SplitErrord("pred"), consistent])(item)
    error = (item["pred"].as_tensor() - item["label"].as_tensor() / scale).abs()[0]
    change = (item["pred"].as_tensor() - image.as_tensor()).abs()[0]
    places = HEAD(item["label"].as_tensor())[0].flatten().nonzero()[:, 0]
    places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(0))[:VOXELS]]
    volumes = {
        "scale": item["error"].as_tensor()[0],
        "error": error,
        "change": torch.from_numpy(gaussian_filter(change.numpy(), SMOOTH)),
        "around": torch.from_numpy(around(error.numpy())),
        "deep": item["deep"].as_tensor()[0] > 0,
    }
    acquisition = acquisition_of(image)
    sample = {name: volume.flatten()[places] for name, volume in volumes.items()}
    return kind_of(acquisition.encodings, acquisition.voxel), sample


def around(error: np.ndarray) -> np.ndarray:
    """The smoothed error of the other voxels. No predictor knows it, but smooth ones cannot do much better."""
    impulse = np.zeros([2 * round(4 * SMOOTH) + 1] * 3, dtype=error.dtype)
    impulse[tuple(size // 2 for size in impulse.shape)] = 1
    own = gaussian_filter(impulse, SMOOTH).max()
    return (gaussian_filter(error, SMOOTH) - own * error) / (1 - own)


def samples(
    section: str, matrix: Mapping[str, Any], datasets: Mapping[str, Path], parser: ConfigParser
) -> Iterator[tuple[Case, str, Sample]]:
    """Every case of a section of the matrix, with its kind and sample."""
    network = trained(parser)
    for case in read_cases({**matrix, "sets": matrix[section]}, datasets):
        print(f"{case.acquisition}: {case.scan}", flush=True)
        yield case, *sampled(case, matrix["axcodes"], parser, network)


def joined(parts: Sequence[Sample]) -> Sample:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def write_calibration(found: Sequence[tuple[Case, str, Sample]], parser: ConfigParser) -> Path:
    """Put the factors of each kind into the statistics beside the weights."""
    weights, head, path = (Path(parser.get_parsed_content(key)) for key in ("ckpt_path", "error_head", "statistics"))
    kinds = {}
    for kind in dict.fromkeys(kind for _, kind, _ in found):
        sample = joined([sample for _, own, sample in found if own == kind])
        factors = calibrate(sample["scale"], sample["error"])
        kinds[kind] = {name: [float(f"{value:.4g}") for value in values] for name, values in factors._asdict().items()}
    scans = sorted({Path(case.scan).name.split("_")[0] + " of " + case.scan.split("/")[0] for case, _, _ in found})
    settings = {name: parser.get_parsed_content(name) for name in ("data_consistency", "orientations")}
    record = {"WeightsSHA256": sha256([weights, head]), "Level": LEVEL, "Scans": scans, "Settings": settings}
    record["kinds"] = kinds
    content = json.loads(path.read_text(encoding="utf-8"))
    write_text_atomically(path, json.dumps({**content, CALIBRATION: record}) + "\n")
    return path


def coverage(sample: Sample) -> float:
    """Share of the errors that are within the interval."""
    return float((sample["error"] <= sample["half_width"]).double().mean())


def deciles(sample: Sample) -> list[float]:
    """Coverage in each tenth of the voxels, sorted by half width."""
    order = sample["half_width"].argsort()
    parts = {name: values[order].tensor_split(10) for name, values in sample.items()}
    return [coverage({name: values[tenth] for name, values in parts.items()}) for tenth in range(10)]


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two equally long vectors."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (x, y)])
    return float(torch.corrcoef(ranks)[0, 1])


def rows(found: Sequence[tuple[Case, str, Sample]]) -> Iterator[dict[str, Any]]:
    """For each case coverage, and in deep tissue the rank correlations with the error."""
    for case, kind, sample in found:
        deep = {name: values[sample["deep"]] for name, values in sample.items()}
        ranks = {name: rank_correlation(deep[name], deep["error"]) for name in ("half_width", "change", "around")}
        drawn = torch.empty_like(deep["error"]).exponential_(generator=torch.Generator().manual_seed(0))
        ranks["if_exact"] = rank_correlation(deep["half_width"], deep["half_width"] * drawn)
        about = {"kind": kind, "acquisition": case.acquisition, "scan": case.scan, "coverage": coverage(sample)}
        yield {**about, "half_width_of_white": float(sample["half_width"].mean()), **ranks}


def summary(found: Sequence[tuple[Case, str, Sample]], cases: Sequence[Mapping[str, Any]]) -> str:
    """A row per kind, and one for all."""
    header = ["acquisition", "scans", "coverage (%)", "of each scan", "of each tenth"]
    header += [f"rank correlation of {title}" for title in RANKS.values()]
    lines = []
    for title in (*dict.fromkeys(kind for _, kind, _ in found), "all"):
        sample = joined([sample for _, kind, sample in found if title in (kind, "all")])
        own = [row for row in cases if title in (row["kind"], "all")]
        ranks = [_between([row[name] for row in own], 1, ".2f") for name in RANKS]
        cells = [_between([row["coverage"] for row in own]), _between(deciles(sample))]
        lines.append([title.replace("_", " "), len(own), f"{100 * coverage(sample):.1f}", *cells, *ranks])
    return table(header, lines).strip()


def _between(values: Sequence[float], factor: float = 100, form: str = ".1f") -> str:
    return f"{factor * min(values):{form}} to {factor * max(values):{form}}"


def main(
    verb: str, datasets: Mapping[str, Path], matrix: Path = MATRIX, options: Mapping[str, Any] | None = None
) -> Path:
    """Calibrate or test.

    Args:
        verb: ``calibrate`` or ``test``.
        datasets: folder of each dataset of the matrix.
        matrix: YAML file.
        options: of inference.yaml.

    Returns:
        the file that was written.

    Raises:
        ValueError: when the weights are tested without a calibration.
    """
    content = yaml.safe_load(matrix.read_text(encoding="utf-8"))
    parser = read_configs("inference.yaml", **{"device": "cpu", "inferer::inferer::progress": False, **(options or {})})
    if verb == "calibrate":
        return write_calibration(list(samples("calibration", content, datasets, parser)), parser)
    weights, head, statistics = (parser.get_parsed_content(key) for key in ("ckpt_path", "error_head", "statistics"))
    calibration = read_calibration(weights, head, statistics)
    if calibration is None:
        raise ValueError(f"{statistics}: expected a calibration of these weights, found none. Run calibrate before.")
    found = list(samples("test", content, datasets, parser))
    for _, kind, sample in found:
        sample["half_width"] = ErrorCalibration.of(calibration["kinds"][kind]).half_width(sample["scale"])
    cases = list(rows(found))
    folder, name = (FOLDER, "test") if matrix.resolve() == MATRIX else (matrix.parent, matrix.stem)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(cases[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _rounded(value) for key, value in row.items()} for row in cases)
    lines = [summary(found, cases), "", f"- calibrated on {', '.join(calibration['Scans'])}"]
    lines += [f"- weights: {describe_weights(weights)}", f"- error head: {describe_weights(head)}"]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return folder / f"{name}.md"


def _rounded(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["calibrate", "test"])
    parser.add_argument("datasets", nargs="+", metavar="NAME=DIR", help="folder of a dataset of the matrix")
    parser.add_argument("--matrix", type=Path, default=MATRIX)
    parser.add_argument("--options", type=ast.literal_eval, default={}, help="of inference.yaml, as a dictionary")
    given = parser.parse_args()
    main(given.verb, dataset_folders(given.datasets), given.matrix, given.options)
