"""Stored run folders -> tables. The numbers are invented; a table must show these and no others."""

import json
import re
from dataclasses import replace

import pytest

from experiments.recognition_rotation import EXPERIMENT
from invariance.progress import duration
from invariance.report import table as report
from invariance.runs.find import find
from tests.helpers import store_run

EXPERIMENTS = {EXPERIMENT.name: EXPERIMENT}
RANGES = "P_in: within ±45 degrees; P_out: from 45 to 315 degrees; P_inv: from 135 to 225 degrees."
IMAGES = "Test images: 8,033 for P_test, 1,992 for the restricted classes; chance .1250; "
IMAGES += "95 % intervals over images, at most."


def tables(runs, experiments=EXPERIMENTS):
    finished, others = find(runs)
    assert not others
    return report.tables(finished, experiments)


def table_of(runs, experiments=EXPERIMENTS):
    [table] = tables(runs, experiments)
    return table


def lines(text):
    """Without the blanks that pad a column."""
    return [line.rstrip() for line in text.splitlines()]


def test_text_and_markdown(tmp_path):
    store_run(tmp_path, "cnn_bn_00", (0.9, 0.95, 0.2, 0.05), profile="quick", train_seconds=4000)
    store_run(tmp_path, "cnn_00", (0.975, 0.98, 0.21, 0.0125), profile="quick")
    table = table_of(tmp_path)
    expected = f"""\
recognition_rotation · mnist · quick
{IMAGES}
{RANGES}

                       P_test       P_in         P_out        P_inv        trained
cnn_00     ours        .9750        .9800        .2100        .0125        83 s
           published   .9887        .9913        .2118        .0031
                       .9625–.9875  .9675–.9925  .1975–.2225  .0000–.0250
cnn_bn_00  ours        .9000        .9500        .2000        .0500        66:40 min
           published   .9928        .9964        .2567        .0406
                       .8875–.9125  .9375–.9625  .1875–.2125  .0375–.0625
"""
    assert lines(table.text()) == lines(expected)
    assert table.markdown() == (
        f"**recognition_rotation, mnist, quick.** {IMAGES} {RANGES}\n"
        "\n"
        "| model | seeds | P_test ours | published | P_in ours | published | P_out ours | published "
        "| P_inv ours | published | trained |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
        "| cnn_00 | 0 | .9750 (.9625–.9875) | .9887 | .9800 (.9675–.9925) | .9913 "
        "| .2100 (.1975–.2225) | .2118 | .0125 (.0000–.0250) | .0031 | 83 s |\n"
        "| cnn_bn_00 | 0 | .9000 (.8875–.9125) | .9928 | .9500 (.9375–.9625) | .9964 "
        "| .2000 (.1875–.2125) | .2567 | .0500 (.0375–.0625) | .0406 | 66:40 min |\n"
    )


def test_every_row_of_markdown_has_the_same_number_of_cells(tmp_path):
    store_run(tmp_path / "a")
    store_run(tmp_path / "b", dataset="digits")
    store_run(tmp_path / "c", "mine", (0.9, None, None, None))
    for runs in ("a", "b", "c"):
        rows = [line for line in table_of(tmp_path / runs).markdown().splitlines() if line.startswith("|")]
        assert len(rows) == 3 and len({row.count("|") for row in rows}) == 1


def test_training_times_name_unusual_devices(tmp_path):
    for seed, device in enumerate(["A, 2 cores", "A, 2 cores", "A, 1 core", "A, 1 core"]):
        store_run(tmp_path, seed=seed, config={"device": device}, train_seconds=60 + 10 * seed)
    table = table_of(tmp_path)
    assert table.rows[0].trained == "65 s, 85 s (1 core)"
    assert table.remarks[-1] == "Trained on A, 2 cores unless another device is named."
    # Another processor with as many cores as the usual one is named in full.
    store_run(tmp_path, "cnn_01", config={"device": "B, 2 cores"})
    assert [row.trained for row in table_of(tmp_path).rows] == ["65 s, 85 s (1 core)", "83 s (B, 2 cores)"]


