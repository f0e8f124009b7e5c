"""Recognition under shift: are 3 and 4, shown within -2..1 pixels of the centre, recognised at -6..5?

Ours; the article has no such experiment. A CNN's convolutions are said to make it invariant to shifts: does it
recognise a 3 where no 3 was shown? All ten digits, on a canvas of 40 x 40 pixels; all but 3 and 4 are shown at shifts
of -6..5 pixels, up or down and left or right. Accuracies are those along the diagonal, dy = dx; map.png shows both.
Run:  make recognition-shift [PROFILE=quick] [MODELS=cnn_00,cnn_bn_00|all] [SEED=0]
      make recognition-shift MODELS=cnn_bn_00_68      (the canvas and the ranges of generation_shift)
      python -m experiments.recognition_shift --help

P_inv is that of the outermost shifts, some two thirds of the way out and beyond.
"""

import sys
from dataclasses import replace

from experiments import generation_shift as wide
from experiments.recognition_rotation import EPOCH, MODELS, MOVERS
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Intervals, Ranges
from invariance.tasks import Recognition
from invariance.transforms import Shift


def task(canvas: int, shown: Intervals, restricted: Intervals, inverted: Intervals) -> Recognition:
    """Digits on a square canvas, 3 and 4 shown in the restricted range only."""
    return Recognition(Shift((canvas, canvas)), Ranges(shown, {3: restricted, 4: restricted}), inverted=inverted)


NARROW = task(40, ((-6, 6),), ((-2, 2),), ((-6, -4), (4, 6)))
# 68 x 68 pixels; 3 and 4 within -5..4, the others within -20..19.
WIDE = task(68, wide.ALL_SHIFTS, wide.CENTRAL, ((-20, -15), (15, 20)))

DEFAULTS = ("cnn_00", "cnn_bn_00")

EXPERIMENT = Experiment(
    name="recognition_shift",
    task=NARROW,
    models={
        **{name: entry.with_budgets(grid_spacing=1) for name, entry in {**MODELS, **MOVERS}.items()},
        **{
            # Their dense layer has six times the weights, and a step takes eight times as long.
            f"{name}_68": replace(
                MODELS[name].with_budgets(grid_spacing=1).with_budgets(["standard"], steps=10 * EPOCH),
                task=WIDE,
                note="on a canvas of 68 x 68 pixels; 3 and 4 shown within -5..4, the others within -20..19",
            )
            for name in DEFAULTS
        },
    },
    defaults=DEFAULTS,
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
