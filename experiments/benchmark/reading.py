"""The scores in sentences. A sentence needs the rows that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from experiments.benchmark.all_rows import kind_words, label
from experiments.benchmark.curves import first_seed
from experiments.benchmark.decisions import (
    CORRECTED,
    METRIC,
    UNDECIDED,
    Decision,
    contrastive_by_seed,
    decisions,
    difference,
    differences,
)
from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.significance import FEWEST_SUBJECTS, LEVEL, signed_rank_test
from experiments.benchmark.tables import FEWEST_SEEDS

__all__ = ["answers", "missing", "reading"]

OURS = ("spectral", "adversarial_kernel", "spectral_contrastive", "patch_contrastive", "fine_tuning", "pooled")
THEIRS = ("contrastive", "without_contrastive", "udean", "cyclegan", "dasr", "pseudo_sr", "blind_sr", "zssr")
WORDS = {
    "adversarial_kernel": "adversarial kernel (ours)",
    "linear_inverse_estimated": "Wiener inverse of the estimated degradation",
    "linear_inverse_true": "Wiener inverse of the true degradation",
    "spectral": "spectral (ours)",
    "supervised_oracle": "oracle (supervised on the true degradation)",
}
VERDICTS = {"yes": "Yes, at this budget", "no": "No, not at this budget", UNDECIDED: "Not yet known"}
OTHER_SCALES = (CORRECTED, "psnr_own_maximum")


def reading(results: Results) -> list[str]:
    """The sentences."""
    found = (*_gains(results), _oracle(results), _ours(results), _control(results), _contrastive_loss(results))
    found = [*found, *first_seed(results)]
    return [sentence for sentence in found if sentence]


def answers(results: Results, ours: str) -> list[str]:
    """The five lines that open the page.

    Args:
        results: of the matrix with the three decisions.
        ours: what the shipped weights gain.
    """
    first, second, third = decisions(results)
    corrected, own = (differences(results, metric) for metric in OTHER_SCALES)
    elsewhere = list(map(_elsewhere, corrected, own))
    beats = _answer(first, "contrastive minus zero-filling") + elsewhere[0]
    helps = _answer(second, "contrastive minus that inverse") + elsewhere[1] + _adversarial_kernel(results)
    loss = _answer(third, "the model with it minus the model without it") + elsewhere[2]
    return [
        f"**Do the papers' losses beat zero-filling?** {beats}",
        f"**Does the papers' unpaired learning help beyond a linear inverse of the estimated degradation?** {helps}",
        f"**Does the contrastive loss help?** {loss} {_by_seed(results)}That is {third.seeds} of {FEWEST_SEEDS} seeds.",
        f"**What does ours gain?** {ours}",
        f"**What remains unknown?** {_rows_left(results)}One scanner does not speak for others. Only the papers' own "
        "experiment, below, can settle what their budget gives.",
    ]


def _answer(one: Decision, difference: str) -> str:
    if one.mean is None:
        return f"{VERDICTS[one.verdict]}."
    return f"{VERDICTS[one.verdict]}: {difference} is {one.mean:+.2f} dB, {one.above} of {one.subjects} subjects above."


def _elsewhere(corrected: dict[str, float], own: dict[str, float]) -> str:
    """The same difference after a correction, and on the papers' scale."""
    if not corrected:
        return ""
    words = (
        f"it is {mean(one.values()):+.2f} dB ({sum(value > 0 for value in one.values())} of {len(one)})."
        for one in (corrected, own)
    )
    return " With shift and gain corrected {} On the papers' scale {}".format(*words)


def _adversarial_kernel(results: Results) -> str:
    """How far our own unpaired system is above the inverse of the estimated degradation."""
    above, *others = (
        difference(results, "adversarial_kernel", "linear_inverse_estimated", metric)
        for metric in (METRIC, *OTHER_SCALES)
    )
    if not above:
        return ""
    number = len(results.main("adversarial_kernel"))
    seeds = f"{number} seed{'s' * (number > 1)}"
    count = f"{sum(value > 0 for value in above.values())} of {len(above)} subjects above, {seeds}"
    return (
        f" Our adversarial kernel minus that inverse: {mean(above.values()):+.2f} dB in deep tissue ({count})."
        f"{_elsewhere(*others)} Validation subjects with references chose its settings."
    )


def _by_seed(results: Results) -> str:
    """The change by the contrastive loss for each seed: subjects cannot show the luck of a training."""
    changes = [f"{mean(change.values()):+.2f}" for change in contrastive_by_seed(results).values()]
    return f"By seed it is {', '.join(changes)} dB. " if changes else ""


def _rows_left(results: Results) -> str:
    left = missing(results).partition(":")[0]
    return f"{left}, see below. " if left else ""


