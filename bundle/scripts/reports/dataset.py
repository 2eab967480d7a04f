"""Pages of a data set: one per scan that a run restores or evaluates, and an index."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.utils import ImageMetaKey, string_list_all_gather

from scripts.metrics.quality import psnr
from scripts.reports.pages import INDEX, REPORT, Row, never_fatal, write_index
from scripts.reports.scan import INTERPOLATION, REFERENCE, RESULT, error_map, scan_images, write_scan_page
from scripts.transforms.interpolate import ASSUMED
from scripts.transforms.naming import EXTENSION, DerivativeLayout, stem_of
from scripts.transforms.saving import RECORD
from scripts.utils.distributed import rank

__all__ = ["EvaluationPages", "ScanPages", "page_names"]


class ScanPages:
    """Write a page for each scan that inference restores, and an index. An error of a page is logged, not raised.

    Args:
        output_dir: folder of the results. The pages go to its folder ``report``.
        dataset_dir: see :class:`scripts.transforms.naming.DerivativeLayout`.
        detail: x, y, z in mm: the middle of a cube that each page also shows at full resolution.

    Example:
        >>> ScanPages("results").path("scan.nii.gz").as_posix()
        'results/report/scan_desc-sr.html'
    """

    def __init__(
        self, output_dir: PathLike, dataset_dir: PathLike | None = None, detail: Sequence[float] | None = None
    ) -> None:
        self.layout = DerivativeLayout(output_dir, dataset_dir)
        self.folder = self.layout.output_dir / REPORT
        self.detail = detail

    def path(self, source: PathLike) -> Path:
        """The page of a scan."""
        result = self.layout.filename(source).relative_to(self.layout.output_dir)
        return self.folder / result.with_name(result.name.removesuffix(EXTENSION) + ".html")

    def __call__(self, item: Mapping[str, Any]) -> None:
        """Write the page of a scan.

        Args:
            item: of the evaluator after its postprocessing. The prediction is saved, and its metadata have the record.
        """
        meta = item["pred"].meta
        with never_fatal(str(meta[ImageMetaKey.FILENAME_OR_OBJ])):
            record, path = meta[RECORD], self.path(meta[ImageMetaKey.FILENAME_OR_OBJ])
            agreement = record.get("ConsistencyPSNR")
            numbers = {
                "data consistency": record.get("DataConsistencyDone"),
                "agreement of the result, acquired again, with the scan": agreement and f"{agreement:.1f} dB",
                "error bars": record.get("ErrorBars"),
            }
            facts = {
                "name": path.stem,
                "warnings": record["Warnings"],
                "assumed": record.get("Assumed", ""),
                "numbers": numbers,
                "record": record,
                "index": "../" * (len(path.relative_to(self.folder).parents) - 1) + INDEX,
            }
            images = scan_images(item, item["image"].meta.get("intensity_scale", 1.0))
            write_scan_page(path, images, facts, self.detail, error_map(item))

    def write_index(self, outcomes: Iterable[Any]) -> None:
        """List all scans of a run.

        Args:
            outcomes: see :class:`scripts.engines.scan_evaluator.Outcome`.
        """
        with never_fatal(str(self.folder)):
            rows = []
            for one in outcomes:
                agreement = one.consistency_psnr
                facts = {
                    "result": one.result,
                    "agreement with the scan": agreement and f"{agreement:.1f} dB",
                    "acquisition": one.assumed.removeprefix("assumed: "),
                }
                remarks = one.remarks.replace(one.scan, Path(one.scan).name)  # folders may name the subject
                if one.result == "left out":
                    facts["reason"], remarks = remarks, ""
                rows.append(Row(self.path(one.scan).stem, self.path(one.scan), facts, remarks))
            write_index(self.folder, "Super-resolved scans", rows)


class EvaluationPages:
    """Write a page for each subject of an evaluation, and an index with the scores. An error of a page is logged.

    It belongs after :class:`scripts.handlers.tables.ComparisonTableHandler`, whose tables the index shows.

    Args:
        output_dir: folder of the tables. The pages go to its folder ``report``.
        methods: titles of the methods by their key, for the index.
        scans: all scans of the evaluation, whose ``label`` is a file. It names their pages.
        notes: how the results were made, by title.
        detail: see :class:`ScanPages`.
    """

    def __init__(
        self,
        output_dir: PathLike,
        methods: Mapping[str, str],
        scans: Sequence[Mapping[str, Any]],
        notes: Mapping[str, Any] | None = None,
        detail: Sequence[float] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.methods = dict(methods)
        self.names = page_names([str(item["label"]) for item in scans])
        self.notes = dict(notes or {})
        self.detail = detail
        self.warnings: dict[str, list[str]] = {}  # by the name of the page, in the order of the tables

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_index)

    def __call__(self, engine: Engine) -> None:
        for item in engine.state.output:
            file = str(item["label"].meta[ImageMetaKey.FILENAME_OR_OBJ])
            name = self.names.get(file, stem_of(Path(file).name))
            self.warnings[name] = item["image"].meta.get("warnings", "").splitlines()
            with never_fatal(name):
                self._write(item, name)

    def _path(self, name: str) -> Path:
        return self.output_dir / REPORT / f"{name}.html"

    def _write(self, item: Mapping[str, Any], name: str) -> None:
        images = scan_images(item)
        images[REFERENCE] = item["label"].cpu()
        label = images[REFERENCE].as_tensor()
        scores = {title: float(psnr(images[title].as_tensor(), label)) for title in (INTERPOLATION, RESULT)}
        if (loss := scores[INTERPOLATION] - scores[RESULT]) > 0:
            self.warnings[name].append(f"The result is {loss:.2f} dB farther from the HR scan than its interpolation.")
        facts = {
            "name": name,
            "warnings": self.warnings[name],
            "assumed": item["image"].meta.get(ASSUMED, ""),
            "numbers": {f"PSNR of the {title}": f"{value:.2f} dB" for title, value in scores.items()},
            "record": self.notes,
            "index": INDEX,
        }
        write_scan_page(self._path(name), images, facts, self.detail)

    def write_index(self) -> None:
        """List all subjects with their scores, below the summary."""
        warnings = [" ".join(own) for own in self.warnings.values()]
        names, warnings = (string_list_all_gather(own) for own in (list(self.warnings), warnings))
        if rank() > 0:
            return
        with never_fatal(str(self.output_dir)):
            with open(self.output_dir / "subjects.csv", newline="", encoding="utf-8") as file:
                scores = [(self.methods[row["method"]], row["psnr_deep"]) for row in csv.DictReader(file)]
            rows = []
            for number, (name, warning) in enumerate(zip(names, warnings, strict=True)):
                own = scores[number * len(self.methods) :][: len(self.methods)]
                facts = {title: value and f"{float(value):.2f} dB" for title, value in own}
                rows.append(Row(name, self._path(name), facts, warning))
            summary = (self.output_dir / "summary.md").read_text(encoding="utf-8")
            write_index(self.output_dir / REPORT, "Evaluation", rows, summary, "PSNR in deep tissue")


def page_names(files: Sequence[str]) -> dict[str, str]:
    """Name the page of each file: by its own name, and by its folders where files share a name.

    Example:
        >>> list(page_names(["a/1/T1w.nii.gz", "a/2/T1w.nii.gz", "a/2/T2w.nii.gz"]).values())
        ['1_T1w', '2_T1w', 'T2w']
    """
    own = [stem_of(Path(file).name) for file in files]
    uses = Counter(map(str.casefold, own))
    root = os.path.commonpath([os.path.abspath(file) for file in files]) if files else ""
    folders = [Path(os.path.relpath(file, root)).parent.parts for file in files]
    return {
        file: name if uses[name.casefold()] == 1 else "_".join([*parts, name])
        for file, name, parts in zip(files, own, folders, strict=True)
    }
