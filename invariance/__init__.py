"""Do deep networks transfer what they learnt on some classes to others? Measured, not assumed.

Importing this package is cheap: TensorFlow and Keras are loaded by the modules that compute. As soon as Keras is
loaded, by anyone, the package's layers, losses, models and optimisers are registered with it, so that
``keras.saving.load_model`` finds them after a plain ``import invariance``.
"""

import importlib
import os
import pkgutil
from types import ModuleType
from typing import Any

import wrapt

__version__ = "0.1.0"

# TensorFlow turns its oneDNN kernels on by itself on AVX-512 machines only. On two AVX2 cores they train the reference
# CNN 1.4 times as fast as the Eigen kernels. Read once, when TensorFlow is loaded; a value of the user's own wins.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def __getattr__(name: str) -> Any:
    # What everybody needs, without loading it on import.
    if name == "probe":
        from invariance.probing import probe

        return probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@wrapt.when_imported("keras")
def _register(keras: ModuleType) -> None:
    # Their decorators register what they define.
    for name in ("losses", "optimizers", "layers", "models"):
        module = importlib.import_module(f"{__name__}.{name}")
        for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
            importlib.import_module(f"{module.__name__}.{found.name}")
