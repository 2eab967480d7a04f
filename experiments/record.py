"""Record the trainings of the shipped weights in small files under experiments/results/acquisitions.

Usage: python -m experiments.record [--append] TRAINING_DIR [TRAINING_DIR ...], one per stage

With --append the stages follow the recorded ones, whose folders are not needed any more.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments import RESULTS

FOLDER = RESULTS / "acquisitions"
TERM = "relative_l1"  # which each stage logs at its iterations
CURVES = ("psnr_gain", "ssim")  # and what begins so: the gain of each acquisition
PAUSE = 900.0  # seconds without an event, in which a training was interrupted


def read_scalars(folder: Path) -> dict[str, list]:
    """All scalar events of a TensorBoard folder by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def stage_record(scalars: dict[str, list]) -> dict[str, float]:
    """Iterations of one stage, and its hours without interruptions."""
    times = sorted(event.wall_time for series in scalars.values() for event in series)
    steps = (after - before for before, after in itertools.pairwise(times))
    hours = sum(step for step in steps if step < PAUSE) / 3600
    return {"iterations": max(event.step for event in scalars[TERM]), "hours": round(hours, 2)}


def read_groups(datalist: Path) -> dict[str, list[str]]:
    """The subjects of each group."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    return {name: sorted({item["subject"] for item in content[name]}) for name in ("training", "validation")}


def stage_curves(scalars: dict[str, list], stage: int) -> list[dict[str, str | int]]:
    """One row per validation."""
    tags = [tag for tag in scalars if tag.startswith(CURVES)]
    return [
        {"stage": stage, "epoch": event.step} | {tag: f"{scalars[tag][index].value:.5g}" for tag in tags}
        for index, event in enumerate(scalars[CURVES[0]])
    ]


def record(*stages: Path, append: bool = False) -> None:
    """Write training.json and curves.csv."""
    times, rows = read_record() if append else ([], [])
    for stage in stages:
        scalars = read_scalars(stage / "tensorboard")
        times.append(stage_record(scalars))
        rows += stage_curves(scalars, len(times))
    FOLDER.mkdir(parents=True, exist_ok=True)
    summary = {"subjects": read_groups(stages[-1] / "datalist.json"), "stages": times}
    (FOLDER / "training.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with open(FOLDER / "curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(tag for row in rows for tag in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_record() -> tuple[list[dict], list[dict]]:
    """The recorded stages, and the recorded rows of the curves."""
    with open(FOLDER / "curves.csv", newline="", encoding="utf-8") as file:
        return json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))["stages"], list(csv.DictReader(file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--append", action="store_true")
    parser.add_argument("stages", nargs="+", type=Path)
    given = parser.parse_args()
    record(*given.stages, append=given.append)
