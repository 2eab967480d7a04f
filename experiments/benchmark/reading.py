"""The results in sentences. A sentence needs the rows that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from experiments.benchmark.all_rows import label
from experiments.benchmark.decisions import contrastive_by_seed
from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.significance import FEWEST_SUBJECTS, LEVEL, signed_rank_test
from experiments.benchmark.tables import FEWEST_SEEDS

__all__ = ["reading"]

OURS = ("spectral", "spectral_contrastive", "patch_contrastive", "fine_tuning", "pooled")
THEIRS = ("contrastive", "without_contrastive", "udean", "cyclegan", "dasr", "pseudo_sr", "blind_sr", "zssr")
WORDS = {
    "linear_inverse_estimated": "Wiener inverse of the estimated degradation",
    "linear_inverse_true": "Wiener inverse of the true degradation",
    "supervised_oracle": "oracle (supervised on the true degradation)",
}


def reading(results: Results) -> list[str]:
    """The sentences."""
    found = (*_gains(results), _oracle(results), _ours(results), _contrastive_loss(results))
    return [sentence for sentence in found if sentence]


def _range(values: Sequence[float], form: str = "+.2f") -> str:
    return f"{mean(values):{form}} dB ({min(values):{form}} to {max(values):{form}})"


def _names(results: Results) -> dict[str, list[str]]:
    """The complete rows of each system in the usual setting."""
    found: dict[str, list[str]] = {}
    for kind, rows in results.kinds().items():
        if results.is_usual(kind):
            found.setdefault(kind.system, []).extend(row["name"] for row in rows)
    return found


def _gains(results: Results) -> list[str]:
    """The gain of each system over zero-filling, without a network and with one. A wrong gain costs PSNR."""
    found: dict[str, list[str]] = {"Without a network": [], "With a network": []}
    without, with_network = found.values()
    subjects = set()
    for kind, rows in results.kinds().items():
        if results.is_usual(kind) and kind.system != "zero_filling":
            gains = results.gains([row["name"] for row in rows])
            words = WORDS.get(kind.system, label(results, rows))
            place = without if kind.system in INTERPOLATIONS else with_network
            corrected = results.gains([row["name"] for row in rows], "psnr_corrected_deep")
            place.append(f"{words} {mean(gains.values()):+.2f} dB ({mean(corrected.values()):+.2f} dB)")
            subjects |= set(gains)
    intro = (
        f"A gain is PSNR in deep tissue above zero-filling, as a mean over {len(subjects)} test subjects. The value in "
        "brackets follows a correction of shift and gain. The simulated acquisition is that of the matrix, not plain "
        "truncation."
    )
    sentences = [f"{place}: {', '.join(parts)}." for place, parts in found.items() if parts]
    return [intro, *sentences] if sentences else []


def _oracle(results: Results) -> str | None:
    """The gain of a perfect estimate of the degradation over ``spectral``."""
    names = _names(results)
    oracle, ours = (results.by_subject(names.get(one, []), "psnr_deep") for one in ("supervised_oracle", "spectral"))
    lost = [oracle[subject] - ours[subject] for subject in oracle if subject in ours]
    if not lost:
        return None
    return (
        "The oracle is the system spectral with the true degradation instead of the estimated one. It bounds spectral "
        f"and lies {_range(lost)} above it."
    )


def _ours(results: Results) -> str | None:
    """Our systems against the best of the papers' systems, subject by subject."""
    scores = {system: results.by_subject(names, "psnr_deep") for system, names in _names(results).items()}
    theirs = [scores[system] for system in THEIRS if system in scores]
    parts = []
    for system in OURS if theirs else ():
        ours = scores.get(system, {})
        others = {subject: [other[subject] for other in theirs if subject in other] for subject in ours}
        above = [ours[subject] - max(values) for subject, values in others.items() if values]
        if above:
            count = sum(value > 0 for value in above)
            parts.append(f"{system.replace('_', ' ')} on {count} of {len(above)}, by {_range(above)}")
    if not parts:
        return None
    return f"Test subjects on which our systems are above the best of the papers' systems: {'; '.join(parts)}."


def _contrastive_loss(results: Results) -> str | None:
    """The change by the contrastive loss, and whether subjects and seeds support a claim."""
    changes = contrastive_by_seed(results)
    if not changes:
        return None
    by_seed = {seed: mean(change.values()) for seed, change in changes.items()}
    subjects = {subject for change in changes.values() for subject in change}
    by_subject = [mean(change[s] for change in changes.values() if s in change) for s in sorted(subjects)]
    seeds = ", ".join(f"{value:+.3f} dB with seed {seed}" for seed, value in by_seed.items())
    p_value = signed_rank_test(by_subject) if len(by_subject) >= FEWEST_SUBJECTS else None
    agree = len({value > 0 for value in by_seed.values()}) == 1
    if p_value is not None and p_value < LEVEL and agree and len(by_seed) >= FEWEST_SEEDS:
        verdict = "Subjects and seeds support a difference on this cohort and at this budget"
    else:
        verdict = (
            f"This supports no claim. A claim takes {FEWEST_SUBJECTS} subjects, {FEWEST_SEEDS} seeds of one sign and a "
            "significant test"
        )
    return (
        f"The contrastive loss changes the PSNR in deep tissue of its model by {_range(by_subject, '+.3f')} over "
        f"subjects, {seeds}{'' if p_value is None else f', p = {p_value:.2g}'}. {verdict}."
    )
