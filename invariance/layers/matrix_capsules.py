"""Layers of matrix capsules: poses are 4 x 4 matrices, activations lie in [0, 1], and routing is by EM.

Poses have the shape (batch, height, width, capsules, 4, 4), activations (batch, height, width, capsules).

All layers have two outputs, and all but the first have two inputs. Keras' `TimeDistributed` takes one of each: apply it
to a model of these layers that returns the activations or the poses.

Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import keras
from keras import layers, ops

from invariance import xla
from invariance.errors import require_positive
from invariance.layers.precision import routing_dtype
from invariance.routing import em
from invariance.routing.votes import POSE, SIDE, gather, neighbourhood_votes, votes_with_coordinates
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class PrimaryMatrixCapsules(layers.Layer):
    """Poses and activations from features, by two 1 x 1 convolutions, the second with a sigmoid.

    Args:
        capsules: number of capsules at each position.
        bias_initializer: for both convolutions.

    Input shape: (batch, height, width, channels).
    Output: poses and activations, at least float32 under any precision policy.
    """

    def __init__(self, capsules: int, bias_initializer: Any = "zeros", **kwargs: Any):
        super().__init__(**kwargs)
        self.capsules = capsules
        require_positive(self, "capsules")
        self.bias_initializer = keras.initializers.get(bias_initializer)
        arguments = {
            "data_format": "channels_last",
            "bias_initializer": self.bias_initializer,
            "dtype": self.dtype_policy,
        }
        self.poses = layers.Conv2D(self.capsules * POSE, 1, name="poses", **arguments)
        self.activations = layers.Conv2D(self.capsules, 1, name="activations", **arguments)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                "Inputs must have shape (batch, height, width, channels), of known size. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.poses.build(input_shape)
        self.activations.build(input_shape)

    def call(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        poses = ops.cast(self.poses(inputs), routing_dtype(self))
        activations = ops.sigmoid(ops.cast(self.activations(inputs), routing_dtype(self)))
        return ops.reshape(poses, (-1, *inputs.shape[1:3], self.capsules, SIDE, SIDE)), activations

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        shape = *input_shape[:3], self.capsules
        return (*shape, SIDE, SIDE), shape

    def compute_output_spec(self, inputs: Tensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        return _specified(self, inputs.shape)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.bias_initializer)
        return {**super().get_config(), "capsules": self.capsules, "bias_initializer": initializer}


class _RoutedByEM(layers.Layer):
    """Base of the layers with EM routing: float32 weights beta_v and beta_a under any precision policy."""

    def __init__(
        self, capsules: int, form: em.Form | dict[str, Any] | None = None, initializer: Any = None, **kwargs: Any
    ):
        super().__init__(**{"autocast": False, **kwargs})
        self.capsules = capsules
        require_positive(self, "capsules")
        self.form = em.Form() if form is None else em.Form(**form) if isinstance(form, dict) else form
        self.initializer = keras.initializers.get(
            keras.initializers.TruncatedNormal(stddev=1.0) if initializer is None else initializer
        )

    def _add_weights(self, inputs: int, pose: int) -> None:
        """The matrix from each of ``inputs`` capsules to each output, and the betas for poses with ``pose`` entries."""
        shape = inputs, self.capsules, SIDE, SIDE
        dtype = routing_dtype(self)
        self.kernel = self.add_weight(shape, self.initializer, dtype, name="kernel", autocast=False)
        self.beta_v = self.add_weight((self.capsules, pose), "zeros", dtype, name="beta_v", autocast=False)
        self.beta_a = self.add_weight((self.capsules,), "zeros", dtype, name="beta_a", autocast=False)

    def _cast(self, *inputs: Tensor) -> list[Tensor]:
        return [ops.cast(each, routing_dtype(self)) for each in inputs]

    def _route(self, votes: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        route = em.route_compiled if xla.tracing(votes) else em.route
        return route(votes, activations, _tensor(self.beta_v), _tensor(self.beta_a), self.form)

    def compute_output_spec(self, poses: Tensor, activations: Tensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        return _specified(self, poses.shape)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.initializer)
        return {
            **super().get_config(),
            "capsules": self.capsules,
            "form": asdict(self.form),
            "initializer": initializer,
        }


def _specified(layer: layers.Layer, input_shape: Shape) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    poses, activations = layer.compute_output_shape(tuple(input_shape))
    return keras.KerasTensor(poses, routing_dtype(layer)), keras.KerasTensor(activations, routing_dtype(layer))


def _tensor(variable: keras.Variable) -> Tensor:
    """The value of a weight. `ops.convert_to_tensor` returns the variable, which compiled functions do not accept."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(variable)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)


