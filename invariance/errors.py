"""Errors that a user sees, one class per exit code, and checks of arguments."""


class UserError(Exception):
    """Bad input: an unknown name, an unreadable file, data of the wrong form. One line; exit code 2."""

    exit_code = 2


class ModelError(UserError):
    """A model that cannot be built for these data, or does not fit the task. Other models of a command may still run."""


def is_positive_integer(value: object) -> bool:
    """Whether a value is an integer, not a float or a truth value, and at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def require_positive(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not a positive integer."""
    for name in names:
        if not is_positive_integer(value := getattr(declared, name)):
            raise ValueError(f"Argument `{name}` must be a positive integer. Received: {value!r}")


def require_count(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not a whole number of at least 0."""
    for name in names:
        value = getattr(declared, name)
        if not (is_positive_integer(value) or (value == 0 and isinstance(value, int) and not isinstance(value, bool))):
            raise ValueError(f"Argument `{name}` must be a whole number of at least 0. Received: {value!r}")


def require_share(declared: object, *names: str) -> None:
    """Raises ValueError if one of these attributes is not at least 0 and less than 1."""
    for name in names:
        if not 0 <= (value := getattr(declared, name)) < 1:
            raise ValueError(f"Argument `{name}` must be at least 0 and less than 1. Received: {value!r}")


def require_extra(package: str, option: str, extra: str | None = None) -> None:
    """Raises UserError if an optional package, which an extra (of the same name) installs, is not there."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise UserError(
            f"{option}: the package {package} is not installed; `.venv/bin/pip install -c constraints.txt -e "
            f"'.[{extra or package}]'` does that"
        )


class RunError(Exception):
    """A run that could not go on: a full disk, a loss that is not finite. One line; exit code 1."""

    exit_code = 1


class Interrupted(RunError):
    """The run was asked to stop and saved its state first. Repeating the command resumes it. Exit code 130."""

    exit_code = 130
