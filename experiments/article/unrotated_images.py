"""A constant in the published P_out and P_inv of networks with dropout.

``python -m experiments.article.unrotated_images`` prints the published numbers with and without it.

The original drew the angles of N = 1992 images of 3 and 4 a thousand times and published mean P and variance V of the
accuracy. In each drawing, image i is recognised with some probability p_i, independently of the others:

    P = sum p_i / N,  V = sum p_i (1 - p_i) / N^2,  therefore  sum p_i^2 / N = P - N V.

So the published numbers alone give the mean square of the p_i. An image that is recognised whatever angle is drawn adds
1 / N to it; images that are rarely recognised add next to nothing.

Upside down this mean square is .036 to .041 for each of the eight networks with dropout, and at most .004 for the three
without. The original evaluates in batches of 120 images, which leaves 72 of 1992, a share of .036. The published
program rotates these like all others, but according to the numbers, the last 72 were not rotated out of the training
range when the networks with dropout were measured. To see the effect on one of our networks:

    python -m invariance evaluate RUN_FOLDER --redraws 1000 --upright-last 72
"""

from collections.abc import Mapping

from experiments.article import published
from invariance.report.table import markdown_table
from invariance.tasks.columns import share

IMAGES = 1992
BATCH = 120
UNROTATED = IMAGES % BATCH
SHARE = UNROTATED / IMAGES


def mean_square(mean: float, variance: float, images: int = IMAGES) -> float:
    """The mean square, over the images, of the probability of being recognised.

    Args:
        mean: of the accuracy, over many drawings of the angles.
        variance: of the accuracy, between drawings.
        images: number of images.
    """
    return mean - images * variance


def without_unrotated(model: str) -> Mapping[str, float]:
    """A model's published P_out and P_inv without the last `UNROTATED` images, assumed to be recognised as in range."""
    numbers = published.RECOGNITION_ROTATION[model]
    return {key: (numbers[key] - SHARE * numbers["p_in"]) / (1 - SHARE) for key in ("p_out", "p_inv")}


def affected(model: str) -> bool:
    """Whether the mean square of P_inv is large enough for `UNROTATED` images that are recognised 95 % of the time.

    False for the capsule networks, whose variances are not published.
    """
    if model not in published.RECOGNITION_DRAWINGS:
        return False
    return mean_square(*published.RECOGNITION_DRAWINGS[model]["p_inv"]) >= SHARE * 0.95**2


def rotated_only(model: str) -> Mapping[str, float]:
    """A model's published numbers, without the unrotated images if the model is `affected`."""
    return {**published.RECOGNITION_ROTATION[model], **(without_unrotated(model) if affected(model) else {})}


def table() -> str:
    """All published CNNs, as Markdown."""
    heads = ("model", "P_inv published", "mean square upside down", "P_inv of rotated images")
    heads += ("P_out published", "P_out of rotated images")
    rows = []
    for model, drawn in published.RECOGNITION_DRAWINGS.items():
        rotated = without_unrotated(model) if affected(model) else {}
        texts = [share(drawn["p_inv"][0]), share(mean_square(*drawn["p_inv"])), share(rotated.get("p_inv"))]
        texts += [share(drawn["p_out"][0]), share(rotated.get("p_out"))]
        rows.append([model, *texts])
    return markdown_table(heads, rows)


if __name__ == "__main__":
    print(table())
