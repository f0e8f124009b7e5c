"""Output that cannot be written is lost, and the work goes on. Commands whose result it is say so."""

import io
import os
import sys
import tempfile

import pytest

from invariance import output
from invariance.output import Output, printable, temporary_file
from invariance.progress import Progress
from tests.helpers import Screen, assert_one_line, python

# A command that prints, forks, and leaves a file: its result, or not all of it, is what it prints.
COMMAND = """
import os, sys
from pathlib import Path
from invariance import output
from invariance.cli.arguments import guarded
from invariance.processes import in_child
from invariance.progress import Progress

def work():
    for number in range(2000):
        Progress("run").line(f"\\u00b7 step {number}")
    # Descriptors 0 to 2 are taken, so that what C++ code prints cannot reach a file.
    result = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    assert result > 2
    os.write(result, b"trained")

def command():
    Progress("").line("\\u00b7 begun")
    in_child(work)
    print("\\u00b7 done")
    if sys.argv[2] == "printed":
        output.require_written()

sys.exit(guarded(command))
"""


def ended(tmp_path, kind, redirected, **environment):
    """Runs the command, with its output redirected by a shell: (exit code, output, standard error)."""
    path = tmp_path / "result"
    done = python(
        "-c", "import os, sys; os.execvp('sh', ['sh', '-c', sys.argv[1], *sys.argv[2:]])",
        f'"$0" -c "$1" "$2" "$3" {redirected}', sys.executable, COMMAND, path, kind, env=os.environ | environment,
    )  # fmt: skip
    assert path.read_bytes() == b"trained"
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "redirected", [">/dev/full", ">&-", "| head -n 1 >&2; exit 0", "<&- >&- 2>&-", ">/dev/full 2>&1"]
)
def test_output_never_ends_the_work(tmp_path, redirected):
    code, out, err = ended(tmp_path, "work", redirected)
    assert (code, out, err) == (0, "", "· begun\n" * ("head" in redirected))


@pytest.mark.parametrize(
    "redirected, code",
    # A closed stream, or a reader that goes away, is what the user wants.
    [(">&-", 0), ("| head -n 1 >/dev/null; exit 0", 0), (">/dev/full", 1)],
)
def test_result_that_could_not_be_printed(tmp_path, redirected, code):
    ended_with, _, err = ended(tmp_path, "printed", redirected)
    assert ended_with == code
    if code:
        assert_one_line(err, "cannot write to standard output: No space left on device")
    else:
        assert err == ""


def test_terminal_that_lacks_a_character(tmp_path):
    code, out, err = ended(tmp_path, "printed", "", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (code, err) == (0, "") and out.startswith("? begun\n? step 0\n") and out.endswith("? step 1999\n? done\n")


class Failing(io.StringIO):
    """A stream on a disk that is full from the second write on."""

    writes = 0

    def write(self, text):
        self.writes += 1
        if self.writes > 1:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_first_failure_ends_the_output_and_nothing_else():
    stream = Failing()
    shown = Output.of(stream)
    assert Output.of(shown) is shown
    for text in ("one\n", "two\n", "three\n"):
        print(text, end="", file=shown, flush=True)
    assert stream.getvalue() == "one\n" and stream.writes == 2 and shown.lost.errno == 28 and not shown.isatty()


def test_closed_stream():
    stream = io.StringIO()
    stream.close()
    for shown in (Output.of(stream), Output.of(None)):
        assert not shown.isatty()
        Progress("run", stream=shown).line("text")


def test_terminal_stays_a_terminal():
    assert Output.of(Screen(True)).isatty() and not Output.of(Screen(False)).isatty()


def test_streams_are_as_before_afterwards(capsys):
    before = sys.stdout, sys.stderr
    with output.unfailing():
        print("\udcff and \udcc3")
        output.complain(ValueError("two\nlines \x1b[31m"))
        output.require_written()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("? and ?\n", "error: two\\nlines \\x1b[31m\n")
    assert printable("½ a·b\t") == "½ a·b\\t"


def test_no_folder_for_temporary_files(monkeypatch, tmp_path):
    def none(*_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with temporary_file() as file:
        file.write(b"message")
        file.seek(0)
        assert file.read() == (b"message" if hasattr(os, "memfd_create") else b"")
    monkeypatch.setenv("TMPDIR", "nowhere")
    (tmp_path / "file").write_text("")
    output.provide_temporary_folder(str(tmp_path / "file" / "impossible"))
    assert os.environ["TMPDIR"] == "nowhere"
    output.provide_temporary_folder(str(tmp_path / "new"))
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path / "new")