def test_seeds_give_mean_and_standard_deviation(tmp_path):
    # Means .90, .94, .20, .10. Deviations of P_test: -.02, 0, .02, variance (.0004 + .0004) / 2, root .02; of P_in .04.
    for seed, p_test, p_in in ((0, 0.88, 0.90), (2, 0.90, 0.94), (10, 0.92, 0.98)):
        store_run(tmp_path, "cnn_00", (p_test, p_in, 0.2, 0.1), seed, profile="quick", train_seconds=60 + 5 * seed)
    table = table_of(tmp_path)
    [row] = table.rows
    assert row.seeds == (0, 2, 10) and row.trained == "80 s"
    # Each column as wide as its uncertainty, 15 letters, and two blanks.
    assert lines(table.text())[-5:-1] == [
        "cnn_00  ours        .9000            .9400            .2000            .1000            80 s",
        "        published   .9887            .9913            .2118            .0031",
        "                    ±.0200, 3 seeds  ±.0400, 3 seeds  ±.0000, 3 seeds  ±.0000, 3 seeds",
        "",
    ]
    assert "| cnn_00 | 0, 2, 10 | .9000 (±.0200, 3 seeds) | .9887 |" in table.markdown()


class Finding:
    """Not known before a table shows it."""

    def __init__(self, text=None):
        self.text = text

    def __str__(self):
        return self.text or pytest.fail("read although no table shows it")


def test_numbers_outside_their_bands_are_listed_with_their_findings(tmp_path):
    # Published of cnn_00: .9887, .2118, .0031; of cnn_bn_00: .9928, .2567, .0406. Bands: .01, .05, .06 and below .125.
    store_run(tmp_path, "cnn_00", (0.9786, 0.5, 0.2619, 0.0632))
    store_run(tmp_path, "cnn_bn_00", (0.9829, 0.5, 0.2068, 0.1001))
    store_run(tmp_path, "mine", (0.1, 0.1, 0.9, 0.9))
    experiment = replace(EXPERIMENT, findings={"cnn_00": {"p_out": Finding("Because of the weather.")}})
    table = table_of(tmp_path, {EXPERIMENT.name: experiment})
    expected = [
        # Medians of two; the published numbers have two more decimals than above.
        "3 of 6 numbers fall within their expected band. Ours minus published, median over models: "
        "P_test −.0100, P_in −.4938, P_out +.0001, P_inv +.0598.",
        "Outside: cnn_00 P_test .9786, published .9887 (−.0101; expected within 0.01). No finding yet.",
        "Outside: cnn_00 P_out .2619, published .2118 (+.0501; expected within 0.05). Because of the weather.",
        "Outside: cnn_00 P_inv .0632, published .0031 (+.0601; expected within 0.06 and below 0.125). No finding yet.",
    ]
    assert table.bands() == expected
    assert lines(table.text())[-4:] == expected
    assert table.markdown().splitlines()[-4:] == [f"* {line}" for line in expected]


def test_a_mean_inside_its_band_does_not_hide_a_seed_outside(tmp_path):
    for seed, p_test in enumerate((0.97, 0.99, 0.99)):
        store_run(tmp_path, "cnn_00", (p_test, 0.99, 0.2118, 0.0031), seed)
    first, *others = table_of(tmp_path).bands()
    assert first.startswith("3 of 3 numbers")
    assert others == ["Inside only as a mean over seeds: cnn_00 P_test; outside alone: .9700 (seed 0)."]


@pytest.mark.parametrize(("profile", "judged"), [("smoke", 0), ("quick", 0), ("standard", 1), ("paper", 1)])
def test_bands_are_not_judged_below_standard(tmp_path, profile, judged):
    store_run(tmp_path, "cnn_00", (0.9887, 0.9, 0.2118, 0.0031), profile=profile)
    findings = {"cnn_00": dict.fromkeys(("p_test", "p_out", "p_inv"), Finding())}
    table = table_of(tmp_path, {EXPERIMENT.name: replace(EXPERIMENT, findings=findings)})
    assert len(table.bands()) == judged and table.text() and table.markdown()
    assert all(line.startswith("3 of 3 numbers fall within") for line in table.bands())


