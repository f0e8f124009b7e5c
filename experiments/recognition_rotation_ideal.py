"""The article's ideal: every digit is shown within +/-45 degrees, none beyond. Are they recognised all round?

The article begins with what a learning system ought to do: trained on digits within +/-45 degrees, recognise them at
90. No class is free here, so P_in, P_out and P_inv are those of all eight digits: within +/-45 degrees, beyond, and
upside down. A network can only do it if it learns how images move, and moves them beyond what it was shown.
Run:  make recognition-rotation-ideal [PROFILE=quick] [MODELS=baseline,flow|all] [SEED=0]
      make recognition-rotation-ideal MODELS=baseline ARGS="--control unrestricted"      (the ceiling)
      python -m experiments.recognition_rotation_ideal --help
"""

import sys
from dataclasses import replace

from experiments.recognition_rotation import ALL_ANGLES, BEYOND, MODELS, TASK, UPRIGHT
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges

EXPERIMENT = Experiment(
    name="recognition_rotation_ideal",
    task=replace(TASK, ranges=Ranges(ALL_ANGLES, dict.fromkeys((0, 1, 2, 3, 4, 5, 7, 8), UPRIGHT))),
    models={**MODELS, **BEYOND},
    defaults=("baseline", "flow"),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
