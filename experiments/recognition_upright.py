"""Recognition of upright digits: the plain task, to see that the capsule networks are what their papers describe.

Papers: Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules" (2017); Hinton, Sabour and Frosst, "Matrix
    Capsules with EM Routing" (2018). All ten digits, none of them turned; training images are moved by up to two pixels
    either way, as in the first paper.
Number to expect: capsnet_dr .993 within five epochs; capsnet_em .993 after the original's 100.
Run:  make recognition-upright PROFILE=standard [MODELS=capsnet_dr] [SEED=0]

P_test is the share of test images recognised; there are no restricted digits, hence no P_in, P_out, P_inv.
"""

import sys

from experiments.recognition_rotation import MODELS as ROTATED
from experiments.recognition_rotation import TASK
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges
from invariance.tasks import Recognition
from invariance.transforms import Rotation

# 60,000 training images in batches of 50: twice the updates of the batches of 100 that the rotated digits have. Without
# the shifts five epochs reach .9927 (batches of 100) and .9929 (50), and learn the training images by heart.
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
        # The budgets of the rotation experiment, but for the standard one.
        "capsnet_dr": ROTATED["capsnet_dr"].with_budgets(
            ["standard"],
            steps=5 * EPOCH,
            batch_size=BATCH,
            steps_per_epoch=EPOCH,
            # With a tenth of an epoch and 1.5e-3 the capsules, whose first lengths are 1e-4, stay at chance.
            warmup_steps=EPOCH // 2,
        ),
        "capsnet_em": ROTATED["capsnet_em"],
    },
    defaults=("capsnet_dr",),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
