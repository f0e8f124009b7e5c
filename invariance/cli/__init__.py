"""The command line. Neither --help nor a mistake imports TensorFlow."""

import os

from invariance.cli.commands import main
from invariance.cli.run import run_experiment
from invariance.cli.suite import run_suite
from invariance.cli.sweep import run_sweeps

__all__ = ["main", "run_experiment", "run_suite", "run_sweeps"]

# TensorFlow's C++ code reports a machine without a GPU as an error. Real failures arrive as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
