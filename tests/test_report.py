"""Stored run folders -> tables. The numbers are invented; a table must show these and no others."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import published
from experiments.recognition_rotation import EXPERIMENT
from invariance import report
from invariance.progress import duration
from invariance.results import RunFolder, find

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENTS = {EXPERIMENT.name: EXPERIMENT}


def store(runs, model, values, seed=0, dataset="mnist", profile="quick", seconds=83.4, **changes):
    """Writes a finished run's folder; ``values`` are P_test, P_in, P_out and P_inv."""
    folder = RunFolder.of(runs, "recognition_rotation", dataset, profile, model, seed)
    folder.path.mkdir(parents=True)
    names = ("p_test", "p_in", "p_out", "p_inv")
    metrics = {
        "experiment": "recognition_rotation",
        "model": model,
        "dataset": dataset,
        "profile": profile,
        "seed": seed,
        "precision": "float32",
        "chance": 0.125,
        "images": {"p_test": 8033, "p_in": 1992, "p_out": 1992, "p_inv": 1992},
        **dict(zip(names, values, strict=True)),
        "interval": {
            name: None if value is None else [value - 0.0125, value + 0.0125]
            for name, value in zip(names, values, strict=True)
        },
        "train_seconds": seconds,
    }
    (folder / "config.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({**metrics, **changes}))
    return folder


def tables(runs, experiments=EXPERIMENTS):
    finished, others = find(runs)
    assert not others
    return report.tables(finished, experiments)


def lines(text):
    """Without the blanks that fill a column at a line's end."""
    return [line.rstrip() for line in text.splitlines()]


def test_text_and_markdown(tmp_path):
    store(tmp_path, "cnn_bn_00", (0.9, 0.95, 0.2, 0.05), seconds=4000)
    store(tmp_path, "cnn_00", (0.975, 0.98, 0.21, 0.0125))
    [table] = tables(tmp_path)
    assert lines(table.text()) == lines(
        """\
recognition_rotation · mnist · quick
Test images: 8,033 for P_test, 1,992 for the others; chance .1250; 95 % intervals over images, at most.

                       P_test       P_in         P_out        P_inv        trained
cnn_00     ours        .9750        .9800        .2100        .0125        83 s
           published   .9887        .9913        .2118        .0031
                       .9625–.9875  .9675–.9925  .1975–.2225  .0000–.0250
cnn_bn_00  ours        .9000        .9500        .2000        .0500        66:40 min
           published   .9928        .9964        .2567        .0406
                       .8875–.9125  .9375–.9625  .1875–.2125  .0375–.0625
"""
    )
    assert table.markdown() == (
        "**recognition_rotation, mnist, quick.** Test images: 8,033 for P_test, 1,992 for the others; chance .1250; "
        "95 % intervals over images, at most.\n"
        "\n"
        "| model | seeds | P_test ours | published | P_in ours | published | P_out ours | published "
        "| P_inv ours | published | trained |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
        "| cnn_00 | 0 | .9750 (.9625–.9875) | .9887 | .9800 (.9675–.9925) | .9913 "
        "| .2100 (.1975–.2225) | .2118 | .0125 (.0000–.0250) | .0031 | 83 s |\n"
        "| cnn_bn_00 | 0 | .9000 (.8875–.9125) | .9928 | .9500 (.9375–.9625) | .9964 "
        "| .2000 (.1875–.2125) | .2567 | .0500 (.0375–.0625) | .0406 | 66:40 min |\n"
    )


def test_markdown_has_as_many_cells_in_every_row(tmp_path):
    store(tmp_path / "a", "cnn_00", (0.9, 0.9, 0.2, 0.1))
    store(tmp_path / "b", "cnn_00", (0.9, 0.9, 0.2, 0.1), dataset="digits")
    store(tmp_path / "c", "mine", (0.9, None, None, None), seed=3)
    for runs in ("a", "b", "c"):
        rows = [line for line in tables(tmp_path / runs)[0].markdown().splitlines() if line.startswith("|")]
        assert len(rows) == 3
        assert len({row.count("|") for row in rows}) == 1


def test_training_times_name_a_device_that_is_not_the_usual_one(tmp_path):
    devices = ["A, 2 cores", "A, 2 cores", "A, 1 core", "A, 1 core"]
    for seed, device in enumerate(devices):
        folder = store(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1), seed=seed, seconds=60 + 10 * seed)
        (folder / "config.json").write_text(json.dumps({"device": device}))
    [table] = tables(tmp_path)
    assert table.rows[0].trained == "65 s, 85 s (1 core)"
    assert table.remarks[-1] == "Trained on A, 2 cores, where no other is named."
    # Another processor with as many cores as the usual one.
    (store(tmp_path, "cnn_01", (0.9, 0.9, 0.2, 0.1)) / "config.json").write_text('{"device": "B, 2 cores"}')
    [first, second] = tables(tmp_path)[0].rows
    assert (first.trained, second.trained) == ("65 s, 85 s (1 core)", "83 s (B, 2 cores)")


