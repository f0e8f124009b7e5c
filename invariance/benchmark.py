"""Speed, measured as images per second and as a share of the machine's own matrix-product peak in the same run.

Each measurement alternates with one of the peak, and the median of the ratios is reported, because the clock of a
shared machine wanders by a third within a minute.
"""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from invariance.errors import UserError
from invariance.processes import cores
from invariance.results import write_json
from invariance.running import PRECISIONS, import_tensorflow, provenance

BATCH = 128
EVALUATION_BATCH = 512


def main(precisions: list[str], seconds: float, path: Path) -> int:
    """Measures, prints a table and writes it as JSON.

    Args:
        precisions: keys of `running.PRECISIONS`.
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
    print("Share of peak: of the arithmetic of the layers as defined; capsnet_dr's convolution takes a fifth of it,")
    print("and capsnet_em's routing is not counted. The warp is included, sizes are the published ones. aae_rotation's")
    print("rate is in images of the reconstruction's update; five of the critic and one of the encoder go with it.")
    print(f"{'':44}{'images/s':>12}{'GFLOP/s':>10}{'of peak':>9}", flush=True)
    rows = []

    def add(name, precision, measured):
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
        count = 10_000 if "ae_" in name else 8033
        ratios[f"{name} one point of all test images, seconds"] = count / evaluation["images_per_second"]
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


def _workloads(precision):
    """(name, callable, images a call, matrix-product operations an image) of each part of a run."""
    import keras
    import numpy as np
    import tensorflow as tf

    from invariance import evaluation, generation, pipeline, training, xla
    from invariance.models.autoencoder import Autoencoder
    from invariance.models.capsnet import CapsNet
    from invariance.models.cnn import CNN, Convolution
    from invariance.models.matrix_capsnet import MatrixCapsNet
    from invariance.protocol import GenerationByRotation, GenerationByShift, Recognition
    from invariance.ranges import Ranges

    keras.config.set_dtype_policy(PRECISIONS[precision])
    shape, classes = (28, 28, 1), (0, 1, 2, 3, 4, 5, 7, 8)
    upright = ((-45, 45),)
    protocol = Recognition(Ranges(((0, 360),), {3: upright, 4: upright}), (6, 9))
    rng = np.random.default_rng(0)
    # The size of MNIST without 6 and 9; speed does not depend on what the pixels show.
    images = rng.integers(0, 256, (48_133, *shape), np.uint8)
    labels = rng.choice(np.array(classes, np.int32), len(images))
    prepare = protocol.prepare(0, classes)

    batches = iter(pipeline.batches(images, labels, 0, BATCH, 0, 10**9))
    if precision == "float32":
        warp = xla.compiled(prepare)
        one = next(batches)
        yield "warp", lambda: warp(*one)[0].numpy(), BATCH, 0
        yield "input pipeline", lambda: next(batches), BATCH, 0
    # As in experiments/recognition_rotation.py, which the library may not import.
    networks = {
        "cnn_bn_00": (CNN((Convolution(64, 4, 2), Convolution(128, 4, 2)), batch_norm=True, dropout=0.5), 128),
        "capsnet_dr": (CapsNet(), 100),
        "capsnet_em": (MatrixCapsNet(), 50),
    }
    drawing = {
        "ae_rotation": (Autoencoder(), GenerationByRotation(Ranges(((-180, 180),), {4: upright, 9: upright}))),
        "ae_shift": (Autoencoder(), GenerationByShift(Ranges(((-20, 20),), {4: ((-5, 5),), 9: ((-5, 5),)}))),
    }
    drawing["ae_rotation, F = 128"] = Autoencoder(feature_maps=128), drawing["ae_rotation"][1]
    regularised = Autoencoder(feature_maps=128, regulariser="wasserstein")
    drawing["aae_rotation"] = regularised, drawing["ae_rotation"][1]
    chunk = tf.constant(images[:EVALUATION_BATCH])
    angles = tf.linspace(-180.0, 180.0, EVALUATION_BATCH)
    for name, (network, batch_size) in networks.items():
        # Freed before the next is made: the largest take a gigabyte.
        model = network(shape, len(classes))
        model.optimizer.build(model.trainable_variables)
        step = training.compiled_step(model, prepare, batch_size)
        batches = iter(pipeline.batches(images, labels, 0, batch_size, 0, 10**9))
        yield (
            f"{name} training step",
            lambda step=step, batches=batches: step(*next(batches))[1].numpy(),
            batch_size,
            network.training_flops(shape, len(classes)),
        )
        classify = evaluation.classifier(model, shape, len(classes))
        yield (
            f"{name} evaluation",
            lambda classify=classify: classify(chunk, angles)[0].numpy(),
            EVALUATION_BATCH,
            network.flops(shape, len(classes)),
        )
        keras.backend.clear_session()
    for name, (network, protocol) in drawing.items():
        sizes = protocol.arguments(shape, classes)
        model = network(*sizes)
        model.optimizer.build(model.trainable_variables)
        step = training.compiled_step(model, protocol.prepare(0, classes), BATCH)
        batches = iter(pipeline.batches(images, labels, 0, BATCH, 0, 10**9))
        yield (
            f"{name} training step",
            lambda step=step, batches=batches: step(*next(batches))[1].numpy(),
            BATCH,
            network.training_flops(*sizes),
        )
        drawings = generation.Drawings(generation.Artist(model, protocol), images[: generation.BATCH])
        point = protocol.parameters(protocol.grid(None))[3]
        yield (
            f"{name} evaluation",
            lambda drawings=drawings, point=point: drawings.errors(point),
            generation.BATCH,
            network.decoder_flops(*sizes[1:]),
        )
        keras.backend.clear_session()
