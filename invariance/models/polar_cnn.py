"""A classifier over polar coordinates that is invariant under rotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive, require_share
from invariance.models.classifier import classifier
from invariance.models.cnn import Convolution
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class PolarCNN(Declaration):
    """Polar resampling, convolutions that are cyclic along the angle, the maximum over the angle, dense, softmax.

    Told: rotation, and its centre. Symmetry: in polar coordinates a rotation by k steps of 360 / angles degrees is a
    cyclic shift by k columns, which leaves the probabilities unchanged, exactly (to rounding). Of images on pixels,
    this holds exactly for quarter turns, if 4 divides ``angles``; for other angles approximately: between the steps
    the angle is resampled, and the rotated image is blurred by interpolation.

    Strides are along the radius only. After the convolutions the remaining radii are combined, position by position,
    and filters as long as the whole circle see it from every angle. Each layer but the last is followed by a leaky
    ReLU; batch norm comes after the activation, and its statistics are shared by the angles.

    Args:
        angles, radii: size of the image in polar coordinates.
        logarithmic: whether the radii are spaced logarithmically, from one pixel to half the image's side.
        convolutions: the convolutional layers, zero-padded along the radius; without pooling.
        channels: number of filters that combine the remaining radii.
        dense: number of filters as long as the circle.
        batch_norm: batch norm after each of these layers' activations but the last (epsilon 1e-3).
        dropout: rate of the dropout before the last layer; 0 for none.
        slope: negative slope of the leaky ReLU.
        moving_average_decay: decay of batch norm's statistics, see `CNN`.

    Raises:
        ValueError: if an argument is out of range.

    References: Esteves, Allen-Blanchette, Zhou and Daniilidis, "Polar transformer networks" (2018); Kim, Jung, Kim and
        Lee, "CyCNN: a rotation invariant CNN using polar mapping and cylindrical convolution layers" (2020).
    """

    angles: int = 48
    radii: int = 14
    logarithmic: bool = False
    convolutions: tuple[Convolution, ...] = (Convolution(32, 5, 2), Convolution(32, 5, 2))
    channels: int = 48
    dense: int = 96
    batch_norm: bool = True
    dropout: float = 0.5
    slope: float = 0.1
    moving_average_decay: float = 0.999

    def __post_init__(self) -> None:
        require_positive(self, "angles", "radii", "channels", "dense")
        require_share(self, "dropout", "moving_average_decay")
        if any(each.pool or each.kernel > self.angles for each in self.convolutions):
            raise ValueError(
                f"Argument `convolutions` must have no pooling and kernels of at most {self.angles}, the number of "
                f"angles. Received: {tuple(map(str, self.convolutions))}"
            )

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-4) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of outputs.
            learning_rate: a float or a Keras schedule, for Adam with beta_1 = 0.95 and epsilon = 1e-8.

        Returns:
            A model that maps images (batch, height, width, channels) to probabilities (batch, classes).
        """
        import keras
        from keras import layers

        from invariance.layers.fused_batch_normalization import FusedBatchNormalization
        from invariance.layers.polar import CircularPadding, PolarResampling

        inputs = keras.Input(input_shape, name="images")
        x = PolarResampling(self.angles, self.radii, self.logarithmic, name="polar")(inputs)

        def convolution(x: Any, name: str, filters: int, size: tuple[int, int], stride: int, rows: int) -> Any:
            """A convolution, cyclic along the angle and padded by so many rows, with its activation."""
            columns = (size[1] - 1) // 2, size[1] // 2
            x = CircularPadding(columns, (rows // 2, rows - rows // 2), name=f"{name}_padding")(x)
            x = layers.Conv2D(filters, size, (stride, 1), name=name)(x)
            return layers.LeakyReLU(self.slope, name=f"{name}_activation")(x)

        def normalised(x: Any, name: str) -> Any:
            if not self.batch_norm:
                return x
            return FusedBatchNormalization(momentum=self.moving_average_decay, epsilon=1e-3, name=name)(x)

        for number, each in enumerate(self.convolutions, 1):
            # As many rows as 'same' padding adds.
            radii = x.shape[1]
            rows = max(0, (-(-radii // each.stride) - 1) * each.stride + each.kernel - radii)
            x = convolution(x, f"conv_{number}", each.filters, (each.kernel, each.kernel), each.stride, rows)
            x = normalised(x, f"batch_norm_{number}")
        x = normalised(convolution(x, "radii", self.channels, (x.shape[1], 1), 1, 0), "batch_norm_radii")
        x = convolution(x, "circle", self.dense, (1, self.angles), 1, 0)
        x = layers.GlobalMaxPooling2D(name="pool")(x)
        return classifier(inputs, x, classes, self.dropout, learning_rate, "polar_cnn")

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        radii, channels = self.radii, input_shape[2]
        for each in self.convolutions:
            radii = -(-radii // each.stride)
            yield 2.0 * prod((radii, self.angles, each.kernel**2, channels, each.filters))
            channels = each.filters
        yield 2.0 * self.angles * radii * channels * self.channels
        yield 2.0 * self.angles * self.angles * self.channels * self.dense
        yield 2.0 * self.dense * classes
