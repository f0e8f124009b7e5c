"""A capsule classifier with a decoder that reconstructs the image from one class capsule."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import keras
from keras import layers, ops

from invariance.layers.capsules import Mask
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class CapsuleNetwork(keras.Model):
    """Encoder and decoder, trained together: classification loss + weight * mean squared error of the reconstruction.

    In training, the decoder sees the capsule of the true class; otherwise, that with the largest score. The target of
    the reconstruction is the network's input.

    Args:
        encoder: maps images (batch, height, width, channels) to capsules (batch, classes, dimension) and scores (batch,
            classes).
        decoder: maps masked capsules (batch, classes * dimension) to images.
        reconstruction_weight: weight of the mean squared error.

    Input shape: (batch, height, width, channels).

    Output: {"scores": (batch, classes), "reconstruction": (batch, height, width, channels)}; in training without labels
        also the "capsules", from which `compute_loss` reconstructs that of the true class.

    Reference: Sabour, Frosst and Hinton (2017), section 4.1.
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model, reconstruction_weight: float = 0.392, **kwargs: Any):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.mask = Mask(name="mask")
        self.reconstruction_weight = reconstruction_weight
        self.classification_tracker = keras.metrics.Mean(name="classification_loss")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_error")
        self._step: Tensor | None = None
        self.build()

    @property
    def input_shape(self) -> Shape:
        """(None, height, width, channels)."""
        return self.encoder.input_shape

    def build(self, input_shape: Shape | None = None) -> None:
        """Does nothing: encoder and decoder are already built."""
        self.built = True

    def call(self, inputs: Tensor, labels: Tensor | None = None, training: bool | None = None) -> dict[str, Tensor]:
        capsules, scores = self.encoder(inputs, training=training)
        outputs = {"scores": scores, "reconstruction": self.decode(capsules, scores, labels, training)}
        return {**outputs, "capsules": capsules} if training and labels is None else outputs

    def decode(
        self, capsules: Tensor, scores: Tensor, labels: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        """Images decoded from the capsule of the labelled class or, without labels, that with the largest score."""
        return self.decoder(self.mask(capsules, scores, labels), training=training)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if hasattr(self.loss, "follow"):
            # A loss with a schedule reads the step from the optimiser.
            self.loss.follow(self.optimizer.iterations if self._step is None else self._step)
        classification = super().compute_loss(x, y, y_pred["scores"], sample_weight, training)
        drawn, dtype = y_pred["reconstruction"], classification.dtype
        if "capsules" in y_pred:
            drawn = self.decode(y_pred["capsules"], y_pred["scores"], y, training)
        error = ops.mean(ops.square(ops.cast(drawn, dtype) - ops.cast(x, dtype)))
        batch = ops.shape(x)[0]
        self.classification_tracker.update_state(classification, sample_weight=batch)
        self.reconstruction_tracker.update_state(error, sample_weight=batch)
        return classification + self.reconstruction_weight * error

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Any, sample_weight: Tensor | None = None) -> dict[str, Any]:
        return super().compute_metrics(x, y, y_pred["scores"], sample_weight)

    def compute_loss_and_updates(self, *arguments: Any, optimizer_variables: Any = None, **options: Any) -> Any:
        """JAX only: the loss, with the optimiser's state among the arguments, where a loss with a schedule finds it."""
        arguments_of_parent = {**options, "optimizer_variables": optimizer_variables}
        if optimizer_variables is None or not hasattr(self.loss, "follow"):
            return super().compute_loss_and_updates(*arguments, **arguments_of_parent)
        state = zip(self.optimizer.variables, optimizer_variables, strict=True)
        self._step = next(value for variable, value in state if variable is self.optimizer.iterations)
        try:
            return super().compute_loss_and_updates(*arguments, **arguments_of_parent)
        finally:
            # It means nothing outside the function being traced.
            self._step = None
            self.loss.follow(self.optimizer.iterations)

    def train_step(self, *arguments: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            # Keras' own step, in which `compute_loss` reconstructs.
            return super().train_step(*arguments)
        import tensorflow as tf

        (data,) = arguments
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs = self(images, labels=labels, training=True)
            loss = self.compute_loss(images, labels, outputs, weights)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(images)[0])
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.compute_metrics(images, labels, outputs, weights)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "reconstruction_weight": self.reconstruction_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> CapsuleNetwork:
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in ("encoder", "decoder")
        }
        return cls(**{**config, **parts})


def dense_decoder(size: int, units: Sequence[int], image_shape: Shape) -> keras.Model:
    """Dense layers with ReLU, then a dense layer with a sigmoid: (batch, size) -> (batch, height, width, channels)."""
    inputs = x = keras.Input((size,), name="masked_capsules")
    for number, count in enumerate(units, 1):
        x = layers.Dense(count, "relu", name=f"dense_{number}")(x)
    x = layers.Dense(prod(image_shape), name="pixels")(x)
    x = layers.Activation("sigmoid", dtype="float32", name="sigmoid")(x)
    return keras.Model(inputs, layers.Reshape(image_shape, dtype="float32", name="image")(x), name="decoder")