def test_seeds_give_mean_and_standard_deviation(tmp_path):
    # Means .90, .94, .20, .10. Deviations of P_test: -.02, 0, .02, variance (.0004 + .0004) / 2, root .02; of P_in .04.
    store(tmp_path, "cnn_00", (0.88, 0.90, 0.2, 0.1), seed=0, seconds=60)
    store(tmp_path, "cnn_00", (0.90, 0.94, 0.2, 0.1), seed=2, seconds=70)
    store(tmp_path, "cnn_00", (0.92, 0.98, 0.2, 0.1), seed=10, seconds=80)
    [table] = tables(tmp_path)
    [row] = table.rows
    assert row.seeds == (0, 2, 10)
    assert row.trained == "70 s"
    # Each column as wide as its spread, 15 letters, and two blanks.
    assert lines(table.text())[-5:-1] == [
        "cnn_00  ours        .9000            .9400            .2000            .1000            70 s",
        "        published   .9887            .9913            .2118            .0031",
        "                    ±.0200, 3 seeds  ±.0400, 3 seeds  ±.0000, 3 seeds  ±.0000, 3 seeds",
        "",
    ]
    assert "| cnn_00 | 0, 2, 10 | .9000 (±.0200, 3 seeds) | .9887 |" in table.markdown()


def test_numbers_outside_their_band_are_named_with_what_was_found_out(tmp_path):
    # Published of cnn_00: .9887, .2118, .0031; of cnn_bn_00: .9928, .2567, .0406. Bands: .01, .05, .06 and below .125.
    store(tmp_path, "cnn_00", (0.9786, 0.5, 0.2619, 0.0632), profile="standard")
    store(tmp_path, "cnn_bn_00", (0.9829, 0.5, 0.2068, 0.1001), profile="standard")
    store(tmp_path, "mine", (0.1, 0.1, 0.9, 0.9), profile="standard")
    experiments = {EXPERIMENT.name: replace(EXPERIMENT, findings={"cnn_00": {"p_out": "Because of the weather."}})}
    [table] = tables(tmp_path, experiments)
    expected = [
        # Means of two, each with two more decimals of the published number than above.
        "Of 6 numbers with an expected band 3 lie inside. Ours minus the published, median of the models: "
        "P_test −.0100, P_in −.4938, P_out +.0001, P_inv +.0598.",
        "Outside: cnn_00 P_test .9786, published .9887 (−.0101; expected within 0.01). No finding yet.",
        "Outside: cnn_00 P_out .2619, published .2118 (+.0501; expected within 0.05). Because of the weather.",
        "Outside: cnn_00 P_inv .0632, published .0031 (+.0601; expected within 0.06 and below 0.125). No finding yet.",
    ]
    assert table.bands() == expected
    assert lines(table.text())[-4:] == expected
    assert table.markdown().splitlines()[-4:] == [f"* {line}" for line in expected]


