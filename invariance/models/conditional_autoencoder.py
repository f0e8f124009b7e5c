"""Autoencoders whose decoder is told how to transform what it draws."""

import keras
from keras import ops

from invariance.losses import gradient_penalty
from invariance.models.autoencoder import REGULARISERS


@keras.saving.register_keras_serializable(package="invariance")
class ConditionalAutoencoder(keras.Model):
    """decoder([encoder(image), parameters]): the image, transformed as the parameters say.

    Args:
        encoder: images (batch, height, width, channels) -> codes (batch, code_size).
        decoder: [codes (batch, code_size), parameters (batch, parameters)] -> images of any size.

    Input: a pair (images, parameters). Output: the decoder's images.
    """

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.build()

    def build(self, input_shape=None):
        """Nothing to do: the parts come with their weights."""
        self.built = True

    def call(self, inputs, training=None):
        images, parameters = inputs
        return self.decoder([self.encoder(images, training=training), parameters], training=training)

    def get_config(self):
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            key: keras.saving.deserialize_keras_object(value, custom_objects)
            for key, value in config.items()
            if isinstance(value, dict) and "class_name" in value and key != "dtype"
        }
        return cls(**{**config, **parts})


@keras.saving.register_keras_serializable(package="invariance")
class AdversarialAutoencoder(ConditionalAutoencoder):
    """A `ConditionalAutoencoder` whose codes are drawn towards the uniform distribution on [-1, 1]^code_size.

    A critic learns to tell codes from samples of that prior, and the encoder learns to mislead it. A training step is
    one update of encoder and decoder on the reconstruction, `critic_updates` updates of the critic, and one of the
    encoder against the critic, each with an optimiser of its own. The critic's updates see one batch of codes, encoded
    once (the encoder rests meanwhile), and fresh samples of the prior each.

    Args:
        encoder, decoder: as for `ConditionalAutoencoder`.
        critic: codes (batch, code_size) -> scores (batch, 1), high for the prior.
        critic_optimizer: for the critic.
        encoder_optimizer: for the encoder's update against the critic.
        regulariser: "wasserstein", with the gradient penalty per sample; "wasserstein_batchwide", with the original
            program's penalty (`losses.gradient_penalty`); "cross_entropy", the discriminator of the AAE paper.
        critic_updates: in each step.
        penalty_weight: of the gradient penalty.
        seed: of the prior's samples; None takes Keras' global one.

    References: Makhzani et al., "Adversarial Autoencoders" (2015); Gulrajani et al., "Improved Training of Wasserstein
        GANs" (2017).
    """

    def __init__(
        self,
        encoder,
        decoder,
        critic,
        critic_optimizer,
        encoder_optimizer,
        regulariser="wasserstein",
        critic_updates=5,
        penalty_weight=10.0,
        seed=None,
        **kwargs,
    ):
        if regulariser not in REGULARISERS:
            raise ValueError(
                f"Argument `regulariser` must be one of {', '.join(REGULARISERS)}. Received: {regulariser!r}"
            )
        if critic_updates < 1:
            raise ValueError(f"Argument `critic_updates` must be a positive integer. Received: {critic_updates!r}")
        # Not the parent's: a model that is built takes no further parts.
        keras.Model.__init__(self, **kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.critic = critic
        self.critic_optimizer = critic_optimizer
        self.encoder_optimizer = encoder_optimizer
        self.regulariser = regulariser
        self.critic_updates = critic_updates
        self.penalty_weight = penalty_weight
        # Its state is one of the model's variables, so that a resumed run draws what it would have drawn.
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Each optimiser's state is made for its own variables before training, or a checkpoint would not hold it.
        critic_optimizer.build(critic.trainable_variables)
        encoder_optimizer.build(encoder.trainable_variables)
        self.critic_tracker = keras.metrics.Mean(name="critic_loss")
        self.encoder_tracker = keras.metrics.Mean(name="encoder_loss")
        self.build()

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["prior"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["prior"][()])

    def sample_prior(self, count, generator=None):
        """Codes (count, code_size) drawn from the prior."""
        size = self.encoder.output_shape[-1]
        return keras.random.uniform((count, size), -1.0, 1.0, seed=generator or self.seed_generator)

    def critic_loss(self, prior, codes, mixing):
        """What the critic minimises: scalar.

        Args:
            prior: (batch, code_size) samples of the prior.
            codes: (batch, code_size).
            mixing: (batch,) numbers in [0, 1], for the gradient penalty.
        """
        scores = self.critic(ops.concatenate([prior, codes]), training=True)
        of_prior, of_codes = ops.split(ops.cast(scores, "float32"), 2)
        if self.regulariser == "cross_entropy":
            return ops.mean(ops.softplus(-of_prior)) + ops.mean(ops.softplus(of_codes))
        penalty = gradient_penalty(
            lambda points: self.critic(points, training=True), prior, codes, mixing, self.regulariser == "wasserstein"
        )
        return ops.mean(of_codes) - ops.mean(of_prior) + self.penalty_weight * penalty

    def encoder_loss(self, codes):
        """What the encoder minimises against the critic: scalar."""
        scores = ops.cast(self.critic(codes, training=True), "float32")
        return ops.mean(ops.softplus(-scores)) if self.regulariser == "cross_entropy" else -ops.mean(scores)

    def train_step(self, data):
        import tensorflow as tf

        inputs, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:
            # For all weights, the critic's too, as a loaded model's is.
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

    def _update_critic(self, codes, batch):
        import tensorflow as tf

        prior = self.sample_prior(batch)
        mixing = keras.random.uniform((batch,), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            loss = self.critic_loss(prior, codes, mixing)
        own = self.critic.trainable_variables
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, own), own, strict=True))
        self.critic_tracker.update_state(loss, sample_weight=batch)

    def get_config(self):
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
