"""The report's page: well-formed, without outside links, and nothing dropped."""

import time
from html.parser import HTMLParser

import pytest

from experiments import recognition_rotation
from experiments.claims import CLAIMS
from invariance import cli, figures
from invariance.claims import judge
from invariance.page import Page
from invariance.report import tables
from invariance.results import RunFolder, find, write_csv, write_json

EXPERIMENTS = {recognition_rotation.EXPERIMENT.name: recognition_rotation.EXPERIMENT}
VOID = {"meta", "img", "br", "circle", "path", "link", "hr", "input"}


class Checker(HTMLParser):
    """Raises where tags do not close in order; keeps links and text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text, self.pictures = [], [], "", 0

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [value for key, value in attributes if key in ("href", "src") and not value.startswith("data:")]
        self.pictures += tag == "img" and values["src"].startswith("data:image/png;base64,")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        """Of SVG: closes itself."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def checked(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == [] and checker.links == []
    assert "http" not in text and "@import" not in text and "url(" not in text
    return checker


def store(runs, model="cnn_00", seed=0, dataset="mnist", profile="standard", p_test=0.98):
    folder = RunFolder.of(runs, "recognition_rotation", dataset, profile, model, seed)
    folder.path.mkdir(parents=True)
    protocol = recognition_rotation.PROTOCOL.to_json()
    write_json(folder / "config.json", {"protocol": protocol, "commit": "abc<def>", "device": "a & b"})
    rows = [
        {"digit": digit, "parameter": angle, "value": 0.5, "images": 10} for digit in (3, 4, 5) for angle in (0, 90)
    ]
    write_csv(folder / "curves.csv", rows)
    names = {"experiment": "recognition_rotation", "model": model, "dataset": dataset, "profile": profile, "seed": seed}
    shares = {"p_test": p_test, "p_in": 0.99, "p_out": 0.2, "p_inv": 0.01}
    write_json(folder / "metrics.json", {**names, **shares, "chance": 0.125, "train_seconds": 100.0})
    return folder


