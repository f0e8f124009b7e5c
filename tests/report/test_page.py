"""The report's page: well-formed, self-contained, and complete."""

import json
import time
from html.parser import HTMLParser

import pytest

from experiments import recognition_rotation
from experiments.article.claims import CLAIMS
from invariance import cli, figures
from invariance.files import write_csv
from invariance.report.claims import judge
from invariance.report.page import Page
from invariance.report.table import tables
from invariance.runs.find import REPEATED, UNFINISHED, find
from tests.helpers import store_run

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
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def checked(html):
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == [] and checker.links == []
    assert "http" not in html and "@import" not in html and "url(" not in html
    return checker


def store(*args, **kwargs):
    """A finished run with curves of the digits 3, 4 and 5."""
    folder = store_run(*args, **kwargs)
    rows = [{"digit": digit, "parameter": 0, "value": digit / 10, "images": 10} for digit in (3, 4, 5)]
    write_csv(folder / "curves.csv", rows)
    return folder


def made(runs):
    """(HTML, Markdown)"""
    finished, others = find(runs)
    page = Page(finished, others, tables(finished, EXPERIMENTS), judge(CLAIMS, finished), EXPERIMENTS)
    return page.html(), page.markdown()


def text_of(runs):
    return checked(made(runs)[0]).text


def test_no_runs(tmp_path):
    html, markdown = made(tmp_path)
    assert "No finished runs." in checked(html).text and "not yet tested" in markdown
    # Style and script are files of their own, written into the page.
    assert "beforeprint" in html and ".outside" in html


def test_one_run_and_several_seeds(tmp_path):
    store(tmp_path, config={"commit": "abc<def>", "device": "a & b"})
    text = text_of(tmp_path)
    assert ".9800" in text and ".9887" in text and "abc<def>" in text and "a & b" in text
    store(tmp_path, "cnn_00", (0.96, 0.99, 0.2, 0.01), seed=1)
    for seed in range(2):
        store(tmp_path, "cnn_01", seed=seed)
    html, markdown = made(tmp_path)
    text = checked(html).text
    # The mean, the standard deviation, and each seed's value.
    assert ".9700 (±.0141, 2 seeds)" in markdown and "0:\u00a0.9800, 1:\u00a0.9600" in text
    assert "mean over classes 3 and 4; shaded: range over the seeds" in text
    assert "Between seeds of one model (pooled: 2 models, 4 runs)" in text
    assert "Do models differ by more than their seeds do?" in text and "cnn_01 − cnn_00 (2, 2; p ≥ 0.333)" in text


def test_numbers_outside_their_band_are_marked(tmp_path):
    store(tmp_path / "inside")
    assert 'class="outside"' not in made(tmp_path / "inside")[0]
    store(tmp_path / "low", "cnn_00", (0.9, 0.99, 0.2, 0.01))
    assert 'class="outside"' in made(tmp_path / "low")[0]


def test_models_that_never_answer_a_class_are_marked(tmp_path):
    store(tmp_path, never_answers=[2])
    html, markdown = made(tmp_path)
    marked = "cnn_00 — never answers 2"
    # In both tables and above the run; in both tables and the list of runs.
    assert checked(html).text.count(marked) == 2 and "seed-0 — never answers 2" in html
    assert f"| {marked} |" in markdown and "seed-0 — never answers 2 |" in markdown
    # And beside the verdict on its numbers.
    assert "reproduced (one seed, cnn_00 never answers 2)" in html and "cnn_00 never answers 2).**" in markdown


def test_other_data_are_not_compared(tmp_path):
    store(tmp_path, dataset="digits")
    text = text_of(tmp_path)
    assert "NOT MNIST" in text and ".9887" not in text


def test_curves_average_each_runs_own_restricted_classes(tmp_path, monkeypatch):
    store(tmp_path, "cnn_00")
    protocol = recognition_rotation.TASK.to_json()
    protocol["ranges"]["restricted"] = {"5": protocol["ranges"]["restricted"]["3"]}
    store(tmp_path, "cnn_00+restricted=5", config={"protocol": protocol})
    drawn = {}

    def draw(curves, *_):
        drawn.update(curves)
        return figures.plt.figure()

    monkeypatch.setattr(figures, "curves_together", draw)
    text = text_of(tmp_path)
    got = {model: curves[0][0.0] for model, curves in drawn.items()}
    assert got == pytest.approx({"cnn_00": 0.35, "cnn_00+restricted=5": 0.5})
    assert "mean over the restricted classes" in text


