"""What the declarations of networks that draw share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


class Drawing(Declaration):
    """Base of networks that are told a transformation and draw the image transformed; trained on squared errors.

    A network maps a pair (images, parameters) to images. One with a code is a
    `models.conditional_autoencoder.ConditionalAutoencoder`.
    """

    def __call__(
        self, input_shape: Shape, output_shape: Shape, parameters: int, learning_rate: Any = 1e-3
    ) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of untransformed images in [-1, 1].
            output_shape: (height, width, channels) of the canvas to draw on.
            parameters: how many numbers describe the transformation.
            learning_rate: a float or a Keras schedule of training steps.

        Raises:
            ValueError: if the network cannot have these shapes.
        """
        import keras

        model = self.network(input_shape, output_shape, parameters)
        model.compile(self.optimizer(learning_rate), keras.losses.MeanSquaredError())
        return model

    def network(self, input_shape: Shape, output_shape: Shape, parameters: int) -> keras.Model:
        """The network, not compiled; arguments as for a call."""
        raise NotImplementedError

    def optimizer(self, learning_rate: Any) -> keras.Optimizer:
        """By default Adam."""
        from invariance.optimizers import Adam

        return Adam(learning_rate)
