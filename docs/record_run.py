"""Keep what a training and its evaluation measured, small enough to commit, under docs/results/NAME.

Usage: python docs/record_run.py NAME EVALUATION_DIR TRAINING_DIR [TRAINING_DIR ...], one per stage
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent / "results"
TERMS = ("restoration_l1", "image_cycle_l1")  # one of which every iteration logs
CURVES = ("psnr_gain", "ssim", "degradation_psnr", "degradation_gain", "degradation_shift", "consistency_psnr")


def read_scalars(folder: Path) -> dict[str, list]:
    """All scalar events of a TensorBoard folder by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def stage_record(scalars: dict[str, list]) -> dict[str, float]:
    """How long one stage took."""
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


def record(name: str, evaluation: Path, *stages: Path) -> None:
    """Write training.json and curves.csv, copy the table, the CSV and the pictures."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    scalars = [read_scalars(stage / "tensorboard") for stage in stages]
    summary = {"subjects": read_groups(stages[-1] / "datalist.json"), "stages": [stage_record(s) for s in scalars]}
    (target / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    tags = [tag for tag in CURVES if any(tag in series for series in scalars)]
    with open(target / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "epoch", *tags])
        for stage, series in enumerate(scalars, start=1):
            for index, event in enumerate(series[CURVES[0]]):
                values = [f"{series[tag][index].value:.5g}" if tag in series else "" for tag in tags]
                writer.writerow([stage, event.step, *values])
    for path in evaluation.iterdir():
        if path.suffix in {".csv", ".md", ".png"}:
            shutil.copy(path, target / path.name)


if __name__ == "__main__":
    record(sys.argv[1], *map(Path, sys.argv[2:]))
