"""Pages of a data set: one per scan that a run restores or evaluates, and an index."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.config import PathLike
from monai.utils import ImageMetaKey, string_list_all_gather

from scripts.data.names import ScanNames
from scripts.metrics.quality import masked_psnr, psnr
from scripts.reports.pages import INDEX, REPORT, Row, never_fatal, write_index
from scripts.reports.scan import INTERPOLATION, REFERENCE, RESULT, error_map, scan_images, shows, write_scan_page
from scripts.transforms.interpolate import ASSUMED
from scripts.transforms.naming import DerivativeLayout, beside
from scripts.transforms.saving import RECORD
from scripts.utils.distributed import rank

__all__ = ["EvaluationPages", "ScanPages"]


class ScanPages:
    """Write a page for each scan that inference restores, and an index. An error of a page is logged, not raised.

    Args:
        output_dir: folder of the results. The pages go to its folder ``report``.
        dataset_dir: see :class:`scripts.transforms.naming.DerivativeLayout`.
        detail: x, y, z in mm: the middle of a cube that each page also shows at full resolution.

    Raises:
        ValueError: when ``detail`` is not three numbers.

    Example:
        >>> ScanPages("results").path("scan.nii.gz").as_posix()
        'results/report/scan_desc-sr.html'
    """

    def __init__(
        self, output_dir: PathLike, dataset_dir: PathLike | None = None, detail: Sequence[float] | None = None
    ) -> None:
        self.layout = DerivativeLayout(output_dir, dataset_dir)
        self.folder = self.layout.output_dir / REPORT
        self.detail = _checked(detail)

    def path(self, source: PathLike) -> Path:
        """The page of a scan."""
        result = self.layout.filename(source).relative_to(self.layout.output_dir)
        return self.folder / beside(result, ".html")

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
            rows, outcomes = [], list(outcomes)
            uses = Counter(self.path(one.scan).stem for one in outcomes)
            for one in outcomes:
                path, agreement = self.path(one.scan), one.consistency_psnr
                made = one.result in ("done", "kept")
                page = path if made and shows(path, self._record(one.scan)) else None
                facts = {
                    "result": one.result,
                    "agreement with the scan": agreement and f"{agreement:.1f} dB",
                    "acquisition": one.assumed.removeprefix("assumed: "),
                    "page": made and page is None and "none of this result; --overwrite True makes both again",
                }
                remarks = one.remarks.replace(one.scan, Path(one.scan).name)  # folders may name the subject
                if one.result == "left out":
                    facts["reason"], remarks = remarks, ""
                inner = path.relative_to(self.folder).with_suffix("").as_posix()
                rows.append(Row(path.stem if uses[path.stem] == 1 else inner, page, facts, remarks))
            write_index(self.folder, "Super-resolved scans", rows)

    def _record(self, source: PathLike) -> dict[str, Any]:
        """The record beside a scan's result; empty without one."""
        result = self.layout.filename(source)
        sidecar = beside(result, ".json")
        return json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}


class EvaluationPages:
    """Write a page for each subject of an evaluation, and an index with the scores. An error of a page is logged.

    It belongs after :class:`scripts.handlers.tables.ComparisonTableHandler`, whose summary the index shows.

    Args:
        output_dir: folder of the tables. The pages go to its folder ``report``.
        methods: titles of the methods by their key, for the index.
        names: of all scans of the evaluation.
        notes: how the results were made, by title.
        detail: see :class:`ScanPages`.
    """

    def __init__(
        self,
        output_dir: PathLike,
        methods: Mapping[str, str],
        names: ScanNames,
        notes: Mapping[str, Any] | None = None,
        detail: Sequence[float] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.methods = dict(methods)
        self.names = names
        self.notes = dict(notes or {})
        self.detail = _checked(detail)
        self.rows: dict[str, dict[str, Any]] = {}  # by the name of the page: warnings, scores, and whether it exists

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write_index)

    def __call__(self, engine: Engine) -> None:
        for item in engine.state.output:
            with never_fatal(str(item["label"].meta[ImageMetaKey.FILENAME_OR_OBJ])):
                self._write(item, self.names(item))

    def _path(self, name: str) -> Path:
        return self.output_dir / REPORT / f"{name}.html"

    def _write(self, item: Mapping[str, Any], name: str) -> None:
        """Write the page of a subject, and remember its row of the index."""
        row = {"warnings": item["image"].meta.get("warnings", "").splitlines(), "scores": {}, "written": False}
        self.rows[name] = row
        for key, title in self.methods.items():
            deep = float(masked_psnr(item[key], item["deep_label"]))
            row["scores"][title] = None if math.isnan(deep) else f"{deep:.2f} dB"
        images = scan_images(item)
        images[REFERENCE] = item["label"].cpu()
        label = images[REFERENCE].as_tensor()
        scores = {title: float(psnr(images[title].as_tensor(), label)) for title in (INTERPOLATION, RESULT)}
        if (loss := scores[INTERPOLATION] - scores[RESULT]) > 0:
            row["warnings"].append(f"The result is {loss:.2f} dB farther from the HR scan than its interpolation.")
        facts = {
            "name": name,
            "warnings": row["warnings"],
            "assumed": item["image"].meta.get(ASSUMED, ""),
            "numbers": {f"PSNR of the {title}": f"{value:.2f} dB" for title, value in scores.items()},
            "record": self.notes,
            "index": "../" * name.count("/") + INDEX,
        }
        write_scan_page(self._path(name), images, facts, self.detail)
        row["written"] = True

    def write_index(self) -> None:
        """List all subjects with their scores, below the summary."""
        gathered = string_list_all_gather([json.dumps([name, row]) for name, row in self.rows.items()])
        if rank() > 0:
            return
        with never_fatal(str(self.output_dir)):
            rows = []
            for name, row in map(json.loads, filter(None, gathered)):
                page = self._path(name) if row["written"] else None
                rows.append(Row(name, page, row["scores"], " ".join(row["warnings"])))
            summary = (self.output_dir / "summary.md").read_text(encoding="utf-8")
            write_index(self.output_dir / REPORT, "Evaluation", rows, summary, "PSNR in deep tissue")


def _checked(detail: Sequence[float] | None) -> Sequence[float] | None:
    """Refuse a place that is not three numbers before a scan is restored."""
    if detail is None or (
        isinstance(detail, Sequence) and len(detail) == 3 and all(isinstance(mm, (int, float)) for mm in detail)
    ):
        return detail
    raise ValueError(f'detail must be x, y, z in mm, such as "[10.0,-20.0,35.0]", got {detail}. Correct --detail.')
