"""The bench: its workloads can be carried out."""

import keras

from invariance import benchmark


def test_workloads_of_the_first_network_can_be_carried_out(monkeypatch):
    monkeypatch.setattr(benchmark, "EVALUATION_BATCH", 4)
    policy, names = keras.config.dtype_policy(), []
    try:
        for name, work, images, flops in benchmark._workloads("float32"):
            if name.startswith("capsnet"):
                break  # too large for a test
            work()
            names.append(name)
            assert images > 0 and (flops > 0) == name.startswith("cnn")
    finally:
        keras.config.set_dtype_policy(policy)
    assert names[:2] == ["warp", "input pipeline"]
    assert [name.split()[1] for name in names[2:]] == ["training", "evaluation"]
