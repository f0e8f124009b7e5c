"""The command line. Asking for help or making a mistake costs no import of TensorFlow."""

import os

from invariance.cli.commands import main
from invariance.cli.run import run_experiment

__all__ = ["main", "run_experiment"]

# TensorFlow's C++ side reports every machine without a GPU as an error; what goes wrong reaches us as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
