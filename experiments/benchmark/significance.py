"""Statistics of paired results: the differences between systems that the subjects support."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

import numpy as np
from scipy.stats import binomtest, wilcoxon

__all__ = ["FEWEST_SUBJECTS", "LEVEL", "best_two", "holm", "paired_tests", "sign_test", "signed_rank_test"]

FEWEST_SUBJECTS = 12  # a rank test over all pairs of systems has no power with fewer
LEVEL = 0.05


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, stepping down (Holm, Scand. J. Statist. 6, 65-70, 1979).

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[order]))
    return adjusted.tolist()


def sign_test(differences: Iterable[float]) -> float:
    """Two-sided p-value of the number of positive differences; zeros do not count, and zeros alone give 1."""
    signs = [difference > 0 for difference in differences if difference]
    return float(binomtest(sum(signs), len(signs)).pvalue) if signs else 1.0


def signed_rank_test(differences: Iterable[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 where all differences are zero."""
    differences = list(differences)
    return float(wilcoxon(differences).pvalue) if any(differences) else 1.0


def paired_tests(scores: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """Two-sided Wilcoxon signed-rank tests between all pairs of systems, adjusted by Holm over all pairs.

    Args:
        scores: by system and subject.

    Returns:
        adjusted p-values by pair, in the order of the systems. It is empty when the systems share fewer than
        ``FEWEST_SUBJECTS`` subjects.
    """
    subjects = sorted(set.intersection(*(set(values) for values in scores.values()))) if scores else []
    if len(subjects) < FEWEST_SUBJECTS:
        return {}
    pairs = list(itertools.combinations(scores, 2))
    p_values = [
        signed_rank_test(scores[first][subject] - scores[second][subject] for subject in subjects)
        for first, second in pairs
    ]
    return dict(zip(pairs, holm(p_values), strict=True))


def best_two(scores: Mapping[str, Mapping[str, float]]) -> tuple[str | None, str | None]:
    """The best and the second best system: each is better than all that follow, by :func:`paired_tests`.

    Larger scores are better. ``None`` stands where the subjects support no such system.
    """
    tests = paired_tests(scores)
    if not tests:
        return None, None
    ranking = sorted(scores, key=lambda system: mean(scores[system].values()), reverse=True)

    def surpasses(place: int) -> bool:
        others = ranking[place + 1 :]
        pairs = [(ranking[place], other) for other in others]
        return bool(others) and all(tests.get(pair, tests.get(pair[::-1])) < LEVEL for pair in pairs)

    best = ranking[0] if surpasses(0) else None
    return best, ranking[1] if best and surpasses(1) else None
