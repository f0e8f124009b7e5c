"""Controls: classifiers that are told something of the transformation, as entries of the experiments."""

from collections.abc import Mapping
from dataclasses import replace

from invariance.experiment import Budget, Entry
from invariance.models.p4cnn import P4CNN
from invariance.models.polar_cnn import PolarCNN
from invariance.models.transformer_cnn import SpatialTransformerCNN

# The moving averages of batch norm must follow short trainings, see recognition_rotation.py.
DECAYS = {"smoke": 0.8, "quick": 0.98, "standard": 0.99}


def networks(budgets: Mapping[str, Budget]) -> dict[str, Entry]:
    """The control networks, by name."""
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
