"""The repository's second-order networks: models and budgets, shared by the experiments."""

from dataclasses import replace

from invariance.experiment import Budget, Entry
from invariance.models.controlled_autoencoder import ControlledAutoencoder
from invariance.models.feature_moving_autoencoder import FeatureMovingAutoencoder
from invariance.models.pixel_hypernetwork import PixelHypernetwork

# The original: Adam, constant learning rate 1e-3.
PAPER = Budget(100_000, 128, 1000, 1e-3, grid_spacing=None)
# What matters is the number of updates, not of images (see generation_rotation.py).
STANDARD = replace(
    PAPER, steps=8000, batch_size=32, steps_per_epoch=500, learning_rate=2e-3, warmup_steps=20, grid_spacing=9
)
SMOKE = replace(STANDARD, steps=4, batch_size=8, steps_per_epoch=2, warmup_steps=1, grid_spacing=45, images_per_class=8)


def budgets(steps: int, quick: int, paper: int = PAPER.steps, **changes) -> dict[str, Budget]:
    """Budgets for numbers of steps; ``changes`` of `standard` and `quick`."""
    standard = replace(STANDARD, steps=steps, **changes)
    return {
        "smoke": SMOKE,
        "quick": replace(standard, steps=quick, steps_per_epoch=100, images_per_class=100),
        "standard": standard,
        "paper": replace(PAPER, steps=paper),
    }


# Its 40 million weights take longest to update, not to use: images that are told the same angle share the averages.
PIXELS = Entry(
    PixelHypernetwork(),
    budgets(2000, 500, batch_size=64, steps_per_epoch=250, learning_rate=4e-3),
    {"smoke": PixelHypernetwork(hidden=2)},
)
MOVED_FEATURES = Entry(FeatureMovingAutoencoder(), budgets(8000, 2000))
CONTROLLED, TINY = ControlledAutoencoder(), {"smoke": ControlledAutoencoder(code_size=20)}
COMPENSATION = Entry(CONTROLLED, budgets(12_000, 1500, 200_000), TINY)
AFFINE = Entry(CONTROLLED, budgets(12_000, 2000, 200_000), TINY)

DEVIATIONS = (
    (
        "Profiles shorter than `paper` train for fewer steps, on smaller batches, with larger learning rates (linear "
        "warm-up, cosine decay)",
        "100,000 and 200,000 iterations of the original",
    ),
)
