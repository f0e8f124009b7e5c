"""Parts of a TensorFlow function compiled by XLA, where that pays. TensorFlow is imported when it is needed."""

import keras


def compiled(function):
    """``function`` as a TensorFlow function that XLA compiles."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def on_gpu() -> bool:
    """Whether TensorFlow has a GPU; on a CPU its own kernels run most networks faster than XLA's code."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def tracing(tensor) -> bool:
    """Whether TensorFlow is tracing a function, with this tensor, so that compiling a part of it pays.

    Eager calls come in all shapes, each of which would be compiled.
    """
    if keras.backend.backend() != "tensorflow" or keras.backend.is_keras_tensor(tensor):
        return False
    import tensorflow as tf

    return tf.inside_function()
