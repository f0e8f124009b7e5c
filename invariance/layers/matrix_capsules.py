"""Layers of matrix capsules: poses are 4 x 4 matrices, activations numbers in [0, 1], routed by EM.

Poses have the shape (batch, height, width, capsules, 4, 4), activations (batch, height, width, capsules).

Reference: Hinton, Sabour and Frosst, "Matrix Capsules with EM Routing" (2018).
"""

from dataclasses import asdict
from functools import lru_cache

import keras
from keras import layers, ops

from invariance import xla
from invariance.routing import em
from invariance.routing.dynamic import positive

SIDE = 4
POSE = SIDE * SIDE


def patches(values, kernel: int, strides: int):
    """The k x k neighbourhoods of a map ('valid'), side by side.

    Args:
        values: (batch, height, width, ...).
        kernel, strides: in positions.

    Returns:
        (kernel * kernel, batch, out_height, out_width, ...), the neighbours row by row.
    """
    height, width = values.shape[1:3]
    rows, columns = (size - kernel + 1 for size in (height, width))
    return ops.stack(
        [
            values[:, row : row + rows : strides, column : column + columns : strides]
            for row in range(kernel)
            for column in range(kernel)
        ]
    )


def votes(poses, weights):
    """Each input pose times the matrix to each output.

    Args:
        poses: (in_capsules, batch, 4, 4).
        weights: (in_capsules, out_capsules, 4, 4).

    Returns:
        (in_capsules, batch, 16, out_capsules), as `routing.em` wants them: M_i W_ij, row by row.
    """
    inputs, outputs = weights.shape[:2]
    # (in, 4, 4 * out): rows of the product M W of all outputs come out side by side.
    matrices = ops.reshape(ops.transpose(weights, (0, 2, 3, 1)), (inputs, SIDE, SIDE * outputs))
    product = ops.matmul(ops.reshape(poses, (inputs, -1, SIDE)), matrices)
    return ops.reshape(product, (inputs, -1, POSE, outputs))


class _Routed(layers.Layer):
    """What layers with EM routing share: betas, form, float32 under any precision policy."""

    def __init__(self, capsules, form=None, initializer=None, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})
        self.capsules = positive("capsules", capsules)
        self.form = em.Form() if form is None else em.Form(**form) if isinstance(form, dict) else form
        self.initializer = keras.initializers.get(
            keras.initializers.TruncatedNormal(stddev=1.0) if initializer is None else initializer
        )

    def _add_betas(self, pose=POSE):
        self.beta_v = self.add_weight((self.capsules, pose), "zeros", name="beta_v", autocast=False)
        self.beta_a = self.add_weight((self.capsules,), "zeros", name="beta_a", autocast=False)

    def _route(self, votes_cast, activations):
        betas = _tensor(self.beta_v), _tensor(self.beta_a)
        return (em.route_compiled if xla.tracing(votes_cast) else em.route)(votes_cast, activations, *betas, self.form)

    def get_config(self):
        initializer = keras.initializers.serialize(self.initializer)
        return {
            **super().get_config(),
            "capsules": self.capsules,
            "form": asdict(self.form),
            "initializer": initializer,
        }


def _tensor(variable):
    """A weight's value. `ops.convert_to_tensor` hands on the variable, which compiled functions do not take."""
    if keras.backend.backend() != "tensorflow":
        return ops.convert_to_tensor(variable)
    import tensorflow as tf

    return tf.convert_to_tensor(variable)


def _by_xla(function, tensor, *arguments):
    """``function(tensor, *arguments)``, compiled by XLA inside a TensorFlow function."""
    if not xla.tracing(tensor):
        return function(tensor, *arguments)
    tensors = [argument for argument in (tensor, *arguments) if hasattr(argument, "shape")]
    return _compiled(function, *arguments[len(tensors) - 1 :])(*tensors)


@lru_cache
def _compiled(function, *static):
    return xla.compiled(lambda *tensors: function(*tensors, *static))


