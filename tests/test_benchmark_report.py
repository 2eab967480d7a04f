"""The benchmark of docs/benchmark: its statistics, the layout of its tables, and the committed report."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark import page, reading, tables
from benchmark.figures import draw_figures
from benchmark.results import Results
from benchmark.significance import best_two, holm, paired_tests
from scipy.stats import wilcoxon

LAYOUT = {
    "lines": [
        {"title": "Zero-filling", "system": "zero_filling"},
        {"title": "UDEAN", "system": "udean", "ssim": [0.9242, 0.0083], "psnr": [33.5159, 1.7234]},
        {"title": "DASR", "system": "dasr", "ssim": [0.8931, 0.0094], "psnr": [32.3309, 1.4671]},
    ]
}


LEARNED = {"udean", "dasr", "contrastive", "without_contrastive", "supervised_oracle"}


def results(psnr: dict[str, list[float]]) -> Results:
    """Rows of one system each, with the PSNR of their subjects and an SSIM of a hundredth of it."""
    setting = {"scale_factor": [2, 2, 2], "assignment": "unpaired", "hr_fraction": 1.0, "network": "ours", "fold": ""}
    record = {"seconds": 60.0, "costs": {"parameters": "7"}}
    rows = []
    for name in psnr:
        system, _, seed = name.partition("_seed")
        initial = f"initial_seed{seed}" if f"initial_seed{seed}" in psnr and system in LEARNED else None
        row = {"name": name, "setting": {**setting, "system": system, "seed": int(seed)}}
        rows.append({**row, "record": {**record, "initial": initial}})
    scores = [
        {
            "row": name,
            "evaluation": "evaluation",
            "subject": f"sub-{i:02d}.nii.gz",
            "method": method,
            "psnr": str(value + gain),
            "ssim": str((value + gain) / 100),
            "psnr_corrected": str(value + gain + (0.5 if name.startswith("dasr") else 0.1)),
            "hfen": "0.1",
            "psnr_own_maximum": str(value + gain + 2),
            "ssim_own_maximum": str((value + gain + 2) / 100),
            "psnr_lesion": str(value + gain - 5) if name.startswith("udean") and i == 0 else "",
        }
        for name, values in psnr.items()
        for i, value in enumerate(values)
        for method, gain in (("pred", 0.0), ("consistent", 0.1), ("zero_filling", -1.0))
    ]
    return Results(rows, scores, [], [])


# Statistics


def test_holm_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]


def test_pairs_are_tested_as_scipy_tests_them():
    rng = np.random.default_rng(0)
    values = rng.normal(30, 1, (3, 15)) + np.array([[0.0], [0.3], [2.0]])
    scores = {name: dict(enumerate(v)) for name, v in zip("abc", values, strict=True)}
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    plain = [wilcoxon(values["abc".index(x)], values["abc".index(y)]).pvalue for x, y in pairs]
    assert paired_tests(scores) == pytest.approx(dict(zip(pairs, holm(plain), strict=True)))


def test_twelve_subjects_can_support_a_difference_and_eleven_none():
    scores = {"a": {i: 30 + 0.01 * i for i in range(12)}, "b": {i: 29.0 for i in range(12)}}
    assert paired_tests(scores) == {("a", "b"): pytest.approx(2 / 2**12)}
    assert best_two(scores) == ("a", None)
    fewer = {name: {i: v for i, v in values.items() if i < 11} for name, values in scores.items()}
    assert paired_tests(fewer) == {}
    assert best_two(fewer) == (None, None)


def test_equal_systems_share_no_first_place_but_a_third_can_lose_to_both():
    even = {i: 30 + (-1) ** i * 0.1 * (i + 1) for i in range(12)}
    scores = {"a": even, "b": {i: 60.001 - v for i, v in even.items()}, "c": {i: 20.0 + 0.01 * i for i in range(12)}}
    assert best_two(scores) == (None, None)
    scores["b"] = {i: v - 1 - 0.01 * i for i, v in even.items()}
    assert best_two(scores) == ("a", "b")


# Tables


def test_the_table_in_three_formats():
    known = results({"zero_filling_seed0": [], "udean_seed0": [30.0, 32.0], "udean_seed1": [31.0, 33.0]})
    del known.rows[0]["record"]
    lines = tables.paper_table(LAYOUT, known)
    assert tables.as_markdown(lines) == (
        "| method | subjects | seeds | SSIM | PSNR (dB) | SSIM, paper | PSNR (dB), paper |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        "| Zero-filling | - | - | not run | not run | - | - |\n"
        "| UDEAN | 2 | 2 | 0.3150 ± 0.0141 | 31.50 ± 1.41 | 0.9242 ± 0.0083 | 33.52 ± 1.72 |\n"
    )
    assert tables.as_latex(lines).splitlines()[5] == (
        r"UDEAN & 2 & 2 & 0.3150 $\pm$ 0.0141 & 31.50 $\pm$ 1.41 & 0.9242 $\pm$ 0.0083 & 33.52 $\pm$ 1.72 \\"
    )
    assert (
        tables.as_csv(lines).splitlines()[2].startswith("UDEAN,2x2x2,unpaired,2,udean_seed0 udean_seed1,0.315,0.0141")
    )


def with_seeds(psnr: dict[str, list[float]], count: int) -> dict[str, list[float]]:
    return {f"{system}_seed{seed}": values for system, values in psnr.items() for seed in range(count)}


def test_best_and_second_best_are_marked_where_subjects_and_seeds_support_it():
    values = [30 + 0.1 * i for i in range(12)]
    scores = {"zero_filling": values, "udean": [v + 2 for v in values], "dasr": [v + 1 for v in values]}
    lines = tables.paper_table(LAYOUT, results(with_seeds(scores, 3)))
    assert "| **0.3255 ± 0.0036** | **32.55 ± 0.36** |" in tables.as_markdown(lines)
    assert "| *0.3155 ± 0.0036* | *31.55 ± 0.36* |" in tables.as_markdown(lines)
    assert r"\textbf{32.55 $\pm$ 0.36}" in tables.as_latex(lines)
    assert r"\underline{31.55 $\pm$ 0.36}" in tables.as_latex(lines)
    eleven = with_seeds({name: v[:11] for name, v in scores.items()}, 3)
    for fewer in (with_seeds(scores, 2), eleven):
        assert "*" not in tables.as_markdown(tables.paper_table(LAYOUT, results(fewer)))


def test_settings_of_a_grouped_table_are_not_compared_with_each_other():
    layout = {"grouped": True, "lines": [*LAYOUT["lines"][:2], {**LAYOUT["lines"][2], "assignment": "misaligned"}]}
    scores = {"udean": [30 + 0.1 * i for i in range(12)], "dasr": [20.0 + i for i in range(12)]}
    known = results(with_seeds(scores, 3))
    for row in known.rows[3:]:
        row["setting"]["assignment"] = "misaligned"
    text = tables.as_markdown(tables.paper_table(layout, known))
    assert "*" not in text
    assert "| DASR | 2x2x2 | misaligned | 12 | 3 |" in text


def test_another_order_than_the_paper_s_is_said():
    udean, dasr = [30.0, 31.0], [30.5, 31.5]
    assert tables.order(tables.paper_table(LAYOUT, results({"udean_seed0": dasr, "dasr_seed0": udean}))) is None
    said = tables.order(tables.paper_table(LAYOUT, results({"udean_seed0": udean, "dasr_seed0": dasr})))
    assert said == (
        "2x2x2, unpaired: here DASR > UDEAN, 0.50 dB from first to last; in the paper UDEAN > DASR, 1.19 dB."
    )


def test_lines_are_compared_on_the_subjects_that_all_of_them_have():
    lines = tables.paper_table(LAYOUT, results({"zero_filling_seed0": [30.0, 20.0], "udean_seed0": [31.0]}))
    assert [line["scores"]["psnr"] for line in lines] == [{"sub-00.nii.gz": 30.0}, {"sub-00.nii.gz": 31.0}]
    assert lines[0]["left_out"] == 1


def test_the_differences_are_from_the_row_s_own_zero_filling():
    assert tables.differences(results({"udean_seed0": [30.0, 32.0]}), "psnr") == (
        "| system | sub-00 | sub-01 | mean |\n| --- | --- | --- | --- |\n| udean | +1.00 | +1.00 | +1.00 |\n"
    )


def test_the_table_of_all_rows_has_the_metrics_that_some_row_has():
    known = results({"udean_seed0": [30.0, 32.0]})
    assert tables.costs(known).splitlines()[0] == (
        "| row | PSNR (dB) | shift and gain corrected | data-consistent | SSIM | HFEN | parameters | "
        "GMAC per slab of 64 x 64 | seconds per volume | peak memory (GiB) | minutes for the row |"
    )
    known.scores.append({**known.scores[0], "method": "automatic", "psnr": "33"})
    header, _, row = (line.split(" | ") for line in tables.costs(known).splitlines())
    assert row[header.index("as inference gives it")] == "33.00"


def test_folds_that_test_the_same_scans_are_told_apart_by_what_they_learn_from():
    known = results({"pooled_seed0": [30.0], "pooled_seed1": [30.0], "pooled_seed2": [30.0], "pooled_seed3": [30.0]})
    for row, fold in zip(known.rows, ("two", "two", "a_alone", "a_alone"), strict=True):
        row["setting"]["fold"] = fold
    for score, gain in zip((s for s in known.scores if s["method"] == "pred"), (1.0, 1.2, 0.5, 0.9), strict=True):
        score["psnr"] = str(29.0 + gain)
    assert tables.sources(known) == (
        "| system | two | a alone | change |\n| --- | --- | --- | --- |\n"
        "| pooled | +1.10 (+1.00 to +1.20) | +0.70 (+0.50 to +0.90) | -0.40 |\n"
    )
    assert tables.sources(results({"pooled_seed0": [30.0]})) is None


def test_the_papers_normalisation_is_a_table_of_other_columns():
    lines = tables.paper_table(LAYOUT, results({"udean_seed0": [30.0, 32.0]}), metrics=tables.OWN_MAXIMUM)
    assert "| 0.3300 ± 0.0141 | 33.00 ± 1.41 |" in tables.as_markdown(lines)


def test_psnr_in_lesions_is_shown_for_the_scans_that_have_one():
    shown = tables.lesions(results({"udean_seed0": [30.0, 32.0], "dasr_seed0": [30.0, 32.0]}))
    assert shown == ("| system | sub-00 |\n| --- | --- |\n| udean | 25.00 (+1.00) |\n| dasr | - |\n")
    assert tables.lesions(results({"dasr_seed0": [30.0, 32.0]})) is None


@pytest.mark.parametrize(("oracle", "is_one"), [(32.0, True), (31.0, False), (29.0, False)])
def test_an_oracle_is_a_ceiling_above_its_beginning_and_all_others(oracle, is_one):
    known = results({"initial_seed0": [30.0], "supervised_oracle_seed0": [oracle], "udean_seed0": [31.5]})
    said = next(sentence for sentence in reading.reading(known) if sentence.startswith("The oracle"))
    assert ("no ceiling" not in said) == is_one


def test_an_alarm_fires_above_the_oracle_and_where_a_shift_or_gain_is_measured():
    known = results({"supervised_oracle_seed0": [31.0, 31.0], "udean_seed0": [31.5, 31.5], "dasr_seed0": [30.0, 30.0]})
    found = tables.alarms(known)
    assert [alarm.partition(":")[0] for alarm in found] == [
        "dasr_seed0",
        "above supervised_oracle_seed0, which sees perfect pairs",
    ]
    assert "0.50 dB when shift and gain are corrected" in found[0]
    assert "udean_seed0 (+0.50 dB)." in found[1]


def test_an_alarm_fires_where_the_features_vanish_and_none_for_the_initial_network():
    known = results({"initial_seed0": [32.0], "supervised_oracle_seed0": [31.0], "udean_seed0": [30.0]})
    point = {"row": "udean_seed0", "tag": "feature_norm", "stage": "1"}
    known.curves.extend({**point, "step": str(step), "value": str(value)} for step, value in ((10, 0.04), (9, 1.0)))
    assert tables.alarms(known) == ["udean_seed0: the norm of the features fell from 1 to 0.04."]


# What the page says


def test_a_row_is_measured_from_the_initial_network_of_its_own_seed():
    known = results(
        {
            "initial_seed0": [30 + 0.01 * i for i in range(12)],
            "initial_seed1": [31 + 0.01 * i for i in range(12)],
            "udean_seed0": [29.9 + 0.011 * i for i in range(12)],
            "udean_seed1": [30.9 + 0.011 * i for i in range(12)],
            "dasr_seed0": [30.2 + 0.011 * i for i in range(12)],
        }
    )
    lines = reading.effects(known).splitlines()[2:]
    assert lines[0].startswith("| udean | 2 | -0.095 | 0 of 12 | 0.00098 |")  # twice 2 / 2^12, by Holm
    assert lines[1].startswith("| dasr | 1 | +0.205 | 12 of 12 | 0.00098 |")
    said = " ".join(reading.reading(known))
    assert "above it: dasr (+0.205 dB, p = 0.00098); below it: udean (-0.095 dB, p = 0.00098)" in said
    assert "are +1.00 dB (+1.00 to +1.00) above zero-filling, on 12 of 12 test subjects" in said


def test_a_system_of_one_fold_is_not_averaged_beside_those_of_all():
    known = results({"zero_filling_seed0": [30.0], "udean_seed0": [31.0], "dasr_seed0": [29.0]})
    for number, name in enumerate(("zero_filling_seed0", "udean_seed0")):
        other = {**known.rows[number], "name": f"{name}_b", "setting": {**known.rows[number]["setting"], "fold": "b"}}
        known.rows.append(other)
    lines = tables.paper_table(LAYOUT, known, "ours")
    assert [line["title"] for line in lines] == ["Zero-filling", "UDEAN"]
    assert lines[0]["in_some_folds"] == ["DASR"]


def test_ours_are_compared_with_the_best_of_the_papers_on_each_subject():
    known = results({"spectral_seed0": [31.0, 31.0], "udean_seed0": [30.5, 30.0], "cyclegan_seed0": [30.0, 31.5]})
    other = {**known.rows[2], "name": "in_plane", "setting": {**known.rows[2]["setting"], "scale_factor": [2, 2, 1]}}
    known.rows.append(other)
    known.scores.extend({**score, "row": "in_plane", "psnr": "40"} for score in known.scores[-6:])
    (said,) = [sentence for sentence in reading.reading(known) if "ours" in sentence]
    assert said.endswith("spectral on 1 of 2, by +0.00 dB (-0.50 to +0.50).")


@pytest.mark.parametrize(("seeds", "verdict"), [(3, "support a difference"), (2, "supports no claim")])
def test_a_claim_about_the_contrastive_loss_takes_three_seeds(seeds, verdict):
    values = {"contrastive": 31.0, "without_contrastive": 30.0}
    known = results(
        {f"{name}_seed{s}": [v + 0.01 * i * v for i in range(12)] for name, v in values.items() for s in range(seeds)}
    )
    (said,) = reading.reading(known)
    assert verdict in said
    assert said.count("dB with seed") == seeds


def test_what_is_lost_with_fewer_source_subjects_and_what_data_consistency_undoes():
    known = results({"initial_seed0": [30.0, 31.0], "udean_seed0": [30.5, 31.5], "contrastive_seed0": [29.0, 31.0]})
    few = {
        **known.rows[2],
        "name": "contrastive_hr25_seed0",
        "setting": {**known.rows[2]["setting"], "hr_fraction": 0.25},
    }
    known.rows.append(few)
    for score in [score for score in known.scores if score["row"] == "contrastive_seed0"]:
        known.scores.append({**score, "row": few["name"], "psnr": str(float(score["psnr"]) - 2)})
    for score in known.scores:
        if score["row"] == "udean_seed0" and score["method"] == "consistent":
            score["psnr"] = str(float(score["psnr"]) - 0.5)
    said = " ".join(reading.reading(known))
    assert (
        "With 25 % of the source subjects instead of all, same seed: contrastive -2.000 dB (+1.00 above zero-filling)."
        in said
    )
    assert "udean +0.000 instead of +0.500, contrastive -0.500 instead of -0.500" in said


def test_the_diagnostics_are_ranked_against_the_change_of_psnr():
    systems = ("udean", "dasr", "contrastive", "without_contrastive", "supervised_oracle")
    known = results(
        {"initial_seed0": [30.0, 31.0]} | {f"{s}_seed0": [30.0 + i, 31.0 + i] for i, s in enumerate(systems)}
    )
    for place, system in enumerate(systems):
        point = {"row": f"{system}_seed0", "stage": "1", "step": "1"}
        known.curves.append({**point, "tag": "degradation_psnr", "value": str(40 - place)})
        known.curves.append({**point, "tag": "intensity_drift", "value": str(place)})
    (said,) = [sentence for sentence in reading.reading(known) if "Spearman" in sentence]
    assert "Over the 5 rows" in said
    assert "-1.00 with the learned degradation's PSNR to the true one, +1.00 with the drift" in said


def test_every_figure_is_drawn_where_its_numbers_are(tmp_path):
    known = results(
        {"initial_seed0": [30.0, 31.0], "contrastive_seed0": [30.1, 31.0], "contrastive_seed1": [30.1, 31.0]}
    )
    few = {
        **known.rows[1],
        "name": "contrastive_hr25_seed0",
        "setting": {**known.rows[1]["setting"], "hr_fraction": 0.25},
    }
    known.rows.append(few)
    known.scores.extend(
        [{**score, "row": few["name"]} for score in known.scores if score["row"] == "contrastive_seed0"]
    )
    known.scores.extend(
        [{**s, "evaluation": "mismatches/hamming"} for s in known.scores if s["row"].endswith("_seed0")]
    )
    point = {"row": "contrastive_seed0", "tag": "psnr_gain", "stage": "1"}
    known.curves.extend({**point, "step": str(step), "value": "0.1"} for step in (1, 2))
    transfer = {"row": "contrastive_seed0", "learned": "0.9", "true": "1.0"}
    known.transfers.extend({**transfer, "axis": str(axis), "frequency": f} for axis in range(3) for f in ("0.1", "0.2"))
    assert set(draw_figures(known, tmp_path)) == {"gains", "hr_fractions", "training_curves", "degradation", "mismatch"}


def test_fewer_than_twelve_subjects_have_no_p_value():
    known = results({"initial_seed0": [30.0, 31.0], "udean_seed0": [30.5, 31.0]})
    assert reading.effects(known).splitlines()[2].startswith("| udean | 1 | +0.250 | 1 of 2 | - |")
    assert "p =" not in " ".join(reading.reading(known))


def test_the_papers_figures_are_complete():
    printed = [(name, line) for name, layout in tables.PAPERS.items() for line in layout["lines"] if "psnr" in line]
    assert len(printed) == 5 + 5 + 20 + 7
    for name, line in printed:
        assert 0.89 < line["ssim"][0] < 0.95, (name, line)
        assert 31 < line["psnr"][0] < 36.1, (name, line)


def test_equal_results_give_equal_figures(tmp_path):
    known = results({"udean_seed0": [30.0, 32.0]})
    for name in "ab":
        assert list(draw_figures(known, tmp_path / name)) == ["gains"]
    for file in ("gains.pdf", "gains.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# The committed report


def test_the_page_says_what_the_committed_results_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.results_page(), "run: python docs/benchmark report MATRIX"


@pytest.mark.parametrize("folder", sorted(page.RESULTS.iterdir()), ids=lambda folder: folder.name)
def test_the_committed_tables_are_those_of_the_committed_scores(folder, tmp_path):
    for name in ("rows.json", "subjects.csv", "curves.csv", "transfers.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    page.write_tables(page.read_matrix(page.MATRICES / f"{folder.name}.yaml"), tmp_path)
    for path in (folder / "tables").glob("*"):  # a matrix may have none
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
