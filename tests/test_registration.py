"""Loading Keras registers everything that saved models may contain, whichever module loads it first."""

import subprocess
import sys
from pathlib import Path

import invariance

# Keras takes seconds to load; of this one, every attribute is a class.
STUB = """
import types

registered = []

class Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})

def register(package):
    return lambda kind: registered.append(f"{package}>{kind.__name__}") or kind

saving = types.SimpleNamespace(register_keras_serializable=register)

def __getattr__(name):
    return getattr(Anything("keras", (), {}), name)
"""
PROGRAM = """
import importlib, sys

for first in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("invariance", "keras")]:
        del sys.modules[name]
    try:
        importlib.import_module(first)
        import keras
    except ImportError as error:
        sys.exit(f"{first}: {error}")
    print(*sorted(keras.registered))
"""
REGISTERED = (
    "Adam AddressCapsules AdversarialAutoencoder BlockRotation CapsuleNetwork CircularPadding ClassCapsules "
    "ConditionalAutoencoder ConvolutionalCapsules DoubleSoftmaxCrossentropy Flow FlowTangents FourierConv2D "
    "FusedBatchNormalization GroupConvolution2D GroupPooling LargeDense Length LinearGenerator MarginLoss Mask "
    "MovementTimes PlaceCapsules PolarResampling PrimaryCapsules PrimaryMatrixCapsules RMSProp RoutedCapsules "
    "SchedulePerStep SecondOrderDense SpatialTransformer SpreadLoss TangentLoss ToldTransformation"
)


def test_any_module_may_be_the_first_to_load_keras(tmp_path):
    (tmp_path / "keras.py").write_text(STUB)
    package = Path(invariance.__file__).parent
    parts = [path for part in ("layers", "models", "routing") for path in sorted((package / part).glob("[!_]*.py"))]
    parts += [package / f"{name}.py" for name in ("losses", "optimizers", "xla")]
    modules = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in parts]
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{PROGRAM}", *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = " ".join(f"invariance>{name}" for name in REGISTERED.split())
    assert done.stdout.splitlines() == [expected] * len(modules)
