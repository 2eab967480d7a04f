"""Keep what a training and its evaluation measured, small enough to commit, under docs/results/NAME.

Usage: python docs/record_run.py NAME TRAINING_DIR EVALUATION_DIR
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent / "results"
CURVES = ("psnr_gain", "ssim", "degradation_psnr", "degradation_gain", "degradation_shift", "consistency_psnr")


def read_scalars(folder: Path) -> dict[str, list]:
    """All scalar events of a TensorBoard folder by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def record(name: str, training: Path, evaluation: Path) -> None:
    """Write training.json and curves.csv, copy the table, the CSV and the pictures."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    scalars = read_scalars(training / "tensorboard")
    times = [event.wall_time for series in scalars.values() for event in series]
    datalist = json.loads((training / "datalist.json").read_text(encoding="utf-8"))
    groups = {"source": ("training", "reals"), "target": ("training", "image")}
    groups |= {section: (section, "label") for section in ("validation", "test")}
    subjects = {
        group: sorted({item["subject"] for item in datalist[section] if key in item})
        for group, (section, key) in groups.items()
    }
    last = max((event.step for event in scalars["image_cycle_l1"]), default=0)
    summary = {"subjects": subjects, "iterations": last, "hours": round((max(times) - min(times)) / 3600, 2)}
    (target / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with open(target / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        tags = [tag for tag in CURVES if tag in scalars]
        writer.writerow(["epoch", *tags])
        for row in zip(*(scalars[tag] for tag in tags), strict=True):
            writer.writerow([row[0].step, *(f"{event.value:.5g}" for event in row)])
    for path in evaluation.iterdir():
        if path.suffix in {".csv", ".md", ".png"}:
            shutil.copy(path, target / path.name)


if __name__ == "__main__":
    record(sys.argv[1], *map(Path, sys.argv[2:4]))
