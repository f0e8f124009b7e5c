"""The article's claims, each with the conditions it is judged by.

Thresholds are ours; the article gives none. They were declared when the first runs were there (cnn_00, cnn_bn_01 and
capsnet_dr), before all others. Metrics are those of metrics.json.
"""

from experiments.article import published, unrotated_images
from invariance.report.claims import Claim
from invariance.tasks.columns import share

CHANCE = 1 / 8
RECOGNITION = "recognition_rotation"
THREE = ("p_test", "p_out", "p_inv")


def _four(*models):
    """P_test, P_out and P_inv of some models as text."""
    return lambda metrics: "; ".join(
        f"{model} " + " ".join(f"{name.replace('p_', 'P_')} {share(metrics[model][name])}" for name in THREE)
        for model in models
    )


def _ratios(model, *digits):
    """Ratios of some digits and the range of the others' as text."""

    def shows(metrics):
        ratio = metrics[model]["ratio"]
        others = [value for digit, value in ratio.items() if digit not in digits]
        named = ", ".join(f"{digit}: {ratio[digit]:.2f}" for digit in digits)
        rest = f"others {min(others):.2f} to {max(others):.2f}"
        return f"{model} out/in " + (f"{named}; {rest}" if named else rest)

    return shows


def _each(keys, sign, models, against):
    """A condition for each of some numbers: the models' mean is above (+1) or below (-1) that of another model."""
    word = "above" if sign > 0 else "below"

    def condition(key):
        return lambda m: sign * (sum(m[model][key] for model in models) / len(models) - m[against][key]) > 0

    who = " and ".join(models)
    return {f"{key.replace('p_', 'P_')} of {who} {word} that of {against}": condition(key) for key in keys}


def _below_chance(model):
    return {f"P_inv of {model} < .125": lambda m: m[model]["p_inv"] < CHANCE}


def _free(metrics, model, *restricted):
    return [value for digit, value in metrics[model]["ratio"].items() if digit not in restricted]


def _four_above_nine(model):
    return {
        f"{model}'s out/in of 4 above that of 9": lambda m: m[model]["ratio"]["4"] > m[model]["ratio"]["9"],
        "that of 9 above 1": lambda m: m[model]["ratio"]["9"] > 1,
    }


def _of_the_article(metrics):
    return [numbers for model, numbers in metrics.items() if model in published.RECOGNITION_ROTATION]


def _reconstruction(metrics):
    return metrics["capsnet_dr"]["reconstruction"]


def _unblurred(metrics):
    """Error of the free digits at the unblurred angles, relative to that at all others."""
    run = metrics["ae_rotation"]
    free = [digit for digit in run["ratio"] if digit not in ("4", "9")]
    at = [angles[digit] for angles in run["unblurred"].values() for digit in free]
    others = [(run["mse_in"][digit] + run["mse_out"][digit]) / 2 for digit in free]
    return (sum(at) / len(at)) / (sum(others) / len(others))


CONSTANT = (
    f"To judge by the published variances, {unrotated_images.LEFT} images left over from the original's batches were not "
    "turned when networks with dropout were measured (`python -m experiments.article.unrotated_images`)."
)


def _published(model, key):
    """The published number, without the images left over where they are in it."""
    return share(unrotated_images.turned(model)[key])


R2 = (
    f"{CONSTANT} Without them P_inv rises from {_published('cnn_00', 'p_inv')} to {_published('cnn_bn_00', 'p_inv')} "
    f"and P_out from {_published('cnn_00', 'p_out')} to {_published('cnn_bn_00', 'p_out')}. P_test of networks with "
    "dropout grows with longer training: with the original's 300 epochs instead of 30 (profile `paper`) cnn_dropout_00 "
    f"has .9894 for .9815, above the {_published('cnn_00', 'p_test')} that the article gives for cnn_00."
)
R4 = (
    f"{CONSTANT} Without them the published numbers do not bear the claim out either: P_inv of cnn_bn_00 is "
    f"{_published('cnn_bn_00', 'p_inv')}, of capsnet_dr {_published('capsnet_dr', 'p_inv')}; P_out is "
    f"{_published('cnn_bn_00', 'p_out')} and {_published('capsnet_dr', 'p_out')}."
)