def test_models_with_several_seeds_are_compared(tmp_path):
    # Three seeds each, apart in P_test: 2 of the 20 ways to split them are as far apart. P_in is equal. P_out is
    # .1 .3 .5 against .2 .4 .6: .1 apart; 14 of 20 splits are at least that far apart (all except the six with sums 1.0
    # and 1.1, that is {1,3,6} {1,4,5} {2,3,5} {2,3,6} {2,4,5} {1,4,6}).
    for seed, (a, b, c, d) in enumerate(zip((90, 91, 92), (95, 96, 97), (10, 30, 50), (20, 40, 60), strict=True)):
        store_run(tmp_path, "cnn_00", (a / 100, 0.5, c / 100, 0.1), seed)
        store_run(tmp_path, "mine", (b / 100, 0.5, d / 100, None), seed)
    store_run(tmp_path, "cnn_01")
    table = table_of(tmp_path)
    [pair] = table.pairs
    assert pair.models == ("cnn_00", "mine") and pair.seeds == (3, 3)
    got = {key: values[:2] for key, values in pair.differences.items()}
    # Up to the rounding of decimals.
    expected = {"p_test": (0.05, 0.1), "p_in": (0.0, 1.0), "p_out": (0.1, 0.7)}
    assert got.keys() == expected.keys()
    assert all(got[key] == pytest.approx(expected[key]) for key in expected)
    assert lines(table.text())[-1] == (
        "mine − cnn_00 (3, 3; p ≥ 0.100): P_test +.0500 (p 0.100); P_in +.0000 (p 1.000); P_out +.1000 (p 0.700)"
    )
    *_, heads, rule, row = table.markdown().splitlines()
    assert (
        heads == "| difference (seeds; smallest possible p) | P_test | P_in | P_out |" and rule == "|---|---|---|---|"
    )
    assert row.startswith("| mine − cnn_00 (3, 3; p ≥ 0.100) | +.0500 (p 0.100) | +.0000 (p 1.000) |")


def test_published_differences_stand_beside_ours(tmp_path):
    for seed in range(2):
        store_run(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1), seed)
        store_run(tmp_path, "cnn_bn_00", (0.8, 0.9, 0.2, 0.1), seed)
    # .992833 - .988739, and .040645 - .003055.
    row = table_of(tmp_path).markdown().splitlines()[-1]
    assert "| −.1000 (p 0.333), published +.0041 |" in row and row.endswith("| +.0000 (p 1.000), published +.0376 |")


