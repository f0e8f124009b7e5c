"""Tangents of rotation: is it predicted how 3 and 4, shown within +/-45 degrees, change at the other angles?

Ours; the article cites the idea: Y. Bengio and M. Monperrus, "Non-local manifold tangent learning" (2004). A network
sees an image and predicts the direction in which rotation changes it. It learns from pairs of drawings of one image
that differ little, and is never told by how much. The flow learns from such pairs, too, but how pixels move instead of
how images change.
Run:  make tangents-rotation [PROFILE=quick] [MODELS=tangents,flow|all] [SEED=0]
      python -m experiments.tangents_rotation --help
"""

import sys
from dataclasses import replace

from experiments.beyond import transfer
from experiments.recognition_rotation import TASK, UPRIGHT
from invariance.cli import run_experiment
from invariance.experiment import Budget, Entry, Experiment
from invariance.models.flow_tangents import FlowTangents
from invariance.models.tangent_network import TangentNetwork
from invariance.tasks import Tangents
from invariance.transforms import Rotation

NETWORK = TangentNetwork()

STANDARD = Budget(3000, 32, 250, 1e-3, warmup_steps=100, grid_spacing=10, images_per_class=250)
BUDGETS = {
    "smoke": replace(
        STANDARD, steps=4, batch_size=8, steps_per_epoch=2, warmup_steps=1, grid_spacing=45, images_per_class=8
    ),
    "quick": replace(STANDARD, steps=1000, steps_per_epoch=100, grid_spacing=22.5, images_per_class=50),
    "standard": STANDARD,
}
# Its flow is learnt before, and not trained any further.
LEARNT = {name: replace(each, steps=1, steps_per_epoch=1, warmup_steps=0) for name, each in BUDGETS.items()}

EXPERIMENT = Experiment(
    name="tangents_rotation",
    task=Tangents(Rotation(), TASK.ranges, TASK.excluded, UPRIGHT, TASK.outside),
    models={
        "tangents": Entry(
            NETWORK,
            BUDGETS,
            {"smoke": replace(NETWORK, code_size=8, feature_maps=8, filters=(8, 16), units=64)},
        ),
        "flow": transfer.learning(
            Entry(FlowTangents(), LEARNT), transfer.FROM_PAIRS, transfer.FROM_FEW_PAIRS, transfer.K1
        ),
    },
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
