"""CapsNet with dynamic routing (Sabour, Frosst and Hinton 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class CapsNet(Declaration):
    """Convolution, primary capsules, one routed capsule per class, and a decoder.

    The defaults give the published network, which has 8,215,568 parameters for 10 classes and 28 x 28 pixels, 1,411,344
    of them in the decoder.

    Args:
        filters: number of filters of the first convolution (ReLU, stride 1).
        kernel: side of both convolutions' kernels, in pixels ('valid').
        primary_channels: number of primary capsules at each position.
        primary_dimension: dimension of each primary capsule.
        primary_stride: stride of the primary capsules' convolution, in pixels.
        dimension: dimension of each class capsule.
        iterations: number of routing iterations.
        decoder: units of the decoder's hidden layers.
        reconstruction_weight: weight of the mean squared error, added to the margin loss. 0.392 is 0.0005 for each of
            784 pixels.

    Raises:
        ValueError: if a size is not a positive integer.
    """

    filters: int = 256
    kernel: int = 9
    primary_channels: int = 32
    primary_dimension: int = 8
    primary_stride: int = 2
    dimension: int = 16
    iterations: int = 3
    decoder: tuple[int, ...] = (512, 1024)
    reconstruction_weight: float = 0.392

    def __post_init__(self) -> None:
        names = ("filters", "kernel", "primary_channels", "primary_dimension", "primary_stride", "dimension")
        require_positive(self, *names, "iterations")

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-3) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of class capsules.
            learning_rate: a float or a Keras schedule, for Adam with TensorFlow 1's epsilon, 1e-8. (The first
                gradients are of order 1e-10, because squashed capsules start with lengths of 1e-4.)

        Returns:
            A `CapsuleNetwork` whose scores are the lengths of the class capsules.

        Raises:
            ValueError: if the images are too small for the two convolutions.
        """
        import keras
        from keras import layers

        from invariance.layers.capsules import Length, PrimaryCapsules, RoutedCapsules
        from invariance.losses import MarginLoss
        from invariance.models.capsule_network import CapsuleNetwork, dense_decoder
        from invariance.optimizers import Adam

        if min(input_shape[:2]) < (least := 2 * self.kernel - 1):
            raise ValueError(
                f"two {self.kernel} x {self.kernel} convolutions need images of at least {least} x {least} pixels; "
                f"these have {input_shape[0]} x {input_shape[1]}"
            )
        inputs = keras.Input(input_shape, name="images")
        x = layers.Conv2D(self.filters, self.kernel, activation="relu", name="conv_1")(inputs)
        x = PrimaryCapsules(
            self.primary_channels, self.primary_dimension, self.kernel, self.primary_stride, name="primary_capsules"
        )(x)
        capsules = RoutedCapsules(classes, self.dimension, self.iterations, name="class_capsules")(x)
        encoder = keras.Model(inputs, [capsules, Length(name="lengths")(capsules)], name="encoder")
        decoder = dense_decoder(classes * self.dimension, self.decoder, input_shape)
        model = CapsuleNetwork(encoder, decoder, self.reconstruction_weight, name="capsnet")
        model.compile(
            Adam(learning_rate, epsilon=1e-8),
            MarginLoss(),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    # Measured by `make bench`: the large convolution is computed in the frequency domain.
    speed_up = 2.6

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        # Convolutions are counted by definition, however they are computed. Routing, a hundredth of the total, is
        # counted as one product of primary capsules and weights.
        *size, channels = input_shape
        size = [side - self.kernel + 1 for side in size]
        yield 2.0 * prod(size) * self.kernel**2 * channels * self.filters
        size = [(side - self.kernel) // self.primary_stride + 1 for side in size]
        primary = self.primary_channels * self.primary_dimension
        yield 2.0 * prod(size) * self.kernel**2 * self.filters * primary
        yield 2.0 * prod(size) * primary * classes * self.dimension
        units = (classes * self.dimension, *self.decoder, prod(input_shape))
        for before, after in pairwise(units):
            yield 2.0 * before * after
