"""Matrix capsules with EM routing (Hinton, Sabour and Frosst 2018)."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

from invariance.errors import require_positive, require_share
from invariance.models.declaration import Costed


@dataclass(frozen=True)
class MatrixCapsNet(Costed):
    """Convolution, primary matrix capsules, two layers of convolutional capsules, class capsules, and a decoder.

    The defaults are the network of the original experiment (A 32, B 8, C = D 16).

    Args:
        filters: A, of the first convolution (5 x 5, stride 2, 'valid', ReLU).
        primary: B, primary capsules at each position.
        capsules: C and D, capsules of the two convolutional layers (3 x 3, strides 2 and 1).
        iterations: of routing.
        inverse_temperature: of the activations.
        logistic, normalised, together: False, True and False are the original program's, True, False and True the
            paper's form of the routing (`routing.em.Form`, `layers.matrix_capsules.ClassCapsules`).
        moving_average_decay: of the batch norm of the input.
        margin_steps: the spread loss' margin grows from 0.2 by 0.035 after every so many steps, up to 0.9.
        decoder: units of the decoder's hidden layers.
        reconstruction_weight: of the squared error summed over the pixels, beside the spread loss.
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

    def __post_init__(self):
        require_positive(self, "filters", "primary", "iterations", "margin_steps")
        require_share(self, "moving_average_decay")

    def __call__(self, input_shape, classes: int, learning_rate=1e-3):
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of class capsules.
            learning_rate: a float or a Keras schedule, for Adam.

        Returns:
            A `CapsuleNetwork`; its scores are the activations of the class capsules.

        Raises:
            ValueError: if the images are too small for the convolutions.
        """
        import keras
        from keras import layers

        from invariance.layers.matrix_capsules import POSE, ClassCapsules, ConvolutionalCapsules, PrimaryMatrixCapsules
        from invariance.losses import SpreadLoss
        from invariance.models.capsule_network import CapsuleNetwork, dense_decoder
        from invariance.optimizers import Adam
        from invariance.routing.em import Form

        if min(self._sizes(input_shape)[-1]) < 1:
            raise ValueError(
                f"images of at least 17 x 17 pixels are needed; they are {input_shape[0]} x {input_shape[1]}"
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
        # Centre of the first receptive field, and from one to the next, in pixels: 5 s2, then 3 s2, then 3 s1.
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

    def _sizes(self, input_shape):
        """Positions behind the convolution and the two layers of capsules."""
        sizes = [tuple((side - 5) // 2 + 1 for side in input_shape[:2])]
        for strides in (2, 1):
            sizes.append(tuple((side - 3) // strides + 1 for side in sizes[-1]))
        return sizes

    # A step takes so much longer than these products would: the routing is bound by memory (`make bench`).
    speed_up = 0.07

    def _layer_flops(self, input_shape, classes):
        # The routing, which takes nearly all of the time, is no matrix product.
        first, second, third = (prod(size) for size in self._sizes(input_shape))
        yield 2.0 * first * 25 * input_shape[2] * self.filters
        yield 2.0 * first * self.filters * self.primary * 17
        yield 2.0 * second * 9 * self.primary * self.capsules[0] * 64
        yield 2.0 * third * 9 * self.capsules[0] * self.capsules[1] * 64
        yield 2.0 * third * self.capsules[1] * classes * 64
        for before, after in pairwise((classes * 18, *self.decoder, prod(input_shape))):
            yield 2.0 * before * after
