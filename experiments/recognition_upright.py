"""Recognition of upright digits: the plain task, to check the capsule networks against their papers.

Papers: Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules" (2017); Hinton, Sabour and Frosst, "Matrix
    Capsules with EM Routing" (2018). All ten digits, unrotated; training images are shifted by up to two pixels in each
    direction, as in the first paper.
Number to expect: capsnet_dr .993 within five epochs; capsnet_em .993 after the original's 100.
Run:  make recognition-upright PROFILE=standard [MODELS=capsnet_dr] [SEED=0]

P_test is the accuracy; without restricted digits there is no P_in, P_out or P_inv.
"""

import sys

from experiments.recognition_rotation import MODELS as ROTATED
from experiments.recognition_rotation import TASK
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.transforms import Rotation

# 60,000 training images in batches of 50: twice as many updates an epoch as with the rotated digits' batches of 100.
# Without the shifts the network memorises the training images within these five epochs.
BATCH = 50
EPOCH = 60_000 // BATCH


EXPERIMENT = Experiment(
    name="recognition_upright",
    task=Recognition(
        Rotation(),
        Ranges(default=((0, 0),)),
        inside=TASK.inside,
        outside=TASK.outside,
        inverted=TASK.inverted,
        max_shift=2,
    ),
    models={
        # The budgets of the rotation experiment, except the standard one.
        "capsnet_dr": ROTATED["capsnet_dr"].with_budgets(
            ["standard"],
            steps=5 * EPOCH,
            batch_size=BATCH,
            steps_per_epoch=EPOCH,
            # With a shorter warm-up the capsules, whose initial lengths are 1e-4, may stay at chance.
            warmup_steps=EPOCH // 2,
        ),
        "capsnet_em": ROTATED["capsnet_em"],
    },
    defaults=("capsnet_dr",),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