@pytest.mark.parametrize(("profile", "judged"), [("smoke", 0), ("quick", 0), ("standard", 1), ("paper", 1)])
def test_short_profiles_are_not_held_against_the_bands(tmp_path, profile, judged):
    store(tmp_path, "cnn_00", (0.9887, 0.9, 0.2118, 0.0031), profile=profile)
    said = tables(tmp_path)[0].bands()
    assert len(said) == judged and all("Of 3 numbers with an expected band 3 lie inside. " in line for line in said)


def test_other_data_have_no_bands(tmp_path):
    store(tmp_path, "cnn_00", (0.5, 0.5, 0.5, 0.5), profile="standard", dataset="kmnist")
    assert tables(tmp_path)[0].bands() == []


def test_models_with_seeds_are_compared(tmp_path):
    # Three seeds each, apart in P_test: 2 of the 20 ways to deal them out are as far apart. In P_in all are equal. In
    # P_out .1 .3 .5 against .2 .4 .6: .1 apart; 14 of 20 ways are at least that (all but the six
    # with sums 1.0 and 1.1, that is {1,3,6} {1,4,5} {2,3,5} {2,3,6} {2,4,5} {1,4,6}).
    for seed, (a, b, c, d) in enumerate(zip((90, 91, 92), (95, 96, 97), (10, 30, 50), (20, 40, 60), strict=True)):
        store(tmp_path, "cnn_00", (a / 100, 0.5, c / 100, 0.1), seed=seed)
        store(tmp_path, "mine", (b / 100, 0.5, d / 100, None), seed=seed)
    store(tmp_path, "cnn_01", (0.2, 0.2, 0.2, 0.2))
    [table] = tables(tmp_path)
    [pair] = table.pairs()
    assert pair.models == ("cnn_00", "mine") and pair.seeds == (3, 3)
    assert set(pair.differences) == {"p_test", "p_in", "p_out"}
    got = {key: values[:2] for key, values in pair.differences.items()}
    # Rounded decimals.
    assert got["p_test"] == pytest.approx((0.05, 0.1)) and got["p_in"] == pytest.approx((0.0, 1.0))
    assert got["p_out"][0] == pytest.approx(0.1)
    assert got["p_out"][1] == pytest.approx(0.7)
    assert lines(table.text())[-1] == (
        "mine − cnn_00 (3, 3; p ≥ 0.100): P_test +.0500 (p 0.100); P_in +.0000 (p 1.000); P_out +.1000 (p 0.700)"
    )
    *_, heads, rule, row = table.markdown().splitlines()
    assert heads == "| difference (seeds; least p that is possible) | P_test | P_in | P_out |"
    assert rule == "|---|---|---|---|"
    assert row.startswith("| mine − cnn_00 (3, 3; p ≥ 0.100) | +.0500 (p 0.100) | +.0000 (p 1.000) |")


def test_how_far_apart_two_models_trained_once_must_be(tmp_path):
    # Odds of P_test 1, 2, 4 and 8, 16: their logarithms are 0, 1, 2 and 3, 4 times log 2. Sums of squares 2 (two
    # degrees of freedom) and .5 (one): deviation (2.5 / 3) ** .5 = .9129, a factor of 2 ** .9129 = 1.883. The 97.5 %
    # quantile of t with three degrees of freedom is 3.18245 (any table): 3.18245 * root 2 * .9129 = 4.1086, a factor of
    # 17.25. P_in of one model only, odds 1/4, 1, 4: deviation 2, factor 4, quantile 4.30265: 12.170, a factor of 4608.
    # P_inv nowhere twice; P_out of cnn_01 is once 0, which has no logarithm of its odds.
    for seed, (a, b, c) in enumerate(((1 / 2, 0.2, 0.1), (2 / 3, 0.5, None), (4 / 5, 0.8, None))):
        store(tmp_path, "cnn_00", (a, b, 0.25, c), seed=seed)
    for seed, (a, b, c) in enumerate(((8 / 9, 0.5, 0.25), (16 / 17, None, 0.0))):
        store(tmp_path, "cnn_01", (a, b, c, None), seed=seed)
    # 1 / 17 is 2 ** -4.09: 5.09 from the mean of cnn_00, 7.59 from that of cnn_01.
    store(tmp_path, "cnn_02", (1 / 18, 0.1, 0.1, 0.1))
    store(tmp_path, "cnn_02+steps=9", (0.999999, 0.9, 0.9, 0.9))
    [table] = tables(tmp_path)
    first, second = table.between_trainings()
    assert first == (
        "Between trainings of one model (pooled: 2 models, 5 runs) the odds P / (1 − P) differ by a factor of "
        "(standard deviation): P_test 1.883. Two models trained once each differ by more than chance (95 %) "
        "from these factors on (and so many pairs of models do): P_test 17.25 (2 of 3)."
    )
    assert "(pooled: 1 model, 3 runs)" in second
    assert "deviation): P_in 4.000, P_out 1.000. " in second
    assert re.search(r": P_in 46\d\d\.\d\d \(0 of 3\), P_out 1\.00 \(1 of 1\)\.$", second), second
    assert f"* {first}\n* {second}\n" in table.markdown() and first in table.text()


