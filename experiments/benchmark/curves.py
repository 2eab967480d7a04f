"""The curves of the first seed and fold in sentences: its validations, and how far its degradation moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from experiments.benchmark.all_rows import BLIND_WORDS, MADE_PAIR, kind_words, label
from experiments.benchmark.results import Results
from experiments.speed.common import table

__all__ = ["adaptation_table", "first_seed"]

ADAPTATION = "gradient_image_adaptation"
VALIDATION = "psnr_gain"


def first_seed(results: Results) -> list[str]:
    """What the curves of the first seed and fold show."""
    found = [*_validation(results), *_adaptation(results)]
    several = len(results.first) < len(results.done)
    return ["The sentences below are about the first seed and fold alone.", *found] if found and several else found


def _validation(results: Results) -> list[str]:
    """When the gain of each learned row on the validation subjects was largest."""
    sentences = []
    for row in results.first:
        if points := results.points(row["name"], VALIDATION):
            values = [value for _, value in points]
            largest, last = max(values), values[-1]
            share = values.index(largest) / max(1, len(values) - 1)
            when = f"after {share:.0%} of its iterations" if share else "before its first iteration"
            sentences.append(
                f"In the whole volume of the validation subjects {label(results, [row])} is at most {largest:+.2f} dB "
                f"above zero-filling, {when}, and {last:+.2f} dB at the end."
            )
    return sentences


def adaptation_table(results: Results) -> str:
    """For each row with a degradation: how far it moved, and what moved it, as a table."""
    rows = [row for row in results.first if results.transfer(row["name"], 0)]
    if not rows:
        return ""
    passed = {row["name"]: [results.at_half_nyquist(row["name"], axis) for axis in range(2)] for row in rows}
    true = ", ".join(f"{there:.2f}" for _, there in passed[rows[0]["name"]])
    nothing = _distance(results, rows[0]["name"])[1]
    header = [
        "system",
        f"amplitude at half the Nyquist frequency along both in-plane axes (true {true})",
        f"mean distance from the true amplitude, all frequencies (passing everything: {nothing:.2f})",
        f"discriminator's loss ({BLIND_WORDS})",
        "gradient of its term, median",
        "validation gain in the whole volume (dB): largest, last",
    ]
    lines = []
    for row in rows:
        name = row["name"]
        learned, loss = ", ".join(f"{one:.2f}" for one, _ in passed[name]), results.ends(name, MADE_PAIR)
        norms, gains = ([value for _, value in results.points(name, tag)] for tag in (ADAPTATION, VALIDATION))
        cells = [
            learned,
            f"{_distance(results, name)[0]:.2f}",
            f"{loss[1]:.2f}" if loss else "-",
            f"{median(norms):.2f}" if norms else "-",
        ]
        cells += [f"{max(gains):+.2f}, {gains[-1]:+.2f}" if gains else "-"]
        lines.append([kind_words(results, [row]), *cells])
    return table(header, lines).strip()


def _adaptation(results: Results) -> list[str]:
    """How far the adaptation moved the degradation, and with which gradient."""
    rows = [row for row in results.first if results.transfer(row["name"], 0)]
    rows = [row for row in rows if row["setting"]["scale_factor"] == results.usual["scale_factor"]]
    if not rows:
        return []
    sentences = [*_passed(results, rows), *_brightness(results, rows)]
    blind = [f"{end[1]:.2f} ({label(results, [row])})" for row in rows if (end := results.ends(row["name"], MADE_PAIR))]
    if blind:
        sentences.append(f"The discriminators' loss on made LR images ends at {', '.join(blind)}; {BLIND_WORDS}.")
    return sentences + [sentence for row in rows if (sentence := _gradients(results, row))]


def _distance(results: Results, name: str) -> tuple[float, float]:
    """How far a learned curve is from the true one, in the plane, and how far one that passes everything is."""
    curve = [point for axis in range(2) for point in results.transfer(name, axis)]
    return mean(abs(made - true) for _, made, true in curve), mean(abs(1 - true) for _, _, true in curve)


def _brightness(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How much brighter than the truth the made and the restored validation scans are at the end."""
    made, restored = (
        [f"{end[1] - one:+.0%} ({label(results, [row])})" for row in rows if (end := results.ends(row["name"], tag))]
        for tag, one in (("degradation_gain", 1), ("intensity_drift", 0))
    )
    if not made or not restored:
        return []
    return [
        f"At the end the mean intensity of made LR scans differs from the true one by {', '.join(made)}.",
        f"That of restored scans differs from that of their LR scans by {', '.join(restored)}.",
    ]


def _passed(results: Results, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the degradations pass in the plane at half the Nyquist frequency, and how far their curves are from true."""
    half, plane = [], range(2)
    for row in rows:
        name, words = row["name"], label(results, [row])
        learned = " and ".join(f"{results.at_half_nyquist(name, axis)[0]:.2f}" for axis in plane)
        half.append(f"{learned} ({words})")
    distances = [_distance(results, row["name"]) for row in rows]
    far = [f"{one:.2f} ({label(results, [row])})" for (one, _), row in zip(distances, rows, strict=True)]
    true = " and ".join(f"{results.at_half_nyquist(name, axis)[1]:.2f}" for axis in plane)
    return [
        f"At half the Nyquist frequency the true degradation passes {true} of the amplitude along the first and the "
        f"second axis. The learned degradations pass {', '.join(half)}.",
        f"Over all frequencies of both axes, the mean distance of the learned amplitude from the true one is "
        f"{', '.join(far)}. That of a degradation that passes everything is {distances[0][1]:.2f}.",
    ]


def _gradients(results: Results, row: Mapping[str, Any]) -> str | None:
    """The gradient of the image adaptation beside the largest of all terms, as medians over the training."""
    norms = {tag: [value for _, value in results.points(row["name"], tag)] for tag in results.tags()}
    terms = {tag: median(v) for tag, v in norms.items() if tag.startswith("gradient_") and any(v)}
    if ADAPTATION not in terms:
        return None
    largest = max(terms, key=terms.__getitem__)
    words = largest.removeprefix("gradient_").replace("_", " ")
    others = f"The largest is that of {words}, {terms[largest]:.2f}." if len(terms) > 1 else "No other term moves it."
    return (
        f"At the degradation network of {label(results, [row])}, the gradient of the image adaptation has a median of "
        f"{terms[ADAPTATION]:.2f} over {len(norms[ADAPTATION])} measurements of the training. {others}"
    )
