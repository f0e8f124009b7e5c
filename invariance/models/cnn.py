"""The convolutional classifiers of the original experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive, require_share
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Convolution:
    """A convolution with 'same' padding.

    Args:
        filters: number of filters.
        kernel: side of the square kernel, in pixels.
        stride: in both directions, in pixels.
        pool: side of the window of the max pooling that follows (stride 1, 'same' padding); 0 for none.
    """

    filters: int
    kernel: int
    stride: int = 1
    pool: int = 0

    def __str__(self) -> str:
        return f"{self.filters} k{self.kernel} s{self.stride}" + (f" pool {self.pool}" if self.pool else "")


@dataclass(frozen=True)
class CNN(Declaration):
    """Convolutions, flatten, dense, softmax.

    Each convolution and the first dense layer are followed by a leaky ReLU. Batch norm, if any, comes after the
    activation. Two peculiarities of the original program can be switched on, as the published numbers need them:
    `double_softmax` and `activate_last`.

    Args:
        convolutions: the convolutional layers.
        batch_norm: batch norm after each convolution's activation (epsilon 1e-3).
        dropout: rate of the dropout after the first dense layer; 0 for none.
        dense: units of the first dense layer.
        slope: negative slope of the leaky ReLU.
        moving_average_decay: decay of batch norm's statistics. These are used after training only and lag
            1 / (1 - decay) steps behind, so short trainings need a smaller decay.
        double_softmax: the loss treats the softmax *output* as logits, and therefore cannot fall below
            log(1 + (classes - 1) / e), 1.274 for 8 classes. False for the usual cross-entropy.
        activate_last: leaky ReLU between the last dense layer and the softmax.

    Raises:
        ValueError: if an argument is out of range.
    """

    convolutions: tuple[Convolution, ...]
    batch_norm: bool = False
    dropout: float = 0.0
    dense: int = 1024
    slope: float = 0.1
    moving_average_decay: float = 0.999
    double_softmax: bool = True
    activate_last: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "dense")
        require_share(self, "dropout", "moving_average_decay")

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-4) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of outputs.
            learning_rate: a float or a Keras schedule, for Adam with the original's beta_1 = 0.95 and epsilon = 1e-8.

        Returns:
            A model that maps images (batch, height, width, channels) to probabilities (batch, classes).
        """
        import keras
        from keras import layers

        from invariance.layers.fused_batch_normalization import FusedBatchNormalization
        from invariance.layers.large_dense import LargeDense
        from invariance.losses import DoubleSoftmaxCrossentropy
        from invariance.optimizers import Adam

        inputs = keras.Input(input_shape, name="images")
        x = inputs
        for number, convolution in enumerate(self.convolutions, 1):
            x = layers.Conv2D(
                convolution.filters, convolution.kernel, convolution.stride, "same", name=f"conv_{number}"
            )(x)
            x = layers.LeakyReLU(self.slope, name=f"conv_{number}_activation")(x)
            if self.batch_norm:
                x = FusedBatchNormalization(
                    momentum=self.moving_average_decay, epsilon=1e-3, name=f"batch_norm_{number}"
                )(x)
            if convolution.pool:
                x = layers.MaxPooling2D(convolution.pool, 1, "same", name=f"pool_{number}")(x)
        x = layers.Flatten(name="flatten")(x)
        x = LargeDense(self.dense, name="dense")(x)
        x = layers.LeakyReLU(self.slope, name="dense_activation")(x)
        if self.dropout:
            x = layers.Dropout(self.dropout, name="dropout")(x)
        x = layers.Dense(classes, name="scores")(x)
        if self.activate_last:
            x = layers.LeakyReLU(self.slope, name="scores_activation")(x)
        # float32 under every precision policy: a bfloat16 softmax is accurate to two decimal digits.
        probabilities = layers.Softmax(dtype="float32", name="probabilities")(x)
        model = keras.Model(inputs, probabilities, name="cnn")
        loss = DoubleSoftmaxCrossentropy() if self.double_softmax else keras.losses.SparseCategoricalCrossentropy()
        model.compile(
            Adam(learning_rate, beta_1=0.95, beta_2=0.999, epsilon=1e-8),
            loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    def corrected(self) -> CNN:
        """The same network with the usual cross-entropy and no activation between the last layer and the softmax."""
        return replace(self, double_softmax=False, activate_last=False)

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        height, width, channels = input_shape
        for convolution in self.convolutions:
            height, width = ceil(height / convolution.stride), ceil(width / convolution.stride)
            yield 2.0 * prod((height, width, convolution.kernel**2, channels, convolution.filters))
            channels = convolution.filters
        yield 2.0 * height * width * channels * self.dense
        yield 2.0 * self.dense * classes
