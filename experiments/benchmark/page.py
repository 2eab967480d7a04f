"""The report of a matrix: tables, figures and text. The project's matrix also gives docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from textwrap import fill
from typing import Any, NamedTuple

from experiments import RESULTS, ROOT
from experiments.benchmark import all_rows, tables
from experiments.benchmark.decisions import SUBJECTS, decisions, decisions_table
from experiments.benchmark.figures import FIGURES, draw_figures
from experiments.benchmark.matrix import OURS, Matrix, read_matrix
from experiments.benchmark.reading import reading
from experiments.benchmark.results import Results, collect, read_results
from experiments.benchmark.runner import output_folder
from experiments.benchmark.significance import FEWEST_SUBJECTS
from experiments.pages import REFERENCES, gains_table, read_gains

__all__ = ["report", "report_folder", "results_page"]

MATRICES = ROOT / "experiments" / "benchmark" / "matrices"
FOLDER = RESULTS / "benchmark"
PAGE = ROOT / "docs" / "results.md"
PRIMARY = "ds002748"  # the matrix of docs/results.md
HEADLINE = "2x2x2"  # the acquisition whose gain opens the page
WIDTH = 120  # characters of a line
FIGURE = "gains"  # on docs/results.md
DECISIONS = f"""The decisions were fixed before the run. They compare PSNR in deep tissue on {SUBJECTS} test subjects,
each averaged over seeds first. Decisions 1 and 2 use two-sided sign tests. Decision 3 uses Wilcoxon's signed-rank test
and needs {tables.FEWEST_SEEDS} seeds of one sign. Holm's method adjusts 2 and 3. Each decision needs a mean difference
of {tables.TELLING:g} dB."""
SOURCES = """PSNR (dB) in deep tissue above zero-filling by training scans, on the same test scans. Each cell holds the
mean over seeds, with their range in brackets. The last column holds the mean of the other columns minus the first."""
METHOD = f"""## How to read the tables

- All scores are means over the test subjects ± their standard deviation. With several seeds, a subject's score is its
  mean over them.
