"""Runs work in child processes, several at a time. Imports no TensorFlow."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from invariance import output
from invariance.errors import Interrupted, RunError, UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How often to check whether a signal has arrived, in seconds: a signal does not end the wait for a child.
_POLL_SECONDS = 1.0
# Linux' option of prctl(2) for the signal that a process receives when its parent ends.
_PR_SET_PDEATHSIG = 1


def cores() -> list[int]:
    """The processor cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def in_child(action: Callable[[], Any]) -> Any:
    """Calls ``action`` in a child process and returns its result or raises its error."""
    ((_, error, value),) = in_children([action])
    if error:
        raise error
    return value


def in_children(
    actions: Sequence[Callable[[], Any]], jobs: int = 1
) -> Generator[tuple[int, Exception | None, Any], None, None]:
    """Calls each action in a child process, up to ``jobs`` at a time, each on its share of the cores.

    TensorFlow never returns memory or threads, and a process for each run makes the run's peak memory meaningful.
    Forking is safe because the parent never loads TensorFlow.

    Ctrl-C on a terminal reaches the parent and its children. Any other SIGINT, and SIGTERM, is passed on to the
    children. They save their state, and the parent waits for them. Closing the generator ends the remaining children
    in the same way; so does the end of the parent, whatever ends it.

    Args:
        actions: functions whose results can be pickled.
        jobs: 1 to the number of `cores`.

    Yields:
        (index of the action, UserError or RunError or None, result), in the order in which the actions end.

    Raises:
        Interrupted: after a signal, once all children have ended.
    """
    context = multiprocessing.get_context("fork")
    waiting, free = list(enumerate(actions)), list(range(jobs))
    running: dict[Any, tuple[int, Any, int]] = {}
    received: list[int] = []
    passed_on = False
    parent = os.getpid()

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            terminate()

    def terminate() -> None:
        for _, child, _ in running.values():
            child.terminate()

    def start(index: int, action: Callable[[], Any], share: int) -> None:
        receiver, sender = context.Pipe(duplex=False)

        def work() -> None:
            for each, handler in previous.items():
                signal.signal(each, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            end_with(parent)
            receiver.close()
            if jobs > 1:
                _restrict_to_share(share, jobs)
            result: tuple[Exception | None, Any]
            try:
                result = None, action()
            except (UserError, RunError) as error:
                result = error, None
            except KeyboardInterrupt:
                result = _interrupted(), None
            with contextlib.suppress(BrokenPipeError):  # the parent was killed
                sender.send(result)

        child = context.Process(target=work)
        # A signal is held back until the parent knows the child and the child has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            child.start()
            running[receiver] = index, child, share
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        sender.close()

    output.flush()
    previous = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        while running or (waiting and not received):
            while waiting and free and not received:
                start(*waiting.pop(0), free.pop(0))
            ended: list[Any] = multiprocessing.connection.wait(list(running), _POLL_SECONDS)
            if not ended and received and not passed_on:
                # The SIGINT may have reached the parent alone.
                passed_on = True
                terminate()
            for receiver in ended:
                index, child, share = running[receiver]
                try:
                    error, value = receiver.recv()
                    child.join()
                except (EOFError, OSError):
                    # The child ended before it had sent its result, or while sending it.
                    child.join()
                    error, value = _ended_early(child.exitcode, bool(received)), None
                del running[receiver]
                receiver.close()
                free.append(share)
                yield index, error, value
        if received:
            raise _interrupted()
    finally:
        terminate()
        for _, child, _ in running.values():
            child.join()
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with(parent: int) -> None:
    """Makes this process receive SIGTERM when its parent ends, even if that is killed."""
    if not _ask_the_system():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    elif os.getppid() != parent:
        # It ended before the system was asked.
        os.kill(os.getpid(), signal.SIGTERM)


def _ask_the_system() -> bool:
    """Has the system send SIGTERM at the parent's end; returns whether it will."""
    if sys.platform != "linux":
        return False
    try:
        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupted() -> Interrupted:
    return Interrupted("stopped; repeat the command to resume")


def _ended_early(exitcode: int, stopping: bool) -> RunError:
    if stopping or exitcode == -signal.SIGTERM:
        return _interrupted()
    if exitcode >= 0:
        return RunError(f"the run's process exited with code {exitcode}; see its output above")
    hint = " (out of memory?)" if exitcode == -signal.SIGKILL else ""
    return RunError(f"the run's process was killed by signal {-exitcode}{hint}; repeat the command to resume")


def _restrict_to_share(share: int, shares: int) -> None:
    """Restricts this process, before it loads TensorFlow, to its share of the cores and of a GPU's memory."""
    own = cores()
    own = own[share * len(own) // shares : (share + 1) * len(own) // shares]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(len(own)))
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
