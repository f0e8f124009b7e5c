"""Damages files of runs, gives options odd texts, and judges how commands answer."""

import csv
import io
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass

from PIL import Image

from invariance import cli
from invariance.cli.run import parser
from tests.chaos import kills, process
from tests.chaos.comparison import differences
from tests.chaos.kills import TRACEBACK, Ended
from tests.helpers import PATIENCE, store_run

# How a command may answer an input. Good: it names the damage in one line; what it prints is what it prints without the
# damage; what was damaged is still a value that could have been there, so that no reader can know.
GOOD = ("one line", "no effect", "plausible")
BAD = ("traceback", "wrongly accepted", "hang")
# Who reads a file.
READERS = {
    "config.json": ("report", "list", "repeat"),
    "metrics.json": ("report", "list", "repeat"),
    "curves.csv": ("page",),
    "model.keras": ("evaluate",),
}
SPACING = "45"
# P_test of the other run in the folder, which must be reported whatever the damage.
OTHER = ".9800"


@dataclass(frozen=True)
class Answer:
    """How a command answered an input: kind of input, outcome (of `GOOD` or `BAD`), and a description."""

    kind: str
    outcome: str
    what: str


def forked(action, folder, patience=PATIENCE):
    """Calls an action in a child process, in a working folder. TensorFlow must not have been loaded."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            _child(action, folder, out.fileno(), err.fileno())
        deadline, status = time.monotonic() + patience, None
        while status is None:
            done, result = os.waitpid(pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(result)
            elif time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            else:
                time.sleep(0.01)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
        return Ended(status, *texts)


def _child(action, folder, out, err):
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
        code = action() or 0
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


# Damage: functions of a path and a random generator, which return what they did


def truncated(path, rng):
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut at {size}"


def flipped(path, rng):
    content = bytearray(path.read_bytes())
    places = [rng.randrange(len(content)) for _ in range(rng.choice((1, 1, 1, 8)))]
    for place in places:
        content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"flipped at {', '.join(map(str, places))}"


def linked(path, rng):
    target = rng.choice(("elsewhere", "nowhere", "/dev/zero", "/dev/null", "."))
    if target == "elsewhere":
        path.rename(path.with_name("elsewhere"))
    else:
        path.unlink()
    path.symlink_to(target)
    return f"link to {target}"


def irregular(path, rng):
    path.unlink()
    kind = rng.choice(("folder", "pipe"))
    (os.mkdir if kind == "folder" else os.mkfifo)(path)
    return kind


def swapped(path, rng):
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other.name not in (path.name, ".lock")]
    other = rng.choice([other for other in others if other.suffix == path.suffix] or others)
    shutil.copy(other, path)
    return f"content of {other.name}"


def removed(path, rng):
    path.unlink()
    return "removed"


def other_value(path, rng):
    """Another value in a field of a JSON file or a cell of a CSV file."""
    if path.suffix == ".csv":
        heads, *rows = csv.reader(io.StringIO(path.read_text()))
        row, column = rng.randrange(len(rows)), rng.randrange(len(heads))
        rows[row][column] = text = rng.choice(("", "nan", "inf", "-1", "1e300", "x", "\x1b[31m", "<b>", "0.5", "3"))
        with open(path, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([heads, *rows])
        return f"{heads[column]} in row {row} is {text!r}"
    document = json.loads(path.read_text())
    keys, inner = [], document
    while not keys or (isinstance(inner, (dict, list)) and inner and rng.random() < 0.5):
        holder, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        keys, inner = [*keys, str(key)], inner[key]
    if rng.random() < 0.15:
        del holder[key]
        text = "missing"
    else:
        holder[key] = _any_json(rng)
        text = json.dumps(holder[key])[:60]
    path.write_text(json.dumps(document, indent=1) + "\n")
    return f"{'.'.join(keys)} is {text}"


def _any_json(rng, depth=0):
    kinds = [
        lambda: None, lambda: rng.random() < 0.5, lambda: rng.choice((-3, 5.0, 1e300, 10**30, math.nan, math.inf, 0)),
        lambda: rng.uniform(-2, 2), lambda: any_text(rng), lambda: "[" * rng.randint(1, 3000),
    ]  # fmt: skip
    if depth < 3:
        kinds += [
            lambda: [_any_json(rng, depth + 1) for _ in range(rng.randint(0, 3))],
            lambda: {any_text(rng): _any_json(rng, depth + 1) for _ in range(rng.randint(0, 3))},
        ]
    return rng.choice(kinds)()


def any_text(rng):
    """A text of any characters, or one that has a meaning somewhere."""
    if rng.random() < 0.5:
        return rng.choice((
            "", " ", ",", "-", "--", "=", "..", "/", "~", "nan", "inf", "-inf", "1e999", "-0", "1_0", "0x1", "1.5", "3,3",
            "3-1", "9" * 20, "30%", "0..0", "1..", "full", "none", "all", "auto", "a=b", "a=1,a=2", "x" * 300, "../../x",
            "...npz", "\x1b[31m", "a\nb", "\u202e", "$\\frac{$", "<img src=x>", "| a | b", "K0", "no.py:build",
        ))  # fmt: skip
    return "".join(chr(rng.choice((rng.randint(32, 126), rng.randint(0, 0x2FF)))) for _ in range(rng.randint(1, 12)))


DAMAGES = (truncated, flipped, other_value, linked, irregular, swapped, removed)


# Judging


def plausible(path, original):
    """Whether a file, though damaged, holds values of the same kinds as before, none out of its bounds."""
    if not os.path.lexists(path):
        return path.suffix == ".png"  # committed folders have fewer figures
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
            return True
        if path.suffix == ".json":
            documents = [json.loads(each, parse_constant=_no_number) for each in (original, path.read_bytes())]
            return _alike(*documents)
        if path.suffix == ".csv":
            tables = [list(csv.reader(io.StringIO(each.decode()))) for each in (original, path.read_bytes())]
            (heads, *rows), (new_heads, *new_rows) = tables
            return heads == new_heads and _alike(_columns(heads, rows), _columns(heads, new_rows))
    except (ValueError, SyntaxError, OSError, csv.Error):  # the second and third are Pillow's
        pass
    return False


def _no_number(text):
    raise ValueError(text)


def _columns(heads, rows):
    """The columns of a table, by their names; a row of another length is a ValueError."""
    rows = [[float(cell) if cell[-1:].isdigit() else cell for cell in row] for row in rows]
    return dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True))


# Angles and the like.
ANY_SIGN = ("parameter", "dy", "dx", "protocol")


def _alike(old, new, signed=False):
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_alike(old[key], new[key], signed or key in ANY_SIGN) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_alike(*each, signed) for each in zip(old, new, strict=True))
    if any(type(each) not in (int, float) for each in (old, new)):
        return type(old) is type(new) and (not isinstance(new, str) or (new != "") == (old != ""))
    if signed:
        return math.isfinite(new)
    # A share stays one; what is positive stays so.
    return math.isfinite(new) and (old < 0 or new >= 0) and (not 0 <= old <= 1 or new <= 1 or old == int(old))


def answered(ended, said):
    """How a command ended, if that alone decides it: "hang", "traceback", "one line"; else None.

    ``said`` is what must not be lost from its output, because it does not concern the damage.
    """
    lines = ended.err.splitlines()
    if ended.code is None:
        return "hang"
    if TRACEBACK in ended.out + ended.err or ended.code not in (0, 1, 2) or len(lines) != (ended.code != 0):
        return "traceback"
    if said not in ended.out:
        return "wrongly accepted"
    return "one line" if ended.code else None


class Bench:
    """Commands that read the folder of a finished run, beside another good one.

    Args:
        family: the run.
        whole: the same run, finished.
        scratch: an empty folder to work in.
    """

    def __init__(self, family, whole, scratch):
        self.family, self.scratch, self.runs = family, scratch, scratch / "runs"
        self.source = family.folder(whole.runs).path
        self.folder = family.folder(self.runs).path
        self.usual = {}
        store_run(self.runs)
        pictures = [name for name in family.declared.task.pictures() if (self.source / name).exists()]
        self.readers = {name: by for name, by in READERS.items() if (self.source / name).exists()}
        self.readers |= dict.fromkeys(pictures, ("page",))

    def restore(self):
        """Puts the run's folder back as it was."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.source, self.folder)

    def command(self, name):
        """Carries out a command: how it ended, with what it wrote to a page in its output."""
        runs, page = str(self.runs), self.scratch / "page"
        page.unlink(missing_ok=True)
        actions = {
            "report": lambda: cli.main(["report", "--runs", runs, "--markdown", str(page)]),
            "page": lambda: cli.main(["report", "--runs", runs, "--html", str(page)]),
            "list": lambda: cli.main(["list", "--runs", runs]),
            "repeat": lambda: cli.run_experiment(self.family.declared, self.family.argv(runs)),
            "evaluate": lambda: cli.main(["evaluate", str(self.folder), "--grid-spacing", SPACING]),
        }
        ended = forked(actions[name], self.scratch)
        written = page.read_text(encoding="utf-8") if page.exists() else ""
        return Ended(ended.code, ended.out + written, ended.err)

    def undamaged(self, name):
        """What a command prints of the undamaged folder.

        Raises:
            RuntimeError: if it fails.
        """
        if name not in self.usual:
            self.restore()
            ended = self.command(name)
            if ended.code != 0 or ended.err:
                raise RuntimeError(f"{name} of an undamaged run ended with code {ended.code}: {ended.err}")
            self.usual[name] = ended.out
        return self.usual[name]

    def damage(self, rng):
        """Damages a file at random, and has a command read it."""
        name = rng.choice(sorted(self.readers))
        if name == "model.keras" and rng.random() < 0.7:  # this takes far longer than all the others
            name = "metrics.json"
        action, reader = rng.choice(DAMAGES), rng.choice(self.readers[name])
        if (name, action) == ("metrics.json", removed) and reader == "repeat":
            reader = "report"  # the run would begin again
        if action is other_value and not name.endswith((".json", ".csv")):
            action = flipped
        usual = self.undamaged(reader)
        self.restore()
        path, original = self.folder / name, (self.source / name).read_bytes()
        what = f"{reader} of {name}, {action(path, rng)}"
        before = contents(self.folder)
        ended = self.command(reader)
        outcome = answered(ended, OTHER if reader in ("report", "page") else "")
        if contents(self.folder) != before:
            what, outcome = f"{what}: changed the folder", "wrongly accepted"
        if outcome is None:
            if ended.out == usual:
                outcome = "no effect"
            elif str(path) in ended.out or f"{self.folder}: " in ended.out.replace(f"{self.folder}: finished", "") or (
                f"without {name}" in ended.out or f"and {name}" in ended.out
            ):
                outcome = "one line"
            else:
                outcome = "plausible" if plausible(path, original) else "wrongly accepted"
        return Answer(f"file {action.__name__.replace('_', ' ')}", outcome, f"{what} -> {ended.err.strip()[-200:]}")

    def options(self, rng):
        """Gives an option any text. No run is begun."""
        made = parser(self.family.declared)
        known = [each.option_strings[0] for each in made._actions if each.nargs != 0 and each.option_strings]
        option, kind = rng.choice(known), rng.choice(("any", "any", "empty", "control", "twice"))
        text, must_be_refused = any_text(rng), kind != "any"
        if kind == "empty":
            text = rng.choice(("", " ", "\t"))
            must_be_refused = option not in ("--restricted", "--excluded")  # none of them
        elif kind == "control":
            text = f"a{rng.choice(chr(27) + chr(10) + chr(0) + chr(7))}b"
        given = [f"{option}={text}"]
        if kind == "twice":
            option, text = rng.choice((("--models", self.family.model), ("--seed", "1"), ("--excluded", "6")))
            given = [option, text] * 2
        folder = self.scratch / "empty"
        folder.mkdir(exist_ok=True)
        argv = ["--profile", "smoke", "--dataset", "digits", "--print-config", *given]
        ended = forked(lambda: cli.run_experiment(self.family.declared, argv), folder)
        outcome = answered(ended, "") or ("wrongly accepted" if must_be_refused else "plausible")
        if any(folder.iterdir()):
            outcome = "wrongly accepted"
        return Answer(f"option {kind}", outcome, f"{given} -> {ended.err.strip()[-200:]}")

    def checkpoint(self, whole, rng):
        """Damages the checkpoint of a run that was killed, and repeats its command.

        It names the damage, and --overwrite starts again; or it ends as if nothing had happened.
        """
        runs, record = self.scratch / "unfinished", self.scratch / "calls"
        record.unlink(missing_ok=True)
        shutil.rmtree(runs, ignore_errors=True)
        saved = [number for number, call in enumerate(whole.calls, 1) if call == "replace checkpoint.npz"]
        order = process.order(rng.choice(saved), True, signal.SIGKILL, "all")
        kills.finish(kills.start(self.family.module, self.family.argv(runs), record, runs, order))
        folder = self.family.folder(runs).path
        path = rng.choice(sorted(folder.rglob("checkpoint.npz")))
        action = rng.choice([each for each in DAMAGES if each is not other_value])
        what = f"resuming from {path.relative_to(folder)}, {action(path, rng)}"
        before = contents(folder)
        ended = kills.finish(kills.start(self.family.module, self.family.argv(runs), record, runs))
        outcome = answered(ended, "")
        if outcome == "one line" and {**contents(folder), "history.csv": ""} != {**before, "history.csv": ""}:
            what, outcome = f"{what}: changed the folder", "wrongly accepted"
        if outcome is None:
            (folder / "elsewhere").unlink(missing_ok=True)
            wrong = differences(folder, self.source)
            what, outcome = f"{what}{': ' if wrong else ''}{', '.join(wrong)}", "wrongly accepted" if wrong else "no effect"
        return Answer(f"checkpoint {action.__name__}", outcome, f"{what} -> {ended.err.strip()[-200:]}")


def contents(folder):
    """Everything in a folder but its lock: name -> content, or what it is."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.name == ".lock":
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else oct(path.lstat().st_mode)
    return found
