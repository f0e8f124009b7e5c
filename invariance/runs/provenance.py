"""Where a run's numbers come from: versions, device, commit, memory."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from invariance import output
from invariance.errors import RunError, one_line
from invariance.keras_settings import check_backend, load_keras
from invariance.processes import cores


@contextlib.contextmanager
def stderr_on_failure() -> Iterator[None]:
    """Suppresses standard error, also of C++ code; it is printed after all if the block raises an error."""
    output.flush()
    with output.temporary_file() as messages:
        stderr = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            messages.seek(0)
            with contextlib.suppress(OSError):  # what could not be printed must not replace the error
                os.write(stderr, messages.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def import_tensorflow() -> None:
    """Imports TensorFlow without the messages of its C++ code, and Keras, see `load_keras`.

    Raises:
        RunError: if they find no folder to write to.
    """
    if "tensorflow" not in sys.modules:
        with stderr_on_failure():
            try:
                load_keras()  # first: TensorFlow loads it, too
                import tensorflow as tf
            except OSError as error:  # Keras, too, needs a folder that can be written
                raise RunError(f"TensorFlow cannot be imported: {one_line(error)}") from error

            tf.config.list_physical_devices()  # initialises the devices, which prints the most
    check_backend()


def provenance() -> dict:
    """Versions, device and commit, for config.json."""
    import tensorflow as tf

    packages = ("invariance", "tensorflow", "keras", "numpy", "scipy", "tensorflow-datasets")
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    gpus = tf.config.list_physical_devices("GPU")
    device = ", ".join(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus)
    number = len(cores())
    device = device or f"{_processor()}, {number} core{'s' if number > 1 else ''}"
    return {"versions": versions, "device": device, "commit": _commit()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the package's checkout, with "+changes" if its code was modified; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        code = ("*.py", "setup.cfg", "pyproject.toml", "constraints.txt")
        return commit + "+changes" if git("status", "--porcelain", "--", *(f":/{name}" for name in code)) else commit
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """The process's peak resident memory so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
