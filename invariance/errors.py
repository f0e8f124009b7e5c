"""Errors shown to the user, one class per exit code, and checks of arguments."""

import traceback
from pathlib import Path


class UserError(Exception):
    """A user's mistake: an unknown name, an unreadable file, malformed data. One line; exit code 2."""

    exit_code = 2


class ModelError(UserError):
    """A model that cannot be built for the data or does not fit the task. Other models of a command still run."""


class RunError(Exception):
    """A run that cannot continue: a full disk, a loss that is not finite. One line; exit code 1."""

    exit_code = 1


class Interrupted(RunError):
    """A run that was asked to stop and has saved its state. Repeating the command resumes it. Exit code 130."""

    exit_code = 130


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without escape sequences; the name of its class if it has no message."""
    text = str(error).replace("\x1b[1m", "").replace("\x1b[0m", "")
    return next((line.strip()[:300] for line in text.splitlines() if line.strip()), type(error).__name__)


def located(error: BaseException, path: str | Path) -> str:
    """An error in one line: class, message, and the last line of the file ``path`` that was being executed, if any."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f", line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}: {one_line(error)}{where}"


def is_positive_integer(value: object) -> bool:
    """Whether a value is an integer, not a float or a boolean, and at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def require_positive(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not a positive integer."""
    for name in names:
        if not is_positive_integer(value := getattr(declared, name)):
            raise ValueError(f"Argument `{name}` must be a positive integer. Received: {value!r}")


def require_count(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not a non-negative integer."""
    for name in names:
        value = getattr(declared, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"Argument `{name}` must be a non-negative integer. Received: {value!r}")


def require_share(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not in [0, 1)."""
    for name in names:
        if not 0 <= (value := getattr(declared, name)) < 1:
            raise ValueError(f"Argument `{name}` must be at least 0 and less than 1. Received: {value!r}")


def require_tensorflow(what: str) -> None:
    """Raises ValueError if Keras runs on another backend than TensorFlow, which ``what`` needs."""
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise ValueError(f"{what} needs the TensorFlow backend; set KERAS_BACKEND=tensorflow. Received: {backend}")


def require_extra(package: str, option: str, extra: str | None = None) -> None:
    """Checks that an optional package is installed.

    Args:
        package: its name.
        option: what needs it, for the message.
        extra: the extra that installs it; by default the one named like the package.

    Raises:
        UserError: if it is not.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise UserError(
            f"{option}: the package {package} is not installed; install it with `.venv/bin/pip install "
            f"-c constraints.txt -e '.[{extra or package}]'`"
        )
