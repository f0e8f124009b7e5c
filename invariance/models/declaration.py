"""What the declarations of all networks share. Imports no Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar


class Declaration:
    """Base of the declarations: frozen dataclasses that build a network and know what it costs.

    ``declaration(*arguments, learning_rate)`` builds and compiles the network. The arguments are (input_shape, classes)
    for a classifier and (input_shape, output_shape, parameters) for an autoencoder; the methods below take the same.

    Floating-point operations are those of the matrix products for one image, two per multiply-add.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__call__" in vars(cls):
            cls.__call__ = _channels_last(cls.__call__)  # type: ignore[method-assign]

    # How many times as fast a training step is as its operations suggest, given the rate that other networks reach.
    speed_up: ClassVar[float] = 1.0

    # Yields the operations of each layer in a forward pass, in order. Define it where the cost is to be forecast.
    layer_flops: Callable[..., Iterator[float]]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Builds and compiles the network: a `keras.Model`."""
        raise NotImplementedError

    def flops(self, *arguments: Any) -> float:
        """Operations of a forward pass."""
        return sum(self.layer_flops(*arguments))

    def training_flops(self, *arguments: Any) -> float:
        """Operations of a training step: forward, and backward to all weights and to all inputs but the images."""
        first, *others = self.layer_flops(*arguments)
        return 2 * first + 3 * sum(others)

    def evaluation_flops(self, *arguments: Any) -> float:
        """Operations of the evaluation at one value of the transformation's parameter."""
        return self.flops(*arguments)

    def corrected(self) -> Declaration | None:
        """The same network without the original program's mistakes; None if it has none."""
        return None


def _channels_last(build: Callable[..., Any]) -> Callable[..., Any]:
    """``build``, whose layers take the channels last whatever Keras' settings are.

    A user's keras.json may say otherwise, and would silently change the network: rows would be taken for channels.
    """

    @functools.wraps(build)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        import keras

        given = keras.config.image_data_format()
        keras.config.set_image_data_format("channels_last")
        try:
            return build(*arguments, **options)
        finally:
            keras.config.set_image_data_format(given)

    return wrapped
