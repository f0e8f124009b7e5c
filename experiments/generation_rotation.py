"""Generation by rotation ("mental rotation"): are 4 and 9, shown within +/-45 degrees, drawn at the other angles?

Article: A. Potapov, "Can Deep Networks Learn Invariants?" (2018), and singnet/semantic-vision,
    experiments/invariance. An autoencoder sees an upright digit and is told an angle; it is to draw the digit turned.
Number to expect: ae_rotation's mean squared error outside +/-45 degrees is 2.78 times that inside for 4, 1.96 for 9,
    and .97 to 1.01 for the others (see published.py for all).
Run:  make generation-rotation [PROFILE=quick] [MODELS=ae_rotation,aae_rotation|all] [SEED=0]
      make generation-rotation MODELS=ae_rotation ARGS="--set feature_maps=128"      (the article's form of it)
      make generation-rotation MODELS=aae_rotation ARGS="--set regulariser=wasserstein_batchwide"      (its penalty)
      python -m experiments.generation_rotation --help

Departures from the original, in every profile: the gradient penalty is the paper's, a norm per sample (with the
original's, the second command above, a step takes 17 times as long); the critic's five updates see the codes of one
batch. Profiles other than `paper` also change steps, batch size and learning rate, as declared below.
"""

import sys
from dataclasses import replace

from experiments.article import published
from invariance.cli import run_experiment
from invariance.experiment import Band, Budget, Entry, Experiment
from invariance.models.autoencoder import Autoencoder
from invariance.ranges import Ranges
from invariance.tasks import Generation
from invariance.transforms import Rotation

ALL_ANGLES = ((-180, 180),)
UPRIGHT = ((-45, 45),)
RESTRICTED = (4, 9)


# Beyond 45 degrees, the article counts as out of range what begins at 47.
MEASURED = {"inside": UPRIGHT, "outside": ((-180, -47), (47, 180))}


def restricted_to(pairs, **changes) -> Generation:
    """All angles for the free digits, ``pairs`` for 4 and 9."""
    return Generation(Rotation(), Ranges(ALL_ANGLES, dict.fromkeys(RESTRICTED, pairs)), **MEASURED, **changes)


TASK = restricted_to(UPRIGHT)

# The original: 100,000 iterations, learning rate 1e-3 throughout. Because RMSProp's running averages begin at one, the
# first updates are small. Begun at zero, it learns no faster (F = 128, loss of steps 400 to 500: .162 against .154).
PAPER = Budget(100_000, 128, 1000, 1e-3, grid_spacing=None)
# Errors fall with the number of updates rather than of images: 800 updates with batches of 32 bring the loss to where
# 750 with batches of 128 do (.095), in two fifths of the time.
STANDARD = replace(
    PAPER, steps=8000, batch_size=32, steps_per_epoch=500, learning_rate=2e-3, warmup_steps=20, grid_spacing=9
)
QUICK = replace(STANDARD, steps=2500, steps_per_epoch=250, images_per_class=100)
SMOKE = replace(
    STANDARD, steps=12, batch_size=16, steps_per_epoch=4, warmup_steps=2, grid_spacing=45, images_per_class=8
)


BUDGETS = {"smoke": SMOKE, "quick": QUICK, "standard": STANDARD, "paper": PAPER}


def entry(model: Autoencoder, task=None, note="", budgets=BUDGETS, **narrow) -> Entry:
    """A model with the budgets of all; in `quick`, whose run is to take minutes, with the arguments ``narrow``."""
    tiny = replace(model, feature_maps=8, filters=(8, 16), units=64, critic=(32, 32))
    quick = replace(model, **(narrow or {"feature_maps": 128}))
    return Entry(model, budgets, {"smoke": tiny, "quick": quick}, task, note)


PLAIN = Autoencoder()

MODELS = {
    "ae_rotation": entry(PLAIN),
    "aae_rotation": entry(replace(PLAIN, feature_maps=128, regulariser="wasserstein")),
    "ae_rotation_z128": entry(replace(PLAIN, code_size=128)),
    # Angles that no digit was shown at.
    "ae_rotation_halfplane": entry(
        PLAIN,
        Generation(Rotation(), Ranges(((-90, 90),)), **MEASURED),
        "every digit was shown within ±90 degrees; out begins at 47, as in the article",
    ),
    "ae_rotation_single": entry(
        replace(PLAIN, code_size=20), restricted_to(((18, 18),)), "4 and 9 were shown at 18 degrees only; in is ±45"
    ),
    # Is 9 drawn better than 4 because it can be drawn like a turned 6?
    "ae_rotation_without_6": entry(
        PLAIN, restricted_to(UPRIGHT, excluded=(6,)), "neither trained nor measured with digit 6"
    ),
}

BANDS = {"ratio": Band(relative=0.25)}
DEVIATIONS = (
    (
        "Profiles shorter than `paper` train for fewer steps, on smaller batches, with larger learning rates that fall "
        "along a cosine",
        "100,000 iterations take 8 to 40 hours on two cores; errors fall with the number of updates, and while the "
        "error in range still falls, the ratio out/in still grows (with a code of 128 numbers it falls in the end)",
    ),
    (
        "The gradient penalty takes a norm for each sample",
        "as its paper has it; with the original's, one norm over all pairs of a batch, a step takes 17 times "
        "as long (`--set regulariser=wasserstein_batchwide`)",
    ),
    (
        "The critic's five updates in a step see the codes of one batch, encoded once",
        "the encoder rests meanwhile; fresh samples of the prior are drawn for each",
    ),
)

GRID = (
    "Profiles shorter than `paper` measure at 40 angles, 9 degrees apart, and the four that blur nothing",
    "the article has 200, 1.8 degrees apart; errors change little within 9 degrees (`--grid full` has them all)",
)

Z128_RATIO = (
    "It falls with long training, because with so wide a code the error out of range falls, too: {} in 2,000, 8,000 "
    "and 24,000 steps. The original took 100,000 steps of four times as many images."
)
FINDINGS = {
    "ae_rotation_z128": {
        "ratio_4": Z128_RATIO.format("out of range from .0890 to .0240, the ratio from 2.35 to 2.79 to 2.28"),
        "ratio_9": Z128_RATIO.format("out of range from .0460 to .0142, the ratio from 1.91 to 1.74 to 1.60"),
    }
}

EXPERIMENT = Experiment(
    name="generation_rotation",
    task=TASK,
    models=MODELS,
    defaults=("ae_rotation",),
    published=published.GENERATION_ROTATION,
    published_curves=published.GENERATION_ROTATION_CURVES,
    bands=BANDS,
    findings=FINDINGS,
    deviations=(*DEVIATIONS, GRID),
)

if __name__ == "__main__":
    sys.exit(run_experiment(EXPERIMENT))
