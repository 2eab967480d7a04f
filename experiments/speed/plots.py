"""The picture of docs/speed.md from the saved results: the rates beside their limit, and the growth of costs.

Usage: python -m experiments.speed.plots
"""

from __future__ import annotations

import json
from textwrap import wrap

import matplotlib as mpl

from experiments.speed.common import RESULTS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _folded(title: str) -> str:
    """In lines of at most 45 characters."""
    return "\n".join(wrap(title, 45))


def draw_rates(axes: Axes) -> None:
    """Bars for the rates of the network, lines for those of a matrix product."""
    record = read("inference")
    titles = list(record["ways"])
    axes.barh(range(len(titles)), [record["ways"][title]["GFLOP/s"] for title in titles], color="tab:blue")
    for (dtype, rate), style in zip(record["matrix product (GFLOP/s)"].items(), (":", "--"), strict=False):
        axes.axvline(rate, color="black", linestyle=style, label=f"matrix product, {dtype}")
    axes.set_yticks(range(len(titles)), [_folded(title) for title in titles], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("GFLOP/s inside the network")
    axes.legend(fontsize=7)


def draw_growth(axes: Axes) -> None:
    """Seconds, memory above the start and size of the output against the size of the volume."""
    runs = [run for title, run in read("growth")["runs"].items() if title.endswith("^3")]
    voxels = [run["voxels"] for run in runs]
    axes.loglog(voxels, [run["wall seconds"] for run in runs], "o-", color="tab:blue", label="seconds")
    memory = [run["peak memory"] - run["memory before"] for run in runs]
    axes.loglog(voxels, memory, "s-", color="tab:orange", label="peak memory above the start (GiB)")
    axes.loglog(voxels, [run["output (GiB)"] for run in runs], "k--", label="output in float32 (GiB)")
    titles = [title for title in read("growth")["runs"] if title.endswith("^3")]
    axes.set_xticks(voxels, titles)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("voxels of the low-resolution volume")
    axes.legend(fontsize=7)


def main() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    draw_rates(left)
    draw_growth(right)
    figure.savefig(RESULTS / "speed.png", dpi=120)


if __name__ == "__main__":
    main()
