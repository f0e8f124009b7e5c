"""How commands answer inputs: they are called, and what they say is judged."""

import csv
import io
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass

from PIL import Image

from tests.chaos.kills import TRACEBACK, Ended
from tests.helpers import PATIENCE

# How a command may answer an input. Good: it names the damage in one line; what it prints is what it prints without the
# damage; what was damaged is still a value that could have been there, so that no reader can know.
GOOD = ("one line", "no effect", "plausible")
BAD = ("traceback", "wrongly accepted", "hang")


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
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(each, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
            for each in (1, 2)
        )
        code = action() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


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
            old, new = (json.loads(each, parse_constant=_no_number) for each in (original, path.read_bytes()))
            # Files of earlier versions lack some fields, those of later ones have others.
            common = old.keys() & new.keys()
            return not REQUIRED & (old.keys() - common) and all(
                _alike({key: old[key]}, {key: new[key]}) for key in common
            )
        if path.suffix == ".csv":
            tables = [list(csv.reader(io.StringIO(each.decode()))) for each in (original, path.read_bytes())]
            (heads, *rows), (new_heads, *new_rows) = tables
            return heads == new_heads and _alike(_columns(heads, rows), _columns(heads, new_rows))
    except (ValueError, AttributeError, SyntaxError, OSError, csv.Error):  # no object; Pillow's
        pass
    return False


def _no_number(text):
    raise ValueError(text)


def _columns(heads, rows):
    """The columns of a table, by their names; a row of another length is a ValueError."""
    rows = [[float(cell) if cell[-1:].isdigit() else cell for cell in row] for row in rows]
    return dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True))


# Fields that every version writes.
REQUIRED = {
    "experiment", "model", "dataset", "profile", "seed", "protocol", "p_test", "mse_in", "mse_out", "ratio",
}  # fmt: skip
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
