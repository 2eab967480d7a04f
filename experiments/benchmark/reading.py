"""What the results say, in sentences and tables made of them: each is there only where its rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from experiments.benchmark.results import Results
from experiments.benchmark.significance import FEWEST_SUBJECTS, LEVEL, holm, signed_rank_test
from experiments.benchmark.tables import FEWEST_SEEDS, TELLING, label, markdown

__all__ = ["effects", "reading"]

Rows = Sequence[Mapping[str, Any]]
TRANSFERS = tuple(f"degradation_mtf_{axis}" for axis in range(3))
OURS = ("spectral", "spectral_contrastive", "patch_contrastive", "fine_tuning", "spectral_tuning", "pooled")
THEIRS = (
    "contrastive",
    "without_contrastive",
    "udean",
    "cyclegan",
    "dasr",
    "pseudo_sr",
    "blind_sr",
    "zssr",
)  # compared there


def reading(results: Results) -> list[str]:
    """The sentences."""
    said = (_initial(results), _objectives(results), _ours(results), _contrastive_loss(results), _oracle(results))
    said += (_chosen(results), _shares(results), _acquisitions(results), _where(results))
    return [sentence for sentence in said if sentence]


def effects(results: Results) -> str | None:
    """What each objective did to the network that it started from, beside what is known of the degradation it learned.

    PSNR and SSIM in deep tissue are differences to the initial network of the same fold, seed and share, by subject.
    The tests are Wilcoxon's signed-rank test, adjusted by Holm over all systems. None where no row starts from an
    initial network.
    """
    kinds = _learned(results)
    p_values = _tests([_change(results, rows, "psnr_deep") for rows in kinds])
    lines = []
    for rows, p_value in zip(kinds, p_values, strict=True):
        psnr, ssim = (_change(results, rows, metric) for metric in ("psnr_deep", "ssim_deep"))
        consistent = _change(results, rows, "psnr_deep", "consistent")
        cells = [
            str(len({row["setting"]["seed"] for row in rows})),
            f"{mean(psnr.values()):+.3f}",
            f"{_above(psnr)} of {len(psnr)}",
            "-" if p_value is None else f"{p_value:.2g}",
            f"{mean(ssim.values()):+.4f}",
            f"{mean(consistent.values()):+.3f}",
            *(_last(results, rows, tag, form) for tag, form in DIAGNOSTICS.values()),
            _transfer(results, rows),
            _norm(results, rows),
        ]
        lines.append([label(results, rows), *cells])
    header = [
        "system",
        "seeds",
        "PSNR in deep tissue (dB)",
        "subjects above",
        "p (Holm)",
        "SSIM in deep tissue",
        "PSNR, both data-consistent (dB)",
        *DIAGNOSTICS,
    ]
    header += ["its MTF at half Nyquist (A, S, slabs)", "feature norm, end / start"]
    return markdown(header, lines) if lines else None


DIAGNOSTICS = {
    "learned degradation: PSNR to the true one (dB)": ("degradation_psnr", ".1f"),
    "its gain": ("degradation_gain", ".3f"),
    "its shift (LR voxels)": ("degradation_shift", ".3f"),
}


def _learned(results: Results) -> list[Rows]:
    """Rows that start from an initial network, by kind."""
    return [rows for rows in results.kinds().values() if all(row["record"].get("initial") for row in rows)]


def _change(results: Results, rows: Rows, metric: str, method: str = "pred") -> dict[str, float]:
    """How far a metric is above that of the initial networks, by subject: means over seeds."""
    ours = results.by_subject([row["name"] for row in rows], metric, method)
    base = results.by_subject([row["record"]["initial"] for row in rows], metric, method)
    return {subject: ours[subject] - base[subject] for subject in ours if subject in base}


def _tests(changes: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Adjusted p-values of changes by subject; None where there are too few subjects."""
    if not changes or min(len(change) for change in changes) < FEWEST_SUBJECTS:
        return [None] * len(changes)
    return holm([signed_rank_test(change.values()) for change in changes])


def _above(change: Mapping[str, float]) -> int:
    return sum(value > 0 for value in change.values())


def _ends(results: Results, rows: Rows, tag: str) -> list[tuple[float, float]]:
    return [ends for row in rows if (ends := results.ends(row["name"], tag))]


def _last(results: Results, rows: Rows, tag: str, form: str) -> str:
    found = _ends(results, rows, tag)
    return format(mean(last for _, last in found), form) if found else "-"


def _transfer(results: Results, rows: Rows) -> str:
    found = [_last(results, rows, tag, ".2f") for tag in TRANSFERS]
    return "-" if "-" in found else ", ".join(found)


