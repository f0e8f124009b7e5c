"""The bench: its workloads can be carried out."""

from functools import partial

import keras
import pytest

from invariance import benchmark
from invariance.models import autoencoder, capsnet, matrix_capsnet


@pytest.mark.slow
def test_workloads_can_be_carried_out(monkeypatch):
    """With networks that a test has time for."""
    monkeypatch.setattr(benchmark, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(benchmark, "BATCH", 8)
    small = {"filters": (8, 16), "units": 32, "critic": (16, 16), "critic_updates": 1}
    monkeypatch.setattr(autoencoder, "Autoencoder", partial(autoencoder.Autoencoder, **small))
    few = partial(capsnet.CapsNet, filters=16, primary_channels=2, decoder=(16, 16))
    monkeypatch.setattr(capsnet, "CapsNet", few)
    few = partial(matrix_capsnet.MatrixCapsNet, filters=8, primary=2, capsules=(2, 2), decoder=(16, 16))
    monkeypatch.setattr(matrix_capsnet, "MatrixCapsNet", few)
    policy, names = keras.config.dtype_policy(), []
    try:
        for name, work, images, flops in benchmark._workloads("float32"):
            work()
            names.append(name)
            assert images > 0 and (flops > 0) == (name not in ("warp", "input pipeline"))
    finally:
        keras.config.set_dtype_policy(policy)
    assert names[:2] == ["warp", "input pipeline"]
    networks = [
        "cnn_bn_00",
        "capsnet_dr",
        "capsnet_em",
        "ae_rotation",
        "ae_shift",
        "ae_rotation, F = 128",
        "aae_rotation",
    ]
    assert names[2:] == [f"{network} {part}" for network in networks for part in ("training step", "evaluation")]
