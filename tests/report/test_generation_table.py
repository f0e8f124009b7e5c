"""Stored runs of generation -> tables. The numbers are invented; a table must show these and no others."""

import json
from dataclasses import replace

import pytest

from experiments import generation_rotation, generation_shift
from invariance.report import table as report
from invariance.runs.find import find
from invariance.runs.folder import RunFolder

ROTATION, SHIFT = generation_rotation.EXPERIMENT, generation_shift.EXPERIMENT


def store(runs, model, of_4, of_9, others=(0.9, 1.1), seed=0, dataset="mnist", which=ROTATION):
    """Writes a finished run's folder: (in, out) of 4 and 9, and the ratios of 0 and of the other seven digits."""
    folder = RunFolder.of(runs, which.name, dataset, "quick", model, seed)
    folder.path.mkdir(parents=True)
    inside = {str(digit): 0.1 for digit in range(10)} | {"4": of_4[0], "9": of_9[0]}
    outside = {digit: 0.1 * (others[0] if digit == "0" else others[1]) for digit in inside}
    outside |= {"4": of_4[1], "9": of_9[1]}
    metrics = {
        "experiment": which.name, "model": model, "dataset": dataset, "profile": "quick", "seed": seed,
        "precision": "float32", "mse_in": inside, "mse_out": outside,
        "ratio": {digit: outside[digit] / inside[digit] for digit in inside},
        "images": dict.fromkeys(inside, 100), "train_seconds": 300,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"protocol": which.task.to_json()}))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def tables(runs, experiments=(ROTATION, SHIFT)):
    finished, others = find(runs)
    assert not others
    return report.tables(finished, {experiment.name: experiment for experiment in experiments})


def lines(text):
    """Without the blanks that pad a column."""
    return [line.rstrip() for line in text.splitlines()]


def test_text_and_markdown(tmp_path):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    store(tmp_path, "ae_rotation+feature_maps=128", (0.03, 0.06), (0.04, 0.05), (0.95, 1.004))
    [table] = tables(tmp_path)
    [remark] = ROTATION.task.remarks({"images": dict.fromkeys("0123456789", 100)})
    assert "1,000 test images" in remark
    changed = "ae_rotation+feature_maps=128"
    blank = " " * 30
    assert lines(table.text()) == [
        "generation_rotation · mnist · quick",
        remark,
        "",
        f"{blank}            4 in   4 out  4 out/in  9 in   9 out  9 out/in  others out/in  trained",
        f"{'ae_rotation':<30}ours        .0200  .0600  3.00      .0250  .0500  2.00      0.90–1.10      5:00 min",
        f"{blank}published   .0270  .0752  2.78      .0219  .0430  1.96      0.97–1.01",
        f"{changed:<30}ours        .0300  .0600  2.00      .0400  .0500  1.25      0.95–1.00      5:00 min",
    ]
    assert table.markdown().splitlines() == [
        f"**generation_rotation, mnist, quick.** {remark}",
        "",
        "| model | seeds | 4 in ours | published | 4 out ours | published | 4 out/in ours | published "
        "| 9 in ours | published | 9 out ours | published | 9 out/in ours | published "
        "| others out/in ours | published | trained |",
        "|---" * 17 + "|",
        "| ae_rotation | 0 | .0200 | .0270 | .0600 | .0752 | 3.00 | 2.78 "
        "| .0250 | .0219 | .0500 | .0430 | 2.00 | 1.96 | 0.90–1.10 | 0.97–1.01 | 5:00 min |",
        "| ae_rotation+feature_maps=128 | 0 | .0300 | — | .0600 | — | 2.00 | — "
        "| .0400 | — | .0500 | — | 1.25 | — | 0.95–1.00 | — | 5:00 min |",
    ]


def test_rough_published_numbers_are_marked_and_compared_with_nothing(tmp_path):
    folder = store(tmp_path, "address_rotation", (0.02, 0.06), (0.025, 0.05))
    (folder / "config.json").write_text(json.dumps({"protocol": ROTATION.task_of("address_rotation").to_json()}))
    [table] = tables(tmp_path)
    table = replace(table, profile="standard")
    [row] = table.rows
    assert table.compared and row.cells["ratio_4"].published == "1.56*"
    # Ours, 3.00, would lie outside the band around 1.56.
    assert row.cells["ratio_4"].band and row.cells["ratio_4"].inside is None and not row.cells["ratio_4"].outside
    assert all(cell.difference is None for cell in row.cells.values()) and table.bands() == []
    for text in (table.text(), table.markdown()):
        assert "1.56*" in text and ".99–1.18*" in text
        assert "* read from published pictures: rough, and not compared with ours." in text
    store(tmp_path / "other", "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    assert tables(tmp_path / "other")[0].legend() == []


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "mine"])
def test_other_data_are_not_compared_with_published_numbers(tmp_path, dataset):
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05), dataset=dataset)
    [table] = tables(tmp_path)
    assert not table.compared
    assert all(cell.published is None for cell in table.rows[0].cells.values())
    for text in (table.text(), table.markdown()):
        assert "published" not in text.replace("comparable with published numbers", "") and ".0752" not in text
        assert ("NOT MNIST" in text) == (dataset == "digits")


