"""Images in batches, and what all evaluations compute."""

import numpy as np
import pytest

from invariance.errors import UserError
from invariance.tasks.batches import Batches, limited, mean_squared, over_both
from tests.helpers import noise


def images(count, channels=1):
    return noise(count, 6, 5, channels, spread=(0, 256)).astype("uint8")


@pytest.mark.parametrize(
    ("count", "most", "sizes"),
    [(1, 64, [16]), (16, 64, [16]), (17, 64, [32]), (64, 64, [64]), (65, 64, [48] * 2), (130, 64, [48] * 3)],
)
def test_batches_are_equal_and_padded_as_little_as_possible(count, most, sizes):
    given = images(count)
    batches = Batches(given, (6, 5, 1), most)
    assert [tuple(batch.shape) for batch in batches] == [(size, 6, 5, 1) for size in sizes]
    assert (batches.count, batches.size) == (count, sizes[0]) and batches.images[0].dtype == "uint8"
    np.testing.assert_array_equal(batches.join(batches), given)
    padding = np.concatenate([np.asarray(batch) for batch in batches])[count:]
    assert not padding.any()
    # Values that belong to the images are split as they are; the padding is dropped again.
    for values in (np.arange(count, dtype="int32"), noise(count, 2)):
        parts = batches.split(values)
        assert [len(part) for part in parts] == sizes and parts[0].dtype == values.dtype
        np.testing.assert_array_equal(batches.join(parts), values)


def test_every_form_of_images():
    given = images(3)
    for form in (given[..., 0], given / 255, given.astype("int64")):
        np.testing.assert_array_equal(Batches(form, (6, 5, 1), 16).join(Batches(form, (6, 5, 1), 16)), given)
    np.testing.assert_array_equal(np.asarray(Batches(images(3, 3), (6, 5, 3), 16).images[0])[:3], images(3, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(3)[:, 1:], r"^the images are \(5, 5, 1\), but images \(6, 5, 1\) are needed$"),
        (images(3, 3), r"^the images are \(6, 5, 3\), but images \(6, 5, 1\) are needed$"),
        (images(0), "must not be empty"),
        (images(3) * 2.0, r"must lie in \[0, 1\]"),
    ],
)
def test_other_images_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Batches(given, (6, 5, 1), 16)


def test_mean_squared_by_hand():
    first = np.zeros((2, 1, 2, 2), "float32")
    second = np.array([[[[1, 2], [3, 0]]], [[[0, 0], [0, 4]]]])
    np.testing.assert_array_equal(mean_squared(first, second), [14 / 4, 16 / 4])
    np.testing.assert_array_equal(mean_squared(first, -1.0 + first), [1, 1])


def test_rows_of_a_map_are_the_first_parameter():
    points = np.array([-2, 0, 5])
    np.testing.assert_array_equal(
        over_both(points, lambda pair: 10 * pair[0] + pair[1]), [[-22, -20, -15], [-2, 0, 5], [48, 50, 55]]
    )


def test_limited_takes_the_first_of_each_class_in_their_order():
    labels, numbers = np.array([5, 3, 5, 5, 3, 7, 3]), np.arange(7)
    for per_class, expected in ((1, [0, 1, 5]), (2, [0, 1, 2, 4, 5]), (9, range(7)), (None, range(7))):
        kept, their_labels = limited(numbers, labels, per_class)
        np.testing.assert_array_equal(kept, expected)
        np.testing.assert_array_equal(their_labels, labels[list(expected)])
