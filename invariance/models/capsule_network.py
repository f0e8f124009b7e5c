"""A classifier of capsules with a decoder that draws what the chosen capsule says."""

import keras
from keras import ops

from invariance.layers.capsules import Mask


@keras.saving.register_keras_serializable(package="invariance")
class CapsuleNetwork(keras.Model):
    """Encoder and decoder, trained together: classification loss + weight x mean squared error of the reconstruction.

    While it is trained the decoder sees the capsule of the true class, otherwise that of the largest score. The
    target of the reconstruction is the network's input.

    Args:
        encoder: images (batch, height, width, channels) -> capsules (batch, classes, dimension), scores (batch,
            classes).
        decoder: masked capsules (batch, classes * dimension) -> images.
        reconstruction_weight: of the mean squared error.

    Output: {"scores": (batch, classes), "reconstruction": (batch, height, width, channels)}.

    Reference: Sabour, Frosst and Hinton (2017), section 4.1.
    """

    def __init__(self, encoder, decoder, reconstruction_weight=0.392, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.mask = Mask(name="mask")
        self.reconstruction_weight = reconstruction_weight
        self.classification_tracker = keras.metrics.Mean(name="classification_loss")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_error")
        self.build()

    @property
    def input_shape(self):
        """(None, height, width, channels)."""
        return self.encoder.input_shape

    def build(self, input_shape=None):
        """Nothing to do: encoder and decoder come with their weights."""
        self.built = True

    def call(self, inputs, labels=None, training=None):
        capsules, scores = self.encoder(inputs, training=training)
        return {"scores": scores, "reconstruction": self.decode(capsules, scores, labels, training)}

    def decode(self, capsules, scores, labels=None, training=None):
        """Images drawn from the capsules of the labelled classes, or, without labels, of those with largest scores."""
        return self.decoder(self.mask(capsules, scores, labels), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if hasattr(self.loss, "follow"):
            # A loss with a schedule is told the step.
            self.loss.follow(self.optimizer.iterations)
        classification = super().compute_loss(x, y, y_pred["scores"], sample_weight, training)
        error = ops.mean(ops.square(ops.cast(y_pred["reconstruction"], "float32") - ops.cast(x, "float32")))
        batch = ops.shape(x)[0]
        self.classification_tracker.update_state(classification, sample_weight=batch)
        self.reconstruction_tracker.update_state(error, sample_weight=batch)
        return classification + self.reconstruction_weight * error

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["scores"], sample_weight)

    def train_step(self, data):
        import tensorflow as tf

        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs = self(images, labels=labels, training=True)
            loss = self.compute_loss(images, labels, outputs, weights)
            scaled = self.optimizer.scale_loss(loss)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(images)[0])
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.compute_metrics(images, labels, outputs, weights)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "reconstruction_weight": self.reconstruction_weight,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in ("encoder", "decoder")
        }
        return cls(**{**config, **parts})


def dense_decoder(size: int, units, image_shape) -> keras.Model:
    """Dense layers with ReLU and a sigmoid to the pixels: (batch, size) -> (batch, height, width, channels)."""
    from math import prod

    from keras import layers

    inputs = x = keras.Input((size,), name="masked_capsules")
    for number, count in enumerate(units, 1):
        x = layers.Dense(count, "relu", name=f"dense_{number}")(x)
    x = layers.Dense(prod(image_shape), name="pixels")(x)
    x = layers.Activation("sigmoid", dtype="float32", name="sigmoid")(x)
    return keras.Model(inputs, layers.Reshape(image_shape, dtype="float32", name="image")(x), name="decoder")