def test_restricted_digits_of_one_run_are_not_those_of_others(tmp_path):
    store(tmp_path, "cnn_00")
    protocol = recognition_rotation.PROTOCOL.to_json()
    protocol["ranges"]["restricted"] = {"5": protocol["ranges"]["restricted"]["3"]}
    other = store(tmp_path, "cnn_00+restricted=5")
    write_json(other / "config.json", {"protocol": protocol})
    drawn = {}

    def draw(curves, *_):
        drawn.update(curves)
        return figures.plt.figure()

    rows = [{"digit": digit, "parameter": 0, "value": digit / 10, "images": 10} for digit in (3, 4, 5)]
    for run in find(tmp_path)[0]:
        write_csv(run.folder / "curves.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "curves_together", draw)
        text = checked(made(tmp_path)[0]).text
    assert {model: curves[0][0.0] for model, curves in drawn.items()} == pytest.approx(
        {"cnn_00": 0.35, "cnn_00+restricted=5": 0.5}
    )
    assert "mean of the restricted digits" in text


def made(runs):
    finished, others = find(runs)
    shown = tables(finished, EXPERIMENTS)
    page = Page(finished, others, shown, judge(CLAIMS, finished), EXPERIMENTS)
    return page.html(), page.markdown()


def test_no_runs(tmp_path):
    html, markdown = made(tmp_path)
    assert "No finished runs." in checked(html).text
    assert "not yet tested" in markdown


def test_one_run_and_several_seeds(tmp_path):
    store(tmp_path)
    text = checked(made(tmp_path)[0]).text
    assert ".9800" in text and ".9887" in text and "abc<def>" in text and "a & b" in text
    store(tmp_path, seed=1, p_test=0.96)
    html, markdown = made(tmp_path)
    # The mean, the spread, and each seed's value.
    assert "0:\u00a0.9800, 1:\u00a0.9600" in checked(html).text
    assert ".9700 (±.0141, 2 seeds)" in markdown


def test_a_number_outside_its_band_is_marked(tmp_path):
    store(tmp_path)
    assert 'class="outside"' not in made(tmp_path)[0]
    store(tmp_path / "low", p_test=0.9)
    assert 'class="outside"' in made(tmp_path / "low")[0]


def test_other_data_are_shown_and_compared_with_nothing(tmp_path):
    store(tmp_path, dataset="digits")
    checker = checked(made(tmp_path)[0])
    assert "not of MNIST" in checker.text and ".9887" not in checker.text


def test_damaged_and_unfinished_folders_are_listed(tmp_path, capsys):
    store(tmp_path)
    (store(tmp_path, "cnn_01") / "metrics.json").write_text("{")
    (store(tmp_path, "cnn_02") / "metrics.json").unlink()
    html, markdown = made(tmp_path)
    for text in (checked(html).text, markdown):
        assert "cnn_01/seed-0" in text and "cnn_02/seed-0" in text
    arguments = ["report", "--runs", str(tmp_path), "--html", str(tmp_path / "r.html")]
    assert cli.main(arguments) == 2
    assert "cnn_01" in capsys.readouterr().err and (tmp_path / "r.html").is_file()
    (tmp_path / "recognition_rotation/mnist/standard/cnn_01/seed-0/metrics.json").unlink()
    # Unfinished is no error.
    assert cli.main(arguments) == 0


@pytest.mark.parametrize("curves", ["", "digit,parameter\n3,x\n", "\x00"])
def test_awkward_curves_do_no_harm(tmp_path, curves):
    (store(tmp_path) / "curves.csv").write_text(curves)
    checked(made(tmp_path)[0])


def test_a_number_that_is_none_or_not_a_number(tmp_path):
    folder = store(tmp_path)
    metrics = folder.json("metrics.json")
    write_json(folder / "metrics.json", metrics | {"p_out": None})
    assert "—" in checked(made(tmp_path)[0]).text
    (folder / "metrics.json").write_text((folder / "metrics.json").read_text().replace("0.01", "NaN"))
    checked(made(tmp_path)[0])


def test_pictures_are_inside_the_page(tmp_path):
    from invariance import figures

    folder = store(tmp_path)
    picture = figures.curves_together({"a": [{0: 1, 1: 2}]}, "angle, degrees", "t")
    figures.save(picture, folder / "accuracy_by_angle.png")
    # The run's own, and the one of all models together.
    assert checked(made(tmp_path)[0]).pictures == 2


def test_seeds_are_drawn_as_one_curve(tmp_path):
    for seed in range(2):
        store(tmp_path, "cnn_00", seed)
        store(tmp_path, "cnn_01", seed)
    text = checked(made(tmp_path)[0]).text
    assert "mean of the digits 3 and 4; shaded: from the lowest to the highest of its seeds" in text
    assert "Between trainings of one model (pooled: 2 models, 4 runs)" in text
    assert "Is a difference between models more than chance" in text and "cnn_01 − cnn_00 (2, 2; p ≥ 0.333)" in text


def test_claims_on_the_terminal(tmp_path, capsys):
    store(tmp_path)
    assert cli.main(["report", "--runs", str(tmp_path), "--claims"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("R1  reproduced (one seed): ")
    assert "R2  not yet tested" in printed and "make recognition-rotation PROFILE=standard" in printed


def test_a_run_that_is_there_twice_counts_once(tmp_path, capsys):
    """`make report` reads one's own runs and the committed ones, which may be the same."""
    own, committed = tmp_path / "own", tmp_path / "committed"
    store(own)
    twice = store(committed)
    store(committed, seed=1, p_test=0.96)
    folders = ("--runs", str(own), "--runs", str(committed), "--runs", str(own))
    assert cli.main(["report", *folders]) == 0
    out = capsys.readouterr().out
    assert ".9700" in out and "±.0141, 2 seeds" in out
    assert out.count("left out") == 1 and f"{twice.path}: left out" in out


def test_hundreds_of_runs_in_seconds(tmp_path):
    for seed in range(300):
        store(tmp_path, f"cnn_{seed % 3:02}", seed)
    began = time.perf_counter()
    checked(made(tmp_path)[0])
    # It takes about a second; the margin is for a busy machine.
    assert time.perf_counter() - began < 15
