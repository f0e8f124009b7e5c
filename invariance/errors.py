"""What can go wrong for the person at the terminal, one class per exit code."""


class UserError(Exception):
    """Bad input: an unknown name, an unreadable file, data of the wrong form. One line; exit code 2."""

    exit_code = 2


def require_extra(package: str, option: str, extra: str | None = None):
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
