"""Every published number, typed once. None of ours is ever written here.

Sources:
    ARTICLE: A. Potapov, "Can Deep Networks Learn Invariants?" (2018).
    REPOSITORY: the repository the article links, singnet/semantic-vision, folder experiments/invariance.
"""

ARTICLE = 'A. Potapov, "Can Deep Networks Learn Invariants?" (2018)'
REPOSITORY = "singnet/semantic-vision, experiments/invariance"


def _four(p_test, p_in, p_out, p_inv):
    return {"p_test": p_test, "p_in": p_in, "p_out": p_out, "p_inv": p_inv}


# REPOSITORY. Means over 1000 (CNN) or 100 (capsules) drawings of the angles for one trained model each.
RECOGNITION_ROTATION = {
    "cnn_00": _four(0.9887, 0.9913, 0.2118, 0.0031),
    "cnn_01": _four(0.9904, 0.9938, 0.2329, 0.0076),
    "cnn_02": _four(0.9908, 0.9947, 0.2451, 0.0018),
    "cnn_dropout_00": _four(0.9925, 0.9928, 0.2398, 0.0389),
    "cnn_dropout_01": _four(0.9906, 0.9947, 0.2502, 0.0376),
    "cnn_bn_00": _four(0.9928, 0.9964, 0.2567, 0.0406),
    "cnn_bn_01": _four(0.9925, 0.9962, 0.2672, 0.0379),
    "cnn_bn_02": _four(0.9936, 0.9969, 0.2700, 0.0374),
    "cnn_pool_00": _four(0.9857, 0.9949, 0.2521, 0.0456),
    "cnn_pool_01": _four(0.9894, 0.9972, 0.2501, 0.0431),
    "cnn_pool_02": _four(0.9927, 0.9979, 0.2645, 0.0429),
    "capsnet_dr": _four(0.991, 0.996, 0.249, 0.009),
    "capsnet_em": _four(0.976, 0.989, 0.218, 0.089),
}


def _errors(of_4, of_9, others):
    """Mean squared errors (in, out) and their ratio for 4 and 9, and the least and largest ratio of the others."""
    return {
        "mse_in": {4: of_4[0], 9: of_9[0]},
        "mse_out": {4: of_4[1], 9: of_9[1]},
        "ratio": {4: of_4[2], 9: of_9[2]},
        "ratio_others": others,
    }


# REPOSITORY. Averages of the published curves, pixels in [-1, 1].
GENERATION_ROTATION = {
    "aae_rotation": _errors((0.0451, 0.0976, 2.16), (0.0390, 0.0662, 1.70), (0.97, 1.00)),
    "ae_rotation": _errors((0.0270, 0.0752, 2.78), (0.0219, 0.0430, 1.96), (0.97, 1.01)),
    "ae_rotation_z128": _errors((0.0071, 0.0107, 1.50), (0.0059, 0.0079, 1.33), (0.98, 1.04)),
    "ae_rotation_halfplane": _errors((0.0269, 0.2002, 7.4), (0.0217, 0.1811, 8.3), (6.0, 24.0)),
}
GENERATION_SHIFT = {
    "ae_shift": _errors((0.0068, 0.0281, 4.1), (0.0053, 0.0158, 3.0), (1.04, 1.32)),
    "ae_shift_central": _errors((0.0071, 0.0555, 7.8), (0.0059, 0.0523, 8.9), (6.0, 22.0)),
}


def _curve(points, values):
    return dict(zip(points, map(float, values.split()), strict=True))


# REPOSITORY. Points of the published curves: degrees, and dy = dx in pixels.
_ANGLES = range(-171, 180, 18)
_SHIFTS = range(-20, 20, 2)
GENERATION_ROTATION_CURVES = {
    "aae_rotation": {
        3: _curve(
            _ANGLES,
            ".0536 .0536 .0537 .0532 .0527 .0534 .0538 .0538 .0543 .0549"
            " .0549 .0552 .0545 .0542 .0545 .0534 .0522 .0525 .0533 .0539",
        ),
        4: _curve(
            _ANGLES,
            ".1094 .1114 .1112 .1104 .1068 .0930 .0651 .0467 .0450 .0456"
            " .0448 .0440 .0465 .0655 .0951 .1070 .1078 .1051 .1053 .1072",
        ),
        9: _curve(
            _ANGLES,
            ".0732 .0742 .0732 .0708 .0660 .0599 .0492 .0398 .0390 .0392"
            " .0384 .0377 .0394 .0503 .0646 .0716 .0715 .0693 .0703 .0722",
        ),
    },
    "ae_rotation": {
        3: _curve(
            _ANGLES,
            ".0345 .0344 .0345 .0346 .0345 .0345 .0345 .0344 .0346 .0350"
            " .0350 .0348 .0347 .0348 .0346 .0345 .0346 .0347 .0346 .0345",
        ),
        4: _curve(
            _ANGLES,
            ".0820 .0807 .0814 .0831 .0813 .0691 .0418 .0276 .0268 .0269"
            " .0267 .0269 .0281 .0400 .0705 .0933 .0979 .0934 .0882 .0836",
        ),
        9: _curve(
            _ANGLES,
            ".0485 .0472 .0460 .0460 .0446 .0403 .0302 .0225 .0214 .0214"
            " .0217 .0218 .0227 .0295 .0409 .0465 .0481 .0475 .0474 .0476",
        ),
    },
}
GENERATION_SHIFT_CURVES = {
    "ae_shift": {
        3: _curve(
            _SHIFTS,
            ".0123 .0099 .0094 .0094 .0094 .0092 .0091 .0090 .0092 .0093"
            " .0094 .0094 .0092 .0092 .0092 .0092 .0094 .0095 .0098 .0103",
        ),
        4: _curve(
            _SHIFTS,
            ".0353 .0273 .0263 .0266 .0278 .0302 .0229 .0088 .0067 .0067"
            " .0066 .0067 .0073 .0153 .0282 .0291 .0267 .0272 .0278 .0295",
        ),
        9: _curve(
            _SHIFTS,
            ".0200 .0168 .0150 .0155 .0160 .0168 .0146 .0072 .0053 .0052"
            " .0052 .0052 .0056 .0100 .0150 .0148 .0139 .0149 .0156 .0172",
        ),
    },
}
