"""Convolutional classifiers of the original experiment, from one builder."""

from dataclasses import dataclass, replace
from math import ceil, prod

from invariance.errors import require_positive, require_share
from invariance.models.declaration import Costed


@dataclass(frozen=True)
class Convolution:
    """A convolution with 'same' padding.

    Args:
        filters: number of filters.
        kernel: side of the square kernel, in pixels.
        stride: step in both directions.
        pool: side of a max-pooling window of stride 1 ('same') behind it; 0 for none.
    """

    filters: int
    kernel: int
    stride: int = 1
    pool: int = 0

    def __str__(self):
        return f"{self.filters} k{self.kernel} s{self.stride}" + (f" pool {self.pool}" if self.pool else "")


@dataclass(frozen=True)
class CNN(Costed):
    """Convolutions, flatten, dense, softmax.

    Each convolution and the dense layer are followed by a leaky ReLU; batch norm, where there is any, comes after the
    activation. Two properties of the original program are switches, on where they produced the published numbers:

    Args:
        convolutions: the convolutional layers.
        batch_norm: batch norm after each convolution's activation (epsilon 1e-3).
        dropout: rate of the dropout behind the dense layer; 0 for none.
        dense: units of the dense layer.
        slope: negative slope of the leaky ReLU.
        moving_average_decay: of batch norm's statistics. They only serve after training, and lag 1 / (1 - decay) steps
            behind, so that short trainings need a smaller one.
        double_softmax: the softmax *output* is taken for logits by the loss, which therefore cannot fall below
            log(1 + (classes - 1) / e), 1.274 for 8 classes. False is the usual cross-entropy.
        activate_last: leaky ReLU between the last dense layer and the softmax.
    """

    convolutions: tuple[Convolution, ...]
    batch_norm: bool = False
    dropout: float = 0.0
    dense: int = 1024
    slope: float = 0.1
    moving_average_decay: float = 0.999
    double_softmax: bool = True
    activate_last: bool = False

    def __post_init__(self):
        require_positive(self, "dense")
        require_share(self, "dropout", "moving_average_decay")

    def __call__(self, input_shape, classes: int, learning_rate=1e-4):
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels); the network takes (batch, height, width, channels) in [0, 1].
            classes: number of outputs; the network returns probabilities (batch, classes).
            learning_rate: a float or a Keras schedule, for Adam with the original's beta_1 .95 and epsilon 1e-8.
        """
        import keras
        from keras import layers

        from invariance.layers.fast import FusedBatchNormalization, LargeDense
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
        # float32 under every precision policy: a softmax in bfloat16 has two decimal digits.
        probabilities = layers.Softmax(dtype="float32", name="probabilities")(x)
        model = keras.Model(inputs, probabilities, name="cnn")
        loss = DoubleSoftmaxCrossentropy() if self.double_softmax else keras.losses.SparseCategoricalCrossentropy()
        model.compile(
            Adam(learning_rate, beta_1=0.95, beta_2=0.999, epsilon=1e-8),
            loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    def corrected(self) -> "CNN":
        """The same network with the usual cross-entropy and no activation between last layer and softmax."""
        return replace(self, double_softmax=False, activate_last=False)

    def _layer_flops(self, input_shape, classes):
        height, width, channels = input_shape
        for convolution in self.convolutions:
            height, width = ceil(height / convolution.stride), ceil(width / convolution.stride)
            yield 2.0 * prod((height, width, convolution.kernel**2, channels, convolution.filters))
            channels = convolution.filters
        yield 2.0 * height * width * channels * self.dense
        yield 2.0 * self.dense * classes
