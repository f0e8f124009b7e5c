"""Work in processes of its own, several at once where that is wanted. Imports no TensorFlow."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from invariance.errors import Interrupted, RunError, UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def cores() -> list[int]:
    """The processor cores this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def in_child(action: Callable[[], Any]) -> Any:
    """Calls ``action`` in a process of its own and returns its result or raises its error."""
    ((_, error, value),) = in_children([action])
    if error:
        raise error
    return value


def in_children(actions: Sequence[Callable[[], Any]], jobs: int = 1) -> Iterator[tuple[int, Exception | None, Any]]:
    """Calls each action in a process of its own, up to ``jobs`` at once, each of these on its share of the cores.

    TensorFlow holds on to memory and threads; a process per run gives each run its peak memory a meaning. Forking is
    safe here because this process never loads TensorFlow.

    On Ctrl-C the terminal tells us and the children; what it did not tell them, and SIGTERM, we pass on. They save
    their state, and we wait for that.
    Whoever abandons this iterator ends the children that are still there, in the same way.

    Args:
        actions: their results must be fit for pickling.
        jobs: 1 to the number of `cores`.

    Yields:
        (number of the action, UserError or RunError or None, result), in the order in which they end.

    Raises:
        Interrupted: after a signal, when all children have ended.
    """
    context = multiprocessing.get_context("fork")
    waiting, free = list(enumerate(actions)), list(range(jobs))
    running, stopped, told = {}, [], False

    def stop(number, frame):
        stopped.append(number)
        if number == signal.SIGTERM:
            terminate()

    def terminate():
        for _, child, _ in running.values():
            child.terminate()

    def start(number, action, share):
        receiver, sender = context.Pipe(duplex=False)

        def work():
            for each, handler in previous.items():
                signal.signal(each, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            receiver.close()
            if jobs > 1:
                _keep_to(share, jobs)
            try:
                sender.send((None, action()))
            except (UserError, RunError) as error:
                sender.send((error, None))
            except KeyboardInterrupt:
                sender.send((_stopped(), None))

        child = context.Process(target=work)
        # A signal that comes now is handled when the child is known here, and there when it has its own handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            child.start()
            running[receiver] = number, child, share
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        sender.close()

    sys.stdout.flush()
    sys.stderr.flush()
    previous = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        while running or (waiting and not stopped):
            while waiting and free and not stopped:
                start(*waiting.pop(0), free.pop(0))
            # Not for ever, because a signal does not end this wait.
            ended = multiprocessing.connection.wait(list(running), 1.0)
            if not ended and stopped and not told:
                # A SIGINT may have come to us alone.
                told = True
                terminate()
            for receiver in ended:
                number, child, share = running[receiver]
                try:
                    error, value = receiver.recv()
                    child.join()
                except (EOFError, OSError):
                    # Its end came before or within what it had to say.
                    child.join()
                    error, value = _ended_early(child.exitcode, stopped), None
                del running[receiver]
                receiver.close()
                free.append(share)
                yield number, error, value
        if stopped:
            raise _stopped()
    finally:
        terminate()
        for _, child, _ in running.values():
            child.join()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stopped() -> Interrupted:
    return Interrupted("stopped; repeat the command to go on")


def _ended_early(exitcode, stopped):
    if stopped or exitcode == -signal.SIGTERM:
        return _stopped()
    if exitcode >= 0:
        return RunError(f"the run's process ended early (exit code {exitcode}); what it said stands above")
    hint = "; out of memory?" if exitcode == -signal.SIGKILL else ""
    return RunError(f"the run's process ended early (killed by signal {-exitcode}{hint}). Repeat the command to go on")


def _keep_to(share, shares):
    """Keeps this process, which has not loaded TensorFlow yet, to its share of the cores, and of a GPU's memory."""
    mine = cores()
    mine = mine[share * len(mine) // shares : (share + 1) * len(mine) // shares]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine)
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(len(mine)))
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
