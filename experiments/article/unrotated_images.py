"""A constant in the published P_out and P_inv of the networks with dropout: ``python -m experiments.article.unrotated_images``.

The original drew the angles of N = 1992 images of 3 and 4 a thousand times and published mean P and variance V of the
share that was recognised. Image i is recognised in a drawing with some probability p_i, independently of the others:

    P = sum p_i / N,  V = sum p_i (1 - p_i) / N^2,  therefore  sum p_i^2 / N = P - N V,

the mean square of the p_i, from published numbers alone. Images that are recognised at whatever angle is drawn add
their share of all images to it; what is seldom recognised adds next to nothing.

That mean square is .036 to .041 upside down for each of the eight networks with dropout, and .004 or less for the three
without. The original evaluates batches of 120 images; of 1992 there remain 72, a share of .0361. The program it
publishes turns these like the others. The numbers say that when networks with dropout were measured, the last 72 were
not turned out of the training range. To see what that does to a network of ours:

    python -m invariance evaluate RUN_FOLDER --redraws 1000 --upright-last 72
"""

from collections.abc import Mapping

from experiments.article import published
from invariance.tasks.columns import share

IMAGES = 1992
BATCH = 120
LEFT = IMAGES % BATCH
SHARE = LEFT / IMAGES


def mean_square(mean: float, variance: float, images: int = IMAGES) -> float:
    """The mean square over the images of the probability to be recognised.

    Args:
        mean: share of the images that is recognised, over many drawings of the angles.
        variance: of this share, from drawing to drawing.
        images: how many there are.
    """
    return mean - images * variance


def without(model: str) -> Mapping[str, float]:
    """The published P_out and P_inv of a model's images but the last `LEFT`, if these are recognised as in range."""
    four = published.RECOGNITION_ROTATION[model]
    return {key: (four[key] - SHARE * four["p_in"]) / (1 - SHARE) for key in ("p_out", "p_inv")}


def affected(model: str) -> bool:
    """Whether the published mean and variance of P_inv leave room for `LEFT` images recognised 95 % of the time.

    Of the capsule networks no variances are published: False.
    """
    if model not in published.RECOGNITION_DRAWINGS:
        return False
    return mean_square(*published.RECOGNITION_DRAWINGS[model]["p_inv"]) >= SHARE * 0.95**2


def turned(model: str) -> Mapping[str, float]:
    """The published four numbers of a model, without the last `LEFT` images where these are in them."""
    return {**published.RECOGNITION_ROTATION[model], **(without(model) if affected(model) else {})}


def table() -> str:
    """All published CNNs, as Markdown."""
    lines = [
        f"| model | P_inv published | mean square upside down | P_inv without the {LEFT} | P_out published "
        f"| P_out without the {LEFT} |",
        "|---" * 6 + "|",
    ]
    for model, drawn in published.RECOGNITION_DRAWINGS.items():
        rest = without(model) if affected(model) else {}
        texts = [share(drawn["p_inv"][0]), share(mean_square(*drawn["p_inv"])), share(rest.get("p_inv"))]
        texts += [share(drawn["p_out"][0]), share(rest.get("p_out"))]
        lines.append("| " + " | ".join([model, *texts]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
