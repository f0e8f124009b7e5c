"""Dose and response: how much must be shown before it transfers? One setting is varied at a time, with three seeds.

What is measured never changes: recognition of 3 and 4, and drawing of 4 and 9, in the published ranges (P_inv always
from 135 to 225 degrees), however many classes are restricted and however wide their range in training is. Free classes
are restricted in ascending order, one after the other, so that their number also says which they are. A flow is learnt
from the free classes or, if there is none, from all.
Beyond a half-width of 45 degrees, P_out includes angles that are shown; P_inv does so beyond 135 degrees only.
Cost: 180 runs; quick, with the shares of its steps below, 2:43 h on two cores of 200 GFLOP/s together; standard, with
    all of its steps, 44 h (the forecasts of the program, which prints one for the machine at hand).
Run:  make dose JOBS=2 [PROFILE=quick] [SEED=0-2]
      python -m experiments.dose --help
"""

import sys

from experiments.generation_rotation import EXPERIMENT as DRAWING
from experiments.recognition_rotation import EXPERIMENT as RECOGNITION
from invariance.cli import run_sweeps
from invariance.sweeps import FREE_CLASSES, HALF_WIDTH, STEPS, Sweep

# Percent of the profile's steps, so that all runs take less than three hours on two cores.
RECOGNITION_SHARE, DRAWING_SHARE = {"quick": 30}, {"quick": 20}
NETWORK, TOLD = ("baseline",), ("p4cnn", "flow")
RESTRICTED_NEXT, RESTRICTED_NEXT_DRAWN = (0, 1, 2, 5, 7, 8), (0, 1, 2, 3, 5, 6, 7, 8)
WIDTHS = (0, 15, 30, 45, 60, 90, 135, 180)


def recognition(models, factor, *values, **options) -> Sweep:
    """A sweep of networks that recognise."""
    return Sweep(RECOGNITION, models, factor, values, percent=RECOGNITION_SHARE, **options)


def drawing(factor, *values, **options) -> Sweep:
    """A sweep of the autoencoder that draws."""
    return Sweep(DRAWING, ("ae_rotation",), factor, values, percent=DRAWING_SHARE, **options)


SWEEPS = (
    recognition(NETWORK, FREE_CLASSES, *range(7), order=RESTRICTED_NEXT),
    recognition(NETWORK, HALF_WIDTH, *WIDTHS),
    recognition(NETWORK, STEPS, 50, 100, 200, 300),
    # Fewer points of what the network is compared with, to stay within the budget; a flow is also learnt in each run.
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
