"""Record a training and its evaluation in small files under experiments/results/NAME.

Usage: python -m experiments.record [--append] NAME EVALUATION_DIR TRAINING_DIR [TRAINING_DIR ...], one per stage

With --append the stages follow the recorded ones, whose folders are not needed any more.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import RESULTS
from experiments.pictures import save_small

TERMS = ("restoration_l1", "image_cycle_l1")  # a recorded training logs one of them
CURVES = ("psnr_gain", "ssim", "degradation_psnr", "degradation_gain", "degradation_shift", "consistency_psnr")


def read_scalars(folder: Path) -> dict[str, list]:
    """All scalar events of a TensorBoard folder by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def stage_record(scalars: dict[str, list]) -> dict[str, float]:
    """Iterations and hours of one stage."""
    times = [event.wall_time for series in scalars.values() for event in series]
    iterations = max((event.step for tag in TERMS for event in scalars.get(tag, [])), default=0)
    return {"iterations": iterations, "hours": round((max(times) - min(times)) / 3600, 2)}


def read_groups(datalist: Path) -> dict[str, list[str]]:
    """The subjects of each group."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    keys = {"source": ("training", "reals"), "target": ("training", "image")}
    keys |= {section: (section, "label") for section in ("validation", "test")}
    return {
        group: sorted({item["subject"] for item in content[section] if key in item})
        for group, (section, key) in keys.items()
    }


def stage_curves(scalars: dict[str, list], stage: int) -> list[dict[str, str | int]]:
    """One row per validation."""
    return [
        {"stage": stage, "epoch": event.step}
        | {tag: f"{scalars[tag][index].value:.5g}" for tag in CURVES if tag in scalars}
        for index, event in enumerate(scalars[CURVES[0]])
    ]


def record(name: str, evaluation: Path, *stages: Path, append: bool = False) -> None:
    """Write training.json and curves.csv; copy the table, the CSV and smaller pictures."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    times, rows = read_record(target) if append else ([], [])
    for stage in stages:
        scalars = read_scalars(stage / "tensorboard")
        times.append(stage_record(scalars))
        rows += stage_curves(scalars, len(times))
    summary = {"subjects": read_groups(stages[-1] / "datalist.json"), "stages": times}
    (target / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    tags = [tag for tag in CURVES if any(tag in row for row in rows)]
    with open(target / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["stage", "epoch", *tags])
        writer.writeheader()
        writer.writerows(rows)
    for path in evaluation.iterdir():
        if path.suffix in {".csv", ".md"}:
            shutil.copy(path, target / path.name)
        elif path.suffix == ".png":
            save_small(path, target / path.name)


def read_record(folder: Path) -> tuple[list[dict], list[dict]]:
    """The recorded stages, and the recorded rows of the curves."""
    with open(folder / "curves.csv", newline="", encoding="utf-8") as file:
        return json.loads((folder / "training.json").read_text(encoding="utf-8"))["stages"], list(csv.DictReader(file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--append", action="store_true")
    parser.add_argument("name")
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("stages", nargs="+", type=Path)
    given = parser.parse_args()
    record(given.name, given.evaluation, *given.stages, append=given.append)
