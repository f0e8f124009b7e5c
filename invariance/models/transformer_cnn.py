"""A classifier behind a spatial transformer (Jaderberg et al. 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from invariance.errors import require_positive
from invariance.models.cnn import CNN, Convolution
from invariance.models.declaration import Declaration
from invariance.typing import Shape

if TYPE_CHECKING:
    import keras

# The article's best network, with the usual cross-entropy.
BEST = CNN((Convolution(64, 4, 2), Convolution(128, 4, 2)), batch_norm=True, dropout=0.5, double_softmax=False)


@dataclass(frozen=True)
class SpatialTransformerCNN(Declaration):
    """A spatial transformer in front of a `CNN`, trained end to end.

    Told: that images may be rectified by an affine map; neither which one, nor that it is a rotation. Symmetry: none by
    construction. The transformer begins as the identity, and turns images upright only as far as that helps to classify
    training images. How far the whole is from invariance shows in the probabilities of rotated images; how the
    transformer answers a rotation shows in its matrices, and is measured after training
    (`tasks.applied_movement.moving_part`):

        matrices = model.get_layer("transformer").matrices(images)      # (batch, 2, 3)
        angles = rotation_angles(matrices)                              # degrees, see `layers.spatial_transformer`

    Args:
        classifier: the network behind the transformer.
        localisation: convolutions of the localisation network, each followed by a leaky ReLU.
        units: units of its dense layer.

    Raises:
        ValueError: if an argument is out of range.

    Reference: Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial transformer networks" (2015).
    """

    classifier: CNN = BEST
    localisation: tuple[Convolution, ...] = (Convolution(16, 5, 2), Convolution(32, 5, 2))
    units: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "units")
        if any(each.pool for each in self.localisation):
            raise ValueError(
                "Argument `localisation` must be convolutions without pooling. "
                f"Received: {tuple(map(str, self.localisation))}"
            )

    def __call__(self, input_shape: Shape, classes: int, learning_rate: Any = 1e-4) -> keras.Model:
        """Builds and compiles the network.

        Args:
            input_shape: (height, width, channels) of images in [0, 1].
            classes: number of outputs.
            learning_rate: a float or a Keras schedule, for Adam with beta_1 = 0.95 and epsilon = 1e-8.

        Returns:
            A model that maps images (batch, height, width, channels) to probabilities (batch, classes). Its layers
            are "transformer", the `layers.spatial_transformer.SpatialTransformer`, and "classifier".
        """
        import keras

        from invariance.layers.spatial_transformer import SpatialTransformer
        from invariance.optimizers import Adam

        whole = self.classifier(input_shape, classes)
        # Its layers, without an optimiser of their own.
        classifier = keras.Model(whole.input, whole.output, name="classifier")
        inputs = keras.Input(input_shape, name="images")
        rectified = SpatialTransformer(self._localisation(input_shape), name="transformer")(inputs)
        model = keras.Model(inputs, classifier(rectified), name="transformer_cnn")
        model.compile(
            Adam(learning_rate, beta_1=0.95, beta_2=0.999, epsilon=1e-8),
            whole.loss,
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return model

    def _localisation(self, input_shape: Shape) -> keras.Model:
        """Images (batch, height, width, channels) -> features (batch, units)."""
        import keras
        from keras import layers

        slope = self.classifier.slope
        inputs = x = keras.Input(input_shape, name="images")
        for number, each in enumerate(self.localisation, 1):
            x = layers.Conv2D(each.filters, each.kernel, each.stride, "same", name=f"conv_{number}")(x)
            x = layers.LeakyReLU(slope, name=f"conv_{number}_activation")(x)
        x = layers.Dense(self.units, name="dense")(layers.Flatten(name="flatten")(x))
        return keras.Model(inputs, layers.LeakyReLU(slope, name="dense_activation")(x), name="localisation")

    def corrected(self) -> SpatialTransformerCNN | None:
        classifier = self.classifier.corrected()
        return None if classifier == self.classifier else replace(self, classifier=classifier)

    def layer_flops(self, input_shape: Shape, classes: int) -> Iterator[float]:
        height, width, channels = input_shape
        for each in self.localisation:
            height, width = -(-height // each.stride), -(-width // each.stride)
            yield 2.0 * prod((height, width, each.kernel**2, channels, each.filters))
            channels = each.filters
        yield 2.0 * height * width * channels * self.units
        yield 2.0 * self.units * 6
        yield from self.classifier.layer_flops(input_shape, classes)
