"""The benchmark: its statistics, the layout of its tables, its figures, and the committed report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import CONFIGS, REPOSITORY, head_phantom, write_scan
from scipy.stats import wilcoxon

from experiments.benchmark import all_rows, error_maps, page, papers, reading, tables
from experiments.benchmark.decisions import decisions, decisions_table, differences, scales_table
from experiments.benchmark.figures import draw_figures
from experiments.benchmark.matrix import PAPERS, Row
from experiments.benchmark.results import Results, collect, read_results
from experiments.benchmark.significance import best_two, holm, paired_tests, sign_test, signed_rank_test
from experiments.bundle import FIXED_FACTOR
from experiments.pictures import LARGEST

LAYOUT = {
    "lines": [
        {"title": "Zero-filling", "system": "zero_filling"},
        {"title": "UDEAN", "system": "udean", "ssim": [0.9242, 0.0083], "psnr": [33.5159, 1.7234]},
        {"title": "DASR", "system": "dasr", "ssim": [0.8931, 0.0094], "psnr": [32.3309, 1.4671]},
    ]
}

GAINS = {"pred": 1.0, "zero_filling": 0.0}


def results(psnr: dict[str, list[float]]) -> Results:
    """Rows of one system each, with the PSNR of their subjects in deep tissue and an SSIM of a hundredth of it."""
    setting = {"scale_factor": [2, 2, 2], "assignment": "unpaired", "hr_fraction": 1.0, "network": "ours", "fold": ""}
    record = {"seconds": 60.0, "costs": {"network": "Net", "parameters": "7"}, "training": {"max_iterations": 3000}}
    rows = []
    for name in psnr:
        system, _, seed = name.partition("_seed")
        row = {"name": name, "setting": {**setting, "system": system, "seed": int(seed)}}
        rows.append({**row, "record": record})
    scores = [
        {
            "row": name,
            "subject": f"sub-{i:02d}.nii.gz",
            "method": method,
            "psnr_deep": str(value + gain),
            "ssim_deep": str((value + gain) / 100),
            "psnr": str(value + gain + 1),
            "ssim": str((value + gain + 1) / 100),
            "psnr_corrected_deep": str(value + gain + (0.5 if name == "dasr_seed0" else 0.1)),
            "hfen": "0.1",
            "psnr_own_maximum": str(value + gain + 2),
            "ssim_own_maximum": str((value + gain + 2) / 100),
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
        "| method | subjects | seeds | iterations | network | SSIM | PSNR (dB) | SSIM, paper | PSNR (dB), paper |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| Zero-filling | - | - | - | - | not run | not run | - | - |\n"
        "| UDEAN | 2 | 2 | 3,000 | Net, 7 parameters | 0.3150 ± 0.0141 | 31.50 ± 1.41 | 0.9242 ± 0.0083 | "
        "33.52 ± 1.72 |\n"
    )
    assert tables.as_latex(lines).splitlines()[5] == (
        r"UDEAN & 2 & 2 & 3,000 & Net, 7 parameters & "
        r"0.3150 $\pm$ 0.0141 & 31.50 $\pm$ 1.41 & 0.9242 $\pm$ 0.0083 & 33.52 $\pm$ 1.72 \\"
    )
    assert (
        tables.as_csv(lines)
        .splitlines()[2]
        .startswith('UDEAN,2x2x2,unpaired,2,udean_seed0 udean_seed1,"3,000","Net, 7 parameters",0.315,0.0141')
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


def test_the_papers_figures_stand_beside_their_own_scale_factor_alone():
    known = results({"udean_seed0": [30.0, 31.0], "dasr_seed0": [30.5, 31.5]})
    for row in known.rows:
        row["setting"]["scale_factor"] = [2, 2, 1]
    lines = tables.paper_table(LAYOUT, known)
    assert [(line["title"], line["setting"], line["printed"]) for line in lines] == [
        ("UDEAN", ("2x2x1", "unpaired"), {}),
        ("DASR", ("2x2x1", "unpaired"), {}),
    ]
    assert "paper" not in tables.as_markdown(lines)


def test_lines_are_compared_on_the_subjects_that_all_of_them_have():
    lines = tables.paper_table(LAYOUT, results({"zero_filling_seed0": [30.0, 20.0], "udean_seed0": [31.0]}))
    assert [line["scores"]["psnr"] for line in lines] == [{"sub-00.nii.gz": 30.0}, {"sub-00.nii.gz": 31.0}]
    assert lines[0]["left_out"] == 1


def test_the_table_of_all_rows_has_the_metrics_that_some_row_has():
    known = results({"udean_seed0": [30.0, 32.0]})
    assert all_rows.costs(known).splitlines()[0] == (
        "| row | PSNR in deep tissue (dB) | SSIM in deep tissue | shift and gain corrected (dB) | "
        "data-consistent (dB) | PSNR (dB) | SSIM | HFEN | weights | parameters | "
        "GMAC per slab of 64 x 64 | seconds per volume | peak memory (GiB) | minutes for the row |"
    )
    known.scores.append({**known.scores[0], "method": "automatic", "psnr_deep": "33"})
    header, _, row = (line.split(" | ") for line in all_rows.costs(known).splitlines())
    assert row[header.index("as inference gives it (dB)")] == "33.00"


def test_the_last_loss_of_the_discriminator_on_the_made_pair_is_in_the_table_of_all_rows():
    known = results({"udean_seed0": [30.0], "zero_filling_seed0": [29.0]})
    point = {"row": "udean_seed0", "tag": "low_res_discriminator_degraded", "stage": "1"}
    known.curves.extend({**point, "step": step, "value": value} for step, value in (("9", "0.3"), ("10", "0.2")))
    header, _, *rows = (line.split(" | ") for line in all_rows.costs(known).splitlines())
    place = header.index(all_rows.MADE_PAIR_TITLE)
    assert [row[place] for row in rows] == ["0.200", "-"]


def test_folds_that_test_the_same_scans_are_told_apart_by_what_they_learn_from():
    known = results({"pooled_seed0": [30.0], "pooled_seed1": [30.0], "pooled_seed2": [30.0], "pooled_seed3": [30.0]})
    for row, fold in zip(known.rows, ("two", "two", "a_alone", "a_alone"), strict=True):
        row["setting"]["fold"] = fold
    for score, gain in zip((s for s in known.scores if s["method"] == "pred"), (1.0, 1.2, 0.5, 0.9), strict=True):
        score["psnr_deep"] = str(29.0 + gain)
    assert all_rows.sources(known) == (
        "| system | two | a alone | change |\n| --- | --- | --- | --- |\n"
        "| pooled | +1.10 (+1.00 to +1.20) | +0.70 (+0.50 to +0.90) | -0.40 |\n"
    )
    assert all_rows.sources(results({"pooled_seed0": [30.0]})) is None
    assert [all_rows.label(known, rows) for rows in known.kinds().values()] == ["pooled", "pooled, a alone"]
    assert known.names(system="pooled") == ["pooled_seed0", "pooled_seed1"]


def test_a_table_is_in_deep_tissue_then_in_the_whole_volume_then_in_the_papers_normalisation():
    found = [
        tables.as_markdown(tables.paper_table(LAYOUT, results({"udean_seed0": [30.0, 32.0]}), metrics=metrics))
        for metrics, _ in tables.SCALES.values()
    ]
    expected = ("0.3100 ± 0.0141 | 31.00", "0.3200 ± 0.0141 | 32.00", "0.3300 ± 0.0141 | 33.00")
    assert all(cells in text for cells, text in zip(expected, found, strict=True))


def test_the_oracle_bounds_spectral_and_an_alarm_fires_where_it_does_not():
    values = {"supervised_oracle_seed0": [31.0, 31.0], "spectral_seed0": [30.8, 30.6], "udean_seed0": [33.0, 33.0]}
    (said,) = [sentence for sentence in reading.reading(results(values)) if "The oracle is the same system" in sentence]
    assert said.endswith(
        "It bounds spectral and lies +0.30 dB (+0.20 to +0.40) above it, corrected +0.30 dB (+0.20 to +0.40)."
    )
    assert all_rows.alarms(results(values)) == []
    (alarm,) = all_rows.alarms(results({**values, "spectral_seed0": [31.5, 31.5], "spectral_seed1": [32.0, 32.0]}))
    assert alarm.startswith("spectral_seed0 is 0.50 dB above supervised_oracle_seed0, which knows the true degradation")


def test_an_alarm_fires_where_a_shift_or_gain_is_measured():
    (alarm,) = all_rows.alarms(results({"udean_seed0": [31.5, 31.5], "dasr_seed0": [30.0, 30.0]}))
    assert alarm.startswith("dasr_seed0: PSNR rises by 0.50 dB when shift and gain are corrected")


def test_an_alarm_fires_where_the_features_vanish():
    known = results({"supervised_oracle_seed0": [31.0], "udean_seed0": [30.0]})
    point = {"row": "udean_seed0", "tag": "feature_norm", "stage": "1"}
    known.curves.extend({**point, "step": str(step), "value": str(value)} for step, value in ((10, 0.04), (9, 1.0)))
    assert all_rows.alarms(known) == ["udean_seed0: the norm of the features fell from 1 to 0.04."]


# The text of the page


def test_the_text_states_the_gain_of_each_system():
    scores = {"tricubic_seed0": [29.0, 29.5], "udean_seed0": [30.5, 32.0]}
    intro, without, with_network = reading.reading(results(scores))
    assert intro.startswith("A gain is PSNR in deep tissue above zero-filling, as a mean over 2 test subjects. ")
    assert without == "Without a network: tricubic +1.00 dB (+1.00 dB)."
    assert with_network == "The papers' methods: udean +1.00 dB (+1.00 dB)."


def test_the_median_subject_has_the_median_gain_of_the_rows_with_a_network():
    known = results({"zero_filling_seed0": [30.0] * 3, "udean_seed0": [31.0, 33.0, 32.0]})
    for score in known.scores:
        if score["method"] == "zero_filling":
            score["psnr_deep"] = "30"
    assert error_maps.median_subject(known) == "sub-02.nii.gz"
    with pytest.raises(ValueError, match="complete row with a network"):
        error_maps.median_subject(results({"zero_filling_seed0": [30.0]}))


def test_error_maps_are_drawn_of_the_median_subject_for_each_row_that_is_done(tmp_path, monkeypatch):
    (tmp_path / "matrix.yaml").write_text("title: A test\nplan: none\nrows: [{system: [udean, dasr]}]\n")
    report, items = tmp_path / "report", [{"label": f"/scans/sub-0{i}.nii.gz"} for i in range(3)]
    (tmp_path / "datalists").mkdir()
    (tmp_path / "datalists" / "all.json").write_text(json.dumps({"test": items}))
    report.mkdir()
    (reported,) = results({"udean_seed0": []}).rows
    reported["record"] = {**reported["record"], "data": "scans", "costs": {"weights": "udean/model.pt, SHA-256 1234"}}
    (report / "rows.json").write_text(json.dumps([reported]))
    lines = [
        f"udean_seed0,sub-0{i}.nii.gz,{method},{30 + i * gain}" for i in range(3) for method, gain in GAINS.items()
    ]
    (report / "subjects.csv").write_text("\n".join(["row,subject,method,psnr_deep", *lines]))
    for name in ("curves.csv", "transfers.csv"):
        (report / name).write_text("")
    (tmp_path / "rows" / "udean_seed0").mkdir(parents=True)
    (tmp_path / "rows" / "udean_seed0" / "model.pt").touch()
    asked, weights = [], "model.pt, SHA-256 1234"

    def command(run_id, configs, options, folder):
        asked.append((run_id, configs[-1], options["dataset_dir"]))
        Path(options["output_dir"]).mkdir()
        (Path(options["output_dir"]) / "summary.md").write_text(f"- weights: {weights}\n")
        for name, volume in (("pred", head_phantom(1)), ("label", head_phantom(2))):
            write_scan(Path(options["output_dir"]) / f"sub-01_{name}.nii.gz", volume, (1.0, 1.0, 1.0))
        return True

    monkeypatch.setattr(error_maps, "command", command)
    prepared = {"": {"datalist": str(tmp_path / "datalists" / "all.json"), "digest": "scans"}}
    monkeypatch.setattr(error_maps, "prepare", lambda plan, output: prepared)
    error_maps.draw(str(tmp_path / "matrix.yaml"), output_dir=str(tmp_path))
    assert asked == [("evaluating", error_maps.VOLUMES, "/scans/sub-01.nii.gz")]
    assert [path.name for path in (report / "figures").iterdir()] == ["error_maps.png"]
    weights = "model.pt, SHA-256 5678"
    with pytest.raises(ValueError, match="expected the measured network, 1234, got 5678"):
        error_maps.draw(str(tmp_path / "matrix.yaml"), output_dir=str(tmp_path))
    prepared[""]["digest"] = "others"
    with pytest.raises(ValueError, match="expected a row of these scans in these groups"):
        error_maps.draw(str(tmp_path / "matrix.yaml"), output_dir=str(tmp_path))


def test_an_evaluation_saves_its_volumes_for_the_error_maps(tmp_path):
    head = head_phantom(1)
    write_scan(tmp_path / "sub-01.nii.gz", head, (1.0, 1.0, 1.0))
    configs = [str(CONFIGS / name) for name in ("evaluate.yaml", FIXED_FACTOR, "baselines/zero_filling.yaml")]
    options = {"dataset_dir": str(tmp_path / "sub-01.nii.gz"), "output_dir": str(tmp_path / "out"), "report": False}
    assert error_maps.command("evaluating", [*configs, error_maps.VOLUMES], options | {"pictures": False}, tmp_path)
    restored, reference = (
        nib.as_closest_canonical(nib.load(tmp_path / "out" / f"sub-01_{name}.nii.gz")) for name in ("pred", "label")
    )
    assert restored.shape == reference.shape
    np.testing.assert_allclose(reference.get_fdata(), head, atol=1e-3)


def test_ours_are_compared_with_the_best_of_the_papers_on_each_subject():
    known = results({"spectral_seed0": [31.0, 31.0], "udean_seed0": [30.5, 30.0], "cyclegan_seed0": [30.0, 31.5]})
    other = {**known.rows[2], "name": "in_plane", "setting": {**known.rows[2]["setting"], "scale_factor": [2, 2, 1]}}
    known.rows.append(other)
    known.scores.extend({**score, "row": "in_plane", "psnr_deep": "40"} for score in known.scores[-6:])
    (said,) = [sentence for sentence in reading.reading(known) if "above the best" in sentence]
    assert said == (
        "Spectral is above the best of the papers' systems on 1 of 2 test subjects, by +0.00 dB (-0.50 to +0.50), "
        "corrected +0.00 dB (-0.50 to +0.50)."
    )


@pytest.mark.parametrize(("seeds", "verdict"), [(3, "support a difference"), (2, "supports no claim")])
def test_a_claim_about_the_contrastive_loss_takes_three_seeds(seeds, verdict):
    values = {"contrastive": 31.0, "without_contrastive": 30.0}
    known = results(
        {f"{name}_seed{s}": [v + 0.01 * i * v for i in range(12)] for name, v in values.items() for s in range(seeds)}
    )
    *_, said = reading.reading(known)
    assert verdict in said
    assert said.count("dB with seed") == seeds


def test_every_figure_is_drawn_where_its_numbers_are(tmp_path):
    known = results({"zero_filling_seed0": [29.0, 30.0], "contrastive_seed0": [30.1, 31.0]})
    point = {"row": "contrastive_seed0", "stage": "1"}
    tags = ["psnr_gain", "low_res_discriminator_degraded", "low_res_discriminator_cycled_image"]
    tags += ["feature_discriminator_degraded", "gradient_image_adaptation", "gradient_image_cycle_l1"]
    tags += [f"degradation_mtf_{axis}" for axis in range(3)]
    known.curves.extend({**point, "tag": tag, "step": step, "value": "0.2"} for tag in tags for step in ("1", "2"))
    transfer = {"row": "contrastive_seed0", "learned": "0.9", "true": "1.0"}
    known.transfers.extend({**transfer, "axis": str(axis), "frequency": f} for axis in range(3) for f in ("0.1", "0.2"))
    drawn = draw_figures(known, tmp_path)
    assert set(drawn) == {"gains", "training_curves", "degradation", "discriminators", "gradients"}
    assert max((tmp_path / f"{name}.png").stat().st_size for name in drawn) < LARGEST


def test_the_papers_figures_are_complete():
    printed = [(name, line) for name, layout in PAPERS.items() for line in layout["lines"] if "psnr" in line]
    assert len(printed) == 5 + 5 + 20 + 20 + 7
    for name, line in printed:
        brats = name.endswith("brats")
        assert 0.89 < line["ssim"][0] < (0.97 if brats else 0.95), (name, line)
        assert (26 if brats else 31) < line["psnr"][0] < (37 if brats else 36.1), (name, line)


def test_equal_results_give_equal_figures(tmp_path):
    known = results({"udean_seed0": [30.0, 32.0]})
    for name in "ab":
        assert draw_figures(known, tmp_path / name) == ["gains"]
    assert (tmp_path / "a" / "gains.png").read_bytes() == (tmp_path / "b" / "gains.png").read_bytes()


# The decisions that were fixed before the run


def test_the_sign_test_of_thirteen_of_sixteen_is_significant_and_of_twelve_is_not():
    assert sign_test([1.0] * 13 + [-1.0] * 3) == pytest.approx(2 * (1 + 16 + 120 + 560) / 2**16)
    assert sign_test([1.0] * 12 + [-1.0] * 4) == pytest.approx(2 * (1 + 16 + 120 + 560 + 1820) / 2**16)
    assert sign_test([0.0, 1.0]) == 1
    assert sign_test([]) == 1
    assert signed_rank_test([0.0, 0.0]) == 1


def decided(
    contrastive: list[list[float]],
    without: list[list[float]],
    inverse: list[float] | None = None,
    kernel: list[float] | None = None,
) -> Results:
    """Rows of the pair, a list of 16 differences to zero-filling per seed; zero-filling itself has 30 dB."""
    rows = {f"contrastive_seed{seed}": [30 + v for v in values] for seed, values in enumerate(contrastive)}
    rows |= {f"without_contrastive_seed{seed}": [30 + v for v in values] for seed, values in enumerate(without)}
    rows |= {"linear_inverse_estimated_seed0": [30 + v for v in inverse]} if inverse else {}
    rows |= {"adversarial_kernel_seed0": [30 + v for v in kernel]} if kernel else {}
    known = results(rows)
    for score in known.scores:
        score["psnr_deep"] = "30" if score["method"] == "zero_filling" else score["psnr_deep"]
    return known


UP = [0.2 + 0.01 * i for i in range(16)]  # mean 0.275


def test_thirteen_subjects_above_zero_filling_decide_if_the_mean_is_a_tenth():
    thirteen, twelve = ([0.5] * count + [-0.1] * (16 - count) for count in (13, 12))
    first = decisions(decided([thirteen], []))[0]
    assert (first.subjects, first.above, first.verdict) == (16, 13, "yes")
    assert first.mean == pytest.approx((13 * 0.5 - 3 * 0.1) / 16)
    assert first.p_value == pytest.approx(0.02127, abs=1e-5)
    assert decisions(decided([twelve], []))[0].verdict == "no"
    assert decisions(decided([[0.09] * 16], []))[0].verdict == "no"
    assert decisions(decided([[-0.5] * 16], []))[0].verdict == "no"
    assert decisions(decided([UP[:15]], []))[0][1:] == (1, 15, pytest.approx(0.27), 15, None, "not decided")


def test_all_three_decisions_of_a_pair_of_three_seeds():
    without = [[value - 0.15 - 0.002 * i for i, value in enumerate(UP)]] * 3
    found = decisions(decided([UP] * 3, without, [0.0] * 16))
    assert [decision.verdict for decision in found] == ["yes", "yes", "yes"]
    assert found[0].p_value == pytest.approx(2 / 2**16)
    assert [decision.p_value for decision in found[1:]] == pytest.approx([4 / 2**16] * 2)  # by Holm
    assert found[2].mean == pytest.approx(0.165)
    assert decisions_table(decided([UP] * 3, without)).splitlines()[2:] == [
        "| 1. The papers' method beats zero-filling | 3 | 16 | +0.275 | 16 | 3.1e-05 | **yes** |",
        "| 2. Unpaired adversarial learning helps | 3 | 0 | - | - | - | **not decided** |",
        "| 3. The contrastive loss helps | 3 | 16 | +0.165 | 16 | 6.1e-05 | **yes** |",
    ]


def test_the_loss_needs_three_seeds_of_one_sign_and_what_is_below_zero_filling_helps_nobody():
    lower = [[value - 0.3 for value in UP]] * 2
    assert decisions(decided([UP] * 2, lower))[2].verdict == "not decided"
    opposite = [*lower, [value + 0.01 for value in UP]]
    third = decisions(decided([UP] * 3, opposite))[2]
    assert (third.above, third.verdict) == (16, "no")
    below = [-value for value in UP]
    first, second, _ = decisions(decided([below], [], [-1.0] * 16))
    assert (first.verdict, second.above, second.verdict) == ("no", 16, "no")


def test_a_subject_is_averaged_over_seeds_before_the_test():
    odd = [1.0 if i % 2 else -0.5 for i in range(16)]
    even = [-0.5 if i % 2 else 1.0 for i in range(16)]
    first = decisions(decided([odd, even], []))[0]
    assert (first.above, first.mean, first.verdict) == (16, pytest.approx(0.25), "yes")


def test_the_curves_of_the_figures_are_kept_and_losses_of_discriminators_as_means_of_blocks(tmp_path):
    matrix = page.read_matrix(page.MATRICES / "every_system.yaml")
    folder = write_row(tmp_path, matrix.rows[1])
    kept = ("psnr_gain", "gradient_adaptation", "low_res_discriminator_degraded")
    lines = [f"1,{tag},{step},{step}" for tag in kept for step in range(1, 201)]
    (folder / "curves.csv").write_text("\n".join(["stage,tag,step,value", *lines, "1,restoration_l1,1,1"]))
    collect(matrix, tmp_path, tmp_path / "results")
    found = read_results(tmp_path / "results")
    assert found.ends(matrix.rows[1].name, "psnr_gain") == (1, 200)
    assert found.ends(matrix.rows[1].name, "low_res_discriminator_degraded") == (5.5, 195.5)
    assert len(found.curves) == 200 + 200 + 20
    assert found.by_subject([matrix.rows[1].name], "psnr_deep") == {"sub-1": 31, "sub-2": 31}


def write_row(output: Path, row: Row) -> Path:
    """The folder of a complete row with two subjects."""
    folder = output / "rows" / row.name
    (folder / "evaluation").mkdir(parents=True)
    record = {"training": dict(row.training), "evaluation": dict(row.evaluation), "seconds": 1.0}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "evaluation" / "summary.md").write_text("- subjects: 2\n- network: Net\n")
    lines = [f"sub-{i},{method},{30 + gain}" for method, gain in GAINS.items() for i in (1, 2)]
    (folder / "evaluation" / "subjects.csv").write_text("\n".join(["subject,method,psnr_deep", *lines, ""]))
    (folder / "curves.csv").write_text("stage,tag,step,value\n")
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("evaluation/subjects.csv", lambda text: text.rpartition("sub-2")[0], "expected finite scores of 2 subjects"),
        ("evaluation/subjects.csv", lambda text: text[: -len(",30.0\n")], "psnr_deep = None of sub-2"),
        ("evaluation/subjects.csv", lambda text: text.replace("31.0", "nan", 1), "psnr_deep = nan of sub-1"),
        ("record.json", lambda text: text[:20], "expected the whole record of a row"),
        ("record.json", lambda text: text.replace("max_iterations", "most"), "another value of max_iterations, most"),
    ],
)
def test_a_damaged_row_and_one_of_other_settings_are_no_results(tmp_path, name, change, message):
    matrix = page.read_matrix(page.MATRICES / "every_system.yaml")
    path = write_row(tmp_path, matrix.rows[1]) / name
    collect(matrix, tmp_path, tmp_path / "results")
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        collect(matrix, tmp_path, tmp_path / "results")


@pytest.mark.parametrize("name", ["evaluation/subjects.csv", "evaluation/summary.md", "curves.csv"])
def test_a_complete_row_without_one_of_its_files_is_named(tmp_path, name):
    matrix = page.read_matrix(page.MATRICES / "every_system.yaml")
    folder = write_row(tmp_path, matrix.rows[1])
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{folder.name}: expected all files of a complete row, got no .*{name}"):
        collect(matrix, tmp_path, tmp_path / "results")


def test_a_report_without_rows_or_with_fewer_than_before_is_refused(tmp_path):
    matrix = page.read_matrix(page.MATRICES / "every_system.yaml")
    with pytest.raises(ValueError, match="expected a complete row, got none"):
        collect(matrix, tmp_path, tmp_path / "results")
    first, second = (write_row(tmp_path, row) for row in matrix.rows[:2])
    collect(matrix, tmp_path, tmp_path / "results")
    shutil.rmtree(first)
    with pytest.raises(ValueError, match=f"got no {first.name}"):
        collect(matrix, tmp_path, tmp_path / "results")
    assert second.is_dir()


def test_folds_that_test_other_subjects_all_count_in_the_decisions():
    known = decided([UP], [], [-1.0] * 16)
    names = [row["name"] for row in known.rows]
    for name in names:
        row = next(row for row in known.rows if row["name"] == name)
        row["setting"]["fold"] = "a"
        other = {**row, "name": f"{name}_b", "setting": {**row["setting"], "fold": "b"}}
        known.rows.append(other)
        known.scores.extend(
            {**score, "row": other["name"], "subject": f"b-{score['subject']}"}
            for score in [score for score in known.scores if score["row"] == name]
        )
    first, *_ = decisions(known)
    assert (first.subjects, first.seeds, first.mean) == (32, 1, pytest.approx(sum(UP) / 16))


def test_the_last_answer_names_the_rows_left_only_while_there_are_any():
    known = decided([UP], [UP], [0.475] * 16)
    assert "**What remains unknown?** One scanner" in reading.answers(known, "")[-1]
    known.rows.append({"name": "later", "setting": {**known.rows[0]["setting"], "system": "dasr"}})
    assert "rows have not been run, see below. One scanner" in reading.answers(known, "")[-1]


def test_how_bright_images_become_is_said():
    known = results({"contrastive_seed0": [30.0]})
    point = {"row": "contrastive_seed0", "stage": "1"}
    curves = [
        {**point, "tag": tag, "step": str(step), "value": value}
        for tag, ends in (("degradation_gain", ("0.94", "1.12")), ("intensity_drift", ("0.0", "-0.17")))
        for step, value in enumerate(ends)
    ]
    transfer = {"row": "contrastive_seed0", "frequency": "0.24", "learned": "1", "true": "1"}
    transfers = [{**transfer, "axis": str(axis)} for axis in range(3)]
    said = " ".join(reading.reading(Results(known.rows, known.scores, curves, transfers)))
    assert "mean intensity of made LR scans differs from the true one by +12% (contrastive)." in said
    assert "That of restored scans differs from that of their LR scans by -17% (contrastive)." in said


def test_the_page_opens_with_five_answers():
    lines = reading.answers(decided([UP], [[value - 0.15 for value in UP]], [0.475] * 16), "+1.00 dB on 3 subjects.")
    assert [line.partition("?**")[0].removeprefix("**") for line in lines] == [
        "Do the papers' losses beat zero-filling",
        "Does the papers' unpaired learning help beyond a linear inverse of the estimated degradation",
        "Does the contrastive loss help",
        "What does ours gain",
        "What remains unknown",
    ]
    assert "Yes, at this budget: contrastive minus zero-filling is +0.27 dB, 16 of 16 subjects above." in lines[0]
    assert "No, not at this budget: contrastive minus that inverse is -0.20 dB, 0 of 16 subjects above." in lines[1]
    assert "Not yet known: the model with it minus the model without it is +0.15 dB, 16 of 16" in lines[2]
    assert lines[2].endswith(" By seed it is +0.15 dB. That is 1 of 3 seeds.")


def test_the_second_answer_names_our_own_unpaired_system():
    known = decided([UP], [UP], [0.475] * 16, kernel=[0.5] * 13 + [0.4] * 3)
    wanted = " Our adversarial kernel minus that inverse: +0.01 dB in deep tissue (13 of 16 subjects above, 1 seed)."
    assert wanted in reading.answers(known, "")[1]
    known.rows.append({**known.rows[-1], "name": "control"})
    known.rows[-1]["setting"] = {**known.rows[-1]["setting"], "system": "kspace_pairs"}
    known.scores.extend({**s, "row": "control", "psnr_deep": "30.2"} for s in known.scores[:48])
    control = "Adversarial kernel is +0.28 dB (+0.20 to +0.30) above its control, kspace pairs"
    assert control in " ".join(reading.reading(known))


def test_each_answer_also_has_the_corrected_and_the_papers_scale():
    known = decided([[-value for value in UP]], [])
    for score in known.scores:
        for metric, more in (("psnr_corrected_deep", 1.0), ("psnr_own_maximum", -1.0)):
            score[metric] = str(float(score["psnr_deep"]) + (more if score["method"] == "pred" else 0.0))
    assert reading.answers(known, "")[0].endswith(
        "With shift and gain corrected it is +0.73 dB (16 of 16). On the papers' scale it is -1.27 dB (0 of 16)."
    )
    assert "| -0.27 (0 of 16) | +0.73 (16 of 16) |" in scales_table(known)


def test_how_far_the_degradation_moved_is_said_with_its_gradients():
    known = results({"contrastive_seed0": [30.0]})
    transfers = [
        {"row": "contrastive_seed0", "axis": str(axis), "frequency": "0.24", "learned": "0.98", "true": str(true)}
        for axis, true in enumerate((0.9, 0.5, 0.8))
    ]
    curve = {"row": "contrastive_seed0", "stage": "1", "step": "1"}
    curves = [
        {**curve, "tag": tag, "value": value}
        for tag, value in (("gradient_image_adaptation", "0.1"), ("gradient_image_cycle_l1", "0.4"))
    ]
    found = reading.reading(Results(known.rows, known.scores, curves, transfers))[-3:]
    assert "passes 0.90 and 0.50 of the amplitude" in found[0]
    assert "0.98 and 0.98 (contrastive)" in found[0]
    assert "is 0.28 (contrastive)." in found[1]
    assert found[1].endswith("passes everything is 0.30.")
    assert "has a median of 0.10 over 1 measurements of the training." in found[2]
    assert found[2].endswith("The largest is that of image cycle l1, 0.40.")
    curves[1]["value"] = "0"
    alone = reading.reading(Results(known.rows, known.scores, curves, transfers))
    assert alone[-1].endswith("a median of 0.10 over 1 measurements of the training. No other term moves it.")


def test_the_papers_gain_over_their_tricubic_is_that_of_their_best_unpaired_row():
    found = papers._best_above_tricubic("udean_2", (2, 2, 2))
    assert found == {"ssim": pytest.approx(0.0261), "psnr": pytest.approx(2.3905)}
    assert papers._best_above_tricubic("udean_2_brats", (2, 2, 2))["psnr"] < 0


def test_the_papers_own_experiment_has_its_cost_and_a_command_of_whole_epochs():
    text = papers.own_experiment()
    assert papers.OWN_EXPERIMENT["max_iterations"] == 30 * papers.OWN_EXPERIMENT["iterations_per_epoch"]
    assert "On a GPU this was not measured." in text
    assert '--max_iterations "510000"' in text


# The committed report


def test_the_readme_says_what_the_decisions_say():
    known = read_results(page.FOLDER / page.PRIMARY)
    assert decisions(known)[0].verdict == "no"
    corrected = differences(known, "psnr_corrected_deep")
    assert np.mean(list(corrected[0].values())) > 0 > np.mean(list(corrected[1].values()))
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert "With that corrected, it lies between zero-filling and a linear inverse." in text


def test_the_page_states_the_committed_results():
    assert page.PAGE.read_text(encoding="utf-8") == page.results_page(), (
        "run: python -m experiments.benchmark report experiments/benchmark/matrices/ds002748.yaml"
    )


@pytest.mark.parametrize("folder", sorted(page.FOLDER.glob("*")), ids=lambda folder: folder.name)
def test_the_committed_tables_are_those_of_the_committed_scores(folder, tmp_path):
    for name in ("rows.json", "subjects.csv", "curves.csv", "transfers.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    matrix = page.read_matrix(page.MATRICES / f"{folder.name}.yaml")
    page.write_tables(matrix, tmp_path)
    shutil.copytree(folder / "figures", tmp_path / "figures")
    for path in (folder / "tables").glob("*"):
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    assert page.full_report(matrix, tmp_path) == (folder / "report.md").read_text(encoding="utf-8")
