"""Curves of sweeps: numbers against those computed by hand, what is drawn and shown, and what stays out of tables."""

import numpy as np
import pytest

from experiments.recognition_rotation import EXPERIMENT
from invariance import figures
from invariance.files import read_csv, write_csv
from invariance.report import responses
from invariance.report.page import Page
from invariance.report.statistics import interval
from invariance.report.table import tables
from invariance.runs.find import find
from invariance.sweeps import HALF_WIDTH, STEPS, record
from tests.helpers import store_run

EXPERIMENTS = {EXPERIMENT.name: EXPERIMENT}


def store(runs, model, p_inv, seed, half_width=45, steps=400, varied=HALF_WIDTH, marked=True):
    """A finished run of a sweep, with P_out a tenth below P_inv."""
    protocol = EXPERIMENT.task.to_json()
    if half_width != 45:
        shown = [[-half_width, half_width]]
        protocol["training"] = {"default": protocol["ranges"]["default"], "restricted": {"3": shown, "4": shown}}
    config = {
        "protocol": protocol,
        "budget": {"steps": steps, "batch_size": 1},
        **(record("dose", varied) if marked else {}),
    }
    folder = store_run(runs, model, (0.9, 0.9, p_inv - 0.1, p_inv), seed=seed, profile="quick", config=config)
    labels = (0, 1, 2, 3, 4, 5, 7, 8)
    write_csv(folder / "curves.csv", [{"digit": label, "parameter": 0, "value": 0, "images": 1} for label in labels])


@pytest.fixture
def runs(tmp_path):
    """Half-widths 0 and 90 (three seeds, one seed) around the usual 45 (two seeds), and twice the steps."""
    for seed, value in enumerate((0.1, 0.2, 0.3)):
        store(tmp_path, "baseline+shown=0..0", value, seed, 0)
    for seed, value in enumerate((0.4, 0.5)):
        store(tmp_path, "baseline", value, seed, varied=None)
    store(tmp_path, "baseline+shown=-90..90", 0.8, 0, 90)
    store(tmp_path, "baseline+steps=200%", 0.6, 0, steps=800, varied=STEPS)
    return tmp_path


def test_t_interval():
    # Mean 2, deviation 1; t(.975, 2) = 4.30265, divided by the root of 3.
    assert interval([1, 2, 3]) == (2.0, pytest.approx(4.302652730 / 3**0.5, rel=1e-8))
    assert interval([7]) == (7.0, None)


def test_points_are_means_over_seeds_with_their_intervals(runs):
    made = responses.curves(find(runs)[0])
    assert [(curve.factor, curve.response.key) for curve in made] == [
        (HALF_WIDTH, "p_out"), (HALF_WIDTH, "p_inv"), (STEPS, "p_out"), (STEPS, "p_inv"),
    ]  # fmt: skip
    points = made[1].points
    assert [(point.dose, point.usual) for point in points] == [(0, False), (45, True), (90, False)]
    # Deviations .1 and .1 / root of 2; t(.975, 1) = 12.7062.
    expected = [(0.2, 4.302652730 * 0.1 / 3**0.5), (0.45, 12.706204736 * 0.05), (0.8, None)]
    for point, (mean, half) in zip(points, expected, strict=True):
        assert point.interval == (pytest.approx(mean), half if half is None else pytest.approx(half, rel=1e-8))
    assert made[0].points[0].interval[0] == pytest.approx(0.1)
    # What both sweeps share is a point of both; chance is that of eight classes.
    assert [(point.dose, point.values) for point in made[3].points] == [(400, ((0, 0.4), (1, 0.5))), (800, ((0, 0.6),))]
    assert made[1].level == 0.125 and made[1].label == "baseline (400 steps)" and made[3].label == "baseline"
    assert made[1].axis == "half-width of the restricted range, degrees"


def test_a_model_as_it_is_completes_a_curve_whoever_ran_it(runs):
    store(runs, "baseline", 0.45, 2, marked=False)
    # This was not run for the curves, and another one was trained for longer.
    store(runs, "baseline+shown=-15..15", 0.3, 0, 15, marked=False)
    store(runs, "baseline+steps=200%+shown=-60..60", 0.3, 0, 60, steps=800)
    points = {curve.label: curve.points for curve in responses.curves(find(runs)[0]) if curve.response.key == "p_inv"}
    assert [point.dose for point in points["baseline (400 steps)"]] == [0, 45, 90]
    assert [seed for seed, _ in points["baseline (400 steps)"][1].values] == [0, 1, 2]
    assert [point.dose for point in points["baseline (800 steps)"]] == [45, 60]


def test_no_curve_without_two_doses(tmp_path):
    store(tmp_path, "baseline", 0.4, 0, varied=None)
    assert responses.curves(find(tmp_path)[0]) == []
    store(tmp_path, "baseline+shown=0..0", 0.4, 0, 0)
    (tmp_path / "recognition_rotation/mnist/quick/baseline+shown=0..0/seed-0/curves.csv").unlink()
    assert responses.curves(find(tmp_path)[0]) == []


def test_files(runs, tmp_path):
    folder = tmp_path / "curves"
    folder.mkdir()
    made = responses.curves(find(runs)[0])
    responses.save(made, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["dose_half_width.png", "dose_steps.png", "points.csv"]
    first, *_ = read_csv(folder / "points.csv")
    assert (
        first.items()
        >= {"factor": HALF_WIDTH, "dose": 0, "usual": 0, "response": "p_out", "seeds": 3, "steps": 400}.items()
    )
    assert first["mean"] == pytest.approx(0.1) and first["half_interval"] == pytest.approx(0.2484138, rel=1e-6)
    assert len(responses.text(made)) == 4


def test_what_is_drawn(runs):
    made = responses.curves(find(runs)[0])
    figure = figures.responses([curve for curve in made if curve.factor == HALF_WIDTH], "title")
    p_out, p_inv = figure.axes
    [line] = [container.lines[0] for container in p_inv.containers]
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.2], [45, 0.45], [90, 0.8]])
    level, usual = p_inv.lines[-2:]
    assert level.get_ydata()[0] == 0.125 and usual.get_xdata()[0] == 45
    assert (p_out.get_ylabel(), p_out.get_title()) == (
        "P_out of 3 and 4",
        "from 45 to 315 degrees",
    ) and p_inv.get_xscale() == "linear"
    assert {text.get_text() for text in p_inv.get_legend().get_texts()} == {
        "baseline (400 steps)", "chance", "published setting",
    }  # fmt: skip
    figures.plt.close(figure)


def test_page_shows_curves_in_place_of_dozens_of_rows(runs):
    finished, others = find(runs)
    made = tables(finished, EXPERIMENTS)
    assert [row.model for table in made for row in table.rows] == ["baseline"]
    page = Page(finished, others, made, (), EXPERIMENTS)
    html, markdown = page.html(), page.markdown()
    assert html.count("<h2>Dose and response</h2>") == 1 and "half-width of the restricted range" in html
    assert "shown=0..0" not in html and "shown=0..0" not in markdown
    assert "| half_width | 45* | baseline (400 steps) | p_inv | 0.4500 | 0.6353 | 0, 1 |" in markdown
    # Without sweeps there is no such section.
    assert "Dose and response" not in Page([], [], [], (), {}).html()