def test_published_differences_stand_beside_ours(tmp_path):
    for seed in range(2):
        store(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1), seed=seed)
        store(tmp_path, "cnn_bn_00", (0.8, 0.9, 0.2, 0.1), seed=seed)
    # .992833 - .988739, and .040645 - .003055.
    row = tables(tmp_path)[0].markdown().splitlines()[-1]
    assert "| −.1000 (p 0.333), published +.0041 |" in row and row.endswith("| +.0000 (p 1.000), published +.0376 |")


def test_models_stand_in_the_order_of_the_experiment_then_of_the_alphabet(tmp_path):
    for model in ("zebra", "cnn_pool_02", "apple", "cnn_01", "cnn_00"):
        store(tmp_path, model, (0.9, 0.9, 0.2, 0.1))
    [table] = tables(tmp_path)
    assert [row.model for row in table.rows] == ["cnn_00", "cnn_01", "cnn_pool_02", "apple", "zebra"]


def test_a_table_for_each_dataset_and_profile(tmp_path):
    for dataset, profile in (("mnist", "paper"), ("mnist", "smoke"), ("mnist", "quick"), ("digits", "smoke")):
        store(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1), dataset=dataset, profile=profile)
    made = [(table.dataset, table.profile) for table in tables(tmp_path)]
    assert made == [("digits", "smoke"), ("mnist", "smoke"), ("mnist", "quick"), ("mnist", "paper")]


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "kmnist", "mine"])
def test_other_data_have_no_published_numbers_beside_them(tmp_path, dataset):
    store(tmp_path, "cnn_00", (0.975, 0.98, 0.21, 0.0125), dataset=dataset)
    [table] = tables(tmp_path)
    assert all(cell.published is None for cell in table.rows[0].cells.values())
    for text in (table.text(), table.markdown()):
        assert "published   " not in text and "| published" not in text
        assert not any(f"{value:.4f}"[1:] in text for value in published.RECOGNITION_ROTATION["cnn_00"].values())
        assert ("NOT MNIST" in text) == (dataset == "digits")


def test_mnist_has_no_remark_of_digits(tmp_path):
    store(tmp_path, "cnn_00", (0.975, 0.98, 0.21, 0.0125))
    [table] = tables(tmp_path)
    assert "NOT MNIST" not in table.text() + table.markdown()


def test_without_restricted_classes_a_dash(tmp_path):
    store(tmp_path, "cnn_00", (0.975, None, None, None), images={"p_test": 8033, "p_in": 0, "p_out": 0, "p_inv": 0})
    [table] = tables(tmp_path)
    ours, compared, spread = (line.split() for line in lines(table.text())[-3:])
    assert ours == ["cnn_00", "ours", ".9750", "—", "—", "—", "83", "s"]
    assert compared == ["published", ".9887", ".9913", ".2118", ".0031"]
    assert spread == [".9625–.9875"]
    assert "| .9750 (.9625–.9875) | .9887 | — | .9913 |" in table.markdown()
    assert "for the others" not in table.text()


