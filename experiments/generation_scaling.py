"""Generation by scaling: are 4 and 9, shown at .85 to 1.15 of their size, drawn at .5 to 1.5?

Ours; the article has no such experiment. An autoencoder sees a digit at its usual size and is told the logarithm of a
factor; it is to draw the digit scaled. All digits but 4 and 9 are shown at factors from .5 to 1.5, drawn log-uniformly.
Run:  make generation-scaling [PROFILE=quick] [MODELS=ae_scaling,aae_scaling|all] [SEED=0]
      python -m experiments.generation_scaling --help
"""

import sys

from experiments.beyond import transfer
from experiments.generation_rotation import MODELS, RESTRICTED
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges
from invariance.tasks import Generation
from invariance.transforms import Scaling

USUAL = ((0.85, 1.15),)

EXPERIMENT = Experiment(
    name="generation_scaling",
    task=Generation(Scaling(), Ranges(((0.5, 1.5),), dict.fromkeys(RESTRICTED, USUAL))),
    models={
        "ae_scaling": MODELS["ae_rotation"].with_budgets(grid_spacing=0.05),
        "aae_scaling": MODELS["aae_rotation"].with_budgets(grid_spacing=0.05),
        **transfer.drawers(1, circular=False, grid_spacing=0.05),
    },
    defaults=("ae_scaling",),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