CLAIMS = (
    Claim(
        "R1",
        "A CNN hardly recognises restricted digits outside their range, and upside down far below chance.",
        {
            "P_test of cnn_00 >= .97": lambda m: m["cnn_00"]["p_test"] >= 0.97,
            "its P_out < .35": lambda m: m["cnn_00"]["p_out"] < 0.35,
            **_below_chance("cnn_00"),
        },
        RECOGNITION,
        ("cnn_00",),
        _four("cnn_00"),
    ),
    Claim(
        "R2",
        "Batch norm and dropout raise all three numbers, but P_inv stays far below chance.",
        {**_each(THREE, 1, ("cnn_bn_00",), "cnn_00"), **_below_chance("cnn_bn_00")},
        RECOGNITION,
        ("cnn_00", "cnn_bn_00"),
        _four("cnn_00", "cnn_bn_00"),
        R2,
    ),
    Claim(
        "R3",
        "More layers raise P_test and P_out slightly and lower P_inv slightly.",
        {
            **_each(("p_test", "p_out"), 1, ("cnn_bn_01", "cnn_bn_02"), "cnn_bn_00"),
            **_each(("p_inv",), -1, ("cnn_bn_01", "cnn_bn_02"), "cnn_bn_00"),
        },
        RECOGNITION,
        ("cnn_bn_00", "cnn_bn_01", "cnn_bn_02"),
        _four("cnn_bn_00", "cnn_bn_01", "cnn_bn_02"),
        "The differences are as small as those between trainings of one network.",
    ),
    Claim(
        "R4",
        "CapsNet with dynamic routing is no better than a CNN with batch norm, and its P_inv is worse.",
        _each(THREE, -1, ("capsnet_dr",), "cnn_bn_00"),
        RECOGNITION,
        ("cnn_bn_00", "capsnet_dr"),
        _four("cnn_bn_00", "capsnet_dr"),
        R4,
    ),
    Claim(
        "R5",
        "CapsNet's decoder draws known orientations reasonably; 3 and 4 in new ones come out wrong, as other digits.",
        {
            "capsnet_dr's error of the reconstruction out of range >= 1.25 x in range": lambda m: (
                _reconstruction(m)["mse_out"] >= 1.25 * _reconstruction(m)["mse_in"]
            ),
            "its P_in >= .9": lambda m: m["capsnet_dr"]["p_in"] >= 0.9,
            # Upside down, the capsules choose another class.
            **_below_chance("capsnet_dr"),
        },
        RECOGNITION,
        ("capsnet_dr",),
        lambda m: (
            f"error in range {_reconstruction(m)['mse_in']:.4f}, out {_reconstruction(m)['mse_out']:.4f}; P_in "
            f"{share(m['capsnet_dr']['p_in'])}, P_inv {share(m['capsnet_dr']['p_inv'])}"
        ),
    ),
    Claim(
        "R6",
        "EM routing has the lowest P_test and the highest P_inv of all, still below chance.",
        {
            "P_test of capsnet_em the lowest of all published models that were run": lambda m: all(
                m["capsnet_em"]["p_test"] <= other["p_test"] for other in _of_the_article(m)
            ),
            "its P_inv the highest": lambda m: all(
                m["capsnet_em"]["p_inv"] >= other["p_inv"] for other in _of_the_article(m)
            ),
            **_below_chance("capsnet_em"),
        },
        RECOGNITION,
        ("cnn_00", "cnn_bn_00", "cnn_bn_01", "capsnet_dr", "capsnet_em"),
        _four("cnn_00", "cnn_bn_00", "cnn_bn_01", "capsnet_dr", "capsnet_em"),
    ),
    Claim(
        "G1",
        "Known digits in known ranges are rotated almost perfectly.",
        {
            "ae_rotation's out/in of every free digit between .9 and 1.15": lambda m: all(
                0.9 <= value <= 1.15 for value in _free(m, "ae_rotation", "4", "9")
            )
        },
        "generation_rotation",
        ("ae_rotation",),
        _ratios("ae_rotation", "4", "9"),
    ),
    Claim(
        "G2",
        "Outside +/-45 degrees the error is large for 9 and much larger for 4.",
        _four_above_nine("ae_rotation"),
        "generation_rotation",
        ("ae_rotation",),
        _ratios("ae_rotation", "4", "9"),
    ),
    Claim(
        "G3",
        "Peaks at 0, +/-90 and 180 degrees come from bilinear blurring of the targets.",
        {
            "ae_rotation's error of the free digits at these four, which blur nothing, >= 1.02 x that elsewhere": (
                lambda m: _unblurred(m) >= 1.02
            )
        },
        "generation_rotation",
        ("ae_rotation",),
        lambda m: f"unblurred / blurred {_unblurred(m):.3f}",
    ),
    Claim(
        "G4",
        "9 does better than 4 because it can be drawn like a turned 6.",
        {
            "out/in of 9 without digit 6 in training >= 1.1 x that with it": lambda m: (
                m["ae_rotation_without_6"]["ratio"]["9"] >= 1.1 * m["ae_rotation"]["ratio"]["9"]
            )
        },
        "generation_rotation",
        ("ae_rotation", "ae_rotation_without_6"),
        lambda m: (
            f"9: {m['ae_rotation']['ratio']['9']:.2f} with 6, {m['ae_rotation_without_6']['ratio']['9']:.2f} "
            f"without; 4: {m['ae_rotation']['ratio']['4']:.2f} and {m['ae_rotation_without_6']['ratio']['4']:.2f}"
        ),
        "9 is drawn there as well without 6 as with it; it is 4 that gains when 6 is left out.",
    ),
    Claim(
        "S1",
        "Shift behaves like rotation.",
        {
            **_four_above_nine("ae_shift"),
            "every other digit's at most 1.4": lambda m: max(_free(m, "ae_shift", "4", "9")) <= 1.4,
        },
        "generation_shift",
        ("ae_shift",),
        _ratios("ae_shift", "4", "9"),
        "Only that of 1 is above, and mostly at the shift -20, where training's range ends: without it it is 1.37 to "
        "1.45. Out of range 1 is drawn with the smallest error of all digits.",
    ),
    Claim(
        "S2",
        "A shift that no digit was shown cannot be drawn at all.",
        {"ae_shift_central's out/in of every digit >= 3": lambda m: min(_free(m, "ae_shift_central")) >= 3},
        "generation_shift",
        ("ae_shift_central",),
        _ratios("ae_shift_central"),
    ),
)
