"""Autoencoders whose decoder is given the parameters of a transformation."""

from __future__ import annotations

from typing import Any, Self

import keras
from keras import ops

from invariance import losses
from invariance.errors import require_positive, require_tensorflow
from invariance.models.regularisers import CROSS_ENTROPY, REGULARISERS, WASSERSTEIN
from invariance.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="invariance")
class ConditionalAutoencoder(keras.Model):
    """Draws an image transformed by given parameters: decoder([encoder(image), parameters]).

    Args:
        encoder: maps images (batch, height, width, channels) to codes (batch, code_size).
        decoder: maps [codes (batch, code_size), parameters (batch, parameters)] to images of any size.

    Input: a pair (images, parameters). Output: the decoder's images.
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        """Does nothing: the parts are already built."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        images, parameters = inputs
        return self.decoder([self.encoder(images, training=training), parameters], training=training)

    def get_config(self) -> dict[str, Any]:
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        parts = {
            key: keras.saving.deserialize_keras_object(value, custom_objects)
            for key, value in config.items()
            if isinstance(value, dict) and "class_name" in value and key != "dtype"
        }
        return cls(**{**config, **parts})


@keras.saving.register_keras_serializable(package="invariance")
class AdversarialAutoencoder(ConditionalAutoencoder):
    """A `ConditionalAutoencoder` whose codes are pulled towards a uniform prior on [-1, 1]^code_size.

    A critic learns to tell codes from samples of the prior, and the encoder learns to fool it. A training step consists
    of one update of encoder and decoder on the reconstruction, `critic_updates` updates of the critic, and one update
    of the encoder against the critic, each with its own optimiser. The critic's updates share one batch of codes,
    encoded once (the encoder does not change meanwhile), and each draws new samples of the prior.

    Args:
        encoder, decoder: as for `ConditionalAutoencoder`.
        critic: maps codes (batch, code_size) to scores (batch, 1), high for the prior.
        critic_optimizer: for the critic.
        encoder_optimizer: for the encoder's update against the critic.
        regulariser: the critic's loss. "wasserstein" has a gradient penalty per sample, "wasserstein_batchwide" the
            original program's (see `losses.gradient_penalty`); "cross_entropy" is the discriminator of the AAE paper.
        critic_updates: number of critic updates in each training step.
        penalty_weight: weight of the gradient penalty.
        seed: for the samples of the prior; None to derive it from Keras' global seed.

    Raises:
        ValueError: if the regulariser is unknown or `critic_updates` is not a positive integer; if it is trained with
            another backend than TensorFlow.

    References: Makhzani et al., "Adversarial Autoencoders" (2015); Gulrajani et al., "Improved Training of Wasserstein
        GANs" (2017).
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        critic: keras.Model,
        critic_optimizer: keras.optimizers.Optimizer,
        encoder_optimizer: keras.optimizers.Optimizer,
        regulariser: str = WASSERSTEIN,
        critic_updates: int = 5,
        penalty_weight: float = 10.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        if regulariser not in REGULARISERS:
            raise ValueError(
                f"Argument `regulariser` must be one of {', '.join(REGULARISERS)}. Received: {regulariser!r}"
            )
        # Not the parent's: it builds the model, and a built model accepts no further parts.
        keras.Model.__init__(self, **kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.critic = critic
        self.critic_optimizer = critic_optimizer
        self.encoder_optimizer = encoder_optimizer
        self.regulariser = regulariser
        self.critic_updates = critic_updates
        require_positive(self, "critic_updates")
        self.penalty_weight = penalty_weight
        # Its state is one of the model's variables, so that a resumed run continues the same random sequence.
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Each optimiser's state is created for its own variables before training, or checkpoints would miss it.
        critic_optimizer.build(critic.trainable_variables)
        encoder_optimizer.build(encoder.trainable_variables)
        self.critic_tracker = keras.metrics.Mean(name="critic_loss")
        self.encoder_tracker = keras.metrics.Mean(name="encoder_loss")
        self.build()

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["prior"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store: Any) -> None:
        self.seed_generator.state.assign(store["prior"][()])

    def sample_prior(self, count: int | Tensor, generator: keras.random.SeedGenerator | int | None = None) -> Tensor:
        """Samples of the prior, (count, code_size).

        Args:
            count: number of samples.
            generator: a seed or seed generator; by default the model's own.
        """
        size = self.encoder.output_shape[-1]
        return keras.random.uniform(
            (count, size), -1.0, 1.0, "float32", self.seed_generator if generator is None else generator
        )

    def critic_loss(self, prior: Tensor, codes: Tensor, mixing: Tensor) -> Tensor:
        """The loss that the critic minimises, a scalar.

        Args:
            prior: (batch, code_size), samples of the prior.
            codes: (batch, code_size).
            mixing: (batch,), in [0, 1], for the gradient penalty.
        """
        scores = self.critic(ops.concatenate([prior, codes]), training=True)
        of_prior, of_codes = ops.split(ops.cast(scores, "float32"), 2)
        if self.regulariser == CROSS_ENTROPY:
            return ops.mean(ops.softplus(-of_prior)) + ops.mean(ops.softplus(of_codes))
        penalty = losses.gradient_penalty(
            lambda points: self.critic(points, training=True), prior, codes, mixing, self.regulariser == WASSERSTEIN
        )
        return ops.mean(of_codes) - ops.mean(of_prior) + self.penalty_weight * penalty

    def encoder_loss(self, codes: Tensor) -> Tensor:
        """The loss that the encoder minimises against the critic, a scalar."""
        scores = ops.cast(self.critic(codes, training=True), "float32")
        return ops.mean(ops.softplus(-scores)) if self.regulariser == CROSS_ENTROPY else -ops.mean(scores)

    def train_step(self, *arguments: Any) -> Any:
        require_tensorflow("The training of an AdversarialAutoencoder")
        import tensorflow as tf

        (data,) = arguments
        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:
            # For all weights, including the critic's, as in a loaded model.
            self.optimizer.build(self.trainable_variables)
        images = inputs[0]
        batch = ops.shape(images)[0]

        with tf.GradientTape() as tape:
            drawn = self(inputs, training=True)
            loss = self.compute_loss(inputs, targets, drawn, weights)
            scaled = self.optimizer.scale_loss(loss)
        both = [*self.encoder.trainable_variables, *self.decoder.trainable_variables]
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, both), both, strict=True))
        self._loss_tracker.update_state(loss, sample_weight=batch)

        with tf.GradientTape() as tape:
            codes = ops.cast(self.encoder(images, training=True), "float32")
            with tape.stop_recording():
                for _ in range(self.critic_updates):
                    self._update_critic(codes, batch)
            encoder_loss = self.encoder_loss(codes)
        own = self.encoder.trainable_variables
        self.encoder_optimizer.apply_gradients(zip(tape.gradient(encoder_loss, own), own, strict=True))
        self.encoder_tracker.update_state(encoder_loss, sample_weight=batch)
        return self.compute_metrics(inputs, targets, drawn, weights)

    def _update_critic(self, codes: Tensor, batch: int | Tensor) -> None:
        import tensorflow as tf

        prior = self.sample_prior(batch)
        mixing = keras.random.uniform((batch,), dtype="float32", seed=self.seed_generator)
        with tf.GradientTape() as tape:
            loss = self.critic_loss(prior, codes, mixing)
        own = self.critic.trainable_variables
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, own), own, strict=True))
        self.critic_tracker.update_state(loss, sample_weight=batch)

    def get_config(self) -> dict[str, Any]:
        parts = {
            "critic": self.critic,
            "critic_optimizer": self.critic_optimizer,
            "encoder_optimizer": self.encoder_optimizer,
        }
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "regulariser": self.regulariser,
            "critic_updates": self.critic_updates,
            "penalty_weight": self.penalty_weight,
        }