def _gather(values, kernel_size, strides):
    """Inputs of each position: (batch, height, width, capsules, ...) -> (in_capsules, batch * positions, ...).

    A row of zeros follows where the number of positions is even. The routing reads the votes of 24 input capsules at a
    time; with 16 output capsules, an even number of positions would put these at distances in memory that are multiples
    of 2 KiB, where they drive each other out of the processor's first cache (half the speed at worst).
    """
    near = patches(values, kernel_size, strides)
    near = ops.transpose(near, (0, 4, 1, 2, 3, *range(5, len(near.shape))))
    near = ops.reshape(near, (near.shape[0] * near.shape[1], -1, *near.shape[5:]))
    even = near.shape[1] is not None and near.shape[1] % 2 == 0
    return ops.pad(near, [(0, 0), (0, 1), *[(0, 0)] * (len(near.shape) - 2)]) if even else near


def _gathered_votes(poses, kernel, kernel_size, strides):
    return votes(_gather(poses, kernel_size, strides), kernel)


@keras.saving.register_keras_serializable(package="invariance")
class PrimaryMatrixCapsules(layers.Layer):
    """Poses and activations from features, by two 1 x 1 convolutions (the second with a sigmoid).

    Args:
        capsules: at each position.
        bias_initializer: of both convolutions.

    Input shape: (batch, height, width, channels). Output: poses and activations, float32.
    """

    def __init__(self, capsules, bias_initializer="zeros", **kwargs):
        super().__init__(**kwargs)
        self.capsules = positive("capsules", capsules)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        arguments = {"bias_initializer": self.bias_initializer, "dtype": self.dtype_policy}
        self.poses = layers.Conv2D(self.capsules * POSE, 1, name="poses", **arguments)
        self.activations = layers.Conv2D(self.capsules, 1, name="activations", **arguments)

    def build(self, input_shape):
        self.poses.build(input_shape)
        self.activations.build(input_shape)

    def call(self, inputs):
        poses = ops.cast(self.poses(inputs), "float32")
        activations = ops.sigmoid(ops.cast(self.activations(inputs), "float32"))
        return ops.reshape(poses, (-1, *inputs.shape[1:3], self.capsules, SIDE, SIDE)), activations

    def compute_output_spec(self, inputs):
        *positions, _ = inputs.shape
        return (
            keras.KerasTensor((*positions, self.capsules, SIDE, SIDE), "float32"),
            keras.KerasTensor((*positions, self.capsules), "float32"),
        )

    def get_config(self):
        initializer = keras.initializers.serialize(self.bias_initializer)
        return {**super().get_config(), "capsules": self.capsules, "bias_initializer": initializer}


@keras.saving.register_keras_serializable(package="invariance")
class ConvolutionalCapsules(_Routed):
    """Matrix capsules that get votes from a k x k neighbourhood ('valid'), routed at each position for itself.

    Args:
        capsules: output capsules at each position.
        kernel_size, strides: in positions.
        form: `routing.em.Form`; by default the reproduced program's.
        initializer: of the weights (kernel_size^2 * in_capsules, capsules, 4, 4); by default a truncated normal of
            standard deviation 1.

    Input: poses and activations. Output: poses and activations, float32 under any precision policy.
    """

    def __init__(self, capsules, kernel_size=3, strides=1, form=None, initializer=None, **kwargs):
        super().__init__(capsules, form, initializer, **kwargs)
        self.kernel_size = positive("kernel_size", kernel_size)
        self.strides = positive("strides", strides)

    def build(self, poses_shape, activations_shape=None):
        if len(poses_shape) != 6 or min(poses_shape[1:3]) < self.kernel_size:
            raise ValueError(
                "Poses must have shape (batch, height, width, capsules, 4, 4), height and width at least the kernel's "
                f"{self.kernel_size}. Received: poses_shape={tuple(poses_shape)}"
            )
        inputs = self.kernel_size**2 * poses_shape[3]
        self.kernel = self.add_weight(
            (inputs, self.capsules, SIDE, SIDE), self.initializer, name="kernel", autocast=False
        )
        self._add_betas()

    def call(self, poses, activations):
        poses, activations = ops.cast(poses, "float32"), ops.cast(activations, "float32")
        size, batch = self._positions(poses.shape), ops.shape(poses)[0]
        votes_cast = _by_xla(_gathered_votes, poses, _tensor(self.kernel), self.kernel_size, self.strides)
        active = _by_xla(_gather, activations, self.kernel_size, self.strides)
        poses, activations = (values[: batch * size[0] * size[1]] for values in self._route(votes_cast, active))
        poses = ops.reshape(ops.transpose(poses, (0, 2, 1)), (-1, *size, self.capsules, SIDE, SIDE))
        return poses, ops.reshape(activations, (-1, *size, self.capsules))

    def _positions(self, poses_shape):
        return tuple((size - self.kernel_size) // self.strides + 1 for size in poses_shape[1:3])

    def compute_output_spec(self, poses, activations):
        shape = poses.shape[0], *self._positions(poses.shape), self.capsules
        return keras.KerasTensor((*shape, SIDE, SIDE), "float32"), keras.KerasTensor(shape, "float32")

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size, "strides": self.strides}


