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
