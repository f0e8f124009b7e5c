"""What the variables of make hold is text: it reaches the command as it is, and nothing executes it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers import PATIENCE, REPOSITORY

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
# Whatever a shell or make would execute creates a file.
HOSTILE = (
    '\'; touch 1; `touch 2` $(touch 3) $(shell touch 4) ${SHELL} "; touch 5; " \\ $$x $x ~ * #\n\ttouch 6\n'
    "&& touch 7 || a  b"
)
SHOW = '"""Prints its command line."""\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n'
VARIABLES = ("PROFILE", "DATASET", "SEED", "RUNS", "JOBS", "PRECISION", "MODELS")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A repository whose environment is made, and whose commands print their command lines."""
    folder = tmp_path_factory.mktemp("make")
    for name in ("experiments/show.py", "invariance/__main__.py", "pytest.py", "tests/chaos.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(SHOW)
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name in (".ready", ".ready-notebooks"):
        (folder / ".venv" / name).touch()
    return folder


def make(folder, *argv, **environment):
    """Runs make, not as a part of the make that runs these tests: (exit code, standard error, command line or None)."""
    inherited = {
        name: value for name, value in os.environ.items()
        if not name.startswith(("MAKE", "MFLAGS", "PYTHON")) and name not in (*VARIABLES, "ARGS")
    }  # fmt: skip
    done = subprocess.run(
        ["make", *argv], cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stderr, json.loads(done.stdout) if done.stdout.startswith("[") else None


def options(values):
    """The command line of an experiment."""
    return [word for name in VARIABLES for word in (f"--{name.lower()}", values[name])]


def test_usual_values(place):
    usual = ["--profile", "quick", "--dataset", "auto", "--runs", "runs", "--jobs", "1", "--precision", "float32"]
    assert make(place, "show") == (0, "", usual)
    # Some experiments have seeds of their own; a seed that is asked for replaces them.
    assert make(place, "show", SEED="3")[2] == [*usual[:4], "--seed", "3", *usual[4:]]
    assert make(place, "show", "MODELS=a,b", "RUNS=~/x")[2] == [
        *usual[:5], os.path.expanduser("~/x"), *usual[6:], "--models", "a,b",
    ]  # fmt: skip


# Neither an environment nor a command line can hold a NUL; make itself removes blanks before a value.
@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.text(st.sampled_from("a '\"`$();|&<>#\\\n\t~*=:%é"), min_size=1, max_size=12).filter(str.strip), st.booleans()
)
@example(HOSTILE, True)
@example(HOSTILE, False)
@example("$(shell touch 8)", True)
def test_any_text_reaches_the_command(place, text, on_the_command_line):
    text = f"x{text}"
    before = sorted(place.rglob("*"))
    values = dict.fromkeys(VARIABLES, text)
    if on_the_command_line:
        done = make(place, "show", *(f"{name}={text}" for name in VARIABLES))
    else:
        done = make(place, "show", **values)
    assert done == (0, "", options(values))
    assert sorted(place.rglob("*")) == before


def test_other_targets_quote_likewise(place):
    runs = HOSTILE.replace("\n", " ").replace("/", "")
    before = sorted(place.iterdir())
    code, err, line = make(place, "report", f"RUNS={runs}")
    assert (code, err) == (0, "") and line[:3] == ["report", "--runs", runs] and f"{runs}/report.html" in line
    assert sorted(place.iterdir()) == sorted([*before, place / runs])
    code, _, line = make(place, "notebooks", f"RUNS={runs}")
    assert code == 0 and line == ["notebooks", "--runs", runs, "notebooks/*.ipynb"]
    for target in ("help", "show"):
        make(place, target, f"PYTHON={HOSTILE}")
    assert sorted(place.iterdir()) == sorted([*before, place / runs])


def test_further_options_are_split_as_by_a_shell_and_not_executed(place):
    arguments = "--set 'a=1, b' --excluded '' \"--runs=x y\" ; touch 9 $(touch 9) `touch 9` *"
    words = ["--set", "a=1, b", "--excluded", "", "--runs=x y", ";", "touch", "9", "$(touch", "9)", "`touch", "9`", "*"]
    for target in ("show", "bench", "test", "chaos", "notebooks"):
        assert make(place, target, f"ARGS={arguments}")[2][-len(words) :] == words
    assert not (place / "9").exists()
    code, err, line = make(place, "show", "ARGS='")
    assert code == 2 and line is None and err.startswith("error: ARGS: No closing quotation\n")
