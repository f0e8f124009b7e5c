"""Recognition under scaling: are 3 and 4, shown at .85 to 1.15 of their size, recognised at .5 to 1.5?

Ours; the article has no such experiment. All ten digits; all but 3 and 4 are shown at factors from .5 to 1.5, drawn
log-uniformly.
Run:  make recognition-scaling [PROFILE=quick] [MODELS=cnn_00,cnn_bn_00|all] [SEED=0]
      python -m experiments.recognition_scaling --help

P_inv is that of the smallest and largest digits, below .6 and above 1.4.
"""

import sys

from experiments.recognition_rotation import MODELS, MOVERS
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.transforms import Scaling

USUAL = ((0.85, 1.15),)

EXPERIMENT = Experiment(
    name="recognition_scaling",
    task=Recognition(Scaling(), Ranges(((0.5, 1.5),), {3: USUAL, 4: USUAL}), inverted=((0.5, 0.6), (1.4, 1.5))),
    models={name: entry.with_budgets(grid_spacing=0.1) for name, entry in {**MODELS, **MOVERS}.items()},
    defaults=("cnn_00", "cnn_bn_00"),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
