"""Every published number, typed once. None of ours belongs here.

Sources:
    ARTICLE: A. Potapov, "Can Deep Networks Learn Invariants?" (2018).
    REPOSITORY: the repository the article links, singnet/semantic-vision, folder experiments/invariance.
"""


def _four(p_test, p_in, p_out, p_inv):
    return {"p_test": p_test, "p_in": p_in, "p_out": p_out, "p_inv": p_inv}


# REPOSITORY. (mean, variance between drawings) over 1000 drawings of the angles, for one trained model each. (P_test of
# cnn_dropout_00 and cnn_bn_01 agree in all 16 digits there, and so do their variances.)
RECOGNITION_DRAWINGS = {
    "cnn_00": _four((0.988739, 4.258e-7), (0.991266, 1.544e-6), (0.211825, 8.764e-5), (0.003055, 7.668e-7)),
    "cnn_01": _four((0.990410, 4.133e-7), (0.993810, 1.582e-6), (0.232916, 8.484e-5), (0.007555, 1.782e-6)),
    "cnn_02": _four((0.990821, 4.070e-7), (0.994706, 1.278e-6), (0.245058, 8.934e-5), (0.001808, 6.511e-7)),
    "cnn_dropout_00": _four((0.992533, 3.311e-7), (0.992845, 1.469e-6), (0.239827, 8.001e-5), (0.038917, 1.127e-6)),
    "cnn_dropout_01": _four((0.990588, 3.473e-7), (0.994684, 1.321e-6), (0.250158, 8.140e-5), (0.037632, 6.765e-7)),
    "cnn_bn_00": _four((0.992833, 2.876e-7), (0.996361, 7.936e-7), (0.256724, 8.280e-5), (0.040645, 1.370e-6)),
    "cnn_bn_01": _four((0.992533, 3.311e-7), (0.996247, 9.081e-7), (0.267229, 8.551e-5), (0.037913, 6.763e-7)),
    "cnn_bn_02": _four((0.993590, 3.125e-7), (0.996894, 7.298e-7), (0.270039, 8.833e-5), (0.037399, 4.894e-7)),
    "cnn_pool_00": _four((0.985734, 7.136e-7), (0.994850, 1.313e-6), (0.252106, 8.152e-5), (0.045634, 2.378e-6)),
    "cnn_pool_01": _four((0.989417, 4.493e-7), (0.997165, 7.717e-7), (0.250099, 8.329e-5), (0.043111, 1.618e-6)),
    "cnn_pool_02": _four((0.992737, 3.246e-7), (0.997876, 4.182e-7), (0.264528, 8.123e-5), (0.042936, 1.341e-6)),
}

# REPOSITORY. Means over 1000 drawings for the CNNs, over 100 for the capsule networks.
RECOGNITION_ROTATION = {
    **{model: {key: mean for key, (mean, _) in numbers.items()} for model, numbers in RECOGNITION_DRAWINGS.items()},
    "capsnet_dr": _four(0.991, 0.996, 0.249, 0.009),
    "capsnet_em": _four(0.976, 0.989, 0.218, 0.089),
}


def _errors(of_4, of_9, others):
    """Mean squared errors (in, out) and their ratio for 4 and 9, and the smallest and largest ratio of the others."""
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
    "ae_rotation_single": _errors((0.1061, 0.0803, 0.76), (0.0445, 0.0324, 0.73), (0.99, 1.05)),
    # Score files at iteration 100,000; not in the article.
    "gencaps_digits_rotation": _errors((0.0210, 0.0541, 2.58), (0.0170, 0.0265, 1.56), (0.97, 1.02)),
    "gencaps_address_rotation": _errors((0.0296, 0.0937, 3.16), (0.0237, 0.0459, 1.94), (0.95, 1.02)),
    "gencaps_rotation_halfplane": _errors((0.0318, 0.1563, 4.91), (0.0270, 0.1433, 5.30), (3.6, 9.0)),
    "gencaps_rotation_single": _errors((0.0489, 0.0561, 1.15), (0.0301, 0.0334, 1.11), (0.94, 1.01)),
    "gencaps_digits_rotation_single": _errors((0.1252, 0.1457, 1.16), (0.0544, 0.0643, 1.18), (0.96, 1.09)),
}
GENERATION_SHIFT = {
    "ae_shift": _errors((0.0068, 0.0281, 4.1), (0.0053, 0.0158, 3.0), (1.04, 1.32)),
    "ae_shift_central": _errors((0.0071, 0.0555, 7.8), (0.0059, 0.0523, 8.9), (6.0, 22.0)),
    # Score files at iteration 100,000; not in the article.
    "gencaps_shift": _errors((0.0099, 0.0106, 1.08), (0.0080, 0.0089, 1.10), (1.04, 1.15)),
    "gencaps_digits_shift": _errors((0.0058, 0.0115, 1.99), (0.0047, 0.0072, 1.55), (1.13, 1.25)),
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

# REPOSITORY, folder hypernets: second-order networks. It has no scores, only pictures: 20 images of a digit, at angles
# 18 degrees apart. Numbers with an asterisk were read from these. They are texts: tables show them as they are, and
# nothing calculates with them.
GENERATION_ROTATION_PICTURES = {
    # Out of range at the multiples of 36 degrees, and between these.
    "hyper_rotation": {"mse_out": {4: "≤ .004*", 9: "≤ .004*"}, "mse_between": ".002–.09*"},
    "address_rotation": {"ratio": {4: "1.56*", 9: "1.58*"}, "ratio_others": ".99–1.18*"},
}
ROTATION_COMPENSATION_PICTURES = {
    "hyper_compensation": {"ratio": {4: "6.17*", 9: "2.85*"}, "ratio_others": "1.05–1.25*"},
}
