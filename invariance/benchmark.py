"""Speed, measured as images per second and as a share of the machine's own matrix-product peak in the same run.

Each measurement alternates with one of the peak, and the median of the ratios is reported, because the clock of a
shared machine wanders by a third within a minute.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from invariance.errors import UserError
from invariance.files import write_json
from invariance.processes import cores
from invariance.runs.execute import PRECISIONS
from invariance.runs.provenance import import_tensorflow, provenance

BATCH = 128
EVALUATION_BATCH = 512


def main(precisions: list[str], seconds: float, path: Path) -> int:
    """Measures, prints a table and writes it as JSON.

    Args:
        precisions: keys of `runs.execute.PRECISIONS`.
        seconds: for each measurement.
        path: of the JSON file.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UserError(f"--precision: unknown value {precision!r}; known are {', '.join(PRECISIONS)}")
    if not seconds > 0:
        raise UserError(f"--seconds: a positive number is needed; it is {seconds}")
    import_tensorflow()
    peaks = {precision: Peak(precision) for precision in PRECISIONS}
    print("Share of peak: by the arithmetic of the layers as defined; capsnet_dr's convolution takes a fifth of it,")
    print("and capsnet_em's routing is not counted. The warp is included; sizes are the published ones. aae_rotation's")
    print(
        "rate counts images of the reconstruction's update; five updates of the critic and one of the encoder go along."
    )
    print(f"{'':44}{'images/s':>12}{'GFLOP/s':>10}{'of peak':>9}", flush=True)
    rows = []

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
    return 0


class Peak:
    """The machine's rate for square matrix products in one precision, in FLOP/s."""

    def __init__(self, precision: str, side: int = 2048):
        import tensorflow as tf

        matrix = tf.cast(tf.random.stateless_normal((side, side), (1, 2)), precision)
        self._product = tf.function(lambda: tf.matmul(matrix, matrix))
        self._flops = 2.0 * side**3
        self()

    def __call__(self) -> float:
        """One measurement: the better of two products."""
        best = 0.0
        for _ in range(2):
            began = time.perf_counter()
            self._product().numpy()
            best = max(best, self._flops / (time.perf_counter() - began))
        return best

    def measure(self, seconds: float) -> float:
        """Median over some time."""
        rates, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end or not rates:
            rates.append(self())
        return statistics.median(rates)


def _measure(work: Callable, images: int, flops: float, peak: Peak, seconds: float) -> dict:
    """Rates of ``work``, which handles ``images`` images with ``flops`` operations each, beside the peak."""
    for _ in range(3):
        work()
    rates, shares, end = [], [], time.perf_counter() + seconds
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


def _workloads(precision: str) -> Iterator[tuple[str, Callable, int, float]]:
    """(name, callable, images a call, matrix-product operations an image) of each part of a run."""
    import keras
    import numpy as np

    from invariance import xla
    from invariance.models.autoencoder import Autoencoder
    from invariance.models.capsnet import CapsNet
    from invariance.models.cnn import CNN, Convolution
    from invariance.models.matrix_capsnet import MatrixCapsNet
    from invariance.ranges import Ranges
    from invariance.runs import pipeline, training
    from invariance.tasks import Generation, Recognition
    from invariance.transforms import Rotation, Shift

    keras.config.set_dtype_policy(PRECISIONS[precision])
    shape, classes = (28, 28, 1), (0, 1, 2, 3, 4, 5, 7, 8)
    narrow = ((-45, 45),)
    recognition = Recognition(Rotation(), Ranges(((0, 360),), {3: narrow, 4: narrow}), (6, 9))
    rotation = Generation(Rotation(), Ranges(((-180, 180),), {4: narrow, 9: narrow}))
    shift = Generation(Shift((68, 68)), Ranges(((-20, 20),), {4: ((-5, 5),), 9: ((-5, 5),)}))
    rng = np.random.default_rng(0)
    # The size of MNIST without 6 and 9; speed does not depend on what the images show.
    images = rng.integers(0, 256, (48_133, *shape), np.uint8)
    labels = rng.choice(np.array(classes, np.int32), len(images))

    if precision == "float32":
        batches = iter(pipeline.batches(images, labels, 0, BATCH, 0, 10**9))
        warp = xla.compiled(recognition.prepare(0, classes))
        one = next(batches)
        yield "warp", lambda: warp(*one)[0].numpy(), BATCH, 0
        yield "input pipeline", lambda: next(batches), BATCH, 0
    # As in experiments/, which the library may not import.
    networks = {
        "cnn_bn_00": (CNN((Convolution(64, 4, 2), Convolution(128, 4, 2)), True, 0.5), recognition, 128),
        "capsnet_dr": (CapsNet(), recognition, 100),
        "capsnet_em": (MatrixCapsNet(), recognition, 50),
        "ae_rotation": (Autoencoder(), rotation, BATCH),
        "ae_shift": (Autoencoder(), shift, BATCH),
        "ae_rotation, F = 128": (Autoencoder(feature_maps=128), rotation, BATCH),
        "aae_rotation": (Autoencoder(feature_maps=128, regulariser="wasserstein"), rotation, BATCH),
    }
    for name, (network, task, batch_size) in networks.items():
        # Freed before the next is built: the largest take a gigabyte.
        sizes = task.arguments(shape, classes)
        model = network(*sizes)
        model.optimizer.build(model.trainable_variables)
        step = training.compiled_step(model, task.prepare(0, classes), batch_size)
        batches = iter(pipeline.batches(images, labels, 0, batch_size, 0, 10**9))
        yield (
            f"{name} training step",
            lambda step=step, batches=batches: step(*next(batches))[1].numpy(),
            batch_size,
            network.training_flops(*sizes),
        )
        evaluate = task.evaluator(model, images[:EVALUATION_BATCH], classes)
        point = float(task.points(task.usual_spacing)[3])
        yield (
            f"{name} evaluation",
            lambda evaluate=evaluate, point=point: evaluate(point),
            EVALUATION_BATCH,
            network.evaluation_flops(*sizes),
        )
        keras.backend.clear_session()