def test_seeds_give_mean_and_standard_deviation(tmp_path):
    # Ratios 2, 3, 4 and 2, 2, 2; of the others the least and the largest of all.
    for seed, outside, others in ((0, 0.04, (0.8, 1.0)), (1, 0.06, (0.9, 1.3)), (2, 0.08, (0.95, 1.1))):
        store(tmp_path, "ae_shift", (0.02, outside), (0.02, 0.04), others, seed, which=SHIFT)
    [table] = tables(tmp_path)
    [row] = table.rows
    assert row.seeds == (0, 1, 2)
    ours, compared, spread = (line.split() for line in lines(table.text())[4:7])
    assert ours == ["ae_shift", "ours", ".0200", ".0600", "3.00", ".0200", ".0400", "2.00", "0.80–1.30", "5:00", "min"]
    assert compared == ["published", ".0068", ".0281", "4.10", ".0053", ".0158", "3.00", "1.04–1.32"]
    assert " ".join(spread) == (
        "±.0000, 3 seeds ±.0200, 3 seeds ±1.00, 3 seeds ±.0000, 3 seeds ±.0000, 3 seeds ±0.00, 3 seeds"
    )


@pytest.mark.parametrize("damage", [{"ratio": 3}, {"mse_in": 0.1}, {"ratio": {"4": "x"}}, {"images": 7}])
def test_damaged_metrics_are_named(tmp_path, damage):
    folder = store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    (folder / "metrics.json").write_text(json.dumps(folder.json("metrics.json") | damage))
    finished, [(path, reason)] = find(tmp_path)
    assert not finished and path == folder.path
    assert reason.startswith(f"{folder / 'metrics.json'}: {next(iter(damage))}")


def test_experiments_have_tables_of_their_own(tmp_path):
    store(tmp_path, "ae_shift", (0.02, 0.06), (0.025, 0.05), which=SHIFT)
    store(tmp_path, "aae_rotation", (0.02, 0.06), (0.025, 0.05))
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    made = tables(tmp_path)
    assert [(table.experiment, [row.model for row in table.rows]) for table in made] == [
        ("generation_rotation", ["ae_rotation", "aae_rotation"]), ("generation_shift", ["ae_shift"]),
    ]  # fmt: skip
    # Without the experiment, the restricted digits are read from the runs.
    [table, _] = tables(tmp_path, [])
    assert [column.title for column in table.columns] == [
        "4 in", "4 out", "4 out/in", "9 in", "9 out", "9 out/in", "others out/in",
    ]  # fmt: skip
    assert not table.compared


def test_runs_with_other_restricted_digits_show_these(tmp_path):
    folder = store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05))
    ranges = replace(ROTATION.task.ranges, restricted={3: ((-45, 45),)})
    (folder / "config.json").write_text(json.dumps({"protocol": replace(ROTATION.task, ranges=ranges).to_json()}))
    metrics = folder.json("metrics.json") | {"model": "ae_rotation+restricted=3"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    [table] = tables(tmp_path)
    assert [column.title for column in table.columns] == ["3 in", "3 out", "3 out/in", "others out/in"]
    # Beside those of the experiment they do not decide.
    store(tmp_path, "ae_rotation", (0.02, 0.06), (0.025, 0.05), seed=1)
    [table] = tables(tmp_path)
    assert [column.title for column in table.columns][:4] == ["4 in", "4 out", "4 out/in", "9 in"]


@pytest.mark.parametrize(
    ("restricted", "text"),
    [
        ((4, 9), "4: out/in 3.00, 9: out/in 2.00; others 0.90 to 1.10"),
        ((), "all classes: out/in 0.90 to 3.00"),
        ((3, 4, 5, 9), "3: out/in 0.90, 4: out/in 3.00, 5: out/in 1.10, 9: out/in 2.00"),
    ],
)
def test_ratios_in_one_line(restricted, text):
    task = replace(ROTATION.task, ranges=replace(ROTATION.task.ranges, restricted=dict.fromkeys(restricted, ((0, 1),))))
    assert task.summary({"3": 0.9, "4": 3.0, "5": 1.1, "9": 2.0}) == text
