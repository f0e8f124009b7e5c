"""The losses: by hand, against their equations in NumPy, and the gradient penalty against slow differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from invariance.layers.large_dense import LargeDense
from invariance.losses import (
    DoubleSoftmaxCrossentropy,
    MarginLoss,
    SpreadLoss,
    TangentLoss,
    gradient_penalty,
    projected,
)
from tests.helpers import noise


def probabilities(batch, classes):
    scores = noise(batch, classes, dtype="float64") * 3
    return (np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)).astype("float32")


@pytest.mark.parametrize(
    ("loss", "defaults"),
    [
        (DoubleSoftmaxCrossentropy(reduction="sum", name="mine"), {}),
        (MarginLoss(0.8, 0.2, 0.3, reduction="sum", name="mine"), {"present": 0.9, "absent": 0.1, "weight": 0.5}),
        (
            SpreadLoss(0.1, 0.8, 0.07, 30, reduction="sum", name="mine"),
            {"start": 0.2, "stop": 0.9, "increase": 0.035, "steps": 1200},
        ),
        (TangentLoss(reduction="sum", name="mine"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configuration(loss, defaults):
    serialised = keras.losses.serialize(loss)
    assert serialised["registered_name"] == f"invariance>{type(loss).__name__}"
    again = keras.losses.deserialize(serialised)
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert {name: getattr(type(loss)(), name) for name in defaults} == defaults
    assert all(getattr(again, name) != value for name, value in defaults.items())


@pytest.mark.parametrize("loss", [DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss])
def test_labels_of_any_form_and_one_loss_per_image(loss):
    p, labels = probabilities(5, 3), np.array([0, 2, 1, 1, 0])
    each = loss(reduction=None)(labels, p)
    assert each.shape == (5,)
    for form in (labels, labels[:, None], labels.astype("float32")):
        assert float(loss()(form, p)) == pytest.approx(np.mean(each), rel=1e-6)  # float32


# Labels

CLASSES, LABELS = 3, np.array([0, 2, 1, 1, 0])
LOSSES = pytest.mark.parametrize("loss", [DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss])


@LOSSES
@pytest.mark.parametrize("batch", [1, 3, 5], ids=lambda batch: f"batch {batch}")
@pytest.mark.parametrize("mode", ["eager", "graph", "unknown batch"])
def test_one_hot_labels_mean_the_same(loss, batch, mode):
    # Three images of three classes: shapes alone must not confuse labels with rows.
    p, labels = probabilities(batch, CLASSES), LABELS[:batch]
    call, expected = loss(reduction=None), loss(reduction=None)(labels, p)
    if mode != "eager":
        shape = batch if mode == "graph" else None
        signature = [tf.TensorSpec((shape, CLASSES)), tf.TensorSpec((shape, CLASSES))]
        call = tf.function(call, input_signature=signature)
    for dtype in ("float32", "int32") if mode == "eager" else ("float32",):
        found = call(tf.constant(np.eye(CLASSES)[labels], dtype), tf.constant(p))
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32


def test_several_labels_by_hand():
    # Labels 0 and 2. Margin: .9 is long enough, .2 is .7 too short, .5 is .4 too long: .49 + .5 * .16.
    # Spread, margin .5: .9 exceeds .5 by .4, .1 too little; .2 falls short of .5 by .3, .8 too little: .01 + .64.
    lengths, labels = np.array([[0.9, 0.5, 0.2]], "float32"), np.array([[1, 0, 1]])
    assert float(MarginLoss()(labels, lengths)) == pytest.approx(0.49 + 0.08, rel=1e-6)
    assert float(SpreadLoss(stop=0.5)(labels, lengths)) == pytest.approx(0.01 + 0.64, rel=1e-6)
    # Nothing to be seen: .5 * (.64 + .16 + .01).
    assert float(MarginLoss()(np.zeros((1, 3)), lengths)) == pytest.approx(0.405, rel=1e-6)


# Each in a batch whose other image is right.
WRONG_LABELS = {
    "beyond the classes": ([0, 3], "class numbers from 0 to 2. Received: 3.0"),
    "negative": ([-1, 0], "class numbers from 0 to 2. Received: -1.0"),
    "no integer": ([0, 1.5], "class numbers from 0 to 2. Received: 1.5"),
    "no number": ([[0], [np.nan]], "class numbers from 0 to 2. Received: nan"),
    "shares": ([[0, 1, 0], [0, 0.5, 0.5]], "zeros and ones"),
    "logits": ([[0, 1, 0], [2, 0, 0]], "zeros and ones"),
}
ROWS = {
    "none": ([[0, 1, 0], [0, 0, 0]], (DoubleSoftmaxCrossentropy, SpreadLoss)),
    "several": ([[0, 1, 0], [1, 0, 1]], (DoubleSoftmaxCrossentropy,)),
}
MALFORMED = [
    (loss, *case) for loss in (DoubleSoftmaxCrossentropy, MarginLoss, SpreadLoss) for case in WRONG_LABELS.values()
]
MALFORMED += [(loss, labels, "zeros and ones") for labels, losses in ROWS.values() for loss in losses]


@pytest.mark.parametrize(("loss", "labels", "message"), MALFORMED)
def test_malformed_labels_are_refused_or_make_the_loss_nan(loss, labels, message):
    labels, p, each = np.array(labels, "float32"), probabilities(2, CLASSES), loss(reduction=None)
    with pytest.raises(ValueError, match=r"^Labels must be ") as refused:
        each(labels, p)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    found = np.asarray(tf.function(each)(tf.constant(labels), tf.constant(p)))
    wrong = [number for number, value in enumerate(found) if np.isnan(value)]
    assert wrong == [0 if np.min(labels[0]) < 0 else 1]


@LOSSES
@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ((5, 2), (5, 3)),
        ((5, 4), (5, 3)),
        ((3,), (1, 3)),
        ((1,), (5, 3)),
        ((), (1, 3)),
        ((5, 3, 1), (5, 3)),
        ((5, 1), (5, 1)),
    ],
    ids=str,
)
def test_labels_of_other_shapes_are_refused(loss, labels, predictions):
    # A flat one-hot label, one label for five images, a single class whose labels could be either, ...
    with pytest.raises(ValueError, match=r"^Labels must have the shape \(batch,\)") as refused:
        loss()(np.zeros(labels), np.zeros(predictions, "float32"))
    assert f"labels of shape {labels} for predictions of shape {predictions}" in str(refused.value)


@pytest.mark.parametrize("shapes", [[None, (None, 3)], [(None, None), (None, 3)], [(None,), (None, 1)]], ids=str)
def test_labels_of_unknown_form_are_refused_when_traced(shapes):
    traced = tf.function(MarginLoss())
    with pytest.raises(ValueError, match="Labels must have the shape"):
        traced.get_concrete_function(*(tf.TensorSpec(shape) for shape in shapes))


def test_loss_of_batches_that_turn_out_to_differ_is_nan():
    for shape, labels in (((None,), [1.0]), ((None, 3), [[0.0, 1.0, 0.0]])):
        traced = tf.function(MarginLoss(), input_signature=[tf.TensorSpec(shape), tf.TensorSpec((None, 3))])
        assert np.isnan(traced(tf.constant(labels), tf.zeros((2, 3))))
        assert np.isfinite(traced(tf.constant(labels * 2), tf.zeros((2, 3))))


def test_labels_that_lose_bits_are_refused():
    # 2049 is 2048 in float16, and 257 is 256 in bfloat16.
    for dtype, classes in (("float16", 2048), ("bfloat16", 256)):
        loss = MarginLoss(dtype=dtype)
        assert np.isfinite(float(loss([0], np.zeros((1, classes)))))
        with pytest.raises(ValueError, match=rf"^Labels of dtype {dtype} do not tell {classes + 1} classes apart"):
            loss([0], np.zeros((1, classes + 1)))


# Double softmax


def double_softmax(labels, p):
    """-log softmax(p)[y] in float64."""
    p = p.astype("float64")
    return np.log(np.exp(p).sum(-1)) - p[np.arange(len(p)), labels]


@pytest.mark.parametrize("classes", [2, 8, 10])
def test_double_softmax_equals_numpy(classes):
    p, labels = probabilities(50, classes), np.random.default_rng(1).integers(0, classes, 50)
    # Float32: numbers up to 4, in a sum of `classes` exponentials.
    found = DoubleSoftmaxCrossentropy(reduction=None)(labels, p)
    np.testing.assert_allclose(found, double_softmax(labels, p), rtol=0, atol=2e-6)


def test_double_softmax_bounds_for_eight_classes():
    loss = DoubleSoftmaxCrossentropy()
    # All probability on the true class: log(e + 7) - 1 = log(1 + 7 / e) = 1.2740.
    assert abs(float(loss([2], np.eye(8, dtype="float32")[[2]])) - 1.2740) < 5e-5  # printed digits
    # All of it on another class: log(e + 7) = 2.2740, the maximum: log-sum-exp is convex, so largest in a corner.
    assert abs(float(loss([2], np.eye(8, dtype="float32")[[5]])) - 2.2740) < 5e-5
    # Spread evenly: softmax of equal numbers, log 8.
    assert abs(float(loss([2], np.full((1, 8), 1 / 8, "float32"))) - np.log(8)) < 1e-6  # float32
    each = DoubleSoftmaxCrossentropy(reduction=None)(np.zeros(200, int), probabilities(200, 8)).numpy()
    assert 1.2740 < each.min() < each.max() < 2.2741


def test_double_softmax_after_a_softmax_layer_does_not_go_back_to_the_logits():
    # Keras' own loss with from_logits=True would look through the softmax. In a graph, as in training.
    scores, labels = tf.constant(noise(5, 8)), np.arange(5)
    loss = tf.function(lambda scores: DoubleSoftmaxCrossentropy()(labels, keras.layers.Softmax()(scores)))
    expected = double_softmax(labels, tf.nn.softmax(scores).numpy()).mean()
    assert abs(float(loss(scores)) - expected) < 2e-6  # float32
    assert abs(expected - float(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores).numpy().mean())) > 0.05


def test_gradient_of_the_double_softmax():
    # d/dp of logsumexp(p) - p_y is softmax(p) - onehot(y), divided by the batch.
    p, labels = tf.constant(probabilities(6, 8)), np.arange(6)
    with tf.GradientTape() as tape:
        tape.watch(p)
        loss = DoubleSoftmaxCrossentropy()(labels, p)
    expected = (tf.nn.softmax(p).numpy() - np.eye(8)[labels]) / 6
    np.testing.assert_allclose(tape.gradient(loss, p), expected, rtol=0, atol=1e-6)  # float32


# Margin loss


def test_margin_loss_by_hand():
    lengths = np.array([[0.95, 0.5, 0.05], [0.95, 0.5, 0.05], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "float32")
    expected = [
        0.5 * 0.4**2,  # label 0 is long enough, 2 short enough; 1 is .4 too long
        0.4**2 + 0.5 * 0.85**2,  # label 1 is .4 too short; 0 is .85 too long
        0.9**2,  # the label's is missing
        0.5 * 2 * 0.9**2,  # two are spurious
    ]
    np.testing.assert_allclose(MarginLoss(reduction=None)(np.array([0, 1, 1, 2]), lengths), expected, rtol=0, atol=1e-6)


def test_margin_loss_equals_equation_4():
    lengths, labels = probabilities(50, 10), np.random.default_rng(1).integers(0, 10, 50)
    expected = np.zeros(50)
    for n, k in np.ndindex(50, 10):
        v, present = float(lengths[n, k]), k == labels[n]
        expected[n] += present * max(0, 0.8 - v) ** 2 + 0.3 * (1 - present) * max(0, v - 0.2) ** 2
    found = MarginLoss(0.8, 0.2, 0.3, reduction=None)(labels, lengths)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)  # sums of ten float32 numbers


def test_margin_loss_is_flat_within_the_margins():
    lengths = tf.constant([[0.9, 0.1, 0.0], [0.03, 0.07, 0.97]])
    with tf.GradientTape() as tape:
        tape.watch(lengths)
        loss = MarginLoss()([0, 2], lengths)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, lengths), 0.0)


# Spread loss


def test_spread_loss_by_hand():
    # Margin .5. Label 0 with .7: .3 and .2 are far enough below; .6 costs (.5 - .1)^2; .3 costs (.5 - .4)^2.
    # Label 2 with .1: .9 costs (.5 + .8)^2, .1 costs .5^2, 0 costs (.5 - .1)^2.
    scores = np.array([[0.7, 0.3, 0.6, 0.2], [0.9, 0.1, 0.1, 0.0]], "float32")
    expected = [0.01 + 0.16, 1.69 + 0.25 + 0.16]
    found = SpreadLoss(stop=0.5, reduction="none")(np.array([0, 2]), scores)
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32


def test_margin_grows_with_the_counter():
    loss, counter = SpreadLoss(steps=10), keras.Variable(0, dtype="int64")
    assert loss.margin() == 0.9  # without a counter the last
    loss.follow(counter)
    # Twenty times .035 make .9.
    margins = {0: 0.2, 9: 0.2, 10: 0.235, 19: 0.235, 20: 0.27, 199: 0.865, 200: 0.9, 210: 0.9, 10**6: 0.9}
    graph = tf.function(lambda: loss.margin() + 0.0)
    for step, expected in margins.items():
        counter.assign(step)
        assert float(loss.margin()) == pytest.approx(expected, rel=1e-6)
        assert float(graph()) == pytest.approx(expected, rel=1e-6)  # read at each call
    counter.assign(20)
    # Two equally active classes: the square of the margin.
    assert float(loss(np.array([1]), np.array([[0.5, 0.5]], "float32"))) == pytest.approx(0.27**2, rel=1e-5)
    # The counter is not part of the configuration.
    assert keras.losses.deserialize(keras.losses.serialize(loss)).margin() == 0.9


# Gradient penalty

BATCH, DIMENSION, UNITS = 6, 3, 4

# Float32 norms of size 1 to 30, squared and averaged.
ROUNDING = 2e-5


def batches(seed=0):
    """real, fake: (batch, dimension); mixing: (batch,); float32."""
    real, fake = noise(BATCH, DIMENSION, seed=seed, spread=(-1, 1)), noise(BATCH, DIMENSION, seed=seed + 10)
    return real, fake, noise(BATCH, seed=seed + 20, spread=(0, 1))


def penalty(critic, real, fake, mixing, per_sample=True):
    return gradient_penalty(critic, *map(tf.constant, (real, fake, mixing)), per_sample)


def mixtures(real, fake, mixing, per_sample):
    """The points as a list: each pair with its own coefficient, or every coefficient with every pair."""
    real, fake, mixing = (part.astype("float64") for part in (real, fake, mixing))
    return [
        mixing[i] * real[j] + (1 - mixing[i]) * fake[j] for i, j in np.ndindex(BATCH, BATCH) if not per_sample or i == j
    ]


def test_linear_critic():
    # Its gradient is w everywhere: one norm |w| = 3 per sample; over batch x batch points, sqrt(batch^2) |w|.
    w = np.array([[1.0], [-2.0], [2.0]], "float32")
    for per_sample, norm in ((True, 3.0), (False, BATCH * 3.0)):
        found = penalty(lambda points: points @ w + 7.0, *batches(), per_sample)
        assert float(found) == pytest.approx((norm - 1) ** 2, rel=ROUNDING)
    # One with a gradient of norm one costs nothing but the square of a norm's rounding.
    unit = np.array([[0.6], [0.0], [-0.8]], "float32")
    assert float(penalty(lambda points: points @ unit, *batches())) < 1e-12


def half_square(points):
    """|x|^2 / 2, whose gradient at x is x itself."""
    return tf.reduce_sum(points**2, axis=-1, keepdims=True) / 2


@pytest.mark.parametrize(("end", "of"), [(0.0, 1), (1.0, 0)])
def test_mixing_goes_from_fake_to_real(end, of):
    given = batches()
    norms = np.linalg.norm(given[of].astype("float64"), axis=-1)
    found = penalty(half_square, *given[:2], np.full(BATCH, end, "float32"))
    assert float(found) == pytest.approx(((norms - 1) ** 2).mean(), rel=ROUNDING)


def test_one_norm_per_sample_or_one_over_all_mixtures():
    given, seen = batches(), []

    def critic(points):
        seen.append(points.shape)
        return half_square(points)

    norms = np.linalg.norm(mixtures(*given, per_sample=True), axis=-1)
    assert float(penalty(critic, *given)) == pytest.approx(((norms - 1) ** 2).mean(), rel=ROUNDING)
    norm = np.linalg.norm(mixtures(*given, per_sample=False))
    assert float(penalty(critic, *given, per_sample=False)) == pytest.approx((norm - 1) ** 2, rel=ROUNDING)
    assert seen == [(BATCH, DIMENSION), (BATCH**2, DIMENSION)]


def slow_penalty(weights, given, per_sample):
    """The penalty of the critic v tanh(W x + b) in float64, with gradients by central differences."""
    kernel, bias, last = weights

    def score(point):
        return (np.tanh(point @ kernel + bias) @ last)[0]

    # Differences over 2e-5: exact to about (1e-5)^2 and to 1e-16 / 1e-5.
    shifts = 1e-5 * np.eye(DIMENSION)
    points = mixtures(*given, per_sample)
    slopes = [[(score(point + shift) - score(point - shift)) / 2e-5 for shift in shifts] for point in points]
    squares = np.square(slopes).sum(axis=-1)
    norms = np.sqrt(squares if per_sample else squares.sum())
    return np.mean((norms - 1) ** 2)


@pytest.mark.parametrize("per_sample", [True, False])
def test_penalty_of_a_network_and_its_gradient(per_sample):
    shapes = (DIMENSION, UNITS), (UNITS,), (UNITS, 1)
    weights, given = [noise(*shape, seed=2 + n, dtype="float64") for n, shape in enumerate(shapes)], batches()
    variables = [tf.Variable(weight.astype("float32")) for weight in weights]

    @tf.function(input_signature=[tf.TensorSpec((None, *part.shape[1:])) for part in given])
    def penalty_and_gradients(real, fake, mixing):
        with tf.GradientTape() as tape:
            found = gradient_penalty(
                lambda points: tf.tanh(points @ variables[0] + variables[1]) @ variables[2],
                real,
                fake,
                mixing,
                per_sample,
            )
        return found, tape.gradient(found, variables)

    found, gradients = penalty_and_gradients.python_function(*map(tf.constant, given))
    assert float(found) == pytest.approx(slow_penalty(weights, given, per_sample), rel=ROUNDING)
    # Each weight moved by 1e-4: exact to about 1e-8 of the size, and the inner differences' 1e-10 / 1e-4. Float32
    # through two derivatives: ten times what the penalty needs.
    for which, gradient in enumerate(gradients):
        expected = np.zeros(weights[which].shape)
        for place in np.ndindex(*expected.shape):
            ends = []
            for step in (1e-4, -1e-4):
                moved = [weight.copy() for weight in weights]
                moved[which][place] += step
                ends.append(slow_penalty(moved, given, per_sample))
            expected[place] = (ends[0] - ends[1]) / 2e-4
        size = np.abs(expected).max()
        assert size > 0.1
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=10 * ROUNDING * size)
    # In a graph, traced for a batch of unknown size.
    traced = penalty_and_gradients(*given)
    for one, other in zip([traced[0], *traced[1]], [found, *gradients], strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * np.abs(other).max())


def test_critic_whose_products_are_compiled(monkeypatch):
    """`LargeDense`, as in the published critic, defines its own gradient; the derivative of that must be right, too."""
    monkeypatch.setattr(LargeDense, "_FEWEST_WEIGHTS", 1)
    results = []
    for kind in (LargeDense, keras.layers.Dense):
        layers = [kind(8, "tanh"), kind(8, "softplus"), keras.layers.Dense(1)]
        for layer, size in zip(layers, (DIMENSION, 8, 8), strict=True):
            layer.build((None, size))
            layer.set_weights([noise(*weight.shape, seed=size + 1) for weight in layer.weights])

        def critic(points, layers=layers):
            for layer in layers:
                points = layer(points, training=True) if isinstance(layer, LargeDense) else layer(points)
            return points

        with tf.GradientTape() as tape:
            found = penalty(critic, *batches())
        results.append([found, *tape.gradient(found, [layer.kernel.value for layer in layers])])
    for one, other in zip(*results, strict=True):
        assert np.abs(other).max() > 1e-2
        np.testing.assert_allclose(one, other, rtol=0, atol=10 * ROUNDING * np.abs(other).max())


@pytest.mark.parametrize("per_sample", [True, False])
def test_flat_critic_has_a_finite_gradient(per_sample):
    # sqrt(0) has none; with 1e-12 under the root the norm is 1e-6, and the penalty (1 - 1e-6)^2.
    w = tf.Variable(np.zeros((DIMENSION, 1), "float32"))
    with tf.GradientTape() as tape:
        found = penalty(lambda points: points @ w, *batches(), per_sample)
    assert float(found) == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(tape.gradient(found, w)).all()


# Tangents


def test_tangent_loss_is_the_residual_of_least_squares():
    differences, tangents = noise(5, 4, 3, 1), noise(5, 2, 4, 3, 1, seed=1)
    # One pair is explained entirely, one differs in nothing, one has no tangents at all.
    differences[1] = 2 * tangents[1, 0] - 3 * tangents[1, 1]
    differences[2], tangents[3] = 0, 0
    expected = []
    for one, two in zip(differences.reshape(5, -1), tangents.reshape(5, 2, -1), strict=True):
        coefficients = np.linalg.lstsq(two.T, one, rcond=None)[0]
        rest = np.square(one - two.T @ coefficients).sum()
        expected.append(rest / np.square(one).sum() if one.any() else 1.0)
    found = TangentLoss(reduction=None)(differences, tangents)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 sums over 12 pixels
    assert expected[1] < 1e-9 and expected[2] == expected[3] == 1.0 and 0.5 < expected[0] < 1.0
    nearest = projected(tf.constant(differences), tf.constant(tangents))
    rest = np.square(differences - nearest).sum((1, 2, 3))
    np.testing.assert_allclose(rest[:2], expected[:2] * np.square(differences[:2]).sum((1, 2, 3)), atol=1e-5)


def test_tangent_loss_depends_on_the_span_alone():
    differences, tangents = noise(6, 20), noise(6, 3, 20, seed=1)
    loss = TangentLoss(reduction=None)
    expected = loss(differences, tangents)
    # Each vector's own length and sign; another basis; and the length of the difference.
    scaled = tangents * noise(6, 3, 1, seed=2) * np.array([1e-2, 1.0, -1e2], "float32")[:, None]
    mixed = np.einsum("ij,njk->nik", np.array([[1, 2, 0], [0, 1, -1], [1, 0, 1]], "float32"), tangents)
    for other in (scaled, mixed, tangents[:, ::-1]):
        np.testing.assert_allclose(loss(differences, other), expected, atol=1e-4)
    np.testing.assert_allclose(loss(-30 * differences, tangents), expected, atol=1e-5)
    assert np.ptp(expected) > 0.05


def test_tangent_loss_has_gradients_where_nothing_is_predicted_or_differs():
    differences = tf.constant(np.stack([np.zeros(8), *noise(2, 8)]).astype("float32"))
    tangents = tf.constant(np.stack([noise(2, 8), np.zeros((2, 8)), noise(2, 8, seed=3)]).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(tangents)
        loss = TangentLoss(reduction="sum")(differences, tangents)
    gradient = tape.gradient(loss, tangents).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() == 0 < np.abs(gradient[2]).max()