def missing(results: Results) -> str:
    """The rows that have not been run, by system; empty when all have."""
    found: dict[str, list[str]] = {}
    for row in results.rows:
        if "record" not in row:
            setting = row["setting"]
            place = [setting["fold"]] if setting["fold"] else []
            place += [f"seed {setting['seed']}"] if setting["seed"] else []
            found.setdefault(kind_words(results, [row]), []).append(" ".join(place))
    systems = [f"{words} ({', '.join(places)})" if any(places) else words for words, places in found.items()]
    count = sum(len(places) for places in found.values())
    return f"{count} of {len(results.rows)} rows have not been run: {'; '.join(systems)}." if systems else ""


def _range(values: Sequence[float], form: str = "+.2f") -> str:
    return f"{mean(values):{form}} dB ({min(values):{form}} to {max(values):{form}})"


def _gains(results: Results) -> list[str]:
    """The gain of each system over zero-filling, without a network and with one. A wrong gain costs PSNR."""
    found: dict[str, list[str]] = {"Without a network": [], "The papers' methods": [], "Other networks": []}
    without, theirs, others = found.values()
    subjects = set()
    for kind, rows in results.kinds().items():
        if results.is_usual(kind) and kind.system != "zero_filling":
            gains = results.gains([row["name"] for row in rows])
            words = WORDS.get(kind.system, label(results, rows))
            place = without if kind.system in INTERPOLATIONS else theirs if kind.system in THEIRS else others
            corrected = results.gains([row["name"] for row in rows], CORRECTED)
            place.append(f"{words} {mean(gains.values()):+.2f} dB ({mean(corrected.values()):+.2f} dB)")
            subjects |= set(gains)
    intro = (
        f"A gain is PSNR in deep tissue above zero-filling, as a mean over {len(subjects)} test subjects. The value in "
        "brackets follows a correction of shift and gain. The whole volume fits the correction, so that bright air can "
        "make it worse than none. The simulated acquisition is that of the matrix."
    )
    sentences = [f"{place}: {', '.join(parts)}." for place, parts in found.items() if parts]
    return [intro, *sentences] if sentences else []


def _oracle(results: Results) -> str | None:
    """The gain of a perfect estimate of the degradation over ``spectral``."""
    lost, corrected = (
        list(difference(results, "supervised_oracle", "spectral", metric).values()) for metric in (METRIC, CORRECTED)
    )
    if not lost:
        return None
    return (
        "Ours, the system spectral, is supervised on the estimated degradation. The oracle is the same system with the "
        f"true degradation. It bounds spectral and lies {_range(lost)} above it, corrected {_range(corrected)}."
    )


def _ours(results: Results) -> str | None:
    """Our systems against the best of the papers' systems, subject by subject."""
    plain, corrected = (_above_theirs(results, metric) for metric in (METRIC, CORRECTED))
    parts = [
        f"{system.replace('_', ' ').capitalize()} is above the best of the papers' systems on "
        f"{sum(value > 0 for value in above)} of {len(above)} test subjects, by {_range(above)}, "
        f"corrected {_range(corrected[system])}."
        for system, above in plain.items()
    ]
    return " ".join(parts) or None


def _above_theirs(results: Results, metric: str) -> dict[str, list[float]]:
    """How far each of our systems is above the best of theirs, for each subject that both have."""
    rows = {system: results.main(system) for system in (*OURS, *THEIRS)}
    scores = {system: results.by_subject([row["name"] for row in of], metric) for system, of in rows.items()}
    theirs = [scores[system] for system in THEIRS]
    found = {}
    for system in OURS:
        others = {subject: [other[subject] for other in theirs if subject in other] for subject in scores[system]}
        found[system] = [scores[system][subject] - max(values) for subject, values in others.items() if values]
    return {system: above for system, above in found.items() if above}


def _control(results: Results) -> str | None:
    """How far the adversarial kernel is above pairs without a learned degradation."""
    above = list(difference(results, "adversarial_kernel", "kspace_pairs").values())
    if not above:
        return None
    return f"Adversarial kernel is {_range(above)} above its control, kspace pairs: pairs by truncation alone."


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
    if len(by_seed) < FEWEST_SEEDS:
        p_value = None  # a test over subjects of one seed says nothing about other seeds
    if p_value is not None and p_value < LEVEL and agree:
        verdict = "Subjects and seeds support a difference on this cohort and at this budget"
    else:
        verdict = (
            f"This supports no claim. A claim takes {FEWEST_SUBJECTS} subjects, {FEWEST_SEEDS} seeds whose means have "
            "one sign, and a significant test"
        )
    return (
        f"The contrastive loss changes the PSNR in deep tissue of its model by {_range(by_subject, '+.3f')} over "
        f"subjects. It is {seeds}{'' if p_value is None else f', p = {p_value:.2g}'}. {verdict}."
    )
