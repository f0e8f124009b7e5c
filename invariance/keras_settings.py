"""Loads Keras with the settings of this program, whatever the user's environment and keras.json say."""

from __future__ import annotations

import os
import sys

from invariance.errors import UserError, one_line

BACKEND = "tensorflow"


def check_backend() -> None:
    """Raises UserError if the environment, or a Keras that is loaded already, has another backend than TensorFlow."""
    loaded = sys.modules.get("keras")
    backend = loaded.config.backend() if loaded else os.environ.get("KERAS_BACKEND") or BACKEND
    if backend != BACKEND:
        raise UserError(f"KERAS_BACKEND: experiments are run with {BACKEND}; received {backend!r}")


def load_keras() -> None:
    """Imports Keras with its default settings and the backend TensorFlow.

    A user's keras.json may set another backend, precision, epsilon or order of axes. Each would train another network
    than the one whose numbers stand beside it. The settings of a Keras that is loaded already are its owner's.

    Raises:
        UserError: if there is another backend, see `check_backend`, or Keras cannot be loaded.
    """
    check_backend()
    if "keras" in sys.modules:
        return
    os.environ["KERAS_BACKEND"] = BACKEND
    try:
        import keras
    except Exception as error:  # whatever a malformed keras.json provokes
        raise UserError(f"Keras cannot be loaded, because of its keras.json perhaps: {one_line(error)}") from error
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
