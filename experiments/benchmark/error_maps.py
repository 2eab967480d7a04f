"""Error maps: each row restores the median test subject again, and one picture shows all errors on one scale."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from scripts.handlers.pictures import AXIAL, foreground, plane
from scripts.transforms.naming import stem_of

from experiments.benchmark.all_rows import label
from experiments.benchmark.complete import notes
from experiments.benchmark.execution import LOG, command, evaluation_options
from experiments.benchmark.matrix import Row, read_matrix
from experiments.benchmark.page import ERROR_MAPS, report_folder
from experiments.benchmark.results import INTERPOLATIONS, Results, read_results
from experiments.benchmark.runner import check_scans, output_folder, prepare
from experiments.pictures import save_small

__all__ = ["draw", "median_subject"]

VOLUMES = "experiments/benchmark/volumes.yaml"
COLUMNS = 7
WHITE = 99.8  # percentile of the reference, and of the errors of a row


def draw(matrix: str, dataset_dir: str | None = None, output_dir: str | None = None) -> None:
    """Draw one picture of the complete rows of the first seed and fold. Run ``report`` before and after.

    Args:
        matrix: YAML file.
        dataset_dir: replaces that of the matrix.
        output_dir: folder of the rows.
    """
    plan = read_matrix(matrix, dataset_dir)
    output = output_folder(plan, output_dir)
    folder = report_folder(plan, output)
    if not (folder / "rows.json").is_file():
        raise ValueError(f"{folder}: expected the report of the matrix, got none. Run report first.")
    results = read_results(folder)
    subject, reported = median_subject(results), {row["name"]: row for row in results.first}
    planes = {}
    datalists = prepare(plan, output)
    for row in (row for row in plan.rows if row.name in reported):
        record = reported[row.name]["record"]
        datalist = json.loads(Path(datalists[row.fold]["datalist"]).read_text(encoding="utf-8"))
        scans = {stem_of(Path(item["label"]).name): item["label"] for item in datalist["test"]}
        check_scans(output, row, record, datalists)
        planes[label(results, [reported[row.name]])], reference, aspect = _restored(
            row, output / "rows" / row.name, scans[subject], record["costs"]
        )
    path = folder / "figures" / ERROR_MAPS
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = _figure(planes, reference, aspect)
    figure.suptitle(f"{subject}, axial", fontsize=9)
    figure.savefig(path, dpi=150)
    save_small(path, path)


def median_subject(results: Results) -> str:
    """The test subject with the median gain over zero-filling, averaged over the first rows with a network."""
    names = [row["name"] for row in results.first if row["setting"]["system"] not in INTERPOLATIONS]
    gains = results.gains(names)
    if not gains:
        raise ValueError(
            "expected a complete row with a network and its report, got none. Run the matrix and report it."
        )
    return sorted(gains, key=gains.__getitem__)[len(gains) // 2]


def _restored(row: Row, folder: Path, scan: str, costs: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray, float]:
    """The axial plane that a row restores and that of the reference, on which white is 1, and how high a voxel is."""
    weights = folder / row.stages()[-1].weights if row.stages() else None
    if weights is not None and not weights.is_file():
        raise ValueError(f"{weights}: expected the network of the row, got none. Copy it there.")
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "evaluation"
        options = evaluation_options(row, folder, scan, made)
        if not command("evaluating", [*row.evaluating(), VOLUMES], options, Path(place)):
            raise RuntimeError(f"{row.name}: {(Path(place) / LOG).read_text(encoding='utf-8')}")
        used, measured = (_digest(one.get("weights", "")) for one in (notes(made), costs))
        if used != measured:
            raise ValueError(f"{weights}: expected the measured network, {measured}, got {used}. Copy it there.")
        saved = (nib.load(*made.glob(f"*_{key}.nii.gz")) for key in ("pred", "label"))
        images = [nib.as_closest_canonical(image) for image in saved]  # axes to the right, to anterior and to superior
        pred, reference = (image.get_fdata(dtype=np.float32) for image in images)
    box, white = foreground(reference), np.percentile(reference[foreground(reference)], WHITE)
    restored, true = (plane(volume[box] / white, AXIAL) for volume in (pred, reference))
    width, height, _ = images[0].header.get_zooms()
    return restored, true, height / width


def _digest(weights: str) -> str:
    """The SHA-256 in what an evaluation says of its weights."""
    return weights.rpartition(" ")[2]


def _figure(planes: Mapping[str, np.ndarray], reference: np.ndarray, aspect: float) -> Figure:
    """The reference, and the plane of each row above its error (% of white)."""
    errors = {name: 100 * np.abs(restored - reference) for name, restored in planes.items()}
    largest = np.median([np.percentile(error, WHITE) for error in errors.values()])  # a wrong brightness saturates
    shown = {"reference": (reference, None), **{name: (planes[name], errors[name]) for name in planes}}
    blocks = -(-len(shown) // COLUMNS)
    height = 2.0 * aspect * reference.shape[0] / reference.shape[1]
    figure = Figure(figsize=(2.0 * COLUMNS + 1, blocks * (2 * height + 0.4)), layout="constrained")
    axes = figure.subplots(2 * blocks, COLUMNS, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    for number, (name, (image, error)) in enumerate(shown.items()):
        block, column = divmod(number, COLUMNS)
        above, below = axes[2 * block : 2 * block + 2, column]
        above.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect)
        above.set_title(name, fontsize=8, wrap=True)
        if error is not None:
            drawn = below.imshow(error, cmap="inferno", vmin=0, vmax=largest, origin="lower", aspect=aspect)
    figure.colorbar(drawn, ax=axes, label="absolute error (% of the reference's white)", fraction=0.02, extend="max")
    return figure
