"""The table of the evidence, and the list of where a restoration harms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from experiments.speed.common import table

from .measures import MEASURES, Measure
from .restoring import METHODS

__all__ = ["harms", "summary"]

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


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The lines of the table in their order.

    Args:
        rows: with the keys ``acquisition``, ``measure``, ``detail``, ``method`` and ``value``; the scans and cases of a
            line have the same order for every method.
    """
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        values = groups.setdefault((row["acquisition"], row["measure"], row["detail"]), {})
        values.setdefault(row["method"], []).append(float(row["value"]))
    acquisitions, measures = list(dict.fromkeys(key[0] for key in groups)), list(MEASURES)

    def place(key: tuple[str, str, str]) -> tuple:
        acquisition, name, detail = key
        return acquisitions.index(acquisition), PARTS.index(MEASURES[name].part), detail, measures.index(name)

    return [Line(key[0], MEASURES[key[1]], key[2], groups[key]) for key in sorted(groups, key=place)]


def summary(rows: Sequence[Row]) -> str:
    """One table for all acquisitions, and below it what is worse than the better interpolation."""
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
        cells.append([*about, *shown.values(), f"{worse} of {len(others)}"])
    found = list(harms(rows))
    text = "Super-resolution is farther from HR than the better interpolation, on average over scans, in"
    return "\n\n".join(
        [table(header, cells).strip(), f"{text}:\n\n" + "\n".join(found) if found else f"{text} no line."]
    )


def harms(rows: Sequence[Row]) -> Iterator[str]:
    """An item for each line in which super-resolution is farther from HR on average than the better interpolation."""
    for line in lines_of(rows):
        found, best, digits = line.deviations(), line.nearest(OURS), line.measure.decimals
        ours, other = mean(found[OURS]), mean(found[best])
        if ours > other:
            yield (
                f"* {line.acquisition}, {line.title}: {ours:.{digits}f} away from HR, "
                f"{METHODS[best]} {other:.{digits}f}"
            )