PROTOCOL = recognition_rotation.TASK.to_json()
NOT_JSON = ("", "{", "\x00", "[]", "null")
# Fields that are replaced by something else; None removes the field.
DAMAGED = {
    "config.json": [
        *NOT_JSON, {"protocol": None}, {"protocol": 5}, {"protocol": {"kind": "recognition"}},
        *({"protocol": {**PROTOCOL, "kind": kind}} for kind in ("regression", "recognition_by_magic", 7)),
    ],
    "metrics.json": [
        *NOT_JSON, {"seed": None}, {"model": None}, {"p_test": None}, {"p_test": "high"}, {"p_out": 2},
        {"seed": "zero"}, {"images": 3}, {"train_seconds": "long"},
    ],
}  # fmt: skip


def test_damaged_runs_are_listed_and_the_others_are_shown(tmp_path, capsys):
    store(tmp_path)
    damaged = []
    for file, contents in DAMAGED.items():
        for content in contents:
            path = store(tmp_path, f"damaged_{len(damaged)}") / file
            if isinstance(content, dict):
                values = {**json.loads(path.read_text()), **content}
                content = json.dumps({key: value for key, value in values.items() if value is not None})
            path.write_text(content)
            damaged.append(path)
    assert [run.metrics["model"] for run in find(tmp_path)[0]] == ["cnn_00"]
    for text in made(tmp_path):
        assert ".9800" in text
        # The reason begins with the file.
        assert all(str(path) in text for path in damaged)
    arguments = ["report", "--runs", str(tmp_path), "--html", str(tmp_path / "r.html")]
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert ".9800" in printed.out and (tmp_path / "r.html").is_file()
    assert all(str(path) in printed.out and str(path.parent) in printed.err for path in damaged)


def test_unfinished_runs_are_listed_without_error(tmp_path):
    (store(tmp_path, "cnn_02") / "metrics.json").unlink()
    assert all("cnn_02/seed-0" in text and UNFINISHED in text for text in made(tmp_path))
    assert cli.main(["report", "--runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("curves", ["", "digit,parameter\n3,x\n", "\x00"])
def test_unreadable_curves_do_no_harm(tmp_path, curves):
    (store(tmp_path) / "curves.csv").write_text(curves)
    checked(made(tmp_path)[0])


def test_missing_and_infinite_numbers(tmp_path):
    folder = store(tmp_path, "cnn_00", (0.98, 0.99, None, 0.01))
    assert "—" in text_of(tmp_path)
    (folder / "metrics.json").write_text((folder / "metrics.json").read_text().replace("0.01,", "NaN,"))
    checked(made(tmp_path)[0])


def test_pictures_are_embedded(tmp_path):
    picture = figures.curves_together({"a": [{0: 1, 1: 2}]}, recognition_rotation.TASK, "t")
    figures.Picture("accuracy_by_angle.png", picture).save(store(tmp_path).path)
    # The run's own, and the one of all models.
    assert checked(made(tmp_path)[0]).pictures == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_damaged_pictures_are_not_shown(tmp_path, damage):
    path = store(tmp_path) / "accuracy_by_angle.png"
    picture = figures.curves_together({"a": [{0: 1}]}, recognition_rotation.TASK, "t")
    figures.Picture(path.name, picture).save(path.parent)
    content = path.read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:-20],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "other": b"GIF89a",
    }
    path.write_bytes(damaged[damage])
    page = made(tmp_path)[0]
    assert checked(page).pictures == 1 and f"Not shown: {path}: not a PNG, or damaged" in page


def test_claims_on_the_terminal(tmp_path, capsys):
    store(tmp_path)
    assert cli.main(["report", "--runs", str(tmp_path), "--claims"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("R1  reproduced (one seed): ")
    assert "R2  not yet tested" in printed and "make recognition-rotation PROFILE=standard" in printed


def test_a_run_found_twice_counts_once(tmp_path, capsys):
    """`make report` reads one's own runs and the committed ones, which may be the same."""
    own, committed = tmp_path / "own", tmp_path / "committed"
    store(own)
    twice = store(committed)
    store(committed, "cnn_00", (0.96, 0.99, 0.2, 0.01), seed=1)
    assert cli.main(["report", "--runs", str(own), "--runs", str(committed), "--runs", str(own)]) == 0
    out = capsys.readouterr().out
    assert ".9700" in out and "±.0141, 2 seeds" in out
    assert out.count(REPEATED) == 1 and f"{twice.path}: {REPEATED}" in out


def test_hundreds_of_runs_in_seconds(tmp_path):
    for seed in range(300):
        store(tmp_path, f"cnn_{seed % 3:02}", seed=seed)
    began = time.process_time()
    checked(made(tmp_path)[0])
    # A few seconds, most of them for the permutation tests; the margin is for a slow machine.
    assert time.process_time() - began < 20
