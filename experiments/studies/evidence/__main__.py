"""Evidence downstream: HR against cubic, zero-filling and the shipped weights on test subjects, and where these harm.

Usage: python -m experiments.studies.evidence NAME=DIR ... [--matrix YAML] [--output_dir OUT]

NAME=DIR gives the folder of a dataset that the matrix names. OUT keeps every restoration and segmentation under a hash
of what it depends on, such as the weights. A second call makes only what is missing. The results of the project's
matrix go to experiments/results/evidence, those of any other to OUT.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from scripts.transforms.naming import stem_of

from experiments import RESULTS, ROOT
from experiments.speed.common import machine, measured_on
from experiments.studies.acquisitions import dataset_folders, in_mm, scan_path

from . import anatomy, heads, measures
from .restoring import METHODS, kept, restored, weights_of_run
from .table import summary

MATRIX = Path(__file__).with_name("evidence.yaml")
FOLDER = RESULTS / "evidence"
OUTPUT = ROOT / "outputs" / "evidence"
COLUMNS = ("scan", "case", "acquisition", "measure", "detail", "method", "value")
MARGIN = 4  # voxels around the brain
Row = dict[str, Any]


def texts_of(acquisition: Mapping[str, Any], path: Path, axcodes: str) -> list[str]:
    """The acquisition of a scan in mm, as evaluate.yaml takes it."""
    axes = list(acquisition["axes"])
    return in_mm(axes, path, axcodes) if acquisition["unit"] == "voxels" else axes


def rows_of(
    scan: str,
    acquisition: str,
    method: str,
    values: Iterable[tuple[str, float]],
    detail: str = "",
    case: str = "",
) -> list[Row]:
    """Rows from measures of one method. Lines of the table differ in ``detail`` and are means over scans and cases."""
    same = {"scan": scan, "case": case, "acquisition": acquisition, "detail": detail, "method": method}
    return [{**same, "measure": name, "value": f"{value:.6g}"} for name, value in values]


def brain_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box of the brain with a margin."""
    return tuple(
        slice(max(0, int(places.min()) - MARGIN), int(places.max()) + 1 + MARGIN) for places in np.nonzero(mask)
    )


def labels_of(volume: np.ndarray, brain: anatomy.Anatomy, output_dir: Path) -> dict[str, np.ndarray]:
    """The segmentation of a volume in the box by each reader, from a file where it exists."""
    corrected = volume / brain.bias

    def make() -> dict[str, np.ndarray]:
        return {name: read(corrected, brain) for name, read in anatomy.READERS.items()}

    return kept(output_dir / "segmented", make, corrected, brain.mask, brain.priors)


def head_rows(scan: str, path: Path, acquisitions: Mapping[str, Any], axcodes: str, output_dir: Path) -> Iterator[Row]:
    """Tissue, boundaries, lesions, place and removed anatomy of one test subject."""
    image = nib.as_closest_canonical(nib.load(path))
    volume, spacing = image.get_fdata(dtype=np.float32), image.header.get_zooms()[:3]
    found = kept(output_dir / "anatomy", lambda: anatomy.find_anatomy(image)._asdict(), volume, image.affine)
    box = brain_box(found["mask"])
    brain = anatomy.Anatomy(found["mask"][box], found["priors"][(slice(None), *box)], found["bias"][box])
    high_res = volume[box]
    reference = labels_of(high_res, brain, output_dir)
    white = reference["Gaussian mixture"] == anatomy.TISSUES["WM"]
    removed = heads.place_removal(high_res, brain.mask, spacing)
    lesions = heads.place_lesions(high_res, white, spacing, [removed])
    plain, altered = volume.copy(), volume.copy()
    altered[box] = heads.alter(high_res, spacing, lesions, removed)
    for name, acquisition in acquisitions.items():
        print(f"{name}: {scan}", flush=True)
        texts = texts_of(acquisition, path, axcodes)
        without, with_them = (restored(one, image.affine, texts, box, output_dir) for one in (plain, altered))
        for method in METHODS:
            yield from rows_of(scan, name, method, [("shift", float(np.abs(without[f"{method}_shift"]).max()))])
            labels = labels_of(without[method], brain, output_dir)
            for reader, one in labels.items():
                agreement = measures.tissue_agreement(one, reference[reader], spacing)
                yield from rows_of(scan, name, method, agreement, reader)
            response = with_them[method] - without[method]
            for one in lesions:
                became = measures.lesion_response(response, one, spacing)
                case = "dark" if one.change < 0 else "bright"
                yield from rows_of(scan, name, method, became, f"radius {one.radius:g} mm", case)
            returned = measures.removal_return(with_them[method], high_res, removed, spacing)
            yield from rows_of(scan, name, method, returned)