def test_models_of_the_users_own_have_no_line_of_what_is_published(tmp_path):
    store(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1))
    store(tmp_path, "cnn_00_corrected", (0.9, 0.9, 0.2, 0.1))
    [table] = tables(tmp_path)
    assert [row.cells["p_test"].published for row in table.rows] == [0.988739, None]
    ours, intervals = (line.split() for line in lines(table.text())[-2:])
    assert ours[:3] == ["cnn_00_corrected", "ours", ".9000"] and "–" in intervals[0]
    assert sum("published  " in line for line in lines(table.text())) == 1


def test_published_column_shows_what_the_experiment_declares(tmp_path):
    store(tmp_path, "cnn_00", (0.9, 0.9, 0.2, 0.1))
    invented = {"cnn_00": {"p_test": 0.1111, "p_in": 0.2222, "p_out": 0.3333, "p_inv": 0.4444}}
    [table] = tables(tmp_path, {EXPERIMENT.name: replace(EXPERIMENT, published=invented)})
    assert {metric: cell.published for metric, cell in table.rows[0].cells.items()} == invented["cnn_00"]
    [table] = tables(tmp_path, {})
    assert all(cell.published is None for cell in table.rows[0].cells.values())
    assert EXPERIMENT.published is published.RECOGNITION_ROTATION


def test_published_numbers_are_typed_once():
    values = {f"{value:.4f}" for four in published.RECOGNITION_ROTATION.values() for value in four.values()}
    # Those with four decimals are unmistakable; .991 and the like may stand for something else.
    pattern = re.compile("|".join(re.escape(value) for value in sorted(values) if not value.endswith("0")))
    for path in [*REPOSITORY.glob("invariance/**/*.py"), *REPOSITORY.glob("experiments/*.py")]:
        if path.name != "published.py":
            assert not pattern.findall(path.read_text()), path


def test_nothing_but_the_runs_metrics_is_shown_as_ours(tmp_path):
    store(tmp_path, "cnn_00", (0.1234, 0.2345, 0.3456, 0.4567))
    [table] = tables(tmp_path)
    assert [cell.ours for cell in table.rows[0].cells.values()] == [0.1234, 0.2345, 0.3456, 0.4567]


def test_no_runs_no_tables(tmp_path):
    assert tables(tmp_path) == []


def test_one_and_nought(tmp_path):
    store(tmp_path, "cnn_00", (1.0, 0.0, 0.99996, 0.00004), dataset="mine")
    [table] = tables(tmp_path)
    assert lines(table.text())[-2].split()[1:5] == ["1.0000", ".0000", "1.0000", ".0000"]


def test_tables_take_their_place_in_a_page():
    page = "# Title\n<!-- results: begin; `make readme` -->\nold\nold\n<!-- results: end -->\nbelow\n"
    once = report.between_markers(page, "| new |\n")
    assert once == "# Title\n<!-- results: begin; `make readme` -->\n| new |\n<!-- results: end -->\nbelow\n"
    assert report.between_markers(once, "| new |\n") == once


@pytest.mark.parametrize("page", ["", "<!-- results: begin -->\n", "<!-- results: end\n<!-- results: begin\n"])
def test_page_without_a_place_for_tables_is_refused(page):
    with pytest.raises(ValueError, match="results: begin"):
        report.between_markers(page, "| new |")


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (48, "48 s"), (99.4, "99 s"), (99.6, "1:40 min"), (200, "3:20 min"), (5999.6, "1:40 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_the_note_of_a_model_holds_for_what_runs_with_other_settings_unless_it_is_about_them(tmp_path):
    models = dict(EXPERIMENT.models)
    models["cnn_00"] = replace(models["cnn_00"], note="every digit was shown upright")
    models["cnn_02"] = replace(models["cnn_02"], note="not measured with 6")
    for model in ["cnn_00", "cnn_00+steps=9", "cnn_01", "cnn_02+restricted=1+steps=9", "cnn_02+excluded=none"]:
        store(tmp_path, model, (0.9, 0.95, 0.2, 0.05))
    [table] = tables(tmp_path, {EXPERIMENT.name: replace(EXPERIMENT, models=models)})
    assert list(table.remarks)[1:] == ["cnn_00: every digit was shown upright."]
