"""Optimisers whose update is one compiled kernel."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from invariance import xla
from invariance.typing import Tensor


class CompiledUpdate(keras.optimizers.Optimizer):
    """Mixin that compiles the update of all variables with XLA, so that each weight is read and written once.

    Keras writes an update as a dozen element-wise operations, each of which passes through memory: 25 to 45 ms on two
    cores for the 6.4 million weights of a dense layer, against 8 ms in one kernel. Results agree to rounding. Backends
    other than TensorFlow are not affected.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        if keras.backend.backend() != "tensorflow":
            return super().apply(grads, trainable_variables)
        import tensorflow as tf

        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            # Variables cannot be created inside the compiled function.
            self.build(variables)
        plain = super().apply
        compiled = xla.compiled(lambda *grads: plain(list(grads), variables))
        if not tf.inside_function():
            # Eager use: keep the compiled function, or every call would compile it.
            key = tuple(id(variable) for variable in variables)
            compiled = self.__dict__.setdefault("_compiled_updates", {}).setdefault(key, compiled)
        return compiled(*grads)


@keras.saving.register_keras_serializable(package="invariance")
class Adam(CompiledUpdate, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with a compiled update. Kingma and Ba (2015), algorithm 1."""


@keras.saving.register_keras_serializable(package="invariance")
class RMSProp(CompiledUpdate, keras.optimizers.RMSprop):
    """RMSProp as in TensorFlow 1, with a compiled update: w -= rate * g / sqrt(v + epsilon), v = E[g^2].

    Unlike in Keras, the running averages v start at one instead of zero, so that the first hundred steps or so are
    smaller than later ones, not larger. TensorFlow 1's decay was 0.9 and its epsilon 1e-10.

    Args:
        learning_rate: a float or a Keras schedule.
        rho: decay of the running averages.
        epsilon: added to the running averages.
        initial_accumulator: initial value of the running averages; 0.0 gives Keras' own RMSprop.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        rho: float = 0.9,
        epsilon: float = 1e-10,
        initial_accumulator: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, rho=rho, epsilon=epsilon, **kwargs)
        self.initial_accumulator = initial_accumulator

    def add_optimizer_variables(self, trainable_variables: Any, name: Any, initializer: Any = "zeros") -> Any:
        # An initialiser rather than an assignment: the variables may be created while a graph is traced.
        if name == "velocity":
            initializer = keras.initializers.Constant(self.initial_accumulator)
        return super().add_optimizer_variables(trainable_variables, name, initializer)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_accumulator": self.initial_accumulator}


def per_step(learning_rate: Any, updates: int) -> Any:
    """The learning rate for an optimiser that makes several updates in each training step.

    Args:
        learning_rate: a float, or a Keras schedule of training steps.
        updates: number of updates in a training step.

    Returns:
        A float, or a Keras schedule of updates.
    """
    return learning_rate if isinstance(learning_rate, (int, float)) else SchedulePerStep(learning_rate, updates)


@keras.saving.register_keras_serializable(package="invariance")
class SchedulePerStep(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of training steps for an optimiser that makes several updates in each.

    Args:
        schedule: a Keras schedule of training steps.
        updates: number of updates in a training step.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, updates: int):
        super().__init__()
        self.schedule, self.updates = schedule, updates

    def __call__(self, update: Tensor) -> Tensor:
        return self.schedule(ops.floor_divide(update, self.updates))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "updates": self.updates}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SchedulePerStep:
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["updates"])
