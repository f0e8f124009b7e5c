"""Claims of the repository that the article links, beyond the article's own, and how they are judged.

The thresholds are ours, and were declared before any run of these networks in the profiles that decide.
"""

from experiments.article.claims import _ratios
from invariance.report.claims import Claim
from invariance.tasks.columns import share

RESTRICTED = ("4", "9")
# How much more than the worst free digit's the ratio of a restricted one may be, where the network transfers, and how
# much more it must be, where it does not.
SAME, WORSE = 1.25, 1.5


def free(values):
    """The values of the free digits."""
    return [value for digit, value in values.items() if digit not in RESTRICTED]


def angles(metrics):
    """Ratios at the trained angles, and errors there and between them."""
    out, between = (metrics["hyper_rotation"][key].values() for key in ("mse_out", "mse_between"))
    errors = (
        f"errors out of range {share((min(out), max(out)))}, between the angles {share((min(between), max(between)))}"
    )
    return f"{_ratios('hyper_rotation', *RESTRICTED)(metrics)}; {errors}"


CLAIMS = (
    Claim(
        "H2",
        "A second-order network transfers at the angles it was trained at.",
        {
            "hyper_rotation's error of 4 and 9 out of range, at the angles that free digits were trained at, "
            f"<= {SAME} x the worst free digit's there": lambda m: all(
                m["hyper_rotation"]["mse_out"][digit] <= SAME * max(free(m["hyper_rotation"]["mse_out"]))
                for digit in RESTRICTED
            ),
            f"its out/in of 4 and 9 <= {SAME} x the largest of a free digit": lambda m: all(
                m["hyper_rotation"]["ratio"][digit] <= SAME * max(free(m["hyper_rotation"]["ratio"]))
                for digit in RESTRICTED
            ),
        },
        "generation_rotation",
        ("hyper_rotation",),
        angles,
    ),
    Claim(
        "H4",
        "What a second-order network learns of compensating rotations does not transfer.",
        {
            f"hyper_compensation's out/in of 4 and 9 >= {WORSE} x the largest of a free digit": lambda m: all(
                m["hyper_compensation"]["ratio"][digit] >= WORSE * max(free(m["hyper_compensation"]["ratio"]))
                for digit in RESTRICTED
            )
        },
        "rotation_compensation",
        ("hyper_compensation",),
        _ratios("hyper_compensation", *RESTRICTED),
    ),
)
