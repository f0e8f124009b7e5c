"""Any text in any option: a code of exit, at most one line, nothing begun for a mistake, nothing written elsewhere."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from experiments.generation_rotation import EXPERIMENT as DRAWING
from experiments.recognition_rotation import EXPERIMENT as RECOGNITION
from invariance.cli import commands, main, run_experiment, run_suite, run_sweeps
from invariance.cli.run import parser
from invariance.datasets import Data
from invariance.errors import UserError
from invariance.experiment import Part, Suite
from invariance.sweeps import HALF_WIDTH, Sweep
from tests.helpers import in_this_process, store_run

SUITE = Suite("both", "Both", (Part(RECOGNITION, ("cnn_00",)), Part(DRAWING, ("ae_rotation",))))
SWEEPS = (Sweep(RECOGNITION, ("baseline",), HALF_WIDTH, (15,), seeds=(0,)),)
RUN = "stored/recognition_rotation/mnist/standard/cnn_00/seed-0"

# The same examples every time. A process with TensorFlow is slow to begin with.
REPRODUCIBLE = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Texts that resemble values, and paths that exist or lead elsewhere.
RESEMBLING = st.sampled_from([
    "", ",", ",,", "-", "--", "=", "..", ".", "/", "~", "~/", "''", " ", "\t", "\n", "a\nb", "\x1b[31m", "\x00",
    "\udcff",
    # Numbers, and what Python takes for numbers.
    "١", "٣,٤", "nan", "inf", "-inf", "1e999", "1e-9", "1e-320", "-0", "+1", "1_0", "0x1", "1.5", "0.036", "3", "3,3",
    "3,", "3-1", "0-", "0-999", f"{2**32 - 1}", f"{2**32 - 1}-{2**32}", "9" * 20, "30%", "1e300%", "%", "0..0",
    "-1e9..1e9", "1..", "..1", "1..2..3", ",".join("1" * 300), ",".join(map(str, range(300))),
    # Names
    "full", "none", "None", "true", "all", "auto", "mnist", "digits", "standard", "bfloat16", "unrestricted", "cnn_00",
    "cnn_00,cnn_00", "cnn_99", "own.py:build", "./own.py:build,own.py:build", "no.py:build", "own.py:", ":",
    "folder.py:build", "x" * 300,
    # Pairs
    "a=b", "a=1,a=2", "=1", "units=", "units=0", "units=1e3", "units=9999999999", "units=8,units=9", "code_size=3",
    "dropout=nan", "dropout=none", "moving_average_decay=2", "double_softmax=1", "regulariser=../../up",
    "regulariser=\n",
    # Paths that exist, lead elsewhere, or cannot be
    "own.npz", "...npz", "..npz", ".npz", "up/...npz", "a\nb.npz", "mnist.npz", "no.npz", "own.npz/x", "folder",
    "folder/", "folder/new", "own.py/new", "new/../..", "stored", "notes.ipynb", "no.ipynb", "pipe", "pipe/new", RUN,
    f"{RUN}/metrics.json", f"{RUN}/new.json", "y/" * 2000, f"{'z' * 300}.npz",
])  # fmt: skip
ANY = st.text(st.characters(exclude_categories=()), max_size=12)
TEXT = RESEMBLING | ANY | st.lists(RESEMBLING, max_size=3).map(",".join)


def with_values(made):
    """The options of a parser that take a value, and its positional arguments (as empty texts)."""
    return [(action.option_strings or [""])[0] for action in made._actions if action.nargs != 0]


def command_lines(options, most=2):
    """Command lines of some options with any texts, as one word or two."""

    def words(pair, joined):
        option, text = pair
        return [text] if not option else [f"{option}={text}"] if joined else [option, text]

    option = st.builds(words, st.tuples(st.sampled_from(options), TEXT), st.booleans())
    return st.lists(option, min_size=1, max_size=most).map(lambda lists: [word for each in lists for word in each])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a run, data, a builder and a notebook, where nothing slow begins; and what is begun."""
    folder = tmp_path_factory.mktemp("place") / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder.py").mkdir()
    (folder / "up").mkdir()
    store_run(folder / "stored")
    images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 10
    for name in ("own", "..", ".", "mnist", "up/..", "a\nb"):
        np.savez(folder / f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    (folder / "own.py").write_text("def build(*_): ...\n")
    (folder / "notes.ipynb").write_text("{}")
    os.mkfifo(folder / "pipe")
    begun = []

    def carry_out(configs, runs, *_):
        begun.extend((config.folder(runs).path, Path(runs)) for config in configs)
        return []

    def download(name, say):
        raise UserError("no network")

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        in_this_process(patch)
        patch.setattr("invariance.cli.run.carry_out", carry_out)
        patch.setattr("invariance.cli.run.forecast", lambda *_: None)
        patch.setattr("invariance.cli.run.load_data", lambda *_: Data("own", images, labels, images, labels, "here"))
        patch.setattr("invariance.datasets._prepared", lambda name: None)
        patch.setattr("invariance.datasets._download", download)
        patch.setattr("invariance.runs.evaluate.evaluate", lambda *_: None)
        patch.setattr("invariance.runs.evaluate.evaluate_orbit", lambda *_: None)
        patch.setattr("invariance.notebooks.execute_all", lambda *_: None)
        patch.setattr("invariance.benchmark.main", lambda *_: None)
        patch.setattr("invariance.report.page.Page.html", lambda page: "page")
        patch.setattr("invariance.cli.commands.write_text", lambda path, text: begun.append(path))
        yield folder, begun


def files(folder):
    """Everything below a folder, with what the files hold."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def outcome(action):
    """Calls a command: (exit code, its one line on standard error or "")."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = action()
        except SystemExit as end:  # of --help
            code = end.code
    line = err.getvalue()
    assert code in (0, 1, 2), code
    assert line.count("\n") == (code != 0) and line[:-1].isprintable() and line.startswith("error: " * (code != 0)), (
        line
    )
    return code, line


EXPERIMENTS = {
    "recognition": (RECOGNITION, lambda argv: run_experiment(RECOGNITION, argv)),
    "drawing": (DRAWING, lambda argv: run_experiment(DRAWING, argv)),
    "suite": (RECOGNITION, lambda argv: run_suite(SUITE, argv)),
    "sweeps": (RECOGNITION, lambda argv: run_sweeps("dose", "Title", SWEEPS, argv)),
}


@pytest.mark.parametrize("name, examples", [("recognition", 400), ("drawing", 250), ("suite", 60), ("sweeps", 80)])
def test_experiments(place, name, examples):
    folder, begun = place
    experiment, command = EXPERIMENTS[name]
    # The first wins where a text makes them meet: digits are at hand.
    usual = ["--dataset", "own.npz", "--quiet"]

    @settings(REPRODUCIBLE, max_examples=examples)
    @given(command_lines(with_values(parser(experiment))))
    @example(["--dataset", "...npz"])
    @example(["--dataset", "a\nb.npz"])
    @example(["--grid=--"])
    def holds(argv):
        before = files(folder)
        begun.clear()
        code, _ = outcome(lambda: command([*usual, *argv]))
        # A mistake begins nothing.
        assert not begun or code != 2
        assert files(folder) == before
        for path, runs in begun:
            # RUNS/experiment/dataset/profile/model/seed-n, wherever that leads.
            assert Path(os.path.abspath(path)).relative_to(os.path.abspath(runs)).parts == path.parts[-5:]
            assert all(len(os.fsencode(part)) <= 255 for part in path.parts)

    holds()


COMMANDS = {
    name: with_values(made)
    for action in commands._parser()._actions
    if isinstance(action.choices, dict)
    for name, made in action.choices.items()
}
# What makes a command line complete.
COMPLETE = {
    "report": ["--runs", "stored"],
    "list": ["--runs", "stored"],
    "evaluate": [RUN],
    "notebooks": ["notes.ipynb"],
}


@pytest.mark.parametrize(
    "name, examples", [("report", 60), ("list", 40), ("evaluate", 200), ("bench", 100), ("notebooks", 100)]
)
def test_commands(place, name, examples):
    folder, written = place
    assert set(COMMANDS) == {"report", "list", "evaluate", "bench", "notebooks"}

    @settings(REPRODUCIBLE, max_examples=examples)
    @given(command_lines(COMMANDS[name]), st.booleans())
    def holds(argv, complete):
        before = files(folder)
        written.clear()
        outcome(lambda: main([name, *(COMPLETE.get(name, []) if complete else []), *argv]))
        assert files(folder) == before and len(written) == len(set(map(os.path.realpath, written)))
        assert all(path.parent.is_dir() and (path.is_file() or not path.exists()) for path in written)
        assert not any((path.parent / "config.json").exists() for path in written if path.exists())

    holds()
