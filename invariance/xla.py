"""Compiles parts of TensorFlow functions with XLA where that is faster. Keras and TensorFlow are imported on use."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from invariance.typing import Tensor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as a TensorFlow function compiled by XLA."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU. On a CPU, its own kernels run most networks faster than code compiled by XLA."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def tracing(tensor: Tensor) -> bool:
    """Whether ``tensor`` belongs to a TensorFlow function being traced, so that compiling part of it is worthwhile.

    Eager calls come in many shapes, each of which would be compiled separately.
    """
    import keras

    if keras.backend.backend() != "tensorflow" or keras.backend.is_keras_tensor(tensor):
        return False
    import tensorflow as tf

    return tf.inside_function()


def compiled_in_graph(function: Callable[..., Any], tensors: tuple[Tensor, ...], *static: Any) -> Any:
    """``function(*tensors, *static)``, compiled by XLA inside TensorFlow functions.

    What is compiled is kept and shared by all layers. A call may therefore be answered by a function that was compiled
    for tensors of unknown batch size, though that of its own is known: ``function`` must not decide by the batch size
    what it returns. Decide before, and pass the decision in ``static``.

    Args:
        function: a module-level function; it is compiled once for each ``static``.
        tensors: its first arguments.
        static: its other arguments, hashable.

    Returns:
        What ``function`` returns.
    """
    if not tracing(tensors[0]):
        return function(*tensors, *static)
    return _compiled(function, *static)(*tensors)


@lru_cache
def _compiled(function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    return compiled(lambda *tensors: function(*tensors, *static))


def compiled_with_gradient(function: Callable[..., Any], tensors: tuple[Tensor, ...], *static: Any) -> Any:
    """As `compiled_in_graph`, with the gradient compiled as a whole, too.

    Functions with loops need it: what a loop stores for its gradient cannot leave what XLA compiles. The gradient
    computes the function once more.
    """
    if not tracing(tensors[0]):
        return function(*tensors, *static)
    return _compiled_with_gradient(function, *static)(*tensors)


@lru_cache
def _compiled_with_gradient(function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    import tensorflow as tf

    def backward(upstream: Tensor, *tensors: Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors, *static)
        return tape.gradient(result, tensors, upstream)

    compiled_backward = compiled(backward)

    @tf.custom_gradient
    def pair(*tensors: Tensor) -> Any:
        return _compiled(function, *static)(*tensors), lambda upstream: compiled_backward(upstream, *tensors)

    return pair
