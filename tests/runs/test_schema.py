"""Files of runs may hold anything: each is read as a whole or named in one line; other runs are reported all the same.

Any JSON in any field, any bytes, any kind of file: commands exit with 0 or 2, say at most one line on standard error,
show the good run, and change nothing in the folders.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import recognition_rotation
from experiments.article import committed
from invariance import cli, schema
from invariance.cli import run_experiment
from invariance.errors import UserError
from invariance.files import read_csv, write_csv
from invariance.runs.execute import RunConfig
from invariance.runs.find import find
from invariance.runs.folder import RunFolder
from tests.helpers import in_this_process, refused, store_run

# The same examples every time, and few: all of this file takes half a minute.
BRIEF = settings(derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck], max_examples=100)
# A run of each kind of task, with all that such a folder may hold.
BASES = (
    "recognition_rotation/mnist/standard/cnn_bn_00/seed-0",
    "generation_rotation/mnist/standard/ae_rotation/seed-0",
    "tangents_rotation/mnist/standard/tangents/seed-0",
)
JSON_FILES = ("config.json", "metrics.json", "orbit.json")
NUMBERS = (
    st.integers() | st.integers(-1, 10) | st.integers(10**18, 10**400) | st.floats() | st.sampled_from((1e308, -0.0))
)
TEXTS = st.text() | st.sampled_from(
    ("../../x", "a\x1b[31mb", "<img src=x>", "$\\frac{$", "| a | b", "3", "K0", "\u202e")
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)
NOTHING = object()


@cache
def base(number):
    """{name of each file: content} of a finished run."""
    path = committed.RESULTS / BASES[number]
    files = {name: (path / name).read_bytes() for name in ("config.json", "metrics.json", "curves.csv")}
    config = json.loads(files["config.json"])
    once = {"device": "a", "commit": None, "versions": {"python": "3"}}
    config |= {"resumed": [once], "sweep": {"suite": "s", "varied": "dense"}, "builder_file": "no.py"}
    metrics = json.loads(files["metrics.json"]) | {"learned": {"period": 360.0}}
    files |= {"config.json": json.dumps(config).encode(), "metrics.json": json.dumps(metrics).encode()}
    if number == 0:
        pooled = {key: metrics[key] for key in ("p_test", "p_in", "interval")}
        files["orbit.json"] = json.dumps({"copies": 16, "told": "K3", "pooled": {"max": pooled}, **once}).encode()
    return files


def places(value, path=()):
    """The path of each value within a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@cache
def fields(number, name):
    return sorted(places(json.loads(base(number)[name])), key=lambda path: (len(path), str(path)))


@st.composite
def damaged_objects(draw):
    """(base, file, content): one field of a JSON file is anything, or missing."""
    number = draw(st.integers(0, len(BASES) - 1))
    name = draw(st.sampled_from([name for name in JSON_FILES if name in base(number)]))
    # The fields near the top more often than the hundreds of digits and points.
    known = fields(number, name)
    *path, last = draw(st.sampled_from([each for each in known if len(each) == 1]) | st.sampled_from(known[1:]))
    document = json.loads(base(number)[name])
    inner = document
    for key in path:
        inner = inner[key]
    if (value := draw(st.just(NOTHING) | JSON)) is NOTHING:
        del inner[last]
    else:
        inner[last] = value
    return number, name, json.dumps(document).encode("utf-8", "surrogatepass")


@st.composite
def damaged_bytes(draw):
    """(base, file, content): any bytes, or the right ones cut, or with others among them."""
    number = draw(st.integers(0, len(BASES) - 1))
    name = draw(st.sampled_from(sorted(base(number))))
    whole = base(number)[name]
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    return (
        number,
        name,
        draw(st.sampled_from((b"", whole[:start], whole[stop:])))
        + draw(st.binary(max_size=20))
        + draw(st.sampled_from((b"", whole[stop:]))),
    )


def contents(path):
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def assert_survived(runs, *argv):
    """A command on a folder of runs ends as it should. Returns its output."""
    before, out, err = contents(runs), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*argv, "--runs", str(runs)])
    out, err = out.getvalue(), err.getvalue()
    assert contents(runs) == before
    assert (code, err) == (0, "") or (code == 2 and err.startswith("error: ") and err.count("\n") == 1), err
    assert "cnn_00" in out and (argv[0] == "list" or ".9800" in out)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err)
    return out + err


