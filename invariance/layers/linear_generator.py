"""Moves images by a linear operator that is learnt from pairs, or from drawings of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from invariance import generators
from invariance.errors import require_positive
from invariance.generators_from_classes import learn_generator_from_classes
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class LinearGenerator(layers.Layer):
    """Moves images by exp(tA), with an antisymmetric matrix A in the space of the images' principal components.

    The layer is told which two drawings show the same image (`learn`), or only which show the same class
    (`learn_from_classes`), and nothing about the movement between them or about which pixels are neighbours: a
    permutation of the pixels changes nothing. It assumes that the movement acts linearly on images, keeps their length,
    and that its parameters, if there are several, commute. A rotates each of some orthogonal planes with a frequency of
    its own (for each parameter), so moving costs two products with the basis:

        x' = sum_j Re(conj(u_j + i v_j) z_j exp(i f_j t)) + what is left unmoved,  z_j = <x, u_j> + i <x, v_j>.

    Weights, none of them trainable: ``basis`` (pixels, components), the columns being all u, then all v, then one that
    is never moved if their number is odd; ``frequencies`` (parameters, components // 2); ``periods`` (parameters,), 0
    where the movement is not periodic. They are learnt or come from a file; an image cannot be moved before.

    Args:
        components: number of principal components, from the origin and not from the mean, to which images are
            projected.
        parameters: of the movement: the number of generators.

    Input: [images (batch, height, width, channels), times (batch,) or (batch, parameters)].
    Output: (batch, height, width, channels) float32, differentiable in images and times.

    Raises:
        ValueError: if an argument is not a positive integer, the input has another shape, images have fewer pixels
            than there are components, or an image is to be moved before anything was learnt.

    References: see `invariance.generators`.
    """

    def __init__(self, components: int = 120, parameters: int = 1, **kwargs: Any):
        super().__init__(dtype="float32", **{key: value for key, value in kwargs.items() if key != "dtype"})
        self.components, self.parameters = components, parameters
        require_positive(self, "components", "parameters")
        # What the last call of `learn` said.
        self.diagnostics: dict[str, Any] = {}

    def build(self, input_shape: Any) -> None:
        images, times = map(tuple, input_shape)
        if len(images) != 4 or None in images[1:] or times[1:] not in ((), (self.parameters,)):
            raise ValueError(
                f"Input must be images (batch, height, width, channels) and times (batch, {self.parameters}). "
                f"Received: shapes {images} and {times}"
            )
        self.image_shape = images[1:]
        self.pixels = int(np.prod(self.image_shape))
        if self.pixels < self.components:
            raise ValueError(
                f"Images must have at least as many pixels as there are components, {self.components}. "
                f"Received: images of shape {self.image_shape}"
            )
        self.planes = self.components // 2
        shapes = {
            "basis": (self.pixels, self.components),
            "frequencies": (self.parameters, self.planes),
            "periods": (self.parameters,),
        }
        for name, shape in shapes.items():
            # Not a number until something is learnt.
            initializer = keras.initializers.Constant(float("nan"))
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer, trainable=False))
        self.built = True

    def learn(
        self,
        first: np.ndarray,
        second: np.ndarray,
        *,
        farther: tuple[np.ndarray, np.ndarray] | None = None,
        images: np.ndarray | None = None,
        seed: int = 0,
        starts: int = 3,
    ) -> dict[str, Any]:
        """Learns basis, frequencies and period, on NumPy in float64.

        Small movements are fitted by alternating least squares for b - a = t A (a + b) / 2, from random starts. Planes
        and frequencies are then refined with exp(tA) itself, with ``farther`` on larger and larger movements. If the
        frequencies are multiples of one base (see `generators.find_base`), they are rounded to them, and exp(tA) is the
        identity on the components at t = 2 pi. Otherwise times are such that those of the pairs given have a root mean
        square of about 1. The sign of times is arbitrary.

        Args:
            first, second: (pairs, height, width, channels), drawings of the same images that differ little.
            farther: two such arrays of drawings that differ by any movement.
            images: (images, height, width, channels), which give the components; by default ``farther``, or else the
                pairs.
            seed: of the random starts.
            starts: number of random starts.

        Returns:
            A dictionary, also kept as ``diagnostics``: ``share`` of the images' squared length within the components;
            ``residual``, the share of the pairs' squared differences that the linearised fit leaves;
            ``starts_residuals`` and ``starts_agreement``, the least correlation between the times that the best start
            found and those of the others; ``base_frequency`` with its ``misfit`` and the ``chance_misfit`` that it has
            to be below; ``period``; ``moved_residual``, the share of the squared differences, of ``farther`` if given,
            that is left after the best movement.

        Raises:
            ValueError: if shapes do not fit, there are fewer images than components, or no pair differs.

        Warns:
            UserWarning: if the starts do not agree on one generator.
        """
        pairs = [("first", first), ("second", second), *zip(("farther[0]", "farther[1]"), farther or (), strict=False)]
        shape = np.shape(first)[1:]
        for (name, one), (other, two) in zip(pairs[::2], pairs[1::2], strict=True):
            if np.ndim(one) != 4 or np.shape(one) != np.shape(two) or np.shape(one)[1:] != shape:
                raise ValueError(
                    f"Arguments `{name}` and `{other}` must both be (pairs, height, width, channels), of images of one "
                    f"size. Received: shapes {np.shape(one)} and {np.shape(two)}"
                )
        if not self.built:
            self.build([(None, *shape), (None, self.parameters)])
        if images is None:
            images = np.concatenate(farther or (first, second))

        def learn(components: np.ndarray) -> tuple:
            a, b = (self._flat(each) @ components for each in (first, second))
            far = tuple(self._flat(each) @ components for each in farther) if farther else None
            return generators.learn_generator(a, b, far, parameters=self.parameters, seed=seed, starts=starts)

        return self._learn(images, learn)

    def learn_from_classes(self, classes: Sequence[np.ndarray], *, seed: int = 0, starts: int = 3) -> dict[str, Any]:
        """Learns basis, frequencies and period from drawings of classes, not knowing which show the same original.

        See `invariance.generators_from_classes`. The unit and the sign of times are as for `learn`.

        Args:
            classes: drawings of one class each, (drawings, height, width, channels), no two of the same original.
            seed: of the random starts, and of the movements.
            starts: number of random starts.

        Returns:
            As `learn`, but for ``moved_residual``: the median ratio of the squared distances that moved drawings and
            drawings as they are have from their nearest neighbours.

        Raises:
            ValueError: if shapes do not fit, there are fewer drawings than components, or no class has two drawings
                that differ.

        Warns:
            UserWarning: if the starts do not agree on one generator.
        """
        shapes = {np.shape(each)[1:] for each in classes}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 3:
            raise ValueError(
                "Argument `classes` must be arrays (drawings, height, width, channels), of images of one size. "
                f"Received: shapes {[np.shape(each) for each in classes]}"
            )
        if not self.built:
            self.build([(None, *shape), (None, self.parameters)])

        def learn(components: np.ndarray) -> tuple:
            points = [self._flat(each).astype("float64") @ components for each in classes]
            return learn_generator_from_classes(points, parameters=self.parameters, seed=seed, starts=starts)

        return self._learn(np.concatenate(classes), learn)

    def _learn(self, images: np.ndarray, learn: Callable[[np.ndarray], tuple]) -> dict[str, Any]:
        """Keeps what ``learn`` finds in the principal components (pixels, components) of images."""
        if len(images) < self.components:
            raise ValueError(
                f"There must be at least as many images as components, {self.components}. Received: {len(images)}"
            )
        components, share = generators.principal_components(self._flat(images), self.components)
        found, numbers = learn(components)
        self.basis.assign(components @ found.vectors)
        self.frequencies.assign(found.frequencies)
        self.periods.assign([found.period or 0.0] * self.parameters)
        self.diagnostics = {"share": share, **numbers}
        return self.diagnostics

    @property
    def period(self) -> float | None:
        """The time after which images are back, or None if they never are."""
        self._require_learnt()
        return float(ops.convert_to_numpy(self.periods)[0]) or None

    def call(self, inputs: Any) -> Tensor:
        self._require_learnt()
        images, times = inputs
        coordinates = self._coordinates(images)
        planes = self.planes
        real, imaginary = coordinates[:, :planes], coordinates[:, planes : 2 * planes]
        # (batch, parameters) x (parameters, planes) -> (batch, planes)
        angles = ops.reshape(ops.cast(times, "float32"), (-1, self.parameters)) @ self.frequencies
        cosine, sine = ops.cos(angles), ops.sin(angles)
        turned = [real * cosine - imaginary * sine, real * sine + imaginary * cosine, coordinates[:, 2 * planes :]]
        return self._images(ops.concatenate(turned, -1))

    def project(self, images: Tensor) -> Tensor:
        """The images within the components, as `call` returns them for a time of 0."""
        self._require_learnt()
        return self._images(self._coordinates(images))

    def times_between(self, first: np.ndarray, second: np.ndarray, reach: float = 10.0) -> np.ndarray:
        """The times that carry one image to the other, by least squares.

        Args:
            first, second: (pairs, height, width, channels).
            reach: largest time that is looked for, forwards or backwards, if the movement is not periodic; otherwise
                it is half the period.

        Returns:
            (pairs, parameters).
        """
        basis = ops.convert_to_numpy(self.basis).astype("float64")
        frequencies = ops.convert_to_numpy(self.frequencies).astype("float64")
        # In the coordinates along the basis, that is the identity.
        found = generators.Generator(np.eye(self.components), frequencies, self.period)
        a, b = (self._flat(each) @ basis for each in (first, second))
        return found.times_between(a, b, reach)

    def _flat(self, images: np.ndarray) -> np.ndarray:
        """(images, pixels)."""
        return np.reshape(images, (len(images), self.pixels))

    def _coordinates(self, images: Tensor) -> Tensor:
        """(batch, components)."""
        return ops.reshape(ops.cast(images, "float32"), (-1, self.pixels)) @ self.basis

    def _images(self, coordinates: Tensor) -> Tensor:
        """(batch, height, width, channels) from (batch, components)."""
        return ops.reshape(coordinates @ ops.transpose(self.basis), (-1, *self.image_shape))

    def _require_learnt(self) -> None:
        import tensorflow as tf

        # The values of weights, also while a function is traced.
        with tf.init_scope():
            learnt = self.built and not np.isnan(ops.convert_to_numpy(self.periods)).any()
        if not learnt:
            raise ValueError(
                "A LinearGenerator must have learnt before it moves images; call `learn`, or load a model that has "
                f"learnt. Received: the layer {self.name!r} without values"
            )

    def compute_output_shape(self, input_shape: Any) -> Shape:
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(tuple(inputs[0].shape), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "components": self.components, "parameters": self.parameters}
