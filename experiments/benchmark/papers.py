"""What the papers' own figures say: their Tricubic beside ours, and what their experiment takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from experiments import RESULTS
from experiments.benchmark.matrix import PAPERS
from experiments.benchmark.results import INTERPOLATIONS, read_results
from experiments.benchmark.tables import DIFFERENCES, PAPERS_FACTOR, SCALES, TITLES, markdown
from experiments.speed.common import PAPERS_TRAIN

__all__ = ["OWN_EXPERIMENT", "own_experiment", "tricubic"]

CENTRED = "tricubic_centred"
MATRICES = {(2, 2, 2): "centred_ds000011", (2, 2, 1): "centred_ds002748"}  # that measure it, by scale factor
OWN_EXPERIMENT = {  # 30 epochs of 120 subjects; the weights, rates, batches and patches are those of the files
    "degrade_target": True,
    "split": [120, 120, 30, 30],
    "max_iterations": 510_000,
    "iterations_per_epoch": 17_000,
}
TRAINING = RESULTS / "speed" / "training_papers.json"
WAY = "bfloat16, channels_last, fused optimisers: ours"
SUSTAINED = 50  # TFLOP/s of a GPU, an assumption


def tricubic(folder: Path) -> str:
    """What zero-filling gains over centred cubic here, beside what the papers' best rows gain over their Tricubic.

    Args:
        folder: of the results of all matrices.
    """
    lines, ours, theirs = [], [], []
    for factor, name in MATRICES.items():
        results = read_results(folder / name)
        rows = results.names(system=CENTRED)
        gains = [
            {m: -mean(results.gains(rows, column).values()) for m, column in s.items()} for s, _ in SCALES.values()
        ]
        papers = [_best_above_tricubic(table, factor) for table in ("udean_2", "udean_2_brats")]
        count = len(results.gains(rows))
        lines.append(["x".join(map(str, factor)), str(count), *map(_cell, (*gains, *papers))])
        ours.append(gains[-1]["psnr"])
        theirs += papers
    titles = [f"zero-filling above centred cubic, {title}" for _, title in SCALES.values()]
    titles += [f"the papers' best unpaired row above their Tricubic, {data}" for data in ("HCP", "BraTS")]
    best = max(one["psnr"] for one in theirs)
    below = ["x".join(map(str, f)) for f in MATRICES if _best_above_tricubic("udean_2_brats", f)["psnr"] < 0]
    sentences = [
        "Older code that the authors published truncates k-space, so LR voxel l lies on HR voxel 2l.",
        "MATLAB's `imresize3` assumes a grid half a voxel off.",
        "Its cubic interpolation therefore loses what the table shows.",
        f"Zero-filling gains {min(ours):+.2f} dB or more over it on the papers' scale, without any training.",
        f"The papers' best unpaired row gains at most {best:+.2f} dB over their Tricubic.",
        *(f"On BraTS at {one} every unpaired row of theirs is below their Tricubic in PSNR." for one in below),
    ]
    if min(ours) >= best:
        sentences.append("If their Tricubic is centred like this, zero-filling alone equals or beats their best row.")
    sentences.append("The papers do not say which Tricubic they took, and the data differ. So this is no proof.")
    table = markdown(["scale factor", "subjects", *titles], lines)
    return "\n\n".join([" ".join(sentences[:3]), " ".join(sentences[3:]), table])


def _cell(gain: dict[str, float]) -> str:
    return f"{gain['psnr']:{DIFFERENCES['psnr']}} dB, SSIM {gain['ssim']:{DIFFERENCES['ssim']}}"


def _best_above_tricubic(table: str, factor: tuple[int, ...]) -> dict[str, float]:
    """The best printed value of the learned unpaired rows of a table, minus that of its Tricubic, by metric."""
    base = next(line for line in _printed(table, factor) if line["system"] == CENTRED)
    learned = [line for line in _printed(table, factor) if line["system"] not in INTERPOLATIONS]
    return {metric: max(line[metric][0] for line in learned) - base[metric][0] for metric in TITLES}


def _printed(table: str, factor: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """The printed lines of a scale factor without those of misaligned groups."""
    for line in PAPERS[table]["lines"]:
        if "psnr" in line and "assignment" not in line and tuple(line.get("scale_factor", PAPERS_FACTOR)) == factor:
            yield line


def own_experiment() -> str:
    """The command of the papers' own experiment and its cost, as far as a committed measurement bounds it."""
    record = json.loads(TRAINING.read_text(encoding="utf-8"))
    seconds = record["ways"][WAY]["seconds"]["median"]
    rate = record["matrix product (GFLOP/s)"]["bfloat16"]
    iterations = OWN_EXPERIMENT["max_iterations"]
    operations = seconds * rate / 1000  # TFLOP of an iteration, at most: no faster than a product of matrices
    files = ",".join(f"'bundle/configs/{name}'" for name in ("train.yaml", *PAPERS_TRAIN))
    options = " ".join(f'--{name} "{value}"' for name, value in OWN_EXPERIMENT.items())
    return (
        f'```sh\npython -m monai.bundle run training --config_file "[{files}]" --dataset_dir HCP {options}\n```\n\n'
        f"An iteration takes {seconds:.1f} seconds on one core "
        "([training_papers.md](../experiments/results/speed/training_papers.md)), so all of them take "
        f"{iterations * seconds / 86400:.0f} days. On a GPU this was not measured. The core multiplies matrices at "
        f"{rate} GFLOP/s, so an iteration has at most {operations:.1f} TFLOP. We assume a GPU that sustains "
        f"{SUSTAINED} TFLOP/s. It would need at most {iterations * operations / SUSTAINED / 3600:.0f} hours, and time "
        "for the validations."
    )
