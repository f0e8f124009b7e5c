"""Matrix capsules with EM routing (Hinton, Sabour and Frosst 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive, require_share
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class MatrixCapsNet(Declaration):
    """Convolution, primary matrix capsules, two layers of convolutional capsules, class capsules, and a decoder.

    The defaults give the network of the original experiment (A = 32, B = 8, C = D = 16).

    Args:
        filters: A, number of filters of the first convolution (5 x 5, stride 2, 'valid', ReLU).
        primary: B, number of primary capsules at each position.
        capsules: C and D, numbers of capsules at each position of the two convolutional layers (3 x 3, strides 2, 1).
        iterations: number of routing iterations.
        inverse_temperature: of the activations, in all iterations.
        logistic, normalised, together: form of the routing (`routing.em.Form`, `layers.matrix_capsules.ClassCapsules`):
            False, True and False in the original program, True, False and True in the paper.
        moving_average_decay: decay of the statistics of the batch norm of the images.
        margin_steps: number of training steps after which the spread loss' margin, initially 0.2, grows by 0.035, again
            and again up to 0.9.
        decoder: units of the decoder's hidden layers.
        reconstruction_weight: weight of the squared error, summed over the pixels and added to the spread loss.

    Raises:
        ValueError: if an argument is out of range.
    """

    filters: int = 32
    primary: int = 8
    capsules: tuple[int, int] = (16, 16)
    iterations: int = 2
    inverse_temperature: float = 0.01
    logistic: bool = False
    normalised: bool = True
    together: bool = False
    moving_average_decay: float = 0.999
    margin_steps: int = 1200
    decoder: tuple[int, ...] = (512, 1024)
    reconstruction_weight: float = 0.05

    def __post_init__(self) -> None:
        require_positive(self, "filters", "primary", "iterations", "margin_steps")
        require_share(self, "moving_average_decay")

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-3) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of class capsules.
            learning_rate: a float or a Keras schedule, for Adam.

        Returns:
            A `CapsuleNetwork` whose scores are the activations of the class capsules.

        Raises:
            ValueError: if the images are too small for the convolutions.
        """
        import keras
        from keras import layers

        from invariance.layers.matrix_capsules import ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
        from invariance.losses import SpreadLoss
        from invariance.models.capsule_network import CapsuleNetwork, dense_decoder
        from invariance.optimizers import Adam
        from invariance.routing.em import Form
        from invariance.routing.votes import POSE

        if min(self._sizes(input_shape)[-1]) < 1:
            raise ValueError(
                f"three layers of convolution need images of at least 17 x 17 pixels; these have {input_shape[0]} x "
                f"{input_shape[1]}"
            )
        form = Form(self.iterations, self.inverse_temperature, self.logistic, self.normalised)
        small = keras.initializers.TruncatedNormal(stddev=0.01)
        inputs = keras.Input(input_shape, name="images")
        x = layers.BatchNormalization(
            momentum=self.moving_average_decay, epsilon=1e-3, center=False, scale=False, name="batch_norm"
        )(inputs)
        x = layers.Conv2D(self.filters, 5, 2, activation="relu", bias_initializer=small, name="conv_1")(x)
        x = PrimaryMatrixCapsules(self.primary, bias_initializer=small, name="primary_capsules")(x)
        x = ConvolutionalCapsules(self.capsules[0], 3, 2, form=form, name="capsules_1")(*x)
        x = ConvolutionalCapsules(self.capsules[1], 3, 1, form=form, name="capsules_2")(*x)
        # Centre of the first receptive field, and distance between neighbouring ones, in pixels, after kernels of 5
        # (stride 2), 3 (stride 2) and 3 (stride 1).
        start, step = 2 + 2 * 1 + 4 * 1, 4
        poses, activations = ClassCapsules(
            classes,
            start=[start / side for side in input_shape[:2]],
            step=[step / side for side in input_shape[:2]],
            together=self.together,
            form=form,
            name="class_capsules",
        )(*x)
        encoder = keras.Model(inputs, [poses, activations], name="encoder")
        decoder = dense_decoder(classes * (POSE + 2), self.decoder, input_shape)
        model = CapsuleNetwork(encoder, decoder, self.reconstruction_weight * prod(input_shape), name="matrix_capsnet")
        model.compile(
            Adam(learning_rate, epsilon=1e-8),
            SpreadLoss(steps=self.margin_steps),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    def _sizes(self, input_shape: Shape) -> list[tuple[int, ...]]:
        """(height, width) in positions after the convolution and after each convolutional layer of capsules."""
        sizes = [tuple((side - 5) // 2 + 1 for side in input_shape[:2])]
        for strides in (2, 1):
            sizes.append(tuple((side - 3) // strides + 1 for side in sizes[-1]))
        return sizes

    # Measured by `make bench`: the routing is bound by memory.
    speed_up = 0.07

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        # Routing, which takes nearly all of the time, is not a matrix product.
        first, second, third = (prod(size) for size in self._sizes(input_shape))
        yield 2.0 * first * 25 * input_shape[2] * self.filters
        yield 2.0 * first * self.filters * self.primary * 17
        yield 2.0 * second * 9 * self.primary * self.capsules[0] * 64
        yield 2.0 * third * 9 * self.capsules[0] * self.capsules[1] * 64
        yield 2.0 * third * self.capsules[1] * classes * 64
        for before, after in pairwise((classes * 18, *self.decoder, prod(input_shape))):
            yield 2.0 * before * after
