"""Work in child processes: results, errors, signals, shares of the cores. Forks, so in processes without TensorFlow."""

import ast
import os
import signal
import subprocess
import sys
import time

import pytest

from invariance import processes
from tests.helpers import PATIENCE, REPOSITORY, python

TWO_CORES = pytest.mark.skipif(len(processes.cores()) < 2, reason="children at the same time need a core each")
START = """
import multiprocessing.connection, os, signal, sys, time
from invariance import processes
from invariance.errors import Interrupted, RunError, UserError
def fail(error):
    raise error
def show(*actions, jobs=1):
    for number, error, value in processes.in_children(actions, jobs):
        print(number, type(error).__name__, error, value, flush=True)
"""


def output(code, code_of_exit=0):
    result = python("-c", START + code)
    assert result.returncode == code_of_exit, result.stderr
    return result.stdout.splitlines()


def test_results_and_errors_arrive_in_the_order_of_their_ends():
    assert output("show(lambda: [1, 2], lambda: fail(RunError('no disk')), lambda: fail(UserError('no class')))") == [
        "0 NoneType None [1, 2]",
        "1 RunError no disk None",
        "2 UserError no class None",
    ]


def test_single_child_returns_its_result_or_raises_its_error():
    assert output("print(processes.in_child(lambda: os.getpid()) != os.getpid())") == ["True"]
    code = "try:\n processes.in_child(lambda: fail(UserError('no class')))\nexcept UserError as error: print(error)"
    assert output(code) == ["no class"]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "was killed by signal 9 (out of memory?); repeat the command to resume",
        ),
        ("os._exit(7)", "exited with code 7; see its output above"),
        # An error of ours shows its traceback; repeating the command would not help.
        ("fail(KeyError('x'))", "exited with code 1; see its output above"),
    ],
)
def test_child_that_ends_early_is_an_error_and_the_next_one_starts(end, message):
    lines = output(f"show(lambda: {end}, lambda: 2)")
    assert lines == [f"0 RunError the run's process {message} None", "1 NoneType None 2"]


def test_message_cut_off_by_the_end_of_a_child_is_an_error():
    """The connection reports it differently from a message that never began."""
    code = """
receive = multiprocessing.connection.Connection.recv
def broken(connection):
    if receive(connection) == (None, 1):
        raise OSError("got end of file during message")
    return None, 2
multiprocessing.connection.Connection.recv = broken
show(lambda: 1, lambda: 2)
"""
    first, second = output(code)
    assert first.startswith("0 RunError the run's process exited with code 0") and second == "1 NoneType None 2"


@TWO_CORES
def test_children_at_the_same_time_share_the_cores(tmp_path):
    # Each ends only when two have begun. The third begins when one of them has ended, on its share.
    code = f"""
def work(name):
    open({str(tmp_path)!r} + "/" + name, "w").close()
    while len(os.listdir({str(tmp_path)!r})) < 2:
        time.sleep(0.01)
    return int(os.environ["TF_NUM_INTRAOP_THREADS"]), processes.cores()
print([value for _, _, value in processes.in_children([lambda name=name: work(name) for name in "abc"], 2)])
"""
    total, shares = len(processes.cores()), ast.literal_eval(*output(code))
    assert len(shares) == 3 and {threads for threads, _ in shares} <= {total // 2, total - total // 2}
    if hasattr(os, "sched_getaffinity"):
        assert all(threads == len(cores) for threads, cores in shares)
        distinct = {tuple(cores) for _, cores in shares}
        assert sorted(core for cores in distinct for core in cores) == processes.cores()


# The second is what other systems than Linux do.
@pytest.mark.parametrize("way", ["", "processes._ask_the_system = lambda: False"])
def test_children_end_with_their_parent_whatever_they_do(way):
    # The first child looks at nothing, as a measurement does; the second finishes its step, as a training does.
    code = f"""
{way}
def work(number):
    steps = []
    if number:
        signal.signal(signal.SIGTERM, lambda *_: steps.append(number))
    os.write(1, b"began\\n")
    for _ in range(300):
        if not steps:
            time.sleep(0.1)
    os.write(1, b"saved\\n" if steps else b"survived\\n")
show(*[lambda number=number: work(number) for number in range(2)], jobs=min(2, len(processes.cores())))
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", START + code], cwd=REPOSITORY, **pipes) as process:
        assert {process.stdout.readline() for _ in range(min(2, len(processes.cores())))} == {b"began\n"}
        process.kill()
        # The end of the file: nobody is left who could write to the pipe. That nobody takes a result is no error.
        assert process.communicate(timeout=PATIENCE) == (b"saved\n" * (len(processes.cores()) > 1), b"")


def test_closing_ends_the_children_that_remain():
    began = time.monotonic()
    code = """
children = processes.in_children([lambda: 1, lambda: time.sleep(300)], min(2, len(processes.cores())))
print(next(children))
children.close()
"""
    assert output(code) == ["(0, None, 1)"]
    # Far less than the second one's five minutes.
    assert time.monotonic() - began < 100


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=TWO_CORES)])
@pytest.mark.parametrize(
    ("number", "send"), [(signal.SIGINT, os.killpg), (signal.SIGINT, os.kill), (signal.SIGTERM, os.kill)]
)
def test_signals_reach_all_children_and_no_other_starts(number, send, jobs):
    # Ctrl-C on a terminal reaches the whole group; a scheduler signals the first process alone.
    code = f"""
def work():
    os.write(1, b"began\\n")
    time.sleep(300)
try:
    show(*[work] * 3, jobs={jobs})
except Interrupted as error:
    print(error)
"""
    with subprocess.Popen(
        [sys.executable, "-c", START + code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert [process.stdout.readline() for _ in range(jobs)] == ["began\n"] * jobs
            sent = time.monotonic()
            send(process.pid, number)
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert time.monotonic() - sent < 100 and "began" not in out
    stopped = "stopped; repeat the command to resume"
    assert sorted(out.splitlines()) == sorted([f"{n} Interrupted {stopped} None" for n in range(jobs)] + [stopped])
