"""Controls: networks that are told something of the transformation, as entries of the experiments."""

from collections.abc import Mapping
from dataclasses import replace

from invariance.experiment import Budget, Entry
from invariance.models.p4cnn import P4CNN
from invariance.models.polar_cnn import PolarCNN
from invariance.models.transformer_cnn import SpatialTransformerCNN
from invariance.models.warp_drawing import WarpDrawing
from invariance.transforms import Transformation

# The moving averages of batch norm must follow short trainings, see recognition_rotation.py.
DECAYS = {"smoke": 0.8, "quick": 0.98, "standard": 0.99}


def networks(budgets: Mapping[str, Budget]) -> dict[str, Entry]:
    """The control classifiers, by name."""
    p4cnn, polar, stn = P4CNN(), PolarCNN(), SpatialTransformerCNN()
    return {
        "p4cnn": Entry(
            p4cnn,
            budgets,
            {profile: replace(p4cnn, moving_average_decay=decay) for profile, decay in DECAYS.items()},
            told="K3: quarter turns",
        ),
        "polar": Entry(
            polar,
            budgets,
            {profile: replace(polar, moving_average_decay=decay) for profile, decay in DECAYS.items()},
            told="K3: rotation and its centre",
        ),
        "stn": Entry(
            stn,
            budgets,
            {
                profile: replace(stn, classifier=replace(stn.classifier, moving_average_decay=decay))
                for profile, decay in DECAYS.items()
            },
            told="K0: labelled images, and that what moves them is affine",
        ),
    }


def warp_told(transformation: Transformation, budgets: Mapping[str, Budget]) -> Entry:
    """The ceiling of networks that draw: knows the transformation, and learns only by how much to apply it."""
    entry = Entry(
        WarpDrawing(transformation),
        budgets,
        note="its errors are rounding, and so is their ratio",
        told=f"K3: that it is a {transformation.name}, and the parameter as a number",
    )
    # It has a handful of weights, and its error falls to zero: large steps do no harm.
    return entry.with_budgets(learning_rate=3e-2).with_budgets(["standard"], steps=300, steps_per_epoch=50)
