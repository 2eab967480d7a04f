"""One GPU for a quarter of an hour: train the papers' own network twice, time it and evaluate it.

Usage: python -m experiments.studies.quarter_hour [--prepare] [--dataset_dir DIR] [--output_dir DIR] [--parts PART ...]

``--prepare`` copies the needed subjects into ``shared_subset/``, which git ignores. The run then has four parts. It
trains the contrastive model, trains it again without the contrastive loss, times training and inference, and evaluates
both networks on the test subjects. Each part stops by the clock. A killed training leaves its network and curves of the
last seconds. One seed on a few subjects gives a picture, not a claim.

Where a command must be shorter, start the parts one by one with ``--parts`` and the same ``--output_dir``.
``--iterations 2`` rehearses every part on a processor, in batches of two and without a clock.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import TimeLimit

from experiments import ROOT
from experiments.speed.common import ON_GPU, PAPERS_INFER, PAPERS_TRAIN, machine
from experiments.speed.inference import HCP, SINGLE, TILES
from experiments.speed.training import PLAIN, VARIANTS, Stopwatch, write_dataset
from experiments.speed.training import train as time_training
from experiments.speed.workflows import super_resolve, workflow, write_scan

GROUPS = {"source": ["sub-01", "sub-02"], "target": ["sub-03", "sub-04"], "validation": ["sub-05"]}
GROUPS["test"] = ["sub-08", "sub-09", "sub-13"]
SUBSET = ROOT / "shared_subset"
LIMIT, RESERVE = 64.0, 8.0  # MiB to copy to the machine at most, and the share for packages that it lacks
METHODS = {
    "contrastive": PAPERS_TRAIN,
    "without_contrastive": ("methods/without_contrastive.yaml", *PAPERS_TRAIN),
}
DEGRADATION = {  # outside the families of the estimator
    "acquisition::elliptical": True,
    "acquisition::exponential": [0.9, 0, 0],
    "acquisition::fermi": [None, [0.9, 0.05], None],
    "acquisition::snr": 20,
    "acquisition::rician": True,
}
NETWORK: dict[str, Any] = {}  # changes to the papers' network; the tests make it small
TRAINING: dict[str, Any] = {}  # and to its training
SECONDS = {"contrastive": 270, "without_contrastive": 270, "speed": 120, "evaluate": 100}  # at most for each part
PROBE = 12  # iterations that are timed first
EPOCHS, VALIDATING, SAVES = 4, 0.2, 20  # at most; share of the time for validations; saved networks per training
TYPES = {"float32": "$None"} | ({name: name for name in ("bfloat16", "float16")} if ON_GPU else {})
CHANNELS_LAST = {f"{name}, channels_last": {"amp_dtype": amp_dtype} for name, amp_dtype in TYPES.items()}
WAYS = {
    "training": {"float32, channels first: plain": VARIANTS[PLAIN], **CHANNELS_LAST},
    "inference": {"float32, channels first, tiles: plain": {**SINGLE, **TILES}, **CHANNELS_LAST},
}


class Run:
    """The folders of a run and its record. A number of ``iterations`` makes it a rehearsal."""

    def __init__(self, dataset: Path, output: Path, scratch: Path, iterations: int | None) -> None:
        self.dataset, self.output, self.scratch, self.iterations = dataset, output, scratch, iterations
        self.training = {**NETWORK, **TRAINING, **({"batch_size": 2} if iterations else {})}
        self.groups = {name: [s for s in names if (dataset / s).is_dir()] for name, names in GROUPS.items()}
        self.path = output / "record.json"
        self.record = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}  # by part
        self.here = {"commit": commit(dataset), "machine": machine(), "degradation": DEGRADATION, "groups": self.groups}

    def note(self, part: str, found: dict[str, Any]) -> None:
        self.record[part] = found | self.here
        self.path.write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        print(part, json.dumps(found), flush=True)


def commit(dataset: Path) -> str:
    """The prepared commit, or else the present one. A plus sign stands for changes since."""
    if (dataset / "commit.txt").is_file():
        return (dataset / "commit.txt").read_text(encoding="utf-8").strip()
    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def prepare(dataset: Path, subset: Path) -> None:
    """Copy the subjects of the trainings, then as many test subjects as fit beside the repository's files."""
    shutil.rmtree(subset, ignore_errors=True)
    subset.mkdir(parents=True)
    (subset / "commit.txt").write_text(commit(subset) + "\n", encoding="utf-8")
    names = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    total = sum((ROOT / name).stat().st_size for name in set(names) if (ROOT / name).is_file()) / 2**20
    print(f"{total:.1f} MiB: the repository's files")
    for path in filter(Path.is_file, dataset.iterdir()):
        shutil.copyfile(path, subset / path.name)
    for subject in (subject for subjects in GROUPS.values() for subject in subjects):
        (scan,) = dataset.glob(f"{subject}/anat/*_T1w.nii.gz")
        size = scan.stat().st_size / 2**20
        if subject in GROUPS["test"] and total + size > LIMIT - RESERVE:
            print(f"{subject} stays behind. Evaluate it afterwards with --parts evaluate.")
            continue
        (subset / subject / "anat").mkdir(parents=True)
        shutil.copyfile(scan, subset / subject / "anat" / scan.name)
        total += size
    print(f"{total:.1f} MiB with {subset.name}/; {LIMIT - total:.1f} MiB of {LIMIT:.0f} are left for packages")


