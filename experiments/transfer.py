"""The other half of the answer: networks that learn the transformation from the free classes, beside their controls.

Each of these runs one after the other: the article's best network, plain and with the drawings that it lacks; the same
network after it was learnt how images move, from pairs of drawings (K1) or from labelled images alone (K0); and
networks that draw by moving images. What each is told stands in the tables.
Run:  make transfer [PROFILE=quick] [SEED=0] [JOBS=1]
      python -m experiments.transfer --help
"""

import sys

from experiments import (
    generation_rotation,
    generation_shift,
    recognition_rotation,
    recognition_rotation_ideal,
    recognition_scaling,
    recognition_shift,
)
from invariance.cli import run_suite
from invariance.experiment import Part, Suite

CEILING = ("--control", "unrestricted")
LEARNERS = ("baseline", "flow", "flow_k0")


def recognition(experiment) -> tuple[Part, Part]:
    """The learners and the ceiling of one experiment."""
    return Part(experiment, LEARNERS), Part(experiment, ("baseline",), CEILING)


SUITE = Suite(
    "transfer",
    "Networks that learn the transformation, and their controls",
    (
        *recognition(recognition_rotation.EXPERIMENT),
        Part(generation_rotation.EXPERIMENT, ("flow", "flow_halfplane")),
        *recognition(recognition_rotation_ideal.EXPERIMENT),
        *recognition(recognition_scaling.EXPERIMENT),
        *recognition(recognition_shift.EXPERIMENT),
        Part(generation_shift.EXPERIMENT, ("flow", "flow_central")),
    ),
)

if __name__ == "__main__":
    sys.exit(run_suite(SUITE))