@keras.saving.register_keras_serializable(package="invariance")
class ConvolutionalCapsules(_RoutedByEM):
    """Matrix capsules that receive votes from a k x k neighbourhood ('valid'), routed separately at each position.

    Args:
        capsules: number of output capsules at each position.
        kernel_size, strides: in positions.
        form: `routing.em.Form`; the reproduced program's by default.
        initializer: for the weights (kernel_size^2 * in_capsules, capsules, 4, 4); by default a truncated normal with
            standard deviation 1.

    Input: poses and activations. Output: poses and activations, at least float32 under any precision policy.
    """

    def __init__(
        self,
        capsules: int,
        kernel_size: int = 3,
        strides: int = 1,
        form: em.Form | dict[str, Any] | None = None,
        initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(capsules, form, initializer, **kwargs)
        self.kernel_size, self.strides = kernel_size, strides
        require_positive(self, "kernel_size", "strides")

    def build(self, poses_shape: Shape, activations_shape: Shape | None = None) -> None:
        if len(poses_shape) != 6 or None in poses_shape[1:] or min(poses_shape[1:3]) < self.kernel_size:
            raise ValueError(
                "Poses must have shape (batch, height, width, capsules, 4, 4), with height and width at least the "
                f"kernel's {self.kernel_size}. Received: poses_shape={tuple(poses_shape)}"
            )
        self._add_weights(self.kernel_size**2 * poses_shape[3], POSE)

    def call(self, poses: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        poses, activations = self._cast(poses, activations)
        size, batch = self._positions(poses.shape), ops.shape(poses)[0]
        # An even number of rows is slower, see `gather`.
        padded = poses.shape[0] is not None and prod((poses.shape[0], *size)) % 2 == 0
        window = self.kernel_size, self.strides, padded
        votes = xla.compiled_in_graph(neighbourhood_votes, (poses, _tensor(self.kernel)), *window)
        active = xla.compiled_in_graph(gather, (activations,), *window)
        # Without the row that `gather` may have appended.
        poses, activations = (values[: batch * size[0] * size[1]] for values in self._route(votes, active))
        # (batch * positions, 16, capsules) -> (batch, height, width, capsules, 4, 4)
        poses = ops.reshape(ops.transpose(poses, (0, 2, 1)), (-1, *size, self.capsules, SIDE, SIDE))
        return poses, ops.reshape(activations, (-1, *size, self.capsules))

    def _positions(self, poses_shape: Shape) -> Shape:
        return tuple((size - self.kernel_size) // self.strides + 1 for size in poses_shape[1:3])

    def compute_output_shape(self, poses_shape: Shape, activations_shape: Shape | None = None) -> tuple[Shape, Shape]:
        shape = poses_shape[0], *self._positions(poses_shape), self.capsules
        return (*shape, SIDE, SIDE), shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size, "strides": self.strides}


@keras.saving.register_keras_serializable(package="invariance")
class ClassCapsules(_RoutedByEM):
    """One matrix capsule for each class, with coordinate addition.

    Each input capsule has one matrix to each class, shared by all positions. The 16 entries of a vote are followed by
    the two coordinates of the position that casts it.

    Args:
        capsules: number of classes.
        start, step: (row, column) coordinates of the first position, and steps to the next, as fractions of the image.
        together: False routes each position separately and averages poses and activations over the positions, as the
            reproduced program does. True routes the votes of all positions together, as the paper does.
        form, initializer: as for `ConvolutionalCapsules`.

    Input: poses and activations.
    Output: poses (batch, capsules, 18), activations (batch, capsules), at least float32 under any precision policy.
    """

    def __init__(
        self,
        capsules: int,
        start: Sequence[float] = (0.0, 0.0),
        step: Sequence[float] = (0.0, 0.0),
        together: bool = False,
        form: em.Form | dict[str, Any] | None = None,
        initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(capsules, form, initializer, **kwargs)
        self.start, self.step, self.together = tuple(start), tuple(step), bool(together)

    def build(self, poses_shape: Shape, activations_shape: Shape | None = None) -> None:
        if len(poses_shape) != 6 or None in poses_shape[1:]:
            raise ValueError(
                "Poses must have shape (batch, height, width, capsules, 4, 4), of known size. "
                f"Received: poses_shape={tuple(poses_shape)}"
            )
        self._add_weights(poses_shape[3], POSE + 2)

    def call(self, poses: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        poses, activations = self._cast(poses, activations)
        count = poses.shape[1] * poses.shape[2]
        groups = 1 if self.together else count
        kernel = _tensor(self.kernel)
        votes = xla.compiled_in_graph(votes_with_coordinates, (poses, kernel), self.start, self.step, groups)
        # (batch, height, width, in_capsules) -> (in_capsules * positions / groups, groups * batch)
        active = ops.transpose(activations, (3, 1, 2, 0))
        active = ops.reshape(active, (active.shape[0] * count // groups, -1))
        poses, activations = self._route(votes, active)
        # (groups, batch, 18, capsules), averaged over the groups
        poses = ops.mean(ops.reshape(poses, (groups, -1, POSE + 2, self.capsules)), axis=0)
        return ops.transpose(poses, (0, 2, 1)), ops.mean(ops.reshape(activations, (groups, -1, self.capsules)), axis=0)

    def compute_output_shape(self, poses_shape: Shape, activations_shape: Shape | None = None) -> tuple[Shape, Shape]:
        return (poses_shape[0], self.capsules, POSE + 2), (poses_shape[0], self.capsules)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "step": self.step, "together": self.together}
