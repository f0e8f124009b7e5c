"""Dose and response: how much must be shown before it transfers? One setting is varied at a time, with three seeds.

What is measured never changes: recognition of 3 and 4 (drawing of 4 and 9) in the published ranges, P_inv for example
always from 135 to 225 degrees, however wide the range is in which they are shown. Free classes are restricted in
ascending order, one after the other; so the number of free classes also says which. A flow is learnt from the free
classes only, or from all if none is free.
Cost: in the profile `quick`, 160 runs with a fraction of its steps, PROFILE=standard trains fully.
Run:  make dose [PROFILE=quick] [SEED=0-2] [JOBS=2]
      python -m experiments.dose --help
"""

import sys

from experiments.generation_rotation import EXPERIMENT as DRAWING
from experiments.recognition_rotation import EXPERIMENT as RECOGNITION
from invariance.cli import run_sweeps
from invariance.sweeps import FREE_CLASSES, HALF_WIDTH, STEPS, Sweep

# So that all runs of `quick` take less than three hours on two cores.
RECOGNITION_SHARE, DRAWING_SHARE = {"quick": 32}, {"quick": 24}
NETWORK, TOLD = ("baseline",), ("p4cnn", "flow")
RESTRICTED_NEXT, RESTRICTED_NEXT_DRAWN = (0, 1, 2, 5, 7, 8), (0, 1, 2, 3, 5, 6, 7, 8)
WIDTHS = (0, 15, 30, 45, 60, 90, 135, 180)


def recognition(models, factor, *values, **options) -> Sweep:
    return Sweep(RECOGNITION, models, factor, values, percent=RECOGNITION_SHARE, **options)


def drawing(factor, *values, **options) -> Sweep:
    return Sweep(DRAWING, ("ae_rotation",), factor, values, percent=DRAWING_SHARE, **options)


SWEEPS = (
    recognition(NETWORK, FREE_CLASSES, *range(7), order=RESTRICTED_NEXT),
    recognition(NETWORK, HALF_WIDTH, *WIDTHS),
    recognition(NETWORK, STEPS, 50, 100, 200, 300),
    # They cost more and change less.
    recognition(TOLD, FREE_CLASSES, 0, 1, 3, 6, order=RESTRICTED_NEXT),
    recognition(TOLD, HALF_WIDTH, 0, 15, 45, 90),
    recognition(TOLD, STEPS, 50, 100, 200),
    drawing(FREE_CLASSES, *range(9), order=RESTRICTED_NEXT_DRAWN),
    drawing(HALF_WIDTH, *WIDTHS),
    drawing("code_size", 10, 16, 32, 64, 128, 256, 512),
    drawing(STEPS, 50, 100, 200, 400),
)
TITLE = "Dose and response: how much must be shown before it transfers?"

if __name__ == "__main__":
    sys.exit(run_sweeps("dose", TITLE, SWEEPS))
