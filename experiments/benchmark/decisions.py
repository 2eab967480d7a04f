"""Three decisions about the papers' method, which were fixed before the experiment was run."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import NamedTuple

from experiments.benchmark.results import Results
from experiments.benchmark.significance import LEVEL, holm, sign_test, signed_rank_test
from experiments.benchmark.tables import DIFFERENCES, FEWEST_SEEDS, SCALES, TELLING, TITLES, markdown

__all__ = [
    "UNDECIDED",
    "Decision",
    "contrastive_by_seed",
    "decisions",
    "decisions_table",
    "difference",
    "differences",
    "scales_table",
]

METRIC = "psnr_deep"
SUBJECTS = 16  # 13 of them on one side are significant by a two-sided sign test
UNDECIDED = "not decided"  # rows or seeds are missing
CORRECTED = "psnr_corrected_deep"
ABSENT = 1.0  # p-value of a decision that has not been run, in Holm's adjustment


class Decision(NamedTuple):
    """One decision and its evidence: differences of PSNR (dB) in deep tissue, averaged over seeds for each subject.

    Args:
        claim: the statement to decide.
        seeds: number of them.
        subjects: number of test subjects.
        mean: mean difference over subjects; None where a row is missing.
        above: number of subjects with a positive difference.
        p_value: of the test, adjusted where the plan asks for it; None where the decision has not been run.
        verdict: "yes", "no" or "not decided".
    """

    claim: str
    seeds: int
    subjects: int
    mean: float | None
    above: int
    p_value: float | None
    verdict: str


def decisions(results: Results) -> list[Decision]:
    """The three decisions, in the usual setting of the matrix.

    1. The contrastive model is above zero-filling, by a two-sided sign test and by 0.1 dB on average.
    2. It is also above the Wiener inverse of the estimated degradation, by the same test. Holm adjusts 2 and 3.
    3. It is above the same model without its loss, by Wilcoxon's signed-rank test and by 0.1 dB on average. At least
       three seeds must have one sign.
    """
    above_base, above_inverse, above_without = differences(results)
    by_seed, seeds = contrastive_by_seed(results), len({row["setting"]["seed"] for row in results.main("contrastive")})
    one_sign = len(by_seed) >= FEWEST_SEEDS and all(mean(change.values()) > 0 for change in by_seed.values())
    complete = [_is_complete(above_base), _is_complete(above_inverse)]
    complete.append(_is_complete(above_without) and len(by_seed) >= FEWEST_SEEDS)
    p_values = [sign_test(above_base.values()) if complete[0] else ABSENT]
    p_values += holm(
        [
            sign_test(above_inverse.values()) if complete[1] else ABSENT,
            signed_rank_test(above_without.values()) if complete[2] else ABSENT,
        ]
    )
    first = _decision("The papers' method beats zero-filling", seeds, above_base, p_values[0], complete[0])
    also = first.verdict == "yes"
    return [
        first,
        _decision("Unpaired adversarial learning helps", seeds, above_inverse, p_values[1], complete[1], also),
        _decision("The contrastive loss helps", len(by_seed), above_without, p_values[2], complete[2], one_sign),
    ]


def differences(results: Results, metric: str = METRIC) -> list[dict[str, float]]:
    """What each decision compares, by subject.

    The contrastive model minus zero-filling, minus the inverse, and minus the same model without its loss.

    Args:
        results: of the matrix.
        metric: a column of the scores.
    """
    contrastive = [row["name"] for row in results.main("contrastive")]
    by_seed = contrastive_by_seed(results, metric)
    subjects = sorted(set.intersection(*map(set, by_seed.values()))) if by_seed else []
    return [
        results.gains(contrastive, metric),
        difference(results, "contrastive", "linear_inverse_estimated", metric),
        {subject: mean(change[subject] for change in by_seed.values()) for subject in subjects},
    ]


def scales_table(results: Results) -> str:
    """The differences of the decisions on other scales, for pages."""
    scales = {
        metrics[name]: (f"{TITLES[name]} {title}", DIFFERENCES[name])
        for name in ("psnr", "ssim")
        for metrics, title in SCALES.values()
    }
    scales = {
        METRIC: scales[METRIC],
        CORRECTED: (f"{TITLES['psnr']}, shift and gain corrected", DIFFERENCES["psnr"]),
        **scales,
    }
    lines = [[one.claim] for one in decisions(results)]
    for metric, (_, form) in scales.items():
        for line, change in zip(lines, differences(results, metric), strict=True):
            above = sum(value > 0 for value in change.values())
            line.append(f"{mean(change.values()):{form}} ({above} of {len(change)})" if change else "-")
    return markdown(["difference, subjects above", *(title for title, _ in scales.values())], lines)


def decisions_table(results: Results) -> str:
    """The decisions for pages."""
    lines = []
    for number, one in enumerate(decisions(results), start=1):
        difference = "-" if one.mean is None else f"{one.mean:+.3f}"
        p_value = "-" if one.p_value is None else f"{one.p_value:.2g}"
        counts = [str(one.seeds), str(one.subjects), difference, str(one.above) if one.subjects else "-", p_value]
        lines.append([f"{number}. {one.claim}", *counts, f"**{one.verdict}**"])
    return markdown(["decision", "seeds", "subjects", "difference (dB)", "subjects above", "p", "verdict"], lines)


def difference(results: Results, ours: str, base: str, metric: str = METRIC) -> dict[str, float]:
    """The score of a system above that of another, for each subject that both have, averaged over seeds first."""
    return _minus(
        *(results.by_subject([row["name"] for row in results.main(system)], metric) for system in (ours, base))
    )


def _minus(ours: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    return {subject: ours[subject] - base[subject] for subject in ours if subject in base}


def contrastive_by_seed(results: Results, metric: str = METRIC) -> dict[int, dict[str, float]]:
    """PSNR with the contrastive loss above that without it, by seed and subject."""
    ours, base = (_by_seed(results, system, metric) for system in ("contrastive", "without_contrastive"))
    return {seed: _minus(ours[seed], base[seed]) for seed in sorted(ours.keys() & base.keys())}


def _by_seed(results: Results, system: str, metric: str) -> dict[int, dict[str, float]]:
    """The scores of a system by seed and subject."""
    names: dict[int, list[str]] = {}
    for row in results.main(system):
        names.setdefault(row["setting"]["seed"], []).append(row["name"])
    return {seed: results.by_subject(of_seed, metric) for seed, of_seed in names.items()}


def _is_complete(change: Mapping[str, float]) -> bool:
    return len(change) >= SUBJECTS


def _decision(
    claim: str, seeds: int, change: Mapping[str, float], p_value: float, complete: bool, condition: bool = True
) -> Decision:
    """The verdict is yes for a significant mean difference of at least 0.1 dB that also meets ``condition``."""
    average = mean(change.values()) if change else None
    above = sum(value > 0 for value in change.values())
    if not complete:
        return Decision(claim, seeds, len(change), average, above, None, UNDECIDED)
    holds = condition and 2 * above > len(change) and average >= TELLING and p_value < LEVEL
    verdict = "yes" if holds else "no"
    return Decision(claim, seeds, len(change), average, above, p_value, verdict)