def phantom_rows(acquisitions: Mapping[str, Any], output_dir: Path) -> Iterator[Row]:
    """False detail in phantoms with voxels of 1 mm."""
    phantoms = {
        "flat": (measures.flat_error, *heads.flat_phantom()),
        "noise": (measures.noise_structure, *heads.noisy_phantom()),
    }
    for measure, (function, volume, where) in phantoms.items():
        whole = tuple(slice(0, n) for n in volume.shape)
        for name, acquisition in acquisitions.items():
            found = restored(volume, np.eye(4), acquisition["axes"], whole, output_dir)
            for method in METHODS:
                yield from rows_of("phantom", name, method, [(measure, function(found[method], volume, where))])


def stroke_rows(
    scan: str, path: Path, box: Sequence[Sequence[int]], acquisitions: Mapping[str, Any], axcodes: str, output_dir: Path
) -> Iterator[Row]:
    """Intensity in the lesion of a stroke scan."""
    image = nib.as_closest_canonical(nib.load(path))
    volume, places = image.get_fdata(dtype=np.float32), tuple(slice(*one) for one in box)
    for name, acquisition in acquisitions.items():
        print(f"{name}: {scan}", flush=True)
        found = restored(volume, image.affine, texts_of(acquisition, path, axcodes), places, output_dir)
        for method in METHODS:
            yield from rows_of(scan, name, method, measures.stroke(found[method], volume[places]))


def main(datasets: Mapping[str, Path], matrix: Path = MATRIX, output_dir: Path = OUTPUT) -> Path:
    """Measure everything and write ``test.csv`` and ``test.md``.

    Args:
        datasets: folder of each dataset of the matrix.
        matrix: YAML file.
        output_dir: for restorations and segmentations.

    Returns:
        the table.

    Raises:
        ValueError: when the folder of a dataset is not given, or lacks a scan.
    """
    content = yaml.safe_load(matrix.read_text(encoding="utf-8")) or {}
    if missing := {"acquisitions", "axcodes", "scans", "stroke"} - content.keys():
        raise ValueError(f"{matrix}: expected the keys of {MATRIX.name}, but {sorted(missing)} are missing. Add them.")
    before, output_dir = machine(), output_dir.resolve()
    acquisitions, axcodes = content["acquisitions"], content["axcodes"]
    places = {
        scan: scan_path(scan, datasets) for scan in [*content["scans"], *(one["scan"] for one in content["stroke"])]
    }
    rows = list(phantom_rows(acquisitions, output_dir))
    for scan in content["scans"]:
        rows += head_rows(scan, places[scan], acquisitions, axcodes, output_dir)
    for one in content["stroke"]:
        rows += stroke_rows(one["scan"], places[one["scan"]], one["box"], acquisitions, axcodes, output_dir)
    folder = FOLDER if matrix.resolve() == MATRIX else output_dir
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "test.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    lines = [summary(rows), "", f"- scans: {', '.join(stem_of(scan) for scan in places)}"]
    lines += [f"- weights: {weights_of_run()}", measured_on(before)]
    (folder / "test.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(folder / "test.md")
    return folder / "test.md"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME=DIR", help="folder of a dataset of the matrix")
    parser.add_argument("--matrix", type=Path, default=MATRIX)
    parser.add_argument("--output_dir", type=Path, default=OUTPUT)
    given = parser.parse_args()
    main(dataset_folders(given.datasets), given.matrix, given.output_dir)
