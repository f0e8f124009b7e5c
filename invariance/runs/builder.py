"""A model builder in the user's own Python file: ``--models my_file.py:build``."""

import hashlib
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from invariance.errors import UserError, located


class FileBuilder:
    """A function, in a Python file, that builds a model.

    The file is executed when the model is built: it imports Keras, which the process that starts the runs must not do
    (see `processes`).

    Args:
        path: the file.
        function: name of the function.
    """

    def __init__(self, path: str | Path, function: str):
        self.path, self.function = Path(path), function

    @property
    def name(self) -> str:
        """The name that the model's runs are stored under."""
        return f"{self.path.stem}.{self.function}"

    def describe(self) -> dict:
        """For config.json: a run is resumed only while the file stays the same."""
        return {"builder": self.name, "source_sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()}

    def load(self) -> Callable[..., Any]:
        """Executes the file and returns the function.

        Raises:
            UserError: if the file raises an error or does not define the function.
        """
        function = getattr(load_module(self.path), self.function, None)
        if not callable(function):
            raise UserError(f"{self.path} has no function {self.function!r}")
        return function

    def __call__(self, *arguments: Any) -> Any:
        return self.load()(*arguments)


def load_module(path: Path) -> ModuleType:
    """Executes a Python file, once per process, and returns it as a module named by its stem.

    Raises:
        UserError: if it raises an error.
    """
    name, file = path.stem, str(path.resolve())
    present = sys.modules.get(name)
    if present is not None and getattr(present, "__file__", None) == file:
        return present
    module = ModuleType(name)
    module.__file__ = file
    if present is None:
        # Classes look their module up; a file named like an imported module must not replace it.
        sys.modules[name] = module
    try:
        SourceFileLoader(name, file).exec_module(module)
    except Exception as error:  # the user's code may raise anything
        if present is None:
            del sys.modules[name]
        raise UserError(f"{path} cannot be imported ({located(error, file)})") from error
    return module
