"""``python -m tests.chaos.process MODULE ...``: a program that sends itself a signal when it changes a file.

The program knows nothing of it: the functions through which Python changes files are replaced before it starts. Calls
are counted over all of its processes, in a file with one line of fixed length each.
"""

import builtins
import io
import os
import runpy
import signal
import sys
from functools import wraps

# Environment variables: where calls are recorded; the folder whose files count; and the order to kill, see `order`.
RECORD, FOLDER, ORDER = "CHAOS_RECORD", "CHAOS_FOLDER", "CHAOS_ORDER"
WIDTH = 80
# Who receives the signal: all processes, the one that changes the file, or the one whose child that is.
TARGETS = ("all", "itself", "parent")


def order(call, after, number, target):
    """The text of an order: at which call (counted from 1), before or after it, which signal, sent to whom."""
    return f"{call},{int(after)},{int(number)},{target}"


def recorded(path):
    """The calls in a record, such as "replace metrics.json"."""
    text = path.read_text() if path.exists() else ""
    return [line.strip() for line in text.splitlines()]


def send(number, target):
    """Sends a signal."""
    if target == "all":
        os.killpg(0, number)
    else:
        # The first process was started by the campaign, which must survive.
        first = os.getpgrp()
        os.kill(os.getpid() if target == "itself" or os.getpid() == first else os.getppid(), number)


def install(record, folder, command=""):
    """Replaces the functions that change files."""
    descriptor = os.open(record, os.O_CREAT | os.O_APPEND | os.O_RDWR)
    call, after, number, target = command.split(",") if command else ("0", "0", "0", "")
    within = os.path.realpath(folder) + os.sep

    def counting(name, function, path_of, counts=lambda *_, **__: True):
        @wraps(function)
        def counted(*args, **options):
            path = path_of(*args)
            if not counts(*args, **options) or not os.path.abspath(path).startswith(within):
                return function(*args, **options)
            text = f"{name} {os.path.basename(path)}"
            os.write(descriptor, f"{text[: WIDTH - 1]:<{WIDTH - 1}}\n".encode())
            due = os.fstat(descriptor).st_size // WIDTH == int(call)
            if due and after == "0":
                send(int(number), target)
            try:
                return function(*args, **options)
            finally:  # files that may be missing are removed, too
                if due and after == "1":
                    send(int(number), target)

        return counted

    def named(path, *_):
        return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""

    def of_descriptor(descriptor):
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def writes(path, mode="r", *_, **__):
        return any(letter in mode for letter in "wxa+")

    os.fsync = counting("fsync", os.fsync, of_descriptor)
    os.replace = counting("replace", os.replace, lambda source, path, **_: named(path))
    os.unlink = counting("unlink", os.unlink, named)
    os.mkdir = counting("mkdir", os.mkdir, named)
    builtins.open = io.open = counting("open", io.open, named, writes)


def main():
    """Runs the module that the command line names, as ``python -m`` does."""
    # A shell's background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if RECORD in os.environ:
        install(os.environ[RECORD], os.environ[FOLDER], os.environ.get(ORDER, ""))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