def _norm(results: Results, rows: Rows) -> str:
    found = _ends(results, rows, "feature_norm")
    return f"{mean(last / first for first, last in found):.2f}" if found else "-"


def _range(values: Sequence[float], form: str = "+.2f") -> str:
    return f"{mean(values):{form}} dB ({min(values):{form}} to {max(values):{form}})"


def _initial(results: Results) -> str | None:
    rows = next(
        (rows for kind, rows in results.kinds().items() if kind.system == "initial" and results.is_usual(kind)), None
    )
    if rows is None:
        return None
    names = [row["name"] for row in rows]
    gain = results.gains(names)
    rise = results.gains(names, "ssim_deep")
    return (
        f"The initial networks, which only learned to undo the k-space truncation of the source's own scans, are "
        f"{_range(list(gain.values()))} above zero-filling, on {_above(gain)} of {len(gain)} test subjects, and "
        f"{mean(rise.values()):+.4f} in SSIM. All learned systems start there: they know plain truncation, whatever "
        "their objective then makes of it."
    )


def _objectives(results: Results) -> str | None:
    kinds = _learned(results)
    changes = {label(results, rows): _change(results, rows, "psnr_deep") for rows in kinds}
    p_values = dict(zip(changes, _tests(list(changes.values())), strict=True))
    changes = {name: change for name, change in changes.items() if not name.startswith("supervised")}
    if not changes:
        return None
    found: dict[str, list[str]] = {"above it": [], "below it": [], f"within {TELLING:g} dB of it": []}
    above, below, within = found.values()
    for name, change in changes.items():
        average = mean(change.values())
        place = within if abs(average) < TELLING else above if average > 0 else below
        place.append(f"{name} ({average:+.3f} dB{_significance(p_values[name])})")
    parts = [f"{words}: {', '.join(told) or 'none'}" for words, told in found.items()]
    return f"Without pairs, measured from the initial network of the same seed and fold, {'; '.join(parts)}."


def _ours(results: Results) -> str | None:
    """Our systems beside the best of the papers' without pairs, subject by subject."""
    scores: dict[str, dict[str, float]] = {}
    for kind, rows in results.kinds().items():
        if results.is_usual(kind) and kind.system in OURS + THEIRS:
            scores[kind.system] = results.by_subject([row["name"] for row in rows], "psnr_deep")
    theirs = [scores[system] for system in THEIRS if system in scores]
    told = []
    for system in OURS if theirs else ():
        ours = scores.get(system, {})
        above = {
            s: ours[s] - max(other[s] for other in theirs if s in other) for s in ours if any(s in o for o in theirs)
        }
        if above:
            told.append(
                f"{system.replace('_', ' ')} on {_above(above)} of {len(above)}, by {_range(list(above.values()))}"
            )
    if not told:
        return None
    return f"Test subjects on which ours are above every system of the papers that was run on them: {'; '.join(told)}."


def _significance(p_value: float | None) -> str:
    return "" if p_value is None else f", p = {p_value:.2g}"


def _contrastive_loss(results: Results) -> str | None:
    changes = _with_minus_without(results)
    if not changes:
        return None
    by_seed = {seed: mean(change.values()) for seed, change in changes.items()}
    subjects = {subject for change in changes.values() for subject in change}
    by_subject = {s: mean(change[s] for change in changes.values() if s in change) for s in sorted(subjects)}
    told = ", ".join(f"{value:+.3f} dB with seed {seed}" for seed, value in by_seed.items())
    (p_value,) = _tests([by_subject])
    agree = len({value > 0 for value in by_seed.values()}) == 1
    if p_value is not None and p_value < LEVEL and agree and len(by_seed) >= FEWEST_SEEDS:
        verdict = "Subjects and seeds support a difference, on this cohort and at this budget"
    else:
        verdict = (
            f"That supports no claim about the loss, which takes {FEWEST_SUBJECTS} subjects, {FEWEST_SEEDS} seeds of "
            "one sign and a significant test"
        )
    return (
        "The contrastive loss changes the PSNR in deep tissue of its model by "
        f"{_range(list(by_subject.values()), '+.3f')} over subjects, {told}{_significance(p_value)}. {verdict}."
    )


def _with_minus_without(results: Results) -> dict[int, dict[str, float]]:
    """PSNR with the contrastive loss above that without it, by seed and subject, in folds that have both."""
    found: dict[tuple[Any, ...], dict[str, str]] = {}
    for kind, rows in results.kinds().items():
        if kind.system in ("contrastive", "without_contrastive") and results.is_usual(kind):
            for row in rows:
                key = (row["setting"]["seed"], row["setting"]["fold"], kind.network)
                found.setdefault(key, {})[kind.system] = row["name"]
    changes: dict[int, dict[str, float]] = {}
    for (seed, *_), names in sorted(found.items()):
        if len(names) == 2:
            ours, base = (results.by_subject([names[s]], "psnr_deep") for s in ("contrastive", "without_contrastive"))
            changes.setdefault(seed, {}).update({subject: ours[subject] - base[subject] for subject in ours})
    return changes


