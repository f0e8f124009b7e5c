"""Compensation of rotation: are 4 and 9, shown within +/-45 degrees, turned upright from the other angles?

Source: singnet/semantic-vision, experiments/invariance/hypernets; not in the article. The task of
    generation_rotation.py turned round: a network sees a rotated digit and is to draw it upright; it is not told the
    angle. All digits but 4 and 9 are shown at all angles. The second-order network averages its code with weights that
    it makes of the image.
Number to expect: from its pictures, roughly, the mean squared error outside +/-45 degrees is 6 times that inside for 4,
    3 times for 9, and 1.05 to 1.25 times for the others.
Run:  make rotation-compensation [PROFILE=quick] [SEED=0]
      python -m experiments.rotation_compensation --help

Departures from the original: profiles other than `paper` change steps, batch size and learning rate (see
article/second_order.py).
"""

import sys

from experiments.article import published, second_order
from experiments.generation_rotation import TASK
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.tasks import Compensation

EXPERIMENT = Experiment(
    name="rotation_compensation",
    task=Compensation(TASK.transformation, TASK.ranges, inside=TASK.inside, outside=TASK.outside),
    models={"hyper_compensation": second_order.COMPENSATION},
    published=published.ROTATION_COMPENSATION_PICTURES,
    deviations=second_order.DEVIATIONS,
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