def test_least_significant_difference_of_single_seed_models(tmp_path):
    # Odds of P_test 1, 2, 4 and 8, 16: their logarithms are 0, 1, 2 and 3, 4 times log 2. Sums of squares 2 (two
    # degrees of freedom) and .5 (one): deviation (2.5 / 3) ** .5 = .9129, a factor of 2 ** .9129 = 1.883. The 97.5 %
    # quantile of t with three degrees of freedom is 3.18245 (any table): 3.18245 * root 2 * .9129 = 4.1086, a factor of
    # 17.25. P_in of one model only, odds 1/4, 1, 4: deviation 2, factor 4, quantile 4.30265: 12.170, a factor of 4608.
    # P_inv has no model with two seeds; P_out of cnn_01 is 0 once, which has no log-odds.
    for seed, (a, b, c) in enumerate(((1 / 2, 0.2, 0.1), (2 / 3, 0.5, None), (4 / 5, 0.8, None))):
        store_run(tmp_path, "cnn_00", (a, b, 0.25, c), seed)
    for seed, (a, b, c) in enumerate(((8 / 9, 0.5, 0.25), (16 / 17, None, 0.0))):
        store_run(tmp_path, "cnn_01", (a, b, c, None), seed)
    # 1 / 17 is 2 ** -4.09: 5.09 from the mean of cnn_00, 7.59 from that of cnn_01.
    store_run(tmp_path, "cnn_02", (1 / 18, 0.1, 0.1, 0.1))
    store_run(tmp_path, "cnn_02+steps=9", (0.999999, 0.9, 0.9, 0.9))
    table = table_of(tmp_path)
    first, second = table.seed_variation()
    assert first == (
        "Between seeds of one model (pooled: 2 models, 5 runs), the odds P / (1 − P) vary by a factor of "
        "(standard deviation): P_test 1.883. Single-seed models differ significantly (95 %) beyond these factors "
        "(in brackets: pairs of models that do): P_test 17.25 (2 of 3)."
    )
    assert "(pooled: 1 model, 3 runs)" in second and "deviation): P_in 4.000, P_out 1.000. " in second
    assert re.search(r": P_in 46\d\d\.\d\d \(0 of 3\), P_out 1\.00 \(1 of 1\)\.$", second), second
    assert f"* {first}\n* {second}\n" in table.markdown() and first in table.text()


def test_models_are_in_the_order_of_the_experiment_then_of_the_alphabet(tmp_path):
    for model in ("zebra", "cnn_pool_02", "apple", "cnn_01", "cnn_00"):
        store_run(tmp_path, model)
    assert [row.model for row in table_of(tmp_path).rows] == ["cnn_00", "cnn_01", "cnn_pool_02", "apple", "zebra"]


def test_one_table_for_each_dataset_and_profile(tmp_path):
    assert tables(tmp_path) == []
    for dataset, profile in (("mnist", "paper"), ("mnist", "smoke"), ("mnist", "quick"), ("digits", "smoke")):
        store_run(tmp_path, dataset=dataset, profile=profile)
    made = [(table.dataset, table.profile) for table in tables(tmp_path)]
    assert made == [("digits", "smoke"), ("mnist", "smoke"), ("mnist", "quick"), ("mnist", "paper")]


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "mine"])
def test_other_data_are_not_compared_with_published_numbers(tmp_path, dataset):
    store_run(tmp_path, "cnn_00", (0.5, 0.5, 0.5, 0.5), dataset=dataset)
    table = table_of(tmp_path)
    assert table.bands() == []
    assert all(cell.published is None for cell in table.rows[0].cells.values())
    for text in (table.text(), table.markdown()):
        assert "published   " not in text and "| published" not in text
        assert not any(f"{value:.4f}"[1:] in text for value in EXPERIMENT.published["cnn_00"].values())
        assert ("NOT MNIST" in text) == (dataset == "digits")


def test_missing_numbers_are_dashes_and_missing_metrics_no_columns(tmp_path):
    store_run(tmp_path, "cnn_00", (0.975, None, None, None), profile="quick")
    table = table_of(tmp_path)
    ours, compared, interval = (line.split() for line in lines(table.text())[-3:])
    assert ours == ["cnn_00", "ours", ".9750", "—", "—", "—", "83", "s"]
    assert compared == ["published", ".9887", ".9913", ".2118", ".0031"]
    assert interval == [".9625–.9875"]
    assert "| .9750 (.9625–.9875) | .9887 | — | .9913 |" in table.markdown()
    assert "for the restricted classes" not in table.text()
    # A metric that was declared after all of the runs.
    [run] = find(tmp_path)[0]
    run = replace(run, metrics={key: value for key, value in run.metrics.items() if key != "p_inv"})
    [table] = report.tables([run], EXPERIMENTS)
    assert [column.title for column in table.columns] == ["P_test", "P_in", "P_out"]
    assert "| P_inv" not in table.markdown()
    # One run that has it is enough.
    store_run(tmp_path, "cnn_01", profile="quick")
    [table] = report.tables([run, *find(tmp_path)[0][1:]], EXPERIMENTS)
    assert [column.title for column in table.columns] == ["P_test", "P_in", "P_out", "P_inv"]