def _oracle(results: Results) -> str | None:
    """What a perfect estimate of the degradation would add to ``spectral``."""
    names = {
        kind.system: [row["name"] for row in rows]
        for kind, rows in results.kinds().items()
        if kind.system in ("supervised_oracle", "spectral") and results.is_usual(kind)
    }
    if "supervised_oracle" not in names:
        return None
    gains = results.gains(names["supervised_oracle"])
    oracle, ours = (results.by_subject(names.get(one, []), "psnr_deep") for one in ("supervised_oracle", "spectral"))
    lost = [oracle[subject] - ours[subject] for subject in oracle if subject in ours]
    beside = f"; it is {_range(lost)} above spectral itself" if lost else ""
    return (
        "The oracle is the system spectral with the true degradation instead of the estimated one, and bounds it: "
        f"{_range(list(gains.values()))} above zero-filling{beside}."
    )


def _chosen(results: Results) -> str | None:
    """What choosing the iterate by validation would change."""
    told = []
    for rows in _learned(results):
        names = [row["name"] for row in rows]
        last, best = (results.by_subject(names, "psnr_deep", evaluation=e) for e in ("evaluation", "best_validation"))
        if best:
            told.append(f"{label(results, rows)} {mean(best[s] - last[s] for s in best):+.3f}")
    if not told:
        return None
    return (
        "The iterate with the best validation instead of the last one would change the PSNR (dB) by: "
        f"{', '.join(told)}. Where the best iterate is the first, an objective only harmed its network."
    )


def _shares(results: Results) -> str | None:
    kinds = results.kinds()
    smallest = min((kind.hr_fraction for kind in kinds), default=1)
    told = []
    for kind, rows in kinds.items():
        usual = kinds.get(kind._replace(hr_fraction=1.0))
        if kind.hr_fraction == smallest < 1 and usual:
            few, many = ([row for row in some if row["setting"]["seed"] == 0] for some in (rows, usual))
            scores = [results.by_subject([row["name"] for row in some], "psnr_deep") for some in (few, many)]
            lost = mean(scores[0].values()) - mean(scores[1].values())
            gain = mean(results.gains([row["name"] for row in few]).values())
            told.append(f"{kind.system.replace('_', ' ')} {lost:+.3f} dB ({gain:+.2f} above zero-filling)")
    if not told:
        return None
    return f"With {100 * smallest:g} % of the source subjects instead of all, same seed: {', '.join(told)}."


def _acquisitions(results: Results) -> str | None:
    others = sorted({s["evaluation"] for s in results.scores if s["evaluation"].startswith("mismatches/")})
    usual = [row["name"] for kind, rows in results.kinds().items() if results.is_usual(kind) for row in rows]
    first = [row for row in results.first if row["name"] in usual]
    told = []
    for system in ("initial", "contrastive", *OURS):
        names = [row["name"] for row in first if row["setting"]["system"] == system]
        gains = {e: results.gains(names, "psnr_deep", e) for e in ["evaluation", *others]} if names and others else {}
        values = [f"{e.rpartition('/')[2]} {mean(g.values()):+.2f}" for e, g in gains.items() if g]
        if len(values) > 1:
            figures = ", ".join(values).replace("evaluation", "as trained")
            told.append(f"the {system.replace('_', ' ')} network: {figures}")
    if not told:
        return None
    return (
        f"PSNR (dB) above zero-filling of the same acquisition, where acquisition or contrast is another than in "
        f"training, {'; '.join(told)}."
    )


def _where(results: Results) -> str | None:
    """Whether an objective changes what was acquired or what was not: putting the acquired k-space back tells."""
    kinds = [rows for rows in _learned(results) if not rows[0]["setting"]["system"].startswith("supervised")]
    if not kinds:
        return None
    told = [
        f"{label(results, rows)} {mean(_change(results, rows, 'psnr_deep', 'consistent').values()):+.3f} instead of "
        f"{mean(_change(results, rows, 'psnr_deep').values()):+.3f}"
        for rows in kinds
    ]
    return (
        "Where the changes lie: with the acquired k-space put back in the outputs of both the system and its initial "
        f"network (data consistency), the changes in dB are {', '.join(told)}; what vanishes was "
        "done to frequencies that had been measured, what remains to those that the network adds."
    )