@contextlib.contextmanager
def stored(number, name, content):
    """A folder of runs, in which one is good and another has a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        good, bad = store_run(runs), RunFolder(runs / BASES[number].replace("standard", "paper"))
        write_csv(
            good / "curves.csv", [{"digit": 3, "parameter": angle, "value": 0.5, "images": 9} for angle in (0, 9)]
        )
        bad.path.mkdir(parents=True)
        for each, usual in base(number).items():
            (bad / each).write_bytes(content if each == name else usual)
        yield runs, bad


def report(runs, page="--markdown"):
    """Reports runs, with a page. Returns what was printed and the page."""
    path = runs.parent / "page"
    out = assert_survived(runs, "report", page, str(path))
    text = path.read_text(encoding="utf-8")
    assert ".9800" in text
    return out, text


def test_bases_are_read():
    for number in range(len(BASES)):
        with stored(number, "", b"") as (runs, _):
            finished, others = find(runs)
            assert len(finished) == 2 and not others
            report(runs, "--html")


@BRIEF
@given(damaged_objects())
def test_any_value_in_any_field(damaged):
    with stored(*damaged) as (runs, _):
        report(runs)
        assert_survived(runs, "list")


@BRIEF
@given(damaged_bytes())
def test_any_bytes(damaged):
    with stored(*damaged) as (runs, _):
        report(runs)


@settings(BRIEF, max_examples=8)
@given(damaged_objects() | damaged_bytes())
def test_page_with_figures(damaged):
    with stored(*damaged) as (runs, _):
        report(runs, "--html")


@settings(BRIEF, max_examples=8)
@given(st.text(min_size=1) | TEXTS, st.text() | TEXTS)
def test_any_name(model, device):
    """In tables, pages, figures, and on the terminal. Names that cannot be those of folders are refused."""
    files = base(0)
    metrics = {**json.loads(files["metrics.json"]), "model": model}
    with stored(0, "metrics.json", json.dumps(metrics).encode()) as (runs, bad):
        config = json.loads(files["config.json"]) | {"device": device}
        del config["sweep"]
        (bad / "config.json").write_text(json.dumps(config))
        assert all("<img src" not in report(runs, page)[1] for page in ("--html", "--markdown"))
        assert_survived(runs, "list")


HOSTILE = "<img src=x> | [a](b) \x1b[31m"


def test_a_hostile_name_is_text(tmp_path):
    metrics = {**json.loads(base(0)["metrics.json"]), "model": HOSTILE}
    with stored(0, "metrics.json", json.dumps(metrics).encode()) as (runs, bad):
        config = json.loads(base(0)["config.json"])
        del config["sweep"]
        (bad / "config.json").write_text(json.dumps(config))
        out, markdown = report(runs)
        assert r"<img src=x> | [a](b) \x1b[31m" in out
        assert r"| &lt;img src=x> \| [a\](b) \\x1b[31m |" in markdown and "<img" not in markdown
        html = report(runs, "--html")[1]
        assert "&lt;img src=x&gt; | [a](b)" in html and "<img src" not in html


# Kinds of files


KINDS = {
    "link": lambda path, secret: path.symlink_to(secret),
    "dangling link": lambda path, _: path.symlink_to("nowhere"),
    "device": lambda path, _: path.symlink_to("/dev/zero"),
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "brackets": lambda path, _: path.write_text("[" * 200_000 + "]" * 200_000),
    "braces": lambda path, _: path.write_text('{"protocol": ' * 100_000),
    "deep field": lambda path, _: path.write_text('{"model_arguments": ' + "[" * 200 + "]" * 200 + "}"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*JSON_FILES, "curves.csv", "accuracy_by_angle.png"])
def test_what_is_no_regular_file(name, kind, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    with stored(0, "", b"") as (runs, bad):
        (bad / name).unlink(missing_ok=True)
        KINDS[kind](bad / name, secret)
        # Only pages have pictures, which take time.
        out, page = report(runs, "--html" if name.endswith("png") else "--markdown")
        assert "cm9vdDp4" not in page  # its first letters in base64
        if name in JSON_FILES:
            assert str(bad / name) in page and f"unreadable: {bad.path}" in out
        elif name.endswith("png"):
            assert f"Not shown: {bad / name}: " in page
        else:
            assert str(bad / name) in report(runs, "--html")[1]
        listed = assert_survived(runs, "list")
        if name == "curves.csv" and (bad / name).lstat().st_mode & 0o170000 != 0o100000:
            assert re.search(
                f"{re.escape(str(bad.path))}: finished, commit .*; without curves.csv and model.keras", listed
            )


@pytest.mark.parametrize("missing", JSON_FILES[:2])
def test_missing_files(missing):
    with stored(0, "", b"") as (runs, bad):
        (bad / missing).unlink()
        out, _ = report(runs)
        reason = "not finished" if missing == "metrics.json" else f"{bad / missing}: unreadable (No such file"
        assert f"{bad.path}: {reason}" in out


# What a table cannot show is refused: file, field, what was expected, what came


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p_out": 5.0}, "p_out: expected a number <= 1.0; received 5.0"),
        ({"p_out": -3}, "p_out: expected a number >= 0.0; received -3"),
        *(({"p_out": value}, f"p_out: expected a number or null; received {value!r}") for value in (True, "x", [1])),
        ({"model": None}, "model: expected a text; received None"),
        ({"model": ".."}, "model: expected the name of a folder; received '..'"),
        ({"experiment": "a/b"}, "experiment: expected the name of a folder; received 'a/b'"),
        ({"interval": "x"}, "interval: expected an object; received 'x'"),
        ({"seed": 2**32}, "seed: expected a whole number <= 4294967295; received 4294967296"),
        ({"train_seconds": 1e300}, "train_seconds: expected a number up to 1e+60; received 1e+300"),
        ({"never_answers": ["3"]}, "never_answers[0]: expected a whole number; received '3'"),
    ],
)
def test_numbers_that_cannot_be(tmp_path, change, reason):
    path = store_run(tmp_path) / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    finished, [(_, found)] = find(tmp_path)
    assert not finished and found == f"{path}: {reason}"


def test_hours_of_arithmetic_are_refused(tmp_path):
    """Ranges are compared with each other modulo a period."""
    protocol = recognition_rotation.TASK.to_json()
    store_run(tmp_path, "cnn_00", config={"protocol": {**protocol, "outside": [[0, 1e12]]}})
    many = [[number, number] for number in range(5000)]
    store_run(tmp_path, "cnn_01", config={"protocol": {**protocol, "outside": many, "inverted": many}})
    finished, others = find(tmp_path)
    assert not finished and ["up to 10000" in others[0][1], "more than 10,000 values" in others[1][1]] == [True, True]


def test_protocols_are_typed(tmp_path):
    """Texts are not taken for lists of digits, nor fractions for whole numbers."""
    protocol = recognition_rotation.TASK.to_json()
    odd = [
        {"excluded": "69"}, {"excluded": [6.5]}, {"inside": ["12", "34"]}, {"max_shift": True},
        {"ranges": {"default": ["12"]}},
    ]  # fmt: skip
    for number, change in enumerate(odd):
        store_run(tmp_path, f"cnn_{number}", config={"protocol": protocol | change})
    finished, others = find(tmp_path)
    assert not finished
    for (_, reason), change in zip(others, odd, strict=True):
        assert f"not a run's configuration (ValueError: {next(iter(change))}" in reason and "expected" in reason


def test_tables_of_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    for content, reason in {
        "a,b\n1\n": "row 1: expected 2 fields; received 1",
        "a,b\n1,2,3\n": "row 1: expected 2 fields; received 3",
        "a,a\n1,2\n": "a field is named twice",
        'a\n"1\n': "unexpected end of data",
        "a\n0.25": "the last line is cut off",
    }.items():
        path.write_text(content)
        with pytest.raises(UserError, match=reason):
            read_csv(path)
    folder = RunFolder(tmp_path)
    for content, reason in {
        "digit,parameter\n3,1\n": "lacks value",
        "digit,parameter,value\n3,1,nan\n": "value: expected a number up to",
        "digit,parameter,value\n3,1,-1\n": "value: expected a number >= 0.0; received -1",
        "digit,parameter,value\nthree,1,1\n": "digit: expected a whole number; received 'three'",
    }.items():
        (folder / "curves.csv").write_text(content)
        with pytest.raises(UserError, match=reason):
            folder.csv("curves.csv")


def test_curves_cut_between_two_lines(tmp_path):
    path = store_run(tmp_path) / "curves.csv"
    rows = [{"digit": digit, "parameter": angle, "value": 0.5, "images": 9} for digit in (3, 4) for angle in (0, 9)]
    [run], _ = find(tmp_path)
    write_csv(path, rows)
    assert run.curves() == rows
    write_csv(path, rows[:-1])
    with pytest.raises(UserError, match=f"^{path}: expected the same parameters for all classes; 4 differs$"):
        run.curves()


# The same command again


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """The folder of a finished run, and the command that would repeat it."""
    in_this_process(monkeypatch)
    monkeypatch.setattr("invariance.cli.run.carry_out", lambda *_: [])
    experiment = recognition_rotation.EXPERIMENT
    config = RunConfig(experiment.name, "smoke", "cnn_00", experiment.models["cnn_00"], experiment.task, "digits")
    folder = config.folder(tmp_path / "runs")
    shutil.copytree(store_run(tmp_path / "other").path, folder.path)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    metrics = json.loads((folder / "metrics.json").read_text()) | {"dataset": "digits", "profile": "smoke"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    options = ["--models", "cnn_00", "--profile", "smoke", "--dataset", "digits", "--runs", str(tmp_path / "runs")]
    return folder, lambda: run_experiment(experiment, [*options, "--quiet"])


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "{}": lambda path: path.write_text("{}"),
    "impossible": lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": -1')),
    "link": lambda path: path.rename(path.with_name("elsewhere")) and path.symlink_to("elsewhere"),
    "folder": lambda path: path.unlink() or path.mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", JSON_FILES[:2])
def test_damaged_results_are_not_finished_ones(finished, capsys, name, damage):
    folder, repeat = finished
    assert repeat() == 0 and capsys.readouterr().err == ""
    DAMAGED[damage](folder / name)
    before = contents(folder.path)
    refused(capsys, repeat, f"{folder / name}: ", "; --overwrite starts it again, another --runs keeps it")
    assert contents(folder.path) == before
    with folder.locked():
        folder.clear()
    assert os.listdir(folder.path) == [".lock"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(Exception, match=r"cannot use the run folder"), RunFolder(tmp_path / "run").locked():
        pass
    assert precious.read_text() == "kept"


# The vocabulary


def test_errors_say_what_was_expected_and_what_came():
    kind = schema.record(
        "object", {"share": schema.Share}, {"of.each": dict[schema.Label, schema.Count], "name": schema.Identifier}
    )
    schema.check({"share": 1, "of.each": {"3": 4}, "other": [{}]}, kind)
    for value, message in (
        ([], "expected an object; received []"),
        ({}, "lacks share"),
        ({"share": None}, "share: expected a number; received None"),
        ({"share": 1.5}, "share: expected a number <= 1.0; received 1.5"),
        ({"share": 0, "name": "a b"}, "name: expected an identifier; received 'a b'"),
        ({"share": 0, "of.each": {"x": 1}}, "a key of of.each: expected a class; received"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            schema.check(value, kind)
    with pytest.raises(ValueError, match=r"^a\[1\]\.b: expected a number up to 1e\+60; received nan$"):
        schema.bounded({"a": [1, {"b": float("nan")}]})


def test_odd_numbers_beside_each_other(tmp_path):
    """Of right types each, they are averaged and compared."""
    for seed, (share, learned) in enumerate(((1e-320, {"a": {"b": 1}}), (1 - 1e-16, {"a": 1.0}))):
        store_run(tmp_path / "runs", "cnn_01", (share,) * 4, seed, learned=learned)
    path = store_run(tmp_path / "runs") / "metrics.json"
    metrics = json.loads(path.read_text())
    # Without the numbers of which the overview speaks.
    path.write_text(json.dumps({key: value for key, value in metrics.items() if key not in ("p_out", "p_inv")}))
    report(tmp_path / "runs", "--html")