def _placed_votes(poses, kernel, start, step, groups):
    """Votes with the coordinates of their position, (in_capsules * positions / groups, groups * batch, 18, classes).

    Args:
        poses: (batch, height, width, in_capsules, 4, 4).
        kernel: (in_capsules, classes, 4, 4).
        start, step: (row, column) coordinates of the first position and between neighbours.
        groups: the number of positions, to route each for itself, or 1.
    """
    height, width, inputs = poses.shape[1:4]
    count, classes = height * width, kernel.shape[1]
    near = ops.reshape(ops.transpose(poses, (3, 1, 2, 0, 4, 5)), (inputs, -1, SIDE, SIDE))
    cast = ops.reshape(votes(near, kernel), (inputs, count, -1, POSE, classes))
    places = [
        [start[0] + row * step[0], start[1] + column * step[1]] for row in range(height) for column in range(width)
    ]
    places = ops.reshape(ops.convert_to_tensor(places, "float32"), (1, count, 1, 2, 1))
    cast = ops.concatenate([cast, places + ops.zeros_like(cast[:, :, :, :2])], axis=3)
    return ops.reshape(cast, (inputs * count // groups, -1, POSE + 2, classes))


@keras.saving.register_keras_serializable(package="invariance")
class ClassCapsules(_Routed):
    """One matrix capsule a class, with coordinate addition.

    Each input capsule has one matrix to each class, the same at all positions. To the 16 entries of a vote come two
    more, the position it was cast at.

    Args:
        capsules: number of classes.
        start, step: (row, column) coordinates of the first position and from one to the next, as shares of the image.
        together: False routes at each position for itself and averages poses and activations over the positions, as
            the reproduced program does; True routes the votes of all positions together, as the paper does.
        form, initializer: as for `ConvolutionalCapsules`.

    Input: poses and activations.
    Output: poses (batch, capsules, 18), activations (batch, capsules), float32 under any precision policy.
    """

    def __init__(
        self, capsules, start=(0.0, 0.0), step=(0.0, 0.0), together=False, form=None, initializer=None, **kwargs
    ):
        super().__init__(capsules, form, initializer, **kwargs)
        self.start, self.step, self.together = tuple(start), tuple(step), bool(together)

    def build(self, poses_shape, activations_shape=None):
        if len(poses_shape) != 6:
            raise ValueError(
                "Poses must have shape (batch, height, width, capsules, 4, 4). "
                f"Received: poses_shape={tuple(poses_shape)}"
            )
        self.kernel = self.add_weight(
            (poses_shape[3], self.capsules, SIDE, SIDE), self.initializer, name="kernel", autocast=False
        )
        self._add_betas(POSE + 2)

    def call(self, poses, activations):
        poses, activations = ops.cast(poses, "float32"), ops.cast(activations, "float32")
        count = poses.shape[1] * poses.shape[2]
        groups = 1 if self.together else count
        votes_cast = _by_xla(_placed_votes, poses, _tensor(self.kernel), self.start, self.step, groups)
        # (batch, height, width, in_capsules) -> (in_capsules * positions / groups, groups * batch)
        active = ops.transpose(activations, (3, 1, 2, 0))
        active = ops.reshape(active, (active.shape[0] * count // groups, -1))
        poses, activations = self._route(votes_cast, active)
        poses = ops.mean(ops.reshape(poses, (groups, -1, POSE + 2, self.capsules)), axis=0)
        return ops.transpose(poses, (0, 2, 1)), ops.mean(ops.reshape(activations, (groups, -1, self.capsules)), axis=0)

    def compute_output_spec(self, poses, activations):
        batch = poses.shape[0]
        return (
            keras.KerasTensor((batch, self.capsules, POSE + 2), "float32"),
            keras.KerasTensor((batch, self.capsules), "float32"),
        )

    def get_config(self):
        return {**super().get_config(), "start": self.start, "step": self.step, "together": self.together}
