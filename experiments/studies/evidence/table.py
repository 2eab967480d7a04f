"""The table of the evidence: what a restoration does, where it harms, and both in brief."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from experiments.speed.common import table

from .measures import MEASURES, Measure
from .restoring import METHODS

__all__ = ["Line", "brief", "lines_of", "summary"]

OURS = "automatic"
PARTS = list(dict.fromkeys(measure.part for measure in MEASURES.values()))
Row = Mapping[str, Any]


class Line(NamedTuple):
    """A line of the table.

    Args:
        acquisition: its title.
        measure: what is measured.
        detail: the reader or the size, or empty.
        values: for each method one value per scan and case.
    """

    acquisition: str
    measure: Measure
    detail: str
    values: dict[str, list[float]]

    @property
    def title(self) -> str:
        return f"{self.measure.title} ({self.detail})" if self.detail else self.measure.title

    def means(self) -> dict[str, float]:
        return {method: mean(values) for method, values in self.values.items()}

    def deviations(self) -> dict[str, list[float]]:
        """How far each value is from that of HR."""
        return {method: [abs(value - self.measure.ideal) for value in values] for method, values in self.values.items()}

    def nearest(self, *but: str) -> str:
        """The method that is nearest to HR on average, among all but some."""
        found = self.deviations()
        return min((method for method in found if method not in but), key=lambda method: mean(found[method]))

    def harms(self) -> bool:
        """Whether super-resolution is farther from HR on average than the better interpolation."""
        return self._excess() > 0

    def helps(self) -> bool:
        """Whether it is nearer."""
        return self._excess() < 0

    def _excess(self) -> float:
        found = self.deviations()
        return mean(found[OURS]) - mean(found[self.nearest(OURS)])


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The lines of the table in their order.

    Args:
        rows: with the keys ``acquisition``, ``measure``, ``detail``, ``method`` and ``value``; the scans and cases of a
            line have the same order for every method.
    """
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in [*rows, *_lost(rows)]:
        values = groups.setdefault((row["acquisition"], row["measure"], row["detail"]), {})
        values.setdefault(row["method"], []).append(float(row["value"]))
    acquisitions, measures = list(dict.fromkeys(key[0] for key in groups)), list(MEASURES)

    def place(key: tuple[str, str, str]) -> tuple:
        acquisition, name, detail = key
        return acquisitions.index(acquisition), PARTS.index(MEASURES[name].part), detail, measures.index(name)

    return [Line(key[0], MEASURES[key[1]], key[2], groups[key]) for key in sorted(groups, key=place)]


def _lost(rows: Sequence[Row]) -> list[Row]:
    """Whether each lesion is lost, in %. The mean volume does not say so, because others are inflated."""
    return [
        {**row, "measure": "lost", "value": 100.0 * (float(row["value"]) == 0)}
        for row in rows
        if row["measure"] == "size"
    ]


def summary(rows: Sequence[Row]) -> str:
    """One table for all acquisitions. The last column says where super-resolution is worse on average."""
    header = ["acquisition", "part", "measure", "HR", *METHODS.values(), "super-resolution is worse"]
    cells = []
    for line in lines_of(rows):
        means, nearest = line.means(), line.nearest()
        shown = {method: f"{means[method]:.{line.measure.decimals}f}" for method in METHODS}
        shown[nearest] = f"**{shown[nearest]}**"
        found = line.deviations()
        others = [min(pair) for pair in zip(*(found[method] for method in METHODS if method != OURS), strict=True)]
        worse = sum(ours > other for ours, other in zip(found[OURS], others, strict=True))
        about = [line.acquisition, line.measure.part, line.title, f"{line.measure.ideal:g}"]
        cells.append([*about, *shown.values(), f"{'on average, ' if line.harms() else ''}{worse} of {len(others)}"])
    return table(header, cells).strip()


def brief(rows: Sequence[Row]) -> str:
    """For each part of the table, in how many lines super-resolution is better or worse than the interpolations."""
    lines = lines_of(rows)
    acquisitions = list(dict.fromkeys(line.acquisition for line in lines))
    cells = []
    for part in PARTS:
        cells.append([part])
        for acquisition in acquisitions:
            found = [line for line in lines if (line.measure.part, line.acquisition) == (part, acquisition)]
            cells[-1] += [sum(line.helps() for line in found), sum(line.harms() for line in found)]
    return table(["part", *(f"{name}, {word}" for name in acquisitions for word in ("better", "worse"))], cells).strip()
