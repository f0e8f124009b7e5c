"""A classifier that is invariant under quarter turns (Cohen and Welling 2016)."""

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
class P4CNN(Declaration):
    """Group convolutions over the quarter turns, a group convolution as large as the image, pooling, dense, softmax.

    Told: quarter turns. Symmetry: an image and its quarter turns have the same probabilities, exactly (to rounding),
    before and after training. A rotation by any other angle is equivalent to one within +/-45 degrees; there, the
    network has to learn.

    It is the network `CNN` with convolutions replaced by group convolutions and the first dense layer by one in four
    orientations. Each is followed by a leaky ReLU; batch norm comes after the activation of the convolutions, and its
    statistics are shared by the orientations. The largest response over the orientations goes to the last layer.

    Args:
        convolutions: the convolutional layers, in which ``filters`` counts those of one orientation; without pooling.
        batch_norm: batch norm after each convolution's activation (epsilon 1e-3).
        dropout: rate of the dropout before the last layer; 0 for none.
        dense: units of the first dense layer, in each orientation.
        slope: negative slope of the leaky ReLU.
        moving_average_decay: decay of batch norm's statistics, see `CNN`.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Cohen and Welling, "Group equivariant convolutional networks" (2016).
    """

    convolutions: tuple[Convolution, ...] = (Convolution(16, 4, 2), Convolution(32, 4, 2))
    batch_norm: bool = True
    dropout: float = 0.5
    dense: int = 256
    slope: float = 0.1
    moving_average_decay: float = 0.999

    def __post_init__(self) -> None:
        require_positive(self, "dense")
        require_share(self, "dropout", "moving_average_decay")
        if not self.convolutions or any(each.pool for each in self.convolutions):
            raise ValueError(
                "Argument `convolutions` must be one or more convolutions without pooling. "
                f"Received: {tuple(map(str, self.convolutions))}"
            )

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-4) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of square images in [0, 1].
            classes: number of outputs.
            learning_rate: a float or a Keras schedule, for Adam with beta_1 = 0.95 and epsilon = 1e-8.

        Returns:
            A model that maps images (batch, height, width, channels) to probabilities (batch, classes).

        Raises:
            ValueError: if the images are not square, or have a size at which a convolution is not equivariant.
        """
        import keras
        from keras import layers

        from invariance.layers.fused_batch_normalization import FusedBatchNormalization
        from invariance.layers.group_convolution import GroupConvolution2D, GroupPooling

        height, width, _ = input_shape
        if height != width:
            raise ValueError(f"{type(self).__name__} needs square images; these have {height} x {width} pixels")
        inputs = x = keras.Input(input_shape, name="images")
        for number, each in enumerate(self.convolutions, 1):
            x = GroupConvolution2D(each.filters, each.kernel, each.stride, name=f"conv_{number}")(x)
            x = layers.LeakyReLU(self.slope, name=f"conv_{number}_activation")(x)
            if self.batch_norm:
                # Channels' statistics over positions and orientations: to batch norm, orientations are positions.
                rows, columns, turns, filters = x.shape[1:]
                x = layers.Reshape((rows, columns * turns, filters), name=f"positions_{number}")(x)
                x = FusedBatchNormalization(
                    momentum=self.moving_average_decay, epsilon=1e-3, name=f"batch_norm_{number}"
                )(x)
                x = layers.Reshape((rows, columns, turns, filters), name=f"orientations_{number}")(x)
        x = GroupConvolution2D(self.dense, x.shape[1], padding="valid", name="dense")(x)
        x = layers.LeakyReLU(self.slope, name="dense_activation")(x)
        x = layers.Flatten(name="flatten")(GroupPooling(name="pool")(x))
        return classifier(inputs, x, classes, self.dropout, learning_rate, "p4cnn")

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        height, width, channels = input_shape
        for each in self.convolutions:
            height, width = -(-height // each.stride), -(-width // each.stride)
            yield 2.0 * prod((height, width, each.kernel**2, channels, 4 * each.filters))
            channels = 4 * each.filters
        yield 2.0 * height * width * channels * 4 * self.dense
        yield 2.0 * self.dense * classes