def test_only_the_experiments_published_numbers_are_shown(tmp_path):
    store_run(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1))
    store_run(tmp_path, "cnn_00_corrected", (0.9, 0.9, 0.2, 0.1))
    invented = {"cnn_00": {"p_test": 0.1111, "p_in": 0.2222, "p_out": 0.3333, "p_inv": 0.4444}}
    table = table_of(tmp_path, {EXPERIMENT.name: replace(EXPERIMENT, published=invented)})
    first, second = ({key: cell.published for key, cell in row.cells.items()} for row in table.rows)
    assert first == invented["cnn_00"] and set(second.values()) == {None}
    # A model without published numbers has no line for them.
    text = lines(table.text())
    [at] = [number for number, line in enumerate(text) if line.startswith("cnn_00_corrected")]
    assert text[at].split()[1:3] == ["ours", ".9000"] and "–" in text[at + 1].split()[0]
    assert all(cell.published is None for cell in table_of(tmp_path, {}).rows[0].cells.values())


def test_runs_with_other_ranges_are_not_compared(tmp_path):
    protocol = EXPERIMENT.task.to_json()
    store_run(tmp_path, "cnn_00", config={"protocol": {**protocol, "inside": [[-30.0, 30.0]]}})
    assert not table_of(tmp_path).compared


def test_models_that_never_answer_a_class_are_marked(tmp_path):
    store_run(tmp_path, "cnn_00", (0.5, 0.5, 0.2, 0.1), never_answers=[2, 5])
    store_run(tmp_path, "cnn_00", seed=1)
    store_run(tmp_path, "cnn_01", (0.125, 0.5, 0.5, 0.5), never_answers=[1, 2, 3, 4, 5, 7, 8])
    store_run(tmp_path, "cnn_02", (0.99, 0.99, 0.2, 0.01), seed=0)
    store_run(tmp_path, "cnn_02", (0.99, 0.99, 0.2, 0.01), seed=1)
    table = table_of(tmp_path)
    marked, same, fine = (row.label for row in table.rows)
    assert marked == "cnn_00 — never answers 2 or 5 (seed 0)"
    assert same == "cnn_01 — gives the same answer to every image"
    assert fine == "cnn_02"
    text, markdown = table.text(), table.markdown()
    assert "never answers 2 or 5 (seed 0)" in text and f"| {marked} |" in markdown and f"| {same} |" in markdown
    for written in (text, markdown):
        assert f"Outside: {same} P_test .1250" in written
        assert f"cnn_02 − {marked} (2, 2; p ≥ 0.333)" in written


def test_one_and_zero(tmp_path):
    store_run(tmp_path, "cnn_00", (1.0, 0.0, 0.99996, 0.00004), dataset="mine")
    assert lines(table_of(tmp_path).text())[-2].split()[1:5] == ["1.0000", ".0000", "1.0000", ".0000"]


def test_text_between_markers_is_replaced():
    page = "# Title\n<!-- results: begin; `make readme` -->\nold\nold\n<!-- results: end -->\nbelow\n"
    once = report.between_markers(page, "| new |\n")
    assert once == "# Title\n<!-- results: begin; `make readme` -->\n| new |\n<!-- results: end -->\nbelow\n"
    assert report.between_markers(once, "| new |\n") == once