def train(method: str, run: Run, iterations: int, epochs: int, seconds: float, probe: bool = False) -> dict[str, Any]:
    """One training by the bundle's own workflow. It writes its averaged network and curves, unless it is a probe."""
    begun, per_epoch = time.monotonic(), max(1, iterations // epochs)
    settings = {"degrade_target": True, **DEGRADATION, "groups": run.groups, **run.training}
    settings |= {"max_iterations": epochs * per_epoch, "iterations_per_epoch": per_epoch}
    settings |= {"dataset_dir": str(run.dataset), "output_dir": tempfile.mkdtemp(dir=run.scratch)}
    made = workflow("train", "training", "train.yaml", *METHODS[method], **settings)
    trainer, validator = (made.parser.get_parsed_content(key) for key in ("train::trainer", "validate::evaluator"))
    average, watch, ready = made.parser.get_parsed_content("train::ema").ema_model, Stopwatch(), time.monotonic()
    target = run.output / f"{method}.pt"
    with open(os.devnull if probe else run.output / f"curves_{method}.csv", "w", newline="", encoding="utf-8") as file:
        curves = csv.writer(file)
        curves.writerow(["iteration", "seconds", "name", "value"])

        def log(engine: Engine) -> None:
            values = engine.state.output["terms"] if engine is trainer else engine.state.metrics
            at = trainer.state.iteration, f"{time.monotonic() - ready:.2f}"
            curves.writerows([*at, name, f"{float(value):.6g}"] for name, value in values.items())
            file.flush()

        def save() -> None:
            weights = {name: value.detach().cpu() for name, value in average.state_dict().items()}
            torch.save(weights, unfinished := target.with_suffix(".unfinished"))
            unfinished.replace(target)

        watch.attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=min(20, per_epoch)), log)
        validator.add_event_handler(Events.COMPLETED, log)
        if not probe:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=max(1, iterations // SAVES)), save)
            trainer.add_event_handler(Events.COMPLETED, save)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, TimeLimit(max(1, int(seconds - (ready - begun)))))
        made.run()
    found = {"iterations": trainer.state.iteration, "planned": epochs * per_epoch, "set-up": ready - begun}
    found |= {"seconds": time.monotonic() - begun, "iteration": sorted(watch.iterations)[len(watch.iterations) // 2]}
    validations = found["seconds"] - found["set-up"] - sum(watch.iterations)  # before the first epoch and after each
    return found | {"validation": validations / (epochs + 1), "metrics": dict(validator.state.metrics)}


def train_in_time(method: str, run: Run, seconds: float) -> dict[str, Any]:
    """A training of as many iterations as fit, by a short one. The second method gets as many as the first."""
    begun = time.monotonic()
    budget = [run.iterations, 1] if run.iterations else run.record.get("contrastive", {}).get("budget")
    found: dict[str, Any] = {}
    if budget is None:
        found["probe"] = probe = train(method, run, PROBE, 1, seconds, probe=True)
        epochs = max(1, min(EPOCHS, int(VALIDATING * seconds / probe["validation"]) - 1))
        free = seconds - (time.monotonic() - begun) - probe["set-up"] - (epochs + 1) * probe["validation"]
        budget = found["budget"] = [max(1, int(0.97 * free / probe["iteration"])), epochs]
    return train(method, run, *budget, seconds - (time.monotonic() - begun)) | found


def speed(_: str, run: Run, seconds: float) -> dict[str, Any]:
    """Seconds per iteration and per volume in speed.json, one way after the other while there is time."""
    end, last, output = time.monotonic() + seconds, 0.0, run.scratch / "speed"
    dataset, size = write_dataset(run.scratch / "synthetic"), (9, 64, 64) if run.iterations else HCP
    scans = [write_scan(run.scratch / f"{n}.nii.gz", (n, *size[1:])) for n in (8, size[0])]  # the first warms up
    measures = {
        "training": lambda way: time_training(dataset, run.training | way, run.iterations or 10, output, PAPERS_TRAIN),
        "inference": lambda way: [super_resolve(scan, output, NETWORK | way, PAPERS_INFER) for scan in scans][-1],
    }
    record: dict[str, Any] = {"machine": machine(), "volume": size, **{kind: {} for kind in WAYS}}
    for kind, name in ((kind, name) for kind, ways in WAYS.items() for name in ways):
        begun = time.monotonic()
        if begun + last < end:
            record[kind][name] = measures[kind](WAYS[kind][name])
            last = time.monotonic() - begun
            (run.output / "speed.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return {kind: {name: way["seconds"] for name, way in record[kind].items()} for kind in WAYS}


def evaluate(_: str, run: Run, seconds: float) -> dict[str, Any]:
    """The measures of evaluate.yaml in subjects.csv, for each trained network and the baselines."""
    end, last, rows = time.monotonic() + seconds, 0.0, []
    settings = {"dataset_dir": str(run.dataset), "groups": run.groups, "output_dir": str(run.scratch)}
    workflow("train", "training", "train.yaml", **settings).parser.get_parsed_content(
        "data::datalist"
    )  # writes its file
    settings = {"dataset_dir": str(run.scratch / "datalist.json"), **DEGRADATION, **NETWORK}
    for method in (method for method in METHODS if (run.output / f"{method}.pt").is_file() and run.groups["test"]):
        begun, output = time.monotonic(), run.scratch / method
        if begun + last < end:
            settings |= {"ckpt_path": str(run.output / f"{method}.pt"), "output_dir": str(output)}
            workflow("infer", "evaluating", "evaluate.yaml", *PAPERS_INFER, **settings).run()
            header, *lines = (output / "subjects.csv").read_text(encoding="utf-8").splitlines()
            rows += [f"{method},{line}" for line in lines]
            text = "\n".join([f"network,{header}", *rows, ""])
            (run.output / "subjects.csv").write_text(text, encoding="utf-8")
            last = time.monotonic() - begun
    return {"rows": len(rows)}


PARTS = {"contrastive": train_in_time, "without_contrastive": train_in_time, "speed": speed, "evaluate": evaluate}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="copy the needed subjects of --dataset_dir")
    parser.add_argument("--dataset_dir", type=Path, default=SUBSET, help="ds000011, or the copy by --prepare")
    parser.add_argument("--output_dir", type=Path, default=Path(os.environ.get("OUT", "outputs/quarter_hour")))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=13.0, help="for all parts together")
    parser.add_argument("--iterations", type=int, help="of each training and measurement, without a clock")
    options = parser.parse_args(arguments)
    if options.prepare:
        prepare(options.dataset_dir, SUBSET)
        return 0
    end, failed = time.monotonic() + 60 * options.minutes, 0
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(options.dataset_dir.resolve(), options.output_dir.resolve(), Path(scratch), options.iterations)
        for part in options.parts:
            begun = time.monotonic()
            seconds = 86400 if options.iterations else min(SECONDS[part], end - begun)
            try:
                found = PARTS[part](part, run, seconds) if seconds > 1 else {"skipped": "no time was left"}
            except Exception as error:  # a failure must not stop the other parts
                traceback.print_exc()
                found, failed = {"failed": f"{type(error).__name__}: {error}"}, 1
            run.note(part, found | {"wall seconds": time.monotonic() - begun})
    return failed


if __name__ == "__main__":
    sys.exit(main())
