"""The report of a matrix: tables, figures and text. The project's matrix also gives docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from textwrap import fill
from typing import Any, NamedTuple

from experiments import RESULTS, ROOT
from experiments.benchmark import all_rows, tables
from experiments.benchmark.curves import adaptation_table
from experiments.benchmark.decisions import SUBJECTS, decisions_table, scales_table
from experiments.benchmark.figures import FIGURES, draw_figures
from experiments.benchmark.matrix import OURS, PAPERS, Matrix, read_matrix
from experiments.benchmark.papers import own_experiment, tricubic
from experiments.benchmark.reading import answers, missing, reading
from experiments.benchmark.results import Results, collect, read_results
from experiments.benchmark.runner import output_folder
from experiments.benchmark.significance import FEWEST_SUBJECTS
from experiments.gains import REFERENCES, gains_table, read_gains

__all__ = ["report", "report_folder", "results_page"]

MATRICES = ROOT / "experiments" / "benchmark" / "matrices"
FOLDER = RESULTS / "benchmark"
PAGE = ROOT / "docs" / "results.md"
PRIMARY = "ds002748"  # the matrix of docs/results.md
CONDITIONS = (
    "The simulated scanner also filters k-space, leaves its corners empty and adds noise. So these figures cannot be "
    "compared with those above, where k-space is truncated and nothing else. The full report has the plan."
)
OTHERS = ("ds000011", "adaptation")  # those of its further sections, if their reports are there
HEADLINES = ("2x2x2", "2x2x1", "slices of 4")  # the acquisitions whose gains open the page
WIDTH = 120  # characters of a line
ERROR_MAPS = "error_maps.png"
ON_PAGE = ("gains", "training_curves", "degradation", "discriminators", "gradients")  # the figures of docs/results.md
PAPERS_SCALE = "own_maximum"
TABLES = (("contrastive_1", ""), ("udean_2", PAPERS_SCALE))  # and its tables: of a paper, on a scale
DECISIONS = f"""The decisions were fixed before the run. They compare PSNR in deep tissue on {SUBJECTS} test subjects,
each averaged over seeds first. All three judge the contrastive model alone. Decisions 1 and 2 use two-sided sign
tests. Decision 3 uses Wilcoxon's signed-rank test and needs {tables.FEWEST_SEEDS} seeds, whose mean differences have
one sign. Holm's method adjusts 2 and 3. Each decision needs a mean difference of {tables.TELLING:g} dB. In decisions
1 and 2, a "no" with a small p says: significantly worse. In decision 3, seeds of both signs give a "no", whatever p."""
SCALES_MATTER = """The answer depends on the scale. The papers score the whole volume with its air. They divide each
volume by its own maximum, which hides a wrong brightness. Here most of a reference is empty, because the brains were
cut out. A network that empties the noisy air gains much on that scale, whatever it does to tissue."""
TWO_TABLES = """The first table is in deep tissue. The second is on the papers' scale, so that their scores may stand
beside."""
SOURCES = """PSNR (dB) in deep tissue above zero-filling by training scans, on the same test scans. Each cell holds the
mean over seeds, with their range in brackets. The last column holds the mean of the other columns minus the first."""
SHIPPED = """No training and no choice has seen these subjects. Each scan is acquired in each way by simulation. The
shipped weights restore it without data consistency. A cell has the mean gain above the best linear method, its
standard deviation and how many scans gain. [acquisitions.md](acquisitions.md#what-it-gains) has every method
beside."""
WORDS = "[How to read the tables](#how-to-read-the-tables) explains the words."
MEDIAN_SUBJECT = """The test subject of the median gain (first seed and fold), with its errors. All errors share one
colour scale. White is the 99.8th percentile of the reference."""
METHOD = f"""## How to read the tables

- A *system* is a method. A *row* is one training and test of it, with one seed. *twenty* and *two* are its numbers of
  source subjects. The *slab network* is the papers' network of thin slabs.
- All scores are means over the test subjects ± their standard deviation. With several seeds, a subject's score is its
  mean over them.
- PSNR and SSIM share one scale: the 99.9th percentile of the reference's voxels above its mean. Nothing is clipped.
- *Shift and gain corrected*: each volume is first moved and multiplied so that it fits the reference best. The score
  is that of deep tissue.
- *MTF* is the amplitude of a degraded scan over that of its reference at each frequency: the square root of a ratio
  of power spectra. So noise counts, and can lift it above 1. The first axis is front-back, the second left-right.
- *HFEN* is the error of edges: that of a Laplacian of Gaussian, over the reference's. Lower is better.
- *GMAC* counts multiply-accumulate operations, in billions. *Alarms* are reasons to doubt a number.
- *Deep tissue* is the foreground (Otsu's threshold, largest component, holes filled) without the 4 mm at its edge.
- SSIM is the mean over slices along the last axis, with a Gaussian window of 11 x 11 voxels and data range 1.
- The full report also has the whole volume, and the papers' scale: each volume divided by its own maximum, clipped.
- The papers' figures come from other data (HCP), another network and another budget.
- **Best** and *second best* pass Wilcoxon's signed-rank test at 5 %, adjusted by Holm over all pairs of a setting. The
  test needs {FEWEST_SUBJECTS} subjects, and {tables.FEWEST_SEEDS} seeds of every learned system.
- The network of a row is the moving average at the last iteration.
"""


def report(matrix: str, dataset_dir: str | None = None, output_dir: str | None = None) -> None:
    """Gather the complete rows and write tables, figures and text.

    The report of a matrix of the project stands in experiments/results/benchmark, that of any other in ``OUT/report``.
    A matrix of the project also writes docs/results.md.

    Args:
        matrix: YAML file.
        dataset_dir: replaces that of the matrix.
        output_dir: folder of the rows.
    """
    plan = read_matrix(matrix, dataset_dir)
    output = output_folder(plan, output_dir)
    folder = report_folder(plan, output)
    collect(plan, output, folder)
    write_tables(plan, folder)
    draw_figures(read_results(folder), folder / "figures")
    (folder / "report.md").write_text(full_report(plan, folder), encoding="utf-8")
    if folder.parent == FOLDER:
        PAGE.write_text(results_page(), encoding="utf-8")
    print(folder / "report.md")


def report_folder(matrix: Matrix, output: Path) -> Path:
    """The folder of the report: with the project's results, or beside the rows."""
    return FOLDER / matrix.name if matrix.path.resolve().parent == MATRICES else output / "report"


class Table(NamedTuple):
    """A paper's table as a matrix has it.

    Args:
        key: of ``papers.yaml``.
        network: backbone of the learned systems.
        suffix: of the scale, a key of ``tables.SCALES``.
        lines: systems.
    """

    key: str
    network: str
    suffix: str
    lines: list[tables.Line]

    @property
    def name(self) -> str:
        """Name of its files."""
        return "_".join(filter(None, [self.key, self.network if self.network != OURS else "", self.suffix]))


def write_tables(matrix: Matrix, folder: Path) -> None:
    """The papers' tables as CSV and LaTeX."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for table in _tables(matrix, read_results(folder)):
        for suffix, write in (("csv", tables.as_csv), ("tex", tables.as_latex)):
            (folder / "tables" / f"{table.name}.{suffix}").write_text(write(table.lines), encoding="utf-8")


def _tables(matrix: Matrix, results: Results) -> list[Table]:
    """The tables of a matrix on each scale, for each of its backbones. The papers' figures stand on their own scale."""
    found = [
        Table(key, network, suffix, tables.paper_table(PAPERS[key], results, network, metrics))
        for suffix, (metrics, _) in tables.SCALES.items()
        for key in matrix.content.get("tables", [])
        for network in results.networks or [OURS]
    ]
    for line in (line for table in found if table.suffix != PAPERS_SCALE for line in table.lines):
        line["printed"] = {}
    return found


def full_report(matrix: Matrix, folder: Path) -> str:
    """All results of a matrix, for its own folder."""
    results = read_results(folder)
    parts = [f"# {matrix.content['title']}", _plan(matrix), _prose(matrix.content.get("limits", ""))]
    parts += [f"{_prose(DECISIONS)}\n\n{decisions_table(results)}"] if matrix.content.get("decisions") else []
    parts += [_prose(missing(results)), *(f"- {sentence}" for sentence in reading(results))]
    parts += [_table(table) for table in _tables(matrix, results)]
    by_source = all_rows.sources(results)
    parts += [f"{_prose(SOURCES)}\n\n{by_source}"] if by_source else []
    parts += ["Alarms:", "\n".join(f"- {alarm}" for alarm in all_rows.alarms(results) or ["none"])]
    parts += [_figure(name) for name in FIGURES if (folder / "figures" / f"{name}.png").is_file()]
    parts += [_error_maps(folder)]
    parts += ["Each row:", all_rows.costs(results), _provenance(results), _commands(matrix)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def results_page() -> str:
    """The text of docs/results.md, from the committed results."""
    matrix, folder = read_matrix(MATRICES / f"{PRIMARY}.yaml"), FOLDER / PRIMARY
    results = read_results(folder)
    place = f"../experiments/results/benchmark/{PRIMARY}/"
    shown = {(table.key, table.suffix): table for table in _tables(matrix, results)}
    parts = [
        "# Results",
        "\n".join(f"- {line}" for line in _headlines(results)),
        WORDS,
        "## The shipped weights on subjects never seen",
        gains_table(),
        _prose(SHIPPED),
        f"## {matrix.content['title']}",
        _prose(CONDITIONS),
        f"{_prose(DECISIONS)}\n\n{decisions_table(results)}",
        f"{_prose(SCALES_MATTER)}\n\n{scales_table(results)}",
        _prose(TWO_TABLES),
        *(_table(shown[key]) for key in TABLES),
        _prose(missing(results)),
        "\n".join(fill(f"- {line}", WIDTH, subsequent_indent="  ") for line in reading(results)),
        *(_figure(name, place) for name in ON_PAGE),
        _error_maps(folder, place),
        _prose(matrix.content["limits"]),
        f"[The full report]({place}report.md) has the plan, all scales, curves, costs and machines.",
        *(part for name in OTHERS for part in _other_matrix(name)),
        "## The papers' Tricubic",
        _wrapped(tricubic(FOLDER)),
        "## The papers' own experiment",
        _wrapped(own_experiment()),
        METHOD,
        "## How to make this page",
        "`report` writes this page and the full report from the folders of the rows.",
        _commands(matrix),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _other_matrix(name: str) -> list[str]:
    """A section for another matrix of the project, if its report is there: its table, or how far degradations moved."""
    matrix, folder = read_matrix(MATRICES / f"{name}.yaml"), FOLDER / name
    place = f"../experiments/results/benchmark/{name}/"
    if not folder.is_dir():
        return []
    results = read_results(folder)
    tables_of_it = [_table(table) for table in _tables(matrix, results) if table.suffix == ""]
    return [
        f"## {matrix.content['title']}",
        _plan(matrix),
        *(tables_of_it or [adaptation_table(results), _figure("degradation", place)]),
        _prose(missing(results)),
        _prose(f"{matrix.content['limits']} [The full report]({place}report.md)."),
    ]


def _headlines(results: Results) -> list[str]:
    """The lines that open the page."""
    ours = []
    for acquisition in HEADLINES:
        sets = [one for one in read_gains() if one.acquisition == acquisition]
        if sets:
            most = max(sets, key=lambda one: len(one.values["psnr"]))
            values = most.values["psnr"]
            spread = f"{len(values)} subjects never seen, {min(values):+.2f} to {max(values):+.2f} dB"
            over = f"{mean(values):.2f} dB PSNR over {REFERENCES[most.reference]}"
            ours.append(f"At {acquisition} the shipped weights gain {over} ({spread}).")
    return [fill(line, WIDTH - 2, subsequent_indent="  ") for line in answers(results, " ".join(ours))]


def _table(table: Table) -> str:
    """A table with its title; empty where no line has been run."""
    shown = [line for line in table.lines if line["names"]]
    if not shown:
        return ""
    layout = PAPERS[table.key]
    factor = "" if layout.get("grouped") else f"at {shown[0]['setting'][0]}"
    network = table.network.replace("_", " ") if any(line["learned"] for line in shown) else ""
    title = [f"**[{layout['title']}]({layout['source']})**", network, factor, tables.SCALES[table.suffix][1]]
    left_out = shown[0]["left_out"]
    missing = f"{left_out} more test subjects are left out, because some lines lack them." if left_out else ""
    return "\n\n".join(filter(None, [", ".join(filter(None, title)), tables.as_markdown(shown).strip("\n"), missing]))


def _commands(matrix: Matrix) -> str:
    """The commands for a matrix, with a folder of scans unless it generates them."""
    scans = "" if "cohort" in matrix.content else " --dataset_dir DIR"
    path = f"experiments/benchmark/matrices/{matrix.path.name}"
    lines = [f"python -m experiments.benchmark {verb} {path}{scans}" for verb in ("run", "report")]
    return "\n".join(["```sh", *lines, "```"])


def _figure(name: str, place: str = "") -> str:
    """A figure with its caption. ``place`` is the folder of the report, as seen from the page, with a slash."""
    return f"{_prose(FIGURES[name][1])}\n\n![{name}]({place}figures/{name}.png)"


def _error_maps(folder: Path, place: str = "") -> str:
    """The picture of the median test subject, if it was drawn."""
    drawn = (folder / "figures" / ERROR_MAPS).is_file()
    return f"{_prose(MEDIAN_SUBJECT)}\n\n![error maps]({place}figures/{ERROR_MAPS})" if drawn else ""


def _provenance(results: Results) -> str:
    """Machines, code and scans behind the rows, each once."""

    def words(value: Mapping[str, Any]) -> str:
        return ", ".join(f"{key} {one}" for key, one in value.items() if one is not None)

    records = [row["record"] for row in results.done]
    facts = {
        "machine": sorted({words(record["machine"]) for record in records}),
        "code": sorted({words(code) for record in records for code in record.get("codes", [record["code"]])}),
        "scans (SHA-256)": sorted({record["data"] for record in records}),
        "training": sorted({words(r["training"]) for r in records if r["costs"].get("parameters") != "0"}),
        "time of all rows": [
            f"{sum(record['seconds'] for record in records) / 60:.0f} minutes, without commands that were killed"
        ],
        "rows that were interrupted and resumed": [str(sum(record["attempts"] > 1 for record in records))],
    }
    return "\n".join(f"- {name}: {'; '.join(values)}" for name, values in facts.items())


def _plan(matrix: Matrix) -> str:
    """The plan of a matrix. YAML folds the blank line between paragraphs to one newline."""
    return _wrapped(matrix.content["plan"].replace("\n", "\n\n"))


def _wrapped(text: str) -> str:
    """Paragraphs as prose; tables and commands as they are."""
    return "\n\n".join(part if part[:1] in "|`" else _prose(part) for part in text.split("\n\n"))


def _prose(text: str) -> str:
    """A paragraph in lines of ``WIDTH`` characters."""
    return fill(" ".join(text.split()), WIDTH, break_on_hyphens=False)