- PSNR and SSIM share one scale: the 99.9th percentile of the reference's voxels above its mean. Nothing is clipped.
- *Deep tissue* is the foreground (Otsu's threshold, largest component, holes filled) without the 4 mm at its edge.
- SSIM is the mean over slices along the last axis, with a Gaussian window of 11 x 11 voxels and data range 1.
- The full report also has the whole volume, and the papers' scale: each volume divided by its own maximum, clipped.
- The papers' figures come from other data (HCP), another network and another budget.
- **Best** and *second best* pass Wilcoxon's signed-rank test at 5 %, adjusted by Holm over all pairs of a setting. The
  test needs {FEWEST_SUBJECTS} subjects, and {tables.FEWEST_SEEDS} seeds of every learned system.
- The network of a row is the moving average at the last iteration.
"""


VERDICTS = {
    "yes": "yes, at the small budget below",
    "no": "no, at the small budget below",
    tables.NOT_RUN: "not yet known, because not all of its rows have been run",
}


def report(matrix: str, dataset_dir: str | None = None, output_dir: str | None = None) -> None:
    """Gather the complete rows and write tables, figures and text.

    The report of a matrix of the project stands in experiments/results/benchmark, that of any other in ``OUT/report``.
    The matrix of docs/results.md also writes that page.

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
    if folder == FOLDER / PRIMARY:
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
    """The tables of a matrix on each scale, for each of its backbones."""
    return [
        Table(key, network, suffix, tables.paper_table(tables.PAPERS[key], results, network, metrics))
        for suffix, (metrics, _) in tables.SCALES.items()
        for key in matrix.content.get("tables", [])
        for network in results.networks
    ]


def full_report(matrix: Matrix, folder: Path) -> str:
    """All results of a matrix, for its own folder."""
    results = read_results(folder)
    parts = [f"# {matrix.content['title']}", _prose(matrix.content["plan"]), _prose(matrix.content.get("limits", ""))]
    parts += [f"{_prose(DECISIONS)}\n\n{decisions_table(results)}"] if matrix.content.get("decisions") else []
    parts += [_missing(results), *(f"- {sentence}" for sentence in reading(results))]
    parts += [_table(table) for table in _tables(matrix, results)]
    by_source = all_rows.sources(results)
    parts += [f"{_prose(SOURCES)}\n\n{by_source}"] if by_source else []
    parts += ["Alarms:", "\n".join(f"- {alarm}" for alarm in all_rows.alarms(results) or ["none"])]
    parts += [
        f"{caption}\n\n![{name}](figures/{name}.png)"
        for name, (_, caption) in FIGURES.items()
        if (folder / "figures" / f"{name}.png").is_file()
    ]
    pictures = sorted((folder / "figures").glob("errors_*.png"))
    parts += ["The median test subject, with error maps:"] if pictures else []
    parts += [f"![{path.stem}](figures/{path.name})" for path in pictures]
    parts += ["Each row:", all_rows.costs(results), _provenance(results), _commands(matrix)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def results_page() -> str:
    """The text of docs/results.md, from the committed results."""
    matrix, folder = read_matrix(MATRICES / f"{PRIMARY}.yaml"), FOLDER / PRIMARY
    results = read_results(folder)
    place = f"../experiments/results/benchmark/{PRIMARY}"
    parts = [
        "# Results",
        "\n".join(f"- {line}" for line in _headlines(results)),
        "## The shipped weights on subjects never seen",
        gains_table(),
        "No training and no choice has seen these subjects. Each scan is acquired in each way by simulation. The\n"
        "shipped weights restore it without data consistency. A cell has the mean gain, its deviation and how many\n"
        "scans gain. [acquisitions.md](acquisitions.md#what-it-gains) has every method beside.",
        f"## {matrix.content['title']}",
        f"{_prose(DECISIONS)}\n\n{decisions_table(results)}",
        _table(_tables(matrix, results)[0]),
        _missing(results),
        f"{FIGURES[FIGURE][1]}\n\n![{FIGURE}]({place}/figures/{FIGURE}.png)",
        _prose(matrix.content["limits"]),
        f"[The full report]({place}/report.md) has the plan, all scales, curves, costs and machines.",
        METHOD,
        "## How to make this page",
        "`report` writes this page and the full report from the folders of the rows.",
        _commands(matrix),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _headlines(results: Results) -> list[str]:
    """The lines that open the page."""
    lines = []
    for one in (gains for gains in read_gains() if gains.acquisition == HEADLINE):
        values = one.values["psnr"]
        lines.append(
            f"The shipped weights gain {mean(values):.2f} dB PSNR over {REFERENCES[one.reference]} at {HEADLINE}, as a "
            f"mean over {len(values)} subjects never seen ({min(values):+.2f} to {max(values):+.2f} dB)."
        )
    lines += reading(results)
    lines += [f"{one.claim}: **{VERDICTS[one.verdict]}**." for one in decisions(results)]
    return [fill(line, WIDTH - 2, subsequent_indent="  ") for line in lines]


def _missing(results: Results) -> str:
    """The rows that have not been run, by system; empty when all have."""
    found: dict[str, list[str]] = {}
    for row in results.rows:
        if "record" not in row:
            setting = row["setting"]
            place = [setting["fold"]] if setting["fold"] else []
            place += [f"seed {setting['seed']}"] if setting["seed"] else []
            found.setdefault(all_rows.kind_words(results, [row]), []).append(" ".join(place))
    systems = [f"{words} ({', '.join(places)})" if any(places) else words for words, places in found.items()]
    count = sum(len(places) for places in found.values())
    text = f"{count} of {len(results.rows)} rows have not been run: {'; '.join(systems)}." if systems else ""
    return fill(text, WIDTH)


def _table(table: Table) -> str:
    """A table with its title; empty where no line has been run."""
    shown = [line for line in table.lines if line["names"]]
    if not shown:
        return ""
    layout = tables.PAPERS[table.key]
    factor = "" if layout.get("grouped") else f"at {shown[0]['setting'][0]}"
    network = table.network.replace("_", " ")
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
        "time of all rows": [f"{sum(record['seconds'] for record in records) / 60:.0f} minutes"],
        "rows that were interrupted and resumed": [str(sum(record["attempts"] > 1 for record in records))],
    }
    return "\n".join(f"- {name}: {'; '.join(values)}" for name, values in facts.items())


def _prose(text: str) -> str:
    """A paragraph in lines of ``WIDTH`` characters."""
    return fill(" ".join(text.split()), WIDTH, break_on_hyphens=False)
