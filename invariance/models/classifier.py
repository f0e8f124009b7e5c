"""The end that the control classifiers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invariance.typing import Tensor

if TYPE_CHECKING:
    import keras


def classifier(
    inputs: Tensor, features: Tensor, classes: int, dropout: float, learning_rate: Any, name: str
) -> keras.Model:
    """Dropout, dense and softmax behind features (batch, units); compiled with the usual cross-entropy.

    Args:
        inputs: the images.
        features: computed from them.
        classes: number of outputs.
        dropout: rate; 0 for none.
        learning_rate: a float or a Keras schedule, for Adam with beta_1 = 0.95 and epsilon = 1e-8.
        name: of the model.
    """
    import keras
    from keras import layers

    from invariance.optimizers import Adam

    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)
    scores = layers.Dense(classes, name="scores")(features)
    # float32 under every precision policy: a bfloat16 softmax is accurate to two decimal digits.
    model = keras.Model(inputs, layers.Softmax(dtype="float32", name="probabilities")(scores), name=name)
    model.compile(
        Adam(learning_rate, beta_1=0.95, beta_2=0.999, epsilon=1e-8),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model
