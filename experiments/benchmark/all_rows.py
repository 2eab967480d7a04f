"""All rows of a matrix: their words, a table of their scores and costs, and reasons to doubt a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from experiments.benchmark.results import INTERPOLATIONS, Results
from experiments.benchmark.tables import markdown

__all__ = ["BLIND_WORDS", "alarms", "costs", "kind_words", "label", "sources"]

COLUMNS = {  # metric, method, decimals
    "PSNR in deep tissue (dB)": ("psnr_deep", "pred", 2),
    "SSIM in deep tissue": ("ssim_deep", "pred", 4),
    "shift and gain corrected (dB)": ("psnr_corrected_deep", "pred", 2),
    "data-consistent (dB)": ("psnr_deep", "consistent", 2),
    "as inference gives it (dB)": ("psnr_deep", "automatic", 2),
    "PSNR (dB)": ("psnr", "pred", 2),
    "SSIM": ("ssim", "pred", 4),
    "HFEN": ("hfen", "pred", 3),
}
BLIND_WORDS = "a blind one has 0.25, with the hinge loss 1"
MADE_PAIR = "low_res_discriminator_degraded"  # a term: made LR images beside real ones
MADE_PAIR_TITLE = f"discriminator's loss on made LR images at the end ({BLIND_WORDS})"
COSTS = ("weights", "parameters", "GMAC per slab of 64 x 64", "seconds per volume", "peak memory (GiB)")
UNUSABLE = 3.0  # dB below zero-filling
TOLERATED = 0.3  # dB between PSNR as it is and PSNR with shift and gain corrected
COLLAPSED = 0.1  # share of the feature norm at the start


def sources(results: Results) -> str | None:
    """PSNR above zero-filling by system and fold, where all folds test the same scans and train on different ones.

    A cell holds the mean over seeds, with their range in brackets. The last column holds the mean of the other folds
    minus the first. The result is None where folds test different scans, or where only one fold has been run.
    """
    folds = list(dict.fromkeys(row["setting"]["fold"] for row in results.done))
    if len(folds) < 2 or not results.has_one_test:
        return None
    gains: dict[Any, dict[str, list[float]]] = {}
    words: dict[Any, str] = {}
    for kind, rows in results.kinds().items():
        of_folds = gains.setdefault(kind._replace(fold=""), {fold: [] for fold in folds})
        of_folds[kind.fold] = [mean(results.gains([row["name"]]).values()) for row in rows]
        words.setdefault(kind._replace(fold=""), _label(results, rows))
    lines = []
    for kind, by_fold in gains.items():
        cells = [f"{mean(of):+.2f} ({min(of):+.2f} to {max(of):+.2f})" if of else "-" for of in by_fold.values()]
        first, *others = by_fold.values()
        complete = all(len(of) == len(first) > 0 for of in others)
        change = f"{mean(map(mean, others)) - mean(first):+.2f}" if complete else "-"
        lines.append([words[kind], *cells, change])
    return markdown(["system", *(fold.replace("_", " ") for fold in folds), "change"], lines)


def label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Words for rows of one kind, with backbone and fold where the matrix has several."""
    fold = rows[0]["setting"]["fold"]
    elsewhere = results.has_one_test and fold != results.rows[0]["setting"]["fold"]
    return _label(results, rows) + (f", {fold.replace('_', ' ')}" if elsewhere else "")


def _label(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    setting = rows[0]["setting"]
    several = len(results.networks) > 1 and setting["system"] not in INTERPOLATIONS
    return kind_words(results, rows) + (f", {setting['network'].replace('_', ' ')}" if several else "")


def kind_words(results: Results, rows: Sequence[Mapping[str, Any]]) -> str:
    """Words for rows: the system and every unusual setting, without fold and seed."""
    setting, usual = rows[0]["setting"], results.usual
    parts = [setting["system"].replace("_", " ")]
    parts += ["x".join(map(str, setting["scale_factor"]))] if setting["scale_factor"] != usual["scale_factor"] else []
    parts += [setting["assignment"]] if setting["assignment"] != usual["assignment"] else []
    parts += [f"{100 * setting['hr_fraction']:g} % of the source"] if setting["hr_fraction"] != 1 else []
    return ", ".join(parts)


def costs(results: Results) -> str:
    """The measured metrics and the costs, row by row."""
    names = [row["name"] for row in results.done]
    columns = {title: column for title, column in COLUMNS.items() if results.by_subject(names, *column[:-1])}
    losses = {name: ends[1] for name in names if (ends := results.ends(name, MADE_PAIR))}
    lines = []
    for row in results.done:
        name, record = row["name"], row["record"]
        cells = [_average(results.by_subject([name], *column), decimals) for *column, decimals in columns.values()]
        more = "> " if record.get("attempts", 1) > 1 else ""  # the time of a killed command is not counted
        cells += [f"{losses[name]:.3f}" if name in losses else "-"] if losses else []
        lines.append(
            [
                name,
                *cells,
                *(record["costs"].get(cost, "-") for cost in COSTS),
                f"{more}{record['seconds'] / 60:.1f}",
            ]
        )
    header = ["row", *columns, *([MADE_PAIR_TITLE] if losses else []), *COSTS, "minutes for the row"]
    return markdown(header, lines)


def _average(values: Mapping[str, float], decimals: int) -> str:
    return f"{mean(values.values()):.{decimals}f}" if values else "-"


def alarms(results: Results) -> list[str]:
    """Reasons to doubt a number."""
    averages = {
        row["name"]: mean(scores.values())
        for row in results.done
        if (scores := results.by_subject([row["name"]], "psnr_deep"))
    }
    found = []
    for name, average in averages.items():
        gap = mean(results.by_subject([name], "psnr_corrected_deep").values()) - average
        if gap > TOLERATED:
            found.append(
                f"{name}: PSNR rises by {gap:.2f} dB when shift and gain are corrected, so that it also measures these."
            )
    for row in results.done:
        norms = results.ends(row["name"], "feature_norm")
        if norms and norms[1] < COLLAPSED * norms[0]:
            found.append(f"{row['name']}: the norm of the features fell from {norms[0]:.3g} to {norms[1]:.3g}.")
    found += [
        f"{name} lies {-gain:.2f} dB below zero-filling with shift and gain corrected: its images are unusable."
        for name in averages
        if (gain := mean(results.gains([name], "psnr_corrected_deep").values())) < -UNUSABLE
    ]
    return found + _above_their_oracle(results, averages)


def _above_their_oracle(results: Results, averages: Mapping[str, float]) -> list[str]:
    """Rows of ``spectral`` above the oracle, which knows the true degradation and should bound them."""
    rows = {
        system: {
            tuple(str(value) for key, value in row["setting"].items() if key != "system"): row["name"]
            for row in results.done
            if row["setting"]["system"] == system and row["name"] in averages
        }
        for system in ("supervised_oracle", "spectral")
    }
    found = []
    for setting, oracle in rows["supervised_oracle"].items():
        name = rows["spectral"].get(setting)
        if name and averages[name] > averages[oracle]:
            found.append(
                f"{name} is {averages[name] - averages[oracle]:.2f} dB above {oracle}, which knows the true "
                "degradation and should bound it. Look for scans in two groups, and compare with the spread over seeds."
            )
    return found