@pytest.mark.parametrize("page", ["", "<!-- results: begin -->\n", "<!-- results: end\n<!-- results: begin\n"])
def test_pages_without_markers_are_refused(page):
    with pytest.raises(ValueError, match="results: begin"):
        report.between_markers(page, "| new |")


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (48, "48 s"), (99.4, "99 s"), (99.6, "1:40 min"), (200, "3:20 min"), (5999.6, "1:40 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_notes_hold_for_other_settings_unless_the_classes_were_changed(tmp_path):
    models = dict(EXPERIMENT.models)
    models["cnn_00"] = replace(models["cnn_00"], note="every digit was shown upright")
    models["cnn_02"] = replace(models["cnn_02"], note="not measured with 6")
    for model in ["cnn_00", "cnn_00+steps=9", "cnn_01", "cnn_02+restricted=1+steps=9", "cnn_02+excluded=none"]:
        store_run(tmp_path, model)
    table = table_of(tmp_path, {EXPERIMENT.name: replace(EXPERIMENT, models=models)})
    assert list(table.remarks)[2:] == ["cnn_00: every digit was shown upright."]


def test_what_models_are_told_is_shown_where_it_differs(tmp_path):
    store_run(tmp_path, "cnn_00")
    assert "told" not in table_of(tmp_path).text() + table_of(tmp_path).markdown()
    store_run(tmp_path, "cnn_00+unrestricted")
    table = table_of(tmp_path)
    assert "told K0: labelled images and the missing drawings of the restricted classes" in table.text()
    assert "| cnn_00 | K0: labelled images | 0 |" in table.markdown()


def store_orbit(folder, **pooled):
    """Writes an orbit.json with these P_test and P_inv of each pooling."""
    found = {
        name: {"p_test": test, "p_inv": inverted, "interval": {"p_test": [test, 1.0], "p_inv": [0.0, inverted]}}
        for name, (test, inverted) in pooled.items()
    }
    (folder / "orbit.json").write_text(json.dumps({"copies": 16, "told": "K3: told late", "pooled": found}))


def test_orbit_pooling_has_rows_of_its_own(tmp_path):
    folders = [store_run(tmp_path, seed=seed) for seed in (0, 1)]
    store_run(tmp_path, "cnn_01")
    plain = table_of(tmp_path)
    assert "orbit" not in (plain.text() + plain.markdown()).lower()
    store_orbit(folders[0], max=(0.5, 0.25), mean=(0.4, 0.2))
    table = table_of(tmp_path)
    assert [row.model for row in table.shown] == [
        "cnn_00", "cnn_00 + orbit pooling (max)", "cnn_00 + orbit pooling (mean)", "cnn_01",
    ]  # fmt: skip
    told = "K3: told late; in training K0: labelled images"
    expected = f"| cnn_00 + orbit pooling (max) | {told} | 0 | .5000 (.5000–1.0000) | — | — | — | — | — |"
    assert f"{expected} .2500 (.0000–.2500) | — | — |" in table.markdown()
    assert "| cnn_00 | K0: labelled images | 0, 1 |" in table.markdown()
    assert any(line.startswith("cnn_00 + orbit pooling (mean)  ours        .4000 ") for line in lines(table.text()))
    [remark] = [remark for remark in table.remarks if remark.startswith("Orbit pooling")]
    assert "16 copies" in remark and "rotation (at every angle)" in remark
    # Nothing that is compared or judged changes.
    assert (table.bands(), table.pairs, table.seed_variation()) == (plain.bands(), plain.pairs, plain.seed_variation())
    assert [row.model for row in table.rows] == [row.model for row in plain.rows]
    # Several seeds are averaged.
    store_orbit(folders[1], max=(0.7, 0.35))
    most, mean = table_of(tmp_path).rows[0].pooled
    assert (most.seeds, mean.seeds) == ((0, 1), (0,)) and most.cells["p_test"].ours == pytest.approx(0.6)
    assert most.cells["p_test"].uncertainty == "±.1414, 2 seeds" and most.cells["p_test"].published is None


@pytest.mark.parametrize("content", ["{", "{}", '{"copies": 2, "told": "", "pooled": {"max": {"p_test": 2}}}', "[]"])
def test_damaged_orbits_are_named(tmp_path, content):
    folder = store_run(tmp_path)
    (folder / "orbit.json").write_text(content)
    finished, [(path, reason)] = find(tmp_path)
    assert not finished and path == folder.path and "orbit.json: " in reason
