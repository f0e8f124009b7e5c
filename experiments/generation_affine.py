"""Generation by affine maps: are 4 and 9, shown a quarter of each parameter's range, drawn at the other angles?

Source: singnet/semantic-vision, experiments/invariance/hypernets; not in the article. A second-order network sees a
    digit and six coefficients, which make the weights that average its code; it is to draw the digit rotated, sheared,
    scaled and shifted. There, every digit is shown everywhere, and only pictures are published. The restriction is
    ours: 4 and 9 are shown within +/-45 degrees, and within the middle quarter of each other range.
Run:  make generation-affine [PROFILE=quick] [SEED=0]
      python -m experiments.generation_affine --help

Departures from the original, in every profile: shears and factors act about the image's centre instead of its corner,
which would move digits 4.6 pixels up and to the left; offsets are told in tens of pixels. Profiles other than `paper`
also change steps, batch size and learning rate (see article/second_order.py).
"""

import sys

from experiments.article import second_order
from experiments.generation_rotation import ALL_ANGLES, MEASURED, RESTRICTED, UPRIGHT
from invariance.cli import run_experiment
from invariance.experiment import Experiment
from invariance.ranges import Ranges
from invariance.tasks import Generation
from invariance.transforms import Affine

EXPERIMENT = Experiment(
    name="generation_affine",
    task=Generation(Affine(), Ranges(ALL_ANGLES, dict.fromkeys(RESTRICTED, UPRIGHT)), **MEASURED),
    models={"hyper_affine": second_order.AFFINE},
    deviations=(
        *second_order.DEVIATIONS,
        ("4 and 9 are restricted", "ours: the original has no restricted digits here, and measures nothing"),
        (
            "Shears and factors act about the image's centre",
            "about its corner, as in the original, they move digits 4.6 pixels up and to the left on average",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
