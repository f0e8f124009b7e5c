"""Measures speed: images per second, and the share of the machine's matrix-product peak.

The clock of a shared machine varies by a third within a minute. Each measurement is therefore taken between two of the
peak, and the median of the ratios is reported.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from invariance.files import write_json
from invariance.models.addressing_autoencoder import AddressingAutoencoder
from invariance.models.autoencoder import Autoencoder
from invariance.models.capsnet import CapsNet
from invariance.models.class_placing_autoencoder import ClassPlacingAutoencoder
from invariance.models.cnn import CNN, Convolution
from invariance.models.controlled_autoencoder import ControlledAutoencoder
from invariance.models.feature_moving_autoencoder import FeatureMovingAutoencoder
from invariance.models.matrix_capsnet import MatrixCapsNet
from invariance.models.pixel_hypernetwork import PixelHypernetwork
from invariance.models.placing_autoencoder import PlacingAutoencoder
from invariance.processes import cores
from invariance.ranges import Ranges, at
from invariance.runs.execute import PRECISIONS
from invariance.runs.provenance import import_tensorflow, provenance
from invariance.tasks import Compensation, Generation, Recognition, Task
from invariance.transforms import Affine, Rotation, Shift

BATCH = 128
EVALUATION_BATCH = 512
NARROW = ((-45, 45),)
RECOGNITION = Recognition(Rotation(), Ranges(((0, 360),), {3: NARROW, 4: NARROW}), (6, 9))


def networks() -> dict[str, tuple[Any, Task, int]]:
    """Name -> (model at its published size, task, images per step).

    As declared in experiments/, which the library does not import.
    """
    rotation = Generation(Rotation(), Ranges(((-180, 180),), {4: NARROW, 9: NARROW}))
    quarter = at(range(-45, 45, 9))
    discrete = Generation(Rotation(), Ranges(at(range(-180, 180, 36)), {4: quarter, 9: quarter}))
    affine = Generation(Affine(), rotation.ranges)
    shift = Generation(Shift((68, 68)), Ranges(((-20, 20),), {4: ((-5, 5),), 9: ((-5, 5),)}))
    return {
        "cnn_bn_00": (CNN((Convolution(64, 4, 2), Convolution(128, 4, 2)), True, 0.5), RECOGNITION, 128),
        "capsnet_dr": (CapsNet(), RECOGNITION, 100),
        "capsnet_em": (MatrixCapsNet(), RECOGNITION, 50),
        "ae_rotation": (Autoencoder(), rotation, BATCH),
        "ae_shift": (Autoencoder(), shift, BATCH),
        "ae_rotation, F = 128": (Autoencoder(feature_maps=128), rotation, BATCH),
        "aae_rotation": (Autoencoder(feature_maps=128, regulariser="wasserstein"), rotation, BATCH),
        "hyper_rotation": (PixelHypernetwork(), discrete, BATCH),
        "address_rotation": (FeatureMovingAutoencoder(), discrete, BATCH),
        "hyper_compensation": (ControlledAutoencoder(), Compensation(Rotation(), rotation.ranges), BATCH),
        "hyper_affine": (ControlledAutoencoder(), affine, BATCH),
        "gencaps_shift": (PlacingAutoencoder(slope=0.1), shift, BATCH),
        "gencaps_digits_shift": (ClassPlacingAutoencoder(), shift, BATCH),
        "gencaps_address_rotation": (AddressingAutoencoder(), rotation, BATCH),
    }


def main(precisions: Sequence[str], seconds: float, path: Path) -> None:
    """Measures all models at their published sizes, prints a table and writes it as JSON.

    Args:
        precisions: keys of `runs.execute.PRECISIONS`.
        seconds: for each measurement.
        path: the JSON file.
    """
    import_tensorflow()
    peaks = {precision: Peak(precision) for precision in PRECISIONS}
    print(
        "Shares of the peak count the operations of the layers as defined, warp included. The convolution of capsnet_dr"
    )
    print("needs a fifth of them; the routing of capsnet_em is not counted. A step of aae_rotation also includes five")
    print(
        "updates of the critic and one of the encoder. Weights that hyper_rotation makes for several images at once are"
    )
    print("counted for each in training, and not at all in the evaluation.")
    print(f"{'':44}{'images/s':>12}{'GFLOP/s':>10}{'of peak':>9}", flush=True)
    rows: list[dict[str, Any]] = []

    def add(name: str, precision: str, measured: dict) -> None:
        rows.append({"name": name, "precision": precision, **measured})
        rate = f"{measured['images_per_second']:>12,.0f}" if "images_per_second" in measured else " " * 12
        share = f"{measured['share_of_peak']:>8.1%}" if "share_of_peak" in measured else ""
        flops = f"{measured['gflops']:>10,.0f}" if "gflops" in measured else " " * 10
        print(f"{name + ' (' + precision + ')':44}{rate}{flops} {share}", flush=True)

    for precision, peak in peaks.items():
        add("matrix product, 2048 x 2048", precision, {"gflops": peak.measure(seconds / 4) / 1e9})
    for precision in precisions:
        for name, work, images, flops in _workloads(precision):
            add(name, precision, _measure(work, images, flops, peaks[precision], seconds))
    rates = {(row["name"], row["precision"]): row for row in rows}
    ratios = {}
    for name, precision in list(rates):
        if precision != "float32" or not name.endswith(" training step"):
            continue
        step, name = rates[name, precision], name.removesuffix(" training step")
        half = rates.get((f"{name} training step", "bfloat16"))
        if half:
            ratios[f"{name} training step, bfloat16 / float32"] = half["images_per_second"] / step["images_per_second"]
        evaluation = rates[f"{name} evaluation", "float32"]
        ratios[f"{name} one point of 10,000 test images, seconds"] = 10_000 / evaluation["images_per_second"]
        alone = sum(1 / rates[part, "float32"]["images_per_second"] for part in ("warp", "input pipeline"))
        ratios[f"{name} warp and pipeline / training step"] = alone * step["images_per_second"]
    for name, value in ratios.items():
        print(f"{name:60}{value:>8.3f}")
    write_json(
        path, {"rows": rows, "ratios": ratios, **provenance(), "machine": platform.platform(), "cores": len(cores())}
    )
    print(f"written to {path}")


class Peak:
    """The machine's rate for square matrix products, in FLOP/s.

    Args:
        precision: of the matrices, "float32" or "bfloat16".
        side: number of rows and columns.
    """

    def __init__(self, precision: str, side: int = 2048):
        import tensorflow as tf

        matrix = tf.cast(tf.random.stateless_normal((side, side), (1, 2)), precision)
        self._product = tf.function(lambda: tf.matmul(matrix, matrix))
        self._flops = 2.0 * side**3
        self()

    def __call__(self) -> float:
        """One measurement: the faster of two products."""
        best = 0.0
        for _ in range(2):
            began = time.perf_counter()
            self._product().numpy()
            best = max(best, self._flops / (time.perf_counter() - began))
        return best

    def measure(self, seconds: float) -> float:
        """The median over a number of seconds."""
        rates: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not rates:
            rates.append(self())
        return statistics.median(rates)


def _measure(work: Callable[[], Any], images: int, flops: float, peak: Peak, seconds: float) -> dict:
    """Speed of ``work``, a function that processes ``images`` images with ``flops`` operations each."""
    for _ in range(3):
        work()
    rates: list[float] = []
    shares: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        before = peak() if flops else 0.0
        began, repeats = time.perf_counter(), 0
        while repeats < 5 or time.perf_counter() - began < seconds / 12:
            work()
            repeats += 1
        rate = repeats * images / (time.perf_counter() - began)
        rates.append(rate)
        if flops:
            shares.append(rate * flops / max(before, peak()))
    measured = {"images_per_second": statistics.median(rates)}
    if flops:
        measured["gflops"] = measured["images_per_second"] * flops / 1e9
        measured["share_of_peak"] = statistics.median(shares)
    return measured


def _workloads(precision: str) -> Iterator[tuple[str, Callable[[], Any], int, float]]:
    """(name, function, images per call, matrix-product operations per image) for each part of a run."""
    import keras
    import numpy as np

    from invariance import xla
    from invariance.runs import pipeline, training

    keras.config.set_dtype_policy(PRECISIONS[precision])
    shape, classes = (28, 28, 1), (0, 1, 2, 3, 4, 5, 7, 8)
    rng = np.random.default_rng(0)
    # The size of MNIST without 6 and 9; speed does not depend on the pixels.
    images = rng.integers(0, 256, (48_133, *shape), np.uint8)
    labels = rng.choice(np.array(classes, np.int32), len(images))

    if precision == "float32":
        batches = iter(pipeline.batches(images, labels, 0, BATCH, 0, 10**9))
        warp = xla.compiled(RECOGNITION.prepare(0, classes))
        one = next(batches)
        yield "warp", lambda: warp(*one)[0].numpy(), BATCH, 0
        yield "input pipeline", lambda: next(batches), BATCH, 0

    def train(step: Callable, batches: Iterator) -> None:
        _, diverged = step(*next(batches))
        diverged.numpy()

    for name, (network, task, batch_size) in networks().items():
        sizes = task.arguments(shape, classes)
        model = network(*sizes)
        model.optimizer.build(model.trainable_variables)
        step = training.compiled_step(model, task.prepare(0, classes), batch_size)
        batches = iter(pipeline.batches(images, labels, 0, batch_size, 0, 10**9))
        yield f"{name} training step", partial(train, step, batches), batch_size, network.training_flops(*sizes)
        evaluate = task.evaluator(model, images[:EVALUATION_BATCH], classes)
        point = float(task.points(task.usual_spacing)[3])
        yield f"{name} evaluation", partial(evaluate, point), EVALUATION_BATCH, network.evaluation_flops(*sizes)
        # The largest models take a gigabyte.
        keras.backend.clear_session()
